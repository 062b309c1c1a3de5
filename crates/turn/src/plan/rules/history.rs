//! Rules about the conversation and the calls in it.

use std::collections::HashSet;

use belljar_wire::beta::ApiVersion;
use belljar_wire::block::{Content, ContentBlock, ServerToolUseBlock};
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use belljar_wire::request::Role;
use belljar_wire::tool::{SubTool, Tool};
use serde_json::{Map, Value};

use super::Draft;
use crate::context::CALLS_AT_ONCE_MAX;

/// Row 38. A system message may say how much effort the next turns are worth, and nothing else.
pub(super) fn content_is_not_empty(draft: &Draft<'_>) -> Result<(), ApiError> {
    let messages = &draft.request.messages;
    let last = messages.len().saturating_sub(1);
    for (index, message) in messages.iter().enumerate() {
        let optional = match message.role {
            Role::Assistant => index == last,
            Role::System => message.rest.contains_key("output_config"),
            Role::User => false,
        };
        if message.content.is_empty() && !optional {
            return Err(ApiError::invalid(format!(
                "messages.{index}: all messages must have non-empty content except for the optional final assistant \
                 message"
            )));
        }
    }
    Ok(())
}

/// Row 33, first half.
pub(super) fn assistant_sends_no_documents(draft: &Draft<'_>) -> Result<(), ApiError> {
    if draft.context.api_version < ApiVersion::V20261021 {
        return Ok(());
    }
    for stretch in &draft.history.stretches {
        for (place, block) in stretch.blocks() {
            let document = matches!(block, ContentBlock::Passive(block) if block.tag() == "document");
            if document && stretch.role == Role::Assistant {
                return Err(ApiError::invalid(format!(
                    "messages.{}.content.{}: `document` blocks are not permitted in `assistant` messages",
                    place.message, place.block
                )));
            }
        }
    }
    Ok(())
}

/// Row 33, second half: texts of a user message, directly or inside a `search_result`.
pub(super) fn user_cites_nothing(draft: &Draft<'_>) -> Result<(), ApiError> {
    if draft.context.api_version < ApiVersion::V20261021 {
        return Ok(());
    }
    let users = draft.history.stretches.iter();
    for stretch in users.filter(|stretch| stretch.role == Role::User) {
        for (place, block) in stretch.blocks() {
            if cites(block) {
                return Err(ApiError::invalid(format!(
                    "messages.{}.content.{}: text blocks with non-empty `citations` are not permitted in `user` messages",
                    place.message, place.block
                )));
            }
        }
    }
    Ok(())
}

fn cites(block: &ContentBlock) -> bool {
    match block {
        ContentBlock::Text(text) => text.citations.as_ref().is_some_and(|citations| !citations.is_empty()),
        ContentBlock::Passive(block) => block.tag() == "search_result" && result_cites(&block.members),
        ContentBlock::ToolResult(result) => {
            let blocks = result.content.as_ref().map(Content::blocks);
            blocks.unwrap_or_default().iter().any(|block| {
                matches!(block, ContentBlock::Passive(block)
                    if block.tag() == "search_result" && result_cites(&block.members))
            })
        }
        ContentBlock::Thinking(_)
        | ContentBlock::RedactedThinking(_)
        | ContentBlock::ToolUse(_)
        | ContentBlock::ServerToolUse(_)
        | ContentBlock::CodeExecutionToolResult(_)
        | ContentBlock::BashCodeExecutionToolResult(_)
        | ContentBlock::TextEditorCodeExecutionToolResult(_)
        | ContentBlock::ContainerUpload(_) => false,
    }
}

fn result_cites(members: &Map<String, Value>) -> bool {
    let texts = members.get("content").and_then(Value::as_array);
    texts.into_iter().flatten().any(|text| {
        let citations = text.get("citations").and_then(Value::as_array);
        citations.is_some_and(|citations| !citations.is_empty())
    })
}

/// Row 12.
pub(super) fn results_answer_calls(draft: &Draft<'_>) -> Result<(), ApiError> {
    let mut calls = HashSet::new();
    for stretch in &draft.history.stretches {
        if stretch.role == Role::Assistant {
            calls = stretch.client_calls().map(|(_, id)| id).collect();
            continue;
        }
        for (place, block) in stretch.blocks() {
            let ContentBlock::ToolResult(result) = block else {
                continue;
            };
            if !calls.contains(result.tool_use_id.as_str()) {
                return Err(ApiError::invalid(format!(
                    "messages.{}.content.{}: unexpected `tool_use_id` found in `tool_result` blocks: {}. Each \
                     `tool_result` block must have a corresponding `tool_use` block in the previous message.",
                    place.message,
                    place.block,
                    Brief(&result.tool_use_id)
                )));
            }
        }
    }
    Ok(())
}

/// Row 9.
pub(super) fn calls_are_answered(draft: &Draft<'_>) -> Result<(), ApiError> {
    let stretches = &draft.history.stretches;
    for (index, stretch) in stretches.iter().enumerate() {
        let mut calls = stretch.client_calls().peekable();
        if calls.peek().is_none() {
            continue;
        }
        let next = stretches.get(index + 1);
        let answered = next.map(|next| next.leading_results()).unwrap_or_default();
        let unanswered: Vec<_> = calls.filter(|(_, id)| !answered.contains(id)).collect();
        if let Some((message, _)) = unanswered.first() {
            let ids: Vec<&str> = unanswered.iter().map(|(_, id)| *id).collect();
            return Err(ApiError::invalid(format!(
                "messages.{message}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each \
                 `tool_use` block must have a corresponding `tool_result` block in the next message.",
                ids.join(", ")
            )));
        }
    }
    Ok(())
}

/// An id that stands twice in one reply would have one answer for two calls.
pub(super) fn calls_are_distinct(draft: &Draft<'_>) -> Result<(), ApiError> {
    for stretch in &draft.history.stretches {
        let mut called = HashSet::new();
        for (place, block) in stretch.blocks() {
            let ContentBlock::ToolUse(call) = block else { continue };
            if !called.insert(call.id.as_str()) {
                return Err(ApiError::invalid(format!(
                    "messages.{}.content.{}: `tool_use` ids must be unique: {} was used before",
                    place.message,
                    place.block,
                    Brief(call.id.as_str())
                )));
            }
        }
    }
    Ok(())
}

/// Of two answers to one call, the model or the code could be given either.
pub(super) fn results_are_distinct(draft: &Draft<'_>) -> Result<(), ApiError> {
    for stretch in &draft.history.stretches {
        let mut answered = HashSet::new();
        for (place, block) in stretch.blocks() {
            let ContentBlock::ToolResult(result) = block else { continue };
            if !answered.insert(result.tool_use_id.as_str()) {
                return Err(ApiError::invalid(format!(
                    "messages.{}.content.{}: each `tool_use` must have a single result. Found multiple `tool_result` blocks with id: {}",
                    place.message,
                    place.block,
                    Brief(&result.tool_use_id)
                )));
            }
        }
    }
    Ok(())
}

/// A client may make up any number of calls that wait, and each of them runs; this server's own replies leave no more.
pub(super) fn few_calls_wait(draft: &Draft<'_>) -> Result<(), ApiError> {
    let waiting = draft.history.pending.len();
    if waiting > CALLS_AT_ONCE_MAX {
        return Err(ApiError::invalid(format!(
            "messages: at most {CALLS_AT_ONCE_MAX} `server_tool_use` blocks can wait for their results; found {waiting}"
        )));
    }
    Ok(())
}

/// An id that is used twice would have its result go to either.
pub(super) fn server_calls_are_distinct(draft: &Draft<'_>) -> Result<(), ApiError> {
    draft.history.repeated_call.map_or(Ok(()), |(place, id)| {
        Err(ApiError::invalid(format!(
            "messages.{}.content.{}: `server_tool_use` ids must be unique: {id} was used before",
            place.message, place.block
        )))
    })
}

/// A result whose call was edited away; the hosted API says it in the words of row 12.
pub(super) fn server_results_answer_calls(draft: &Draft<'_>) -> Result<(), ApiError> {
    draft.history.stray_result.map_or(Ok(()), |(place, tag, id)| {
        Err(ApiError::invalid(format!(
            "messages.{}.content.{}: unexpected `tool_use_id` found in `{tag}` blocks: {id}. Each `{tag}` block must have a \
             corresponding `server_tool_use` block before it.",
            place.message, place.block
        )))
    })
}

/// How a call is told that nothing answers.
pub(super) fn without_result(call: &ServerToolUseBlock) -> String {
    let name = Brief(&call.name);
    format!("`{name}` tool use with id `{}` was found without a corresponding `{name}_tool_result` block", call.id)
}

/// Whether the request declares the tool of that call.
fn has_its_tool(draft: &Draft<'_>, call: &ServerToolUseBlock) -> bool {
    match (SubTool::from_name(&call.name), draft.runtime) {
        // Whether it is offered is another question: a Python cell belongs to every version (wire.md §4).
        (Some(SubTool::CodeExecution), Some(_)) => true,
        (Some(sub_tool), Some(runtime)) => runtime.offers(sub_tool),
        (None, _) => {
            let named = |tool: &Tool| matches!(tool, Tool::Hosted(tool) if tool.answers_to(&call.name));
            draft.request.tools.iter().any(named)
        }
        (Some(_), None) => false,
    }
}

/// Row 10.
pub(super) fn server_calls_are_not_spoken_over(draft: &Draft<'_>) -> Result<(), ApiError> {
    match draft.history.spoken_over {
        Some(call) if has_its_tool(draft, call) => Err(ApiError::invalid(without_result(call))),
        Some(_) | None => Ok(()),
    }
}

/// Row 11.
pub(super) fn waiting_calls_have_their_tool(draft: &Draft<'_>) -> Result<(), ApiError> {
    let spoken_over = draft.history.spoken_over.into_iter();
    let mut calls = spoken_over.chain(draft.history.pending.iter().copied());
    match calls.find(|call| !has_its_tool(draft, call)) {
        None => Ok(()),
        Some(call) => {
            Err(ApiError::invalid(format!("{} but no `{}` tool was provided", without_result(call), Brief(&call.name))))
        }
    }
}
