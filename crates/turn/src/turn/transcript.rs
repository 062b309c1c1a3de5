//! The conversation as the model sees it while the reply grows.

use belljar_ids::{ServerToolUseId, ToolUseId};
use belljar_wire::block::{Content, ContentBlock, ServerToolUseBlock, ToolResultBlock};
use belljar_wire::request::{InputMessage, Role};
use serde_json::Map;

/// History, with this turn's own blocks at the end.
pub(crate) struct Transcript {
    messages: Vec<InputMessage>,
}

impl Transcript {
    pub(crate) fn new(messages: Vec<InputMessage>) -> Self {
        Self { messages }
    }

    /// The call of a cell.
    pub(crate) fn call(&self, id: &ServerToolUseId) -> Option<&ServerToolUseBlock> {
        self.messages.iter().rev().flat_map(|message| message.content.blocks()).find_map(|block| match block {
            ContentBlock::ServerToolUse(call) if call.id == *id => Some(call),
            ContentBlock::ServerToolUse(_)
            | ContentBlock::ToolUse(_)
            | ContentBlock::Text(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ToolResult(_)
            | ContentBlock::CodeExecutionToolResult(_)
            | ContentBlock::BashCodeExecutionToolResult(_)
            | ContentBlock::TextEditorCodeExecutionToolResult(_)
            | ContentBlock::ContainerUpload(_)
            | ContentBlock::Passive(_) => None,
        })
    }

    pub(crate) fn messages(&self) -> &[InputMessage] {
        &self.messages
    }

    /// Appends to what the assistant says: to its message where the conversation ends in one (a paused turn, a prefill), else to a
    /// new one. Texts without a character are left out, because upstreams refuse them in a history.
    pub(crate) fn said(&mut self, block: ContentBlock) {
        if matches!(&block, ContentBlock::Text(block) if block.text.is_empty()) {
            return;
        }
        self.append(Role::Assistant, block);
    }

    /// Answers a call of a tool that nobody has.
    pub(crate) fn refused(&mut self, id: &ToolUseId, text: String) {
        let result = ToolResultBlock {
            tool_use_id: id.as_str().to_owned(),
            content: Some(Content::Text(text)),
            is_error: Some(true),
            rest: Map::new(),
        };
        self.append(Role::User, ContentBlock::ToolResult(result));
    }

    fn append(&mut self, role: Role, block: ContentBlock) {
        match self.messages.last_mut() {
            Some(InputMessage { role: last, content, .. }) if *last == role => match content {
                Content::Blocks(blocks) => blocks.push(block),
                Content::Text(text) => {
                    let text = ContentBlock::text(std::mem::take(text));
                    *content = Content::Blocks(vec![text, block]);
                }
            },
            Some(_) | None => self.messages.push(InputMessage::new(role, Content::Blocks(vec![block]))),
        }
    }
}
