//! The body and the beta header of one call.

use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::{ToolChoice, ToolChoiceMode};
use serde::Serialize;
use serde_json::{Map, Number, Value, json};

use super::breakpoint;
use crate::lower::{PlainBlock, PlainMessage, PlainTool, lower};
use crate::unsigned;
use crate::upstream::KnownFiles;

/// Everything that is sent; always a stream.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
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
    stream: bool,
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
}

/// Writes the body.
///
/// # Errors
/// Never for requests that came over the wire: every key is a string.
pub(super) fn write(request: &SamplingRequest, files: &KnownFiles) -> Result<Vec<u8>, serde_json::Error> {
    let mut plain = lower(request, files);
    forget_unsigned(&mut plain.messages);
    breakpoint::add(&mut plain, request);
    let tool_choice = if plain.tools_are_history {
        Some(json!({"type": "none"}))
    } else {
        request.tool_choice.as_ref().map(tool_choice)
    };
    serde_json::to_vec(&Body {
        model: &request.model,
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
        stream: true,
        rest: &request.rest,
    })
}

/// What is counted.
#[derive(Serialize)]
struct Counted<'a> {
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
pub(super) fn write_to_count(request: &SamplingRequest, files: &KnownFiles) -> Result<Vec<u8>, serde_json::Error> {
    let mut plain = lower(request, files);
    forget_unsigned(&mut plain.messages);
    let tool_choice = request.tool_choice.as_ref().filter(|_| !plain.tools_are_history).map(tool_choice);
    serde_json::to_vec(&Counted {
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

/// Betas that concern the model, by the name before the date. What concerns tools, containers, files, skills and threads is done
/// by this server, and the upstream must not do it too; what is not known might change the shape of the reply, as `compact` does.
const BETAS_PASSED: [&str; 13] = [
    "computer-use",
    "context-1m",
    "context-management",
    "dev-full-thinking",
    "effort",
    "extended-cache-ttl",
    "fast-mode",
    "fine-grained-tool-streaming",
    "interleaved-thinking",
    "output-128k",
    "prompt-caching",
    "structured-outputs",
    "token-efficient-tools",
];

/// Length of `-2026-01-01`.
const DATE_BYTES: usize = 11;

/// The value of the `anthropic-beta` header; none when no beta is passed on.
pub(super) fn betas(betas: &[String]) -> Option<String> {
    let passed = |beta: &&String| {
        let name = beta.len().checked_sub(DATE_BYTES).and_then(|end| beta.get(..end));
        name.is_some_and(|name| BETAS_PASSED.contains(&name))
    };
    let passed: Vec<&str> = betas.iter().filter(passed).map(String::as_str).collect();
    (!passed.is_empty()).then(|| passed.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_betas_of_the_model_are_passed_on() {
        let cases: [(&[&str], Option<&str>); 6] = [
            (&[], None),
            (&["code-execution-2025-05-22", "files-api-2025-04-14"], None),
            (
                &["interleaved-thinking-2025-05-14", "skills-2025-10-02", "context-management-2025-06-27"],
                Some("interleaved-thinking-2025-05-14,context-management-2025-06-27"),
            ),
            (&["effort", "é"], None),
            (&["compact-2026-01-12", "compact-2026-09-04"], None),
            (&["effort-2027-01-01"], Some("effort-2027-01-01")),
        ];
        for (sent, expected) in cases {
            let sent: Vec<String> = sent.iter().map(|beta| (*beta).to_owned()).collect();
            assert_eq!(betas(&sent).as_deref(), expected, "{sent:?}");
        }
    }
}
