//! Rules about `tools` and `tool_choice`.

use std::collections::HashSet;

use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use belljar_wire::tool::{SubTool, Tool, ToolChoiceMode, ToolVersion};
use serde_json::Value;

use super::Draft;
use crate::tools::offered;

/// Who may call a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callers {
    pub(crate) direct: bool,
    pub(crate) code: bool,
}

/// Reads `allowed_callers` of a tool that a client runs; absent means the model only (wire.md §10.1).
pub(crate) fn callers(tool: &Tool) -> Callers {
    match tool {
        Tool::CodeExecution(_) => Callers { direct: true, code: false },
        Tool::Custom(tool) => Callers { direct: tool.direct(), code: tool.from_code() },
        Tool::Vendor(tool) => match tool.rest.get("allowed_callers").and_then(Value::as_array) {
            None => Callers { direct: true, code: false },
            Some(callers) => Callers {
                direct: callers.iter().any(|caller| caller == "direct"),
                code: callers.iter().any(|caller| caller != "direct"),
            },
        },
    }
}

/// Where a tool stands, in an error's voice: `tools.0.custom`.
pub(crate) fn path(index: usize, tool: &Tool) -> String {
    let tag = match tool {
        Tool::CodeExecution(tool) => tool.version.tag(),
        Tool::Custom(_) => "custom",
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
            Tool::CodeExecution(_) | Tool::Custom(_) | Tool::Vendor(_) => {}
        }
    }
    Ok(())
}

/// Row 13. The sub-tools take their names, too.
pub(super) fn names_are_unique(draft: &Draft<'_>) -> Result<(), ApiError> {
    let own = draft.request.tools.iter().map(Tool::name);
    let declared = draft.code_execution();
    let sub_tools = declared
        .into_iter()
        .flat_map(|tool| offered(tool.version))
        .filter(|sub_tool| **sub_tool != SubTool::CodeExecution)
        .map(|sub_tool| sub_tool.name());
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

/// `tool_choice` must name a tool of the request. `code_execution` itself may be named: its first sub-tool is called.
pub(super) fn chosen_tool_is_declared(draft: &Draft<'_>) -> Result<(), ApiError> {
    let Some(name) = chosen(draft) else {
        return Ok(());
    };
    let version = draft.code_execution().map(|tool| tool.version);
    let own = draft.request.tools.iter().any(|tool| tool.name() == name);
    let sub_tools = version.map(offered).unwrap_or_default();
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
    let tool = draft.request.tools.iter().find(|tool| tool.name() == name);
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

/// Row 16.
pub(super) fn strict_is_direct(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        let strict = match tool {
            Tool::CodeExecution(_) => false,
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
