//! Rules about `tools` and `tool_choice`.

use std::collections::HashSet;

use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use belljar_wire::tool::{SubTool, Tool, ToolChoiceMode, ToolVersion};
use serde_json::Value;

use super::Draft;
use crate::runtime::callers;

/// Where a tool stands, in an error's voice: `tools.0.custom`.
pub(crate) fn path(index: usize, tool: &Tool) -> String {
    let tag = match tool {
        Tool::CodeExecution(tool) => tool.version.tag(),
        Tool::Custom(_) => "custom",
        Tool::Host(tool) => tool.kind.tag(),
        Tool::Hosted(tool) => tool.kind.tag,
        Tool::Vendor(tool) => &tool.tag,
    };
    format!("tools.{index}.{tag}")
}

/// Row 41.
pub(super) fn legacy_needs_its_header(draft: &Draft<'_>) -> Result<(), ApiError> {
    const HEADER: &str = "code-execution-2025-05-22";
    for (index, tool) in draft.request.tools.iter().enumerate() {
        match tool {
            Tool::CodeExecution(tool) if tool.version == ToolVersion::V20250522 => {
                if !draft.context.betas.has(HEADER) {
                    return Err(ApiError::invalid(format!(
                        "tools.{index}: `code_execution_20250522` requires the `anthropic-beta: {HEADER}` header"
                    )));
                }
            }
            Tool::CodeExecution(_) | Tool::Custom(_) | Tool::Host(_) | Tool::Hosted(_) | Tool::Vendor(_) => {}
        }
    }
    Ok(())
}

/// Row 13. The sub-tools take their names, too; Python's is that of the declared tool.
pub(super) fn names_are_unique(draft: &Draft<'_>) -> Result<(), ApiError> {
    let own = draft.request.tools.iter().filter_map(Tool::name);
    let offered = draft.runtime.map(|runtime| runtime.offered).unwrap_or_default();
    let sub_tools =
        offered.iter().filter(|sub_tool| **sub_tool != SubTool::CodeExecution).map(|sub_tool| sub_tool.name());
    let mut names = HashSet::new();
    if own.chain(sub_tools).all(|name| names.insert(name)) {
        return Ok(());
    }
    Err(ApiError::invalid("tools: Tool names must be unique."))
}

/// Row 31.
pub(super) fn not_all_are_deferred(draft: &Draft<'_>) -> Result<(), ApiError> {
    let tools = &draft.request.tools;
    let deferred = |tool: &Tool| match tool {
        Tool::CodeExecution(tool) => tool.defer_loading,
        Tool::Custom(tool) => tool.defer_loading,
        Tool::Host(_) => false,
        Tool::Hosted(tool) => tool.is_set("defer_loading"),
        Tool::Vendor(tool) => tool.rest.get("defer_loading") == Some(&Value::Bool(true)),
    };
    if tools.is_empty() || !tools.iter().all(deferred) {
        return Ok(());
    }
    Err(ApiError::invalid("All tools have defer_loading: true. At least one tool must be loaded from the start."))
}

/// A tool that nobody may call is a mistake.
pub(super) fn someone_may_call(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        let callers = callers(tool);
        if !callers.direct && !callers.code {
            let path = path(index, tool);
            return Err(ApiError::invalid(format!("{path}.allowed_callers: List should have at least 1 item")));
        }
    }
    Ok(())
}

/// The model's own calls of our tools would need a runtime of their own; there is none.
pub(super) fn host_tools_are_for_code(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        if matches!(tool, Tool::Host(_)) && callers(tool).direct {
            let path = path(index, tool);
            return Err(ApiError::invalid(format!(
                "{path}.allowed_callers: `{}` can be called from code only; remove \"direct\"",
                tool.name().unwrap_or_default()
            )));
        }
    }
    Ok(())
}

/// `tool_choice` must name a tool of the request. `code_execution` itself may be named: one of its sub-tools is called.
pub(super) fn chosen_tool_is_declared(draft: &Draft<'_>) -> Result<(), ApiError> {
    let Some(name) = chosen(draft) else {
        return Ok(());
    };
    let own = draft.request.tools.iter().any(|tool| tool.name() == Some(name));
    let sub_tools = draft.runtime.map(|runtime| runtime.offered).unwrap_or_default();
    if own || sub_tools.iter().any(|sub_tool| sub_tool.name() == name) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("tool_choice.tool.name: Tool '{}' not found in provided tools", Brief(name))))
}

/// Row 15.
pub(super) fn chosen_tool_is_direct(draft: &Draft<'_>) -> Result<(), ApiError> {
    let Some(name) = chosen(draft) else {
        return Ok(());
    };
    let tool = draft.request.tools.iter().find(|tool| tool.name() == Some(name));
    if tool.is_none_or(|tool| callers(tool).direct) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "tool_choice.tool.name: Tool '{}' can only be called from code: its `allowed_callers` do not include \"direct\"",
        Brief(name)
    )))
}

fn chosen<'a>(draft: &Draft<'a>) -> Option<&'a str> {
    match &draft.request.tool_choice.as_ref()?.mode {
        ToolChoiceMode::Tool(name) => Some(name),
        ToolChoiceMode::Auto | ToolChoiceMode::Any | ToolChoiceMode::None => None,
    }
}
