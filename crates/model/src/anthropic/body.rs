//! The body of one call.

use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::{ToolChoice, ToolChoiceMode};
use serde::Serialize;
use serde_json::{Map, Number, Value, json};

use super::breakpoint;
use super::way::Way;
use crate::lower::{PlainBlock, PlainMessage, PlainTool, lower};
use crate::unsigned;
use crate::upstream::KnownFiles;

/// Everything that is sent; always a stream.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    anthropic_version: Option<&'static str>,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    anthropic_beta: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a belljar_wire::request::System>,
    messages: Vec<PlainMessage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<PlainTool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
}

/// Writes the body.
///
/// # Errors
/// Never for requests that came over the wire: every key is a string.
pub(super) fn write(
    request: &SamplingRequest,
    files: &KnownFiles,
    way: Way,
    betas: &[&str],
) -> Result<Vec<u8>, serde_json::Error> {
    let mut plain = lower(request, files);
    forget_unsigned(&mut plain.messages);
    breakpoint::add(&mut plain, request);
    let tool_choice = if plain.tools_are_history {
        Some(json!({"type": "none"}))
    } else {
        request.tool_choice.as_ref().map(tool_choice)
    };
    serde_json::to_vec(&Body {
        anthropic_version: way.version_in_body(),
        anthropic_beta: if way.betas_in_body() { betas } else { &[] },
        model: way.model_in_body().then_some(&request.model),
        max_tokens: request.max_tokens,
        system: request.system.as_ref(),
        messages: plain.messages,
        tools: plain.tools,
        tool_choice,
        stop_sequences: &request.stop_sequences,
        temperature: request.temperature.as_ref(),
        top_p: request.top_p.as_ref(),
        top_k: request.top_k.as_ref(),
        thinking: request.thinking.as_ref(),
        metadata: request.user_id.as_ref().map(|user_id| json!({"user_id": user_id})),
        stream: way.stream_in_body().then_some(true),
        rest: &request.rest,
    })
}

/// What is counted.
#[derive(Serialize)]
struct Counted<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    anthropic_version: Option<&'static str>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a belljar_wire::request::System>,
    messages: Vec<PlainMessage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<PlainTool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a Value>,
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
}

/// Writes the body of a request that counts (wire.md §17.1).
///
/// # Errors
/// As [`write`].
pub(super) fn write_to_count(
    request: &SamplingRequest,
    files: &KnownFiles,
    way: Way,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut plain = lower(request, files);
    forget_unsigned(&mut plain.messages);
    let tool_choice = request.tool_choice.as_ref().filter(|_| !plain.tools_are_history).map(tool_choice);
    serde_json::to_vec(&Counted {
        anthropic_version: way.version_in_body(),
        model: &request.model,
        system: request.system.as_ref(),
        messages: plain.messages,
        tools: plain.tools,
        tool_choice,
        thinking: request.thinking.as_ref(),
        rest: &request.rest,
    })
}

/// Thinking of another upstream's model, from before a conversation came here: the vendor would refuse it as a forgery.
fn forget_unsigned(messages: &mut [PlainMessage]) {
    let ours =
        |block: &PlainBlock| matches!(block, PlainBlock::Thinking(block) if block.signature == unsigned::SIGNATURE);
    for message in messages {
        if message.content.iter().any(ours) {
            message.content.retain(|block| !ours(block));
            if message.content.is_empty() {
                // It had been cut off while it thought.
                message.content.push(PlainBlock::text("[nothing was said]"));
            }
        }
    }
}

fn tool_choice(choice: &ToolChoice) -> Value {
    let mut written = match &choice.mode {
        ToolChoiceMode::Auto => json!({"type": "auto"}),
        ToolChoiceMode::Any => json!({"type": "any"}),
        ToolChoiceMode::Tool(name) => json!({"type": "tool", "name": name}),
        // The vendor knows no parallel calls among none.
        ToolChoiceMode::None => return json!({"type": "none"}),
    };
    if choice.disable_parallel_tool_use {
        written["disable_parallel_tool_use"] = Value::Bool(true);
    }
    written
}
