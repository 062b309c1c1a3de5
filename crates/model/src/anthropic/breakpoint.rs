//! The cache breakpoint that the hosted service puts behind a server tool's result before it goes on (wire.md §12.1).
//!
//! Each sampling of a turn sends what the one before it sent, and more. Who caches the beginning of a conversation means the rest of
//! it, too, and cannot put a breakpoint where the reply is still being made.

use belljar_wire::block::{Content, ContentBlock};
use belljar_wire::request::Role;
use belljar_wire::sampling::SamplingRequest;
use serde_json::{Map, Value, json};

use crate::lower::{Plain, PlainBlock, PlainContent, PlainTool};

/// Breakpoints that the API takes in one request.
const BREAKPOINTS_MAX: usize = 4;

/// Puts a breakpoint of five minutes behind the last result, if the client caches, a server tool has just answered, and there is a
/// breakpoint left.
pub(super) fn add(plain: &mut Plain, request: &SamplingRequest) {
    // With a breakpoint for the whole request, the upstream puts it there itself.
    if set(request.rest.get("cache_control")) || !ends_with_our_result(request) {
        return;
    }
    let clients = count(plain, request);
    if clients == 0 || clients >= BREAKPOINTS_MAX {
        return;
    }
    let last = plain.messages.last_mut().and_then(|message| message.content.last_mut());
    if let Some(PlainBlock::ToolResult(result)) = last
        && result.cache_control.is_none()
    {
        result.cache_control = Some(json!({"type": "ephemeral"}));
    }
}

/// Whether this turn goes on from what a server tool of ours said.
fn ends_with_our_result(request: &SamplingRequest) -> bool {
    let last = request.messages.last().filter(|message| message.role == Role::Assistant);
    let block = last.and_then(|message| message.content.blocks().last());
    matches!(
        block,
        Some(
            ContentBlock::CodeExecutionToolResult(_)
                | ContentBlock::BashCodeExecutionToolResult(_)
                | ContentBlock::TextEditorCodeExecutionToolResult(_)
        )
    )
}

fn count(plain: &Plain, request: &SamplingRequest) -> usize {
    let system = request.system.as_ref().map(|system| &system.content);
    let system = system.map_or(&[][..], Content::blocks).iter().filter(|block| match block {
        ContentBlock::Text(text) => in_map(&text.rest),
        _ => false,
    });
    let tools = plain.tools.iter().filter(|tool| match tool {
        PlainTool::Schema { rest, .. } | PlainTool::Vendor { rest, .. } | PlainTool::Hosted { members: rest, .. } => {
            in_map(rest)
        }
    });
    let blocks = plain.messages.iter().flat_map(|message| &message.content).map(in_block);
    system.count() + tools.count() + blocks.sum::<usize>()
}

fn in_block(block: &PlainBlock) -> usize {
    match block {
        PlainBlock::Text(text) => usize::from(in_map(&text.rest)),
        PlainBlock::Thinking(_) | PlainBlock::RedactedThinking(_) => 0,
        PlainBlock::ToolUse(call) => usize::from(set(call.cache_control.as_ref())),
        PlainBlock::ToolResult(result) => {
            let inner = match &result.content {
                Some(PlainContent::Blocks(blocks)) => blocks.iter().map(in_block).sum(),
                Some(PlainContent::Text(_)) | None => 0,
            };
            inner + usize::from(set(result.cache_control.as_ref()))
        }
        PlainBlock::Passive(passive) => usize::from(in_map(&passive.members)),
    }
}

fn in_map(members: &Map<String, Value>) -> bool {
    set(members.get("cache_control"))
}

fn set(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_null())
}
