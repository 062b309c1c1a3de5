//! What code and the client's tools say to each other: read for the code that waits, left out of what the model sees.

use std::collections::{HashMap, HashSet};

use belljar_ids::{CellMark, ServerToolUseId};
use belljar_wire::block::{Content, ContentBlock, ServerToolUseBlock, ToolResultBlock, ToolUseBlock};
use belljar_wire::request::{InputMessage, MessagesRequest, Role};
use belljar_wire::tool::{Caller, SubTool};
use serde_json::Value;

use super::Resume;
use super::history::{History, Parked};
use crate::call::code_of;
use crate::effect::CallResult;

/// Marks of cells whose code made calls in this conversation, which lacks the cells' own calls. Clients drop those, too: while code
/// waits, its call has no result. Who knows such a cell passes it to [`plan`](super::plan()) in [`PlanContext::lost_cells`].
///
/// [`PlanContext::lost_cells`]: crate::PlanContext::lost_cells
pub fn lost_cells(request: &MessagesRequest) -> Vec<CellMark> {
    let (mut made, mut there) = (HashSet::new(), HashSet::new());
    for block in request.messages.iter().flat_map(|message| message.content.blocks()) {
        if let ContentBlock::ToolUse(call) = block {
            made.extend(call.id.cell_mark());
        }
        if let ContentBlock::ServerToolUse(call) = block {
            there.extend(call.id.mark());
        }
    }
    made.difference(&there).copied().collect()
}

/// Makes the conversation whole, where clients have lost what says which cell made a call: its `caller`, which they send back as they
/// like, or not at all (wire.md §19), and the cell's own call. The id of a call alone says whose it is. One whose id says nothing
/// keeps the caller that it came with.
pub(super) fn mend(messages: &mut [InputMessage], lost: &[ServerToolUseBlock]) {
    name_callers(messages, lost);
    for cell in lost {
        put_back(messages, cell);
    }
}

fn name_callers(messages: &mut [InputMessage], lost: &[ServerToolUseBlock]) {
    let known = lost.iter().filter_map(|cell| Some((cell.id.mark()?, cell.id.clone())));
    let mut cells: HashMap<CellMark, ServerToolUseId> = known.collect();
    for message in messages {
        let Content::Blocks(blocks) = &mut message.content else {
            continue;
        };
        for block in blocks {
            if let ContentBlock::ServerToolUse(call) = block {
                cells.extend(call.id.mark().map(|mark| (mark, call.id.clone())));
            }
            if let ContentBlock::ToolUse(call) = block
                && let Some(cell) = call.id.cell_mark().and_then(|mark| cells.get(&mark))
            {
                call.caller = Some(code_of(cell));
            }
        }
    }
}

/// Puts a call in front of the first that its code made, if the last reply holds such a one: then its code may be waiting. Where code
/// has gone on, a call without its result would only be in the way.
fn put_back(messages: &mut [InputMessage], cell: &ServerToolUseBlock) {
    let made_by_it = |block: &ContentBlock| matches!(block, ContentBlock::ToolUse(ToolUseBlock { caller: Some(Caller::Code(code)), .. }) if code.tool_id == cell.id);
    let is_it = |block: &ContentBlock| matches!(block, ContentBlock::ServerToolUse(call) if call.id == cell.id);
    let spoken = messages.iter().rev().filter(|message| message.role != Role::System);
    let last_reply = spoken.skip_while(|message| message.role == Role::User);
    let last_reply = last_reply.take_while(|message| message.role == Role::Assistant);
    let called_last = last_reply.flat_map(|message| message.content.blocks()).any(made_by_it);
    if !called_last || messages.iter().flat_map(|message| message.content.blocks()).any(is_it) {
        return;
    }
    let first = messages.iter_mut().find_map(|message| match &mut message.content {
        Content::Blocks(blocks) => {
            let at = blocks.iter().position(made_by_it)?;
            Some((blocks, at))
        }
        Content::Text(_) => None,
    });
    if let Some((blocks, at)) = first {
        blocks.insert(at, ContentBlock::ServerToolUse(cell.clone()));
    }
}

/// Whether code made this call.
pub(super) fn made_by_code(call: &ToolUseBlock) -> bool {
    is_code(call.caller.as_ref())
}

fn is_code(caller: Option<&Caller>) -> bool {
    match caller {
        Some(Caller::Code(_)) => true,
        Some(Caller::Direct(_)) | None => false,
    }
}

/// The parked cell with its results. The rules have made sure that each call has one, and that the cell is one of ours.
pub(super) fn resume(parked: &Parked<'_>, history: &History<'_>) -> Option<Resume> {
    let sub_tool = SubTool::from_name(&parked.call.name)?;
    let blocks = history.stretches.last()?.blocks().filter_map(|(_, block)| {
        let ContentBlock::ToolResult(result) = block else {
            return None;
        };
        Some((result.tool_use_id.as_str(), result))
    });
    let results: HashMap<&str, &ToolResultBlock> = blocks.collect();
    let calls = parked.calls.iter().filter_map(|(_, call)| {
        let result = results.get(call.id.as_str())?;
        Some(CallResult {
            tool_use_id: call.id.clone(),
            text: text(result.content.as_ref()),
            is_error: result.is_error.unwrap_or(false),
        })
    });
    Some(Resume { id: parked.call.id.clone(), sub_tool, results: calls.collect() })
}

/// The texts of a result, one behind the other with nothing in between (divergence/code-results.md).
fn text(content: Option<&Content>) -> String {
    match content {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Blocks(blocks)) => {
            let texts = blocks.iter().filter_map(|block| {
                let ContentBlock::Text(text) = block else {
                    return None;
                };
                Some(text.text.as_str())
            });
            texts.collect()
        }
    }
}

/// The conversation without the calls that code made, and without their results: they never reach the model (wire.md §10.2).
///
/// A message of which nothing is left goes, and what stood around it is one message: "pause, results, pause, results, reply" is one
/// reply of the model.
pub(super) fn left_out(messages: Vec<InputMessage>) -> Vec<InputMessage> {
    let mut kept: Vec<InputMessage> = Vec::with_capacity(messages.len());
    // Calls of code in the assistant's last stretch; results answer no others (wire.md §19 row 12).
    let mut hidden: HashSet<String> = HashSet::new();
    let mut speaker = None;
    let mut gap = false;
    for InputMessage { role, content, rest } in messages {
        if role == Role::Assistant && speaker != Some(Role::Assistant) {
            hidden.clear();
        }
        if role != Role::System {
            speaker = Some(role);
        }
        let content = match content {
            Content::Text(text) => Content::Text(text),
            Content::Blocks(mut blocks) => {
                let before = blocks.len();
                blocks.retain(|block| !is_hidden(block, &mut hidden));
                if blocks.is_empty() && before > 0 {
                    gap = true;
                    continue;
                }
                Content::Blocks(blocks)
            }
        };
        match kept.last_mut() {
            Some(last) if gap && last.role == role && role != Role::System => join(&mut last.content, content),
            Some(_) | None => kept.push(InputMessage { role, content, rest }),
        }
        gap = false;
    }
    kept
}

/// Whether a block is a call that code made, or the result of one.
fn is_hidden(block: &ContentBlock, hidden: &mut HashSet<String>) -> bool {
    match block {
        ContentBlock::ToolUse(call) if made_by_code(call) => {
            hidden.insert(call.id.as_str().to_owned());
            true
        }
        ContentBlock::ToolResult(result) => hidden.contains(&result.tool_use_id),
        ContentBlock::ServerToolUse(call) if is_code(call.caller.as_ref()) => {
            hidden.insert(call.id.as_str().to_owned());
            true
        }
        ContentBlock::Passive(block) => {
            let id = block.members.get("tool_use_id").and_then(Value::as_str);
            id.is_some_and(|id| hidden.contains(id))
        }
        ContentBlock::ToolUse(_)
        | ContentBlock::Text(_)
        | ContentBlock::Thinking(_)
        | ContentBlock::RedactedThinking(_)
        | ContentBlock::ServerToolUse(_)
        | ContentBlock::CodeExecutionToolResult(_)
        | ContentBlock::BashCodeExecutionToolResult(_)
        | ContentBlock::TextEditorCodeExecutionToolResult(_)
        | ContentBlock::ContainerUpload(_) => false,
    }
}

/// Appends `more` to what one message says.
fn join(content: &mut Content, more: Content) {
    let blocks = |content| match content {
        Content::Text(text) => vec![ContentBlock::text(text)],
        Content::Blocks(blocks) => blocks,
    };
    let mut joined = blocks(std::mem::replace(content, Content::Blocks(Vec::new())));
    joined.extend(blocks(more));
    *content = Content::Blocks(joined);
}
