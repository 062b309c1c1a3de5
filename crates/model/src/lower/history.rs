//! The conversation in the plain dialect.

mod calls;

use belljar_wire::block::{
    ContainerUploadBlock, Content, ContentBlock, PassiveBlock, ServerResultBlock, TextBlock, ToolResultBlock,
};
use belljar_wire::media;
use belljar_wire::request::{InputMessage, Role};
use belljar_wire::tool::SubTool;
use serde_json::{Map, Value};

use self::calls::{Answer, Calls, Place};
use super::outcome::render;
use super::plain::{PlainBlock, PlainContent, PlainMessage, PlainToolResult, PlainToolUse};
use crate::upstream::KnownFiles;

/// What the model reads about a call that has no result anywhere: the request that was to run it ended first.
const NOT_RUN: &str = "[no result: this call was not run to its end]";

/// Lowers a conversation. `files` says what file ids stand for.
pub fn messages(messages: &[InputMessage], files: &KnownFiles) -> Vec<PlainMessage> {
    let mut writer = Writer { calls: Calls::index(messages), files, out: Vec::new(), sampling: Sampling::default() };
    for (index, message) in messages.iter().enumerate() {
        match message.role {
            Role::Assistant => writer.assistant(index, &message.content),
            Role::User => writer.user(index, &message.content),
            Role::System => writer.system(message),
        }
    }
    writer.close();
    writer.out
}

/// Writes messages; holds what one sampling said until its results are due.
struct Writer<'a> {
    calls: Calls<'a>,
    files: &'a KnownFiles,
    out: Vec<PlainMessage>,
    sampling: Sampling,
}

/// What the model said in one go.
#[derive(Default)]
struct Sampling {
    blocks: Vec<PlainBlock>,
    /// Its calls, by their number in [`Calls`], ascending.
    calls: Vec<usize>,
    /// A result of one of its calls has been met: what comes now was said after.
    answered: bool,
}

impl Sampling {
    fn holds(&self, call: usize) -> bool {
        self.calls.binary_search(&call).is_ok()
    }
}

impl<'a> Writer<'a> {
    fn assistant(&mut self, message: usize, content: &'a Content) {
        // A new message goes on where the last one stopped, unless calls stand open in between.
        let mut resumed = true;
        if let Content::Text(text) = content {
            return self.said(&mut resumed, text_block(text));
        }
        for (index, block) in content.blocks().iter().enumerate() {
            let place = Place { message, index };
            match block {
                ContentBlock::CodeExecutionToolResult(result)
                | ContentBlock::BashCodeExecutionToolResult(result)
                | ContentBlock::TextEditorCodeExecutionToolResult(result) => {
                    self.server_result(place, result);
                }
                ContentBlock::ToolUse(_) | ContentBlock::ServerToolUse(_) => {
                    if let Some(call) = self.call(place, block) {
                        self.said(&mut resumed, call);
                        self.sampling.calls.extend(self.calls.at(place));
                    }
                }
                other => {
                    if let Some(block) = self.ordinary(Role::Assistant, other) {
                        self.said(&mut resumed, block);
                    }
                }
            }
        }
    }

    /// Adds a block to the sampling that it belongs to.
    fn said(&mut self, resumed: &mut bool, block: PlainBlock) {
        if matches!(&block, PlainBlock::Text(text) if text.text.is_empty()) {
            return;
        }
        if self.sampling.answered || (*resumed && !self.sampling.calls.is_empty()) {
            self.close();
        }
        *resumed = false;
        self.sampling.blocks.push(block);
    }

    fn server_result(&mut self, place: Place, result: &ServerResultBlock) {
        match self.calls.answered_by(place) {
            Some(call) => self.sampling.answered |= self.sampling.holds(call),
            None if self.calls.is_hidden_answer(place) => {}
            None => {
                self.close();
                let text = render(&result.content).text;
                self.push(Role::User, [orphan(&text)]);
            }
        }
    }

    /// A call as the model made it; none when code made it.
    fn call(&self, place: Place, block: &ContentBlock) -> Option<PlainBlock> {
        let (name, input, rest) = match block {
            ContentBlock::ToolUse(call) => (&call.name, &call.input, &call.rest),
            ContentBlock::ServerToolUse(call) if SubTool::from_name(&call.name).is_some() => {
                (&call.name, &call.input, &call.rest)
            }
            ContentBlock::ServerToolUse(_) if calls::made_by_code(block) => return None,
            other => return Some(as_it_is(other)),
        };
        let call = self.calls.at(place)?;
        Some(PlainBlock::ToolUse(PlainToolUse {
            id: self.calls.lowered_id(call).to_owned(),
            name: name.clone(),
            input: input.clone(),
            cache_control: rest.get("cache_control").cloned(),
        }))
    }

    fn user(&mut self, message: usize, content: &'a Content) {
        if let Content::Text(text) = content {
            self.close();
            return self.push(Role::User, [text_block(text)]);
        }
        let mut blocks = Vec::new();
        for (index, block) in content.blocks().iter().enumerate() {
            match block {
                ContentBlock::ToolResult(result) => {
                    blocks.extend(self.client_result(Place { message, index }, result));
                }
                other => blocks.extend(self.ordinary(Role::User, other)),
            }
        }
        if !blocks.is_empty() {
            self.close();
            self.push(Role::User, blocks);
        }
    }

    /// Results of known calls are written with their calls; here stands only what is left of the others.
    fn client_result(&mut self, place: Place, result: &ToolResultBlock) -> Option<PlainBlock> {
        match self.calls.answered_by(place) {
            Some(call) => {
                self.sampling.answered |= self.sampling.holds(call);
                None
            }
            None if self.calls.is_hidden_answer(place) => None,
            None => Some(orphan(&readable(result.content.as_ref()))),
        }
    }

    fn system(&mut self, message: &InputMessage) {
        self.close();
        let content: Vec<PlainBlock> = match &message.content {
            Content::Text(text) if text.is_empty() => Vec::new(),
            Content::Text(text) => vec![text_block(text)],
            Content::Blocks(blocks) => blocks.iter().filter_map(|block| self.ordinary(Role::System, block)).collect(),
        };
        if message.rest.is_empty() {
            self.push(Role::System, content);
        } else {
            self.out.push(PlainMessage { role: Role::System, content, rest: message.rest.clone() });
        }
    }

    /// A block that is neither call nor result of ours.
    fn ordinary(&self, role: Role, block: &ContentBlock) -> Option<PlainBlock> {
        match block {
            ContentBlock::Text(text) => Some(PlainBlock::Text(TextBlock {
                text: text.text.clone(),
                citations: text.citations.clone(),
                rest: cache_control_of(&text.rest),
            })),
            ContentBlock::Thinking(thinking) => Some(PlainBlock::Thinking(thinking.clone())),
            ContentBlock::RedactedThinking(thinking) => Some(PlainBlock::RedactedThinking(thinking.clone())),
            ContentBlock::ContainerUpload(upload) => Some(self.upload(upload)),
            ContentBlock::Passive(passive) => {
                let hidden = role == Role::Assistant && calls::made_by_code(block);
                (!hidden).then(|| PlainBlock::Passive(self.shown(passive)))
            }
            // Cannot stand in such a message; the wire refuses it before.
            ContentBlock::ToolUse(_)
            | ContentBlock::ServerToolUse(_)
            | ContentBlock::ToolResult(_)
            | ContentBlock::CodeExecutionToolResult(_)
            | ContentBlock::BashCodeExecutionToolResult(_)
            | ContentBlock::TextEditorCodeExecutionToolResult(_) => None,
        }
    }

    /// With what is in the files that it names: the upstream has none of ours.
    fn shown(&self, block: &PassiveBlock) -> PassiveBlock {
        PassiveBlock { members: media::with_content(&block.members, &|file_id| self.files.contents.get(file_id)) }
    }

    fn upload(&self, upload: &ContainerUploadBlock) -> PlainBlock {
        let text = match self.files.uploads.get(&upload.file_id) {
            // As a JSON string: a file's name may hold quotes and line ends.
            Some(name) => {
                format!("[The user uploaded a file named {}; it is in $INPUT_DIR.]", Value::from(name.as_str()))
            }
            None => "[The user uploaded a file; it is in $INPUT_DIR.]".to_owned(),
        };
        PlainBlock::Text(TextBlock { text, citations: None, rest: cache_control_of(&upload.rest) })
    }

    /// Writes the sampling and the answers to its calls, in the order of the calls.
    fn close(&mut self) {
        let Sampling { blocks, calls, .. } = std::mem::take(&mut self.sampling);
        self.push(Role::Assistant, blocks);
        let answers: Vec<PlainBlock> = calls.into_iter().map(|call| self.answer(call)).collect();
        self.push(Role::User, answers);
    }

    fn answer(&self, call: usize) -> PlainBlock {
        let tool_use_id = self.calls.lowered_id(call).to_owned();
        PlainBlock::ToolResult(match self.calls.answer(call) {
            Some(Answer::Client(result)) => PlainToolResult {
                tool_use_id,
                content: result.content.as_ref().map(|content| self.result_content(content)),
                is_error: result.is_error,
                cache_control: result.rest.get("cache_control").cloned(),
            },
            Some(Answer::Server(result)) => {
                let rendered = render(&result.content);
                PlainToolResult {
                    tool_use_id,
                    content: Some(PlainContent::Text(rendered.text)),
                    is_error: rendered.is_error.then_some(true),
                    cache_control: result.rest.get("cache_control").cloned(),
                }
            }
            None => PlainToolResult {
                tool_use_id,
                content: Some(PlainContent::Text(NOT_RUN.to_owned())),
                is_error: Some(true),
                cache_control: None,
            },
        })
    }

    fn result_content(&self, content: &Content) -> PlainContent {
        match content {
            Content::Text(text) => PlainContent::Text(text.clone()),
            Content::Blocks(blocks) => {
                PlainContent::Blocks(blocks.iter().filter_map(|block| self.ordinary(Role::User, block)).collect())
            }
        }
    }

    /// Appends a message, or goes on with the last one if the same role speaks.
    fn push(&mut self, role: Role, blocks: impl IntoIterator<Item = PlainBlock>) {
        let mut blocks = blocks.into_iter().peekable();
        if blocks.peek().is_none() {
            return;
        }
        match self.out.last_mut() {
            Some(last) if last.role == role && last.rest.is_empty() => last.content.extend(blocks),
            _ => self.out.push(PlainMessage { role, content: blocks.collect(), rest: Map::new() }),
        }
    }
}

fn text_block(text: &str) -> PlainBlock {
    PlainBlock::text(text)
}

/// A result whose call is not in the history: upstreams refuse it as a result, the model may still need it.
fn orphan(text: &str) -> PlainBlock {
    PlainBlock::text(format!("[Result of a tool call that is no longer in this conversation:]\n{text}"))
}

fn readable(content: Option<&Content>) -> String {
    match content {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Blocks(blocks)) => {
            let texts = blocks.iter().filter_map(|block| match block {
                ContentBlock::Text(text) => Some(text.text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

/// A call of another server's tool, kept whole.
fn as_it_is(block: &ContentBlock) -> PlainBlock {
    let members = match serde_json::to_value(block) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    };
    PlainBlock::Passive(PassiveBlock { members })
}

fn cache_control_of(rest: &Map<String, Value>) -> Map<String, Value> {
    let kept = rest.iter().filter(|(key, _)| *key == "cache_control");
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}
