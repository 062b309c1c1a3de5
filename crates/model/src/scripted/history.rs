//! Where a turn stands, told from the request alone: the scripted model remembers nothing.

use belljar_wire::block::{Content, ContentBlock};
use belljar_wire::request::{InputMessage, Role};
use belljar_wire::tool::Caller;

use crate::lower::{Rendered, render};

/// The turn that a request is part of.
pub(super) struct Turn<'a> {
    /// What the user said last.
    pub(super) text: String,
    /// The files that came with it, by id.
    pub(super) uploads: Vec<&'a str>,
    /// Samplings that have been made since.
    pub(super) samplings: usize,
    /// Results of this server's tools since, in order.
    pub(super) outcomes: Vec<Rendered>,
}

impl<'a> Turn<'a> {
    pub(super) fn of(messages: &'a [InputMessage]) -> Self {
        let start = messages.iter().rposition(begins_turn);
        let (content, since) = match start {
            Some(start) => (Some(&messages[start].content), &messages[start + 1..]),
            None => (None, messages),
        };
        let said = since.iter().filter(|message| message.role == Role::Assistant);
        let replies: Vec<&[ContentBlock]> = said.clone().map(|message| message.content.blocks()).collect();
        let plain = said.filter(|message| matches!(message.content, Content::Text(_)));
        Self {
            text: content.map(text_of).unwrap_or_default(),
            uploads: content.map(uploads_of).unwrap_or_default(),
            samplings: plain.count() + replies.iter().map(|blocks| samplings_in(blocks)).sum::<usize>(),
            outcomes: replies.iter().flat_map(|blocks| outcomes_in(blocks)).collect(),
        }
    }
}

/// The user speaks: anything but results of the tools that the turn waits for.
fn begins_turn(message: &InputMessage) -> bool {
    let speaks = match &message.content {
        Content::Text(_) => true,
        Content::Blocks(blocks) => blocks.iter().any(|block| !matches!(block, ContentBlock::ToolResult(_))),
    };
    message.role == Role::User && speaks
}

fn text_of(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Blocks(blocks) => {
            let texts = blocks.iter().filter_map(|block| match block {
                ContentBlock::Text(text) => Some(text.text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

fn uploads_of(content: &Content) -> Vec<&str> {
    let uploads = content.blocks().iter().filter_map(|block| match block {
        ContentBlock::ContainerUpload(upload) => Some(upload.file_id.as_str()),
        _ => None,
    });
    uploads.collect()
}

/// What the model says in one go ends where a result begins, or with the message. Calls made by code are nobody's saying.
fn samplings_in(blocks: &[ContentBlock]) -> usize {
    let mut samplings = 0;
    let mut speaking = false;
    for block in blocks {
        let speaks = match block {
            ContentBlock::CodeExecutionToolResult(_)
            | ContentBlock::BashCodeExecutionToolResult(_)
            | ContentBlock::TextEditorCodeExecutionToolResult(_) => false,
            ContentBlock::ToolUse(call) if matches!(call.caller, Some(Caller::Code(_))) => continue,
            _ => true,
        };
        if speaks && !speaking {
            samplings += 1;
        }
        speaking = speaks;
    }
    samplings
}

fn outcomes_in(blocks: &[ContentBlock]) -> impl Iterator<Item = Rendered> {
    blocks.iter().filter_map(|block| match block {
        ContentBlock::CodeExecutionToolResult(result)
        | ContentBlock::BashCodeExecutionToolResult(result)
        | ContentBlock::TextEditorCodeExecutionToolResult(result) => Some(render(&result.content)),
        _ => None,
    })
}
