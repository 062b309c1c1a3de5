//! Where a turn stands, told from the conversation alone: nothing is kept between two requests.
//!
//! A turn begins with the user's last words: the last run of user messages that hold something other than tool results. Behind it,
//! each batch of the model's calls is one sampling. Results end a batch; texts, thinking and calls made from code do not.

use std::collections::HashMap;

use belljar_wire::block::{Content, ContentBlock, ResultBody, ServerResultBlock, ServerToolUseBlock};
use belljar_wire::request::{InputMessage, Role};
use belljar_wire::tool::Caller;

/// A turn, as far as the conversation tells.
#[derive(Debug, Default)]
pub(super) struct TurnSoFar<'a> {
    asked: Vec<&'a Content>,
    samplings: usize,
    batch_open: bool,
    /// Texts since the last result, or since the user's words.
    said: String,
    calls: Vec<&'a ServerToolUseBlock>,
    results: HashMap<&'a str, &'a ResultBody>,
}

impl<'a> TurnSoFar<'a> {
    pub(super) fn of(messages: &'a [InputMessage]) -> Self {
        let begins = |message: &InputMessage| message.role == Role::User && asks(&message.content);
        let last = messages.iter().rposition(begins);
        let behind = last.map_or(0, |last| last + 1);
        let mut turn = Self { asked: words(&messages[..behind]), ..Self::default() };
        for message in &messages[behind..] {
            match (message.role, &message.content) {
                (Role::Assistant, Content::Text(text)) => turn.said.push_str(text),
                (Role::Assistant | Role::User, Content::Blocks(blocks)) => {
                    blocks.iter().for_each(|block| turn.take(block));
                }
                (Role::User, Content::Text(_)) | (Role::System, _) => {}
            }
        }
        turn
    }

    /// Samplings that ended in calls.
    pub(super) fn samplings(&self) -> usize {
        self.samplings
    }

    /// What the assistant said since the last result.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// The user's text.
    pub(super) fn text(&self) -> String {
        let mut texts = Vec::new();
        for content in &self.asked {
            match content {
                Content::Text(text) => texts.push(text.as_str()),
                Content::Blocks(blocks) => texts.extend(blocks.iter().filter_map(text_of)),
            }
        }
        texts.join("\n")
    }

    /// Ids of the files that the user uploaded with these words, each once.
    pub(super) fn uploads(&self) -> Vec<&'a str> {
        let mut ids = Vec::new();
        for block in self.asked.iter().flat_map(|content| content.blocks()) {
            if let ContentBlock::ContainerUpload(upload) = block
                && !ids.contains(&upload.file_id.as_str())
            {
                ids.push(&upload.file_id);
            }
        }
        ids
    }

    /// The results of the model's server calls, in the calls' order; none for a call without one.
    pub(super) fn results(&self) -> Vec<Option<&'a ResultBody>> {
        let result = |call: &&ServerToolUseBlock| self.results.get(call.id.as_str()).copied();
        self.calls.iter().map(result).collect()
    }

    fn take(&mut self, block: &'a ContentBlock) {
        match block {
            ContentBlock::Text(block) => self.said.push_str(&block.text),
            ContentBlock::ToolUse(call) if !from_code(call.caller.as_ref()) => self.called(),
            ContentBlock::ServerToolUse(call) if !from_code(call.caller.as_ref()) => {
                self.called();
                self.calls.push(call);
            }
            ContentBlock::CodeExecutionToolResult(result)
            | ContentBlock::BashCodeExecutionToolResult(result)
            | ContentBlock::TextEditorCodeExecutionToolResult(result) => self.answered(result),
            ContentBlock::ToolResult(_) => self.batch_over(),
            ContentBlock::Passive(block) if block.tag().ends_with("_tool_result") => {
                self.batch_over();
            }
            ContentBlock::ToolUse(_)
            | ContentBlock::ServerToolUse(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ContainerUpload(_)
            | ContentBlock::Passive(_) => {}
        }
    }

    fn called(&mut self) {
        if !self.batch_open {
            self.batch_open = true;
            self.samplings += 1;
        }
    }

    fn answered(&mut self, result: &'a ServerResultBlock) {
        self.results.insert(result.tool_use_id.as_str(), &result.content);
        self.batch_over();
    }

    fn batch_over(&mut self) {
        self.batch_open = false;
        self.said.clear();
    }
}

fn from_code(caller: Option<&Caller>) -> bool {
    match caller {
        Some(Caller::Code(_)) => true,
        Some(Caller::Direct(_)) | None => false,
    }
}

/// Whether a user's message is more than tool results.
fn asks(content: &Content) -> bool {
    match content {
        Content::Text(_) => true,
        Content::Blocks(blocks) => blocks.iter().any(|block| !matches!(block, ContentBlock::ToolResult(_))),
    }
}

/// The user messages at the end of `messages`: messages of one role in a row count as one (wire.md §3), and a system message in
/// between changes nothing.
fn words(messages: &[InputMessage]) -> Vec<&Content> {
    let run = messages
        .iter()
        .rev()
        .take_while(|message| message.role != Role::Assistant)
        .filter(|message| message.role == Role::User);
    let mut words: Vec<&Content> = run.map(|message| &message.content).collect();
    words.reverse();
    words
}

fn text_of(block: &ContentBlock) -> Option<&str> {
    if let ContentBlock::Text(block) = block {
        return Some(&block.text);
    }
    None
}
