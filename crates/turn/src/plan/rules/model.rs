//! Rules about what the model, or the API version, can do.

use belljar_wire::beta::ApiVersion;
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use belljar_wire::tool::{Tool, ToolChoiceMode};
use serde_json::Value;

use super::Draft;
use crate::runtime::callers;

/// Row 36b.
pub(super) fn knows_the_tool_types(draft: &Draft<'_>) -> Result<(), ApiError> {
    for tool in &draft.request.tools {
        let tag = match tool {
            Tool::CodeExecution(tool) => tool.version.tag(),
            Tool::Custom(_) => continue,
            Tool::Host(tool) => tool.kind.tag(),
            Tool::Hosted(tool) => tool.kind.tag,
            Tool::Vendor(tool) => &tool.tag,
        };
        if draft.context.model.tool_types_refused.contains(&tag) {
            let instead = draft.context.model.instead_of(tag);
            let hint = match instead.is_empty() {
                true => String::new(),
                false => format!(" Did you mean one of {}?", instead.join(", ")),
            };
            let model = Brief(&draft.request.model);
            return Err(ApiError::invalid(format!("'{model}' does not support tool types: {tag}.{hint}")));
        }
    }
    Ok(())
}

/// Row 19.
pub(super) fn can_call_tools_from_code(draft: &Draft<'_>) -> Result<(), ApiError> {
    let tools = draft.request.tools.iter();
    let from_code: Vec<&str> = tools.filter(|tool| callers(tool).code).filter_map(Tool::name).collect();
    if from_code.is_empty() || draft.context.model.programmatic_tool_calling {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "'{}' does not support programmatic tool calling. The following tools have `allowed_callers` that require it: {}. \
         Set `allowed_callers` to [\"direct\"] on them.",
        draft.request.model,
        Brief(&from_code.join(", "))
    )))
}

fn forced(draft: &Draft<'_>) -> bool {
    let choice = draft.request.tool_choice.as_ref();
    choice.is_some_and(|choice| match choice.mode {
        ToolChoiceMode::Any | ToolChoiceMode::Tool(_) => true,
        ToolChoiceMode::Auto | ToolChoiceMode::None => false,
    })
}

/// Row 36.
pub(super) fn no_force_while_thinking(draft: &Draft<'_>) -> Result<(), ApiError> {
    let thinking = draft.request.thinking.as_ref();
    let mode = thinking.and_then(|thinking| thinking.get("type"));
    let thinks = matches!(mode.and_then(Value::as_str), Some("enabled" | "adaptive"));
    if forced(draft) && thinks {
        return Err(ApiError::invalid("Thinking may not be enabled when tool_choice forces tool use."));
    }
    Ok(())
}

/// Row 36a.
pub(super) fn choice_may_be_forced(draft: &Draft<'_>) -> Result<(), ApiError> {
    if forced(draft) && !draft.context.model.forced_tool_choice {
        return Err(ApiError::invalid("tool_choice: type \"tool\" and \"any\" are not supported for this model."));
    }
    Ok(())
}

/// Row 32: the API version has no such fields, or the model takes none.
pub(super) fn sampling_parameters(draft: &Draft<'_>) -> Result<(), ApiError> {
    let request = draft.request;
    let sent = [("temperature", &request.temperature), ("top_p", &request.top_p), ("top_k", &request.top_k)];
    let Some((name, _)) = sent.into_iter().find(|(_, value)| value.is_some()) else {
        return Ok(());
    };
    if draft.context.api_version >= ApiVersion::V20261021 {
        return Err(ApiError::invalid(format!("{name}: Extra inputs are not permitted")));
    }
    if !draft.context.model.sampling_parameters {
        return Err(ApiError::invalid(format!("`{name}` is deprecated for this model.")));
    }
    Ok(())
}

/// Row 34. A paused reply that is resumed is no prefill (wire.md §13.1).
pub(super) fn goes_on_from_the_assistant(draft: &Draft<'_>) -> Result<(), ApiError> {
    let history = draft.history;
    let prefill = history.ends_with_assistant() && !history.ends_with_pause();
    if prefill && !draft.context.model.prefill {
        return Err(ApiError::invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        ));
    }
    Ok(())
}
