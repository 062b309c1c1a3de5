//! Rules about tools that code calls, and about code that waits for them (wire.md §10.8).

use std::collections::HashSet;

use belljar_wire::block::{Content, ContentBlock, ToolResultBlock};
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use belljar_wire::tool::{SubTool, Tool, ToolVersion};
use serde_json::Value;

use super::Draft;
use super::history::without_result;
use super::tools::path;
use crate::plan::history::Place;
use crate::runtime::{callers, code_versions, declared};

/// Two declarations of one tool may disagree about its version, and neither of them is more likely to be meant.
pub(super) fn is_declared_once(draft: &Draft<'_>) -> Result<(), ApiError> {
    // Still set: it was not taken for a declaration, because there is one.
    if draft.request.code_execution {
        return Err(ApiError::invalid(
            "code_execution: a code execution tool is declared in `tools`; leave one of the two out",
        ));
    }
    Ok(())
}

/// Row 14. Tools that code calls bring its runtime along; a tool of that name, or a declared version that has no such runtime, is
/// in its way. `code_execution_20250825` had it while its beta ran (wire.md §10.1), for tools that name no later one.
pub(super) fn runtime_has_room(draft: &Draft<'_>) -> Result<(), ApiError> {
    let tools = &draft.request.tools;
    let newest = tools.iter().flat_map(code_versions).max();
    let taken = match (declared(tools).map(|tool| tool.version), newest) {
        (_, None) => false,
        (None, Some(_)) => tools.iter().any(|tool| tool.name() == Some(SubTool::CodeExecution.name())),
        (Some(ToolVersion::V20250522), Some(_)) => true,
        (Some(ToolVersion::V20250825), Some(version)) => version > ToolVersion::V20250825,
        (Some(ToolVersion::V20260120 | ToolVersion::V20260521), Some(_)) => false,
    };
    if !taken {
        return Ok(());
    }
    Err(ApiError::invalid(
        "Auto-injecting tools would conflict with existing tool names: ['code_execution']. Each tool name must be unique.",
    ))
}

/// Row 16.
pub(super) fn strict_is_direct(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        let strict = match tool {
            Tool::CodeExecution(_) | Tool::Host(_) | Tool::Hosted(_) => false,
            Tool::Custom(tool) => tool.strict,
            Tool::Vendor(tool) => tool.rest.get("strict") == Some(&Value::Bool(true)),
        };
        if strict && callers(tool).code {
            let path = path(index, tool);
            return Err(ApiError::invalid(format!(
                "{path}.strict: strict tools cannot be called from code; remove `strict` or set `allowed_callers` to \
                 [\"direct\"]"
            )));
        }
    }
    Ok(())
}

/// Row 17.
pub(super) fn parallel_when_called_from_code(draft: &Draft<'_>) -> Result<(), ApiError> {
    let choice = draft.request.tool_choice.as_ref();
    let code = draft.request.tools.iter().any(|tool| callers(tool).code);
    if code && choice.is_some_and(|choice| choice.disable_parallel_tool_use) {
        return Err(ApiError::invalid(
            "tool_choice.disable_parallel_tool_use: not supported together with tools that can be called from code",
        ));
    }
    Ok(())
}

/// The calls that are answered now were made by one cell, which still waits for its own result: else the answers go nowhere.
pub(super) fn calls_have_their_cell(draft: &Draft<'_>) -> Result<(), ApiError> {
    draft.history.homeless_call.map_or(Ok(()), |(place, call)| {
        Err(ApiError::invalid(format!(
            "messages.{}.content.{}: `tool_use` {} was called from code, but its `caller` is not the `server_tool_use` that waits \
             for a result",
            place.message,
            place.block,
            Brief(call.id.as_str())
        )))
    })
}

/// Code waits for the calls in the last reply, or for nothing that could still come (wire.md §19 row 10).
pub(super) fn goes_on_from_its_calls(draft: &Draft<'_>) -> Result<(), ApiError> {
    let parked = draft.history.parked.as_ref().map(|parked| &parked.call.id);
    match draft.history.code_waiting().find(|call| Some(&call.id) != parked) {
        None => Ok(()),
        Some(call) => Err(ApiError::invalid(without_result(call))),
    }
}

/// The results in the last message that code waits for.
fn results_for_code<'a>(draft: &Draft<'a>) -> Vec<(Place, &'a ToolResultBlock)> {
    let Some(parked) = &draft.history.parked else {
        return Vec::new();
    };
    let calls: HashSet<&str> = parked.calls.iter().map(|(_, call)| call.id.as_str()).collect();
    let results = draft.history.stretches.last().into_iter().flat_map(|stretch| stretch.blocks());
    let results = results.filter_map(|(place, block)| {
        let ContentBlock::ToolResult(result) = block else {
            return None;
        };
        calls.contains(result.tool_use_id.as_str()).then_some((place, result))
    });
    results.collect()
}

/// Row 21. That nothing but results stands beside them is row 10.
pub(super) fn results_are_text(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (place, result) in results_for_code(draft) {
        let blocks = result.content.as_ref().map(Content::blocks);
        let text = |block: &ContentBlock| matches!(block, ContentBlock::Text(_));
        if !blocks.unwrap_or_default().iter().all(text) {
            return Err(ApiError::invalid(format!(
                "messages.{}.content.{}.tool_result.content: the result of a call made from code must be a string or text \
                 blocks",
                place.message, place.block
            )));
        }
    }
    Ok(())
}
