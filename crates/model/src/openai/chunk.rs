//! One chunk of a stream, or a whole reply, as it came: read member by member, because no two servers write the same.

use belljar_wire::message::{OutputTokensDetails, Usage};
use belljar_wire::read::Brief;
use serde_json::{Map, Value};

use super::calls::CallPiece;
use super::failure::Told;
use super::piece;

/// What one chunk says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chunk {
    /// In the order in which they count.
    pub(super) said: Vec<Said>,
    pub(super) finish: Option<String>,
    /// The stop sequence that was hit, where the server tells.
    pub(super) stop_sequence: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) error: Option<Told>,
    /// Whether nothing can come behind it.
    pub(super) over: bool,
}

/// A piece of the reply.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Thinking(String),
    Text(String),
    /// Text in which the model declines.
    Refusal(String),
    Call(CallPiece),
}

/// Reads a chunk.
///
/// # Errors
/// What is wrong with it, for the operator.
pub(super) fn read(data: &str) -> Result<Chunk, String> {
    match piece::read(data) {
        Some(said) => Ok(Chunk { said: vec![said], ..Chunk::default() }),
        None => read_whole(data),
    }
}

/// The same, whatever it holds.
pub(super) fn read_whole(data: &str) -> Result<Chunk, String> {
    let value: Value = serde_json::from_str(data).map_err(|error| format!("a chunk is no JSON: {error}"))?;
    let Value::Object(members) = value else {
        return Err("a chunk is no JSON object".to_owned());
    };
    if let Some(error) = Told::of_members(&members) {
        return Ok(Chunk { error: Some(error), ..Chunk::default() });
    }
    let mut chunk = Chunk { usage: members.get("usage").and_then(usage), ..Chunk::default() };
    let choices = match members.get("choices") {
        Some(Value::Array(choices)) => choices.as_slice(),
        None | Some(Value::Null) => &[],
        Some(_) => return Err("`choices` is no list".to_owned()),
    };
    // One was asked for.
    let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).is_none_or(|index| index == 0);
    if let Some(choice) = choices.iter().find(first) {
        read_choice(choice, &mut chunk)?;
    } else if !members.contains_key("choices") && chunk.usage.is_none() {
        return Err(format!("a chunk has no `choices`: {}", Brief(data)));
    }
    Ok(chunk)
}

fn read_choice(choice: &Value, chunk: &mut Chunk) -> Result<(), String> {
    chunk.finish = string(choice.get("finish_reason"));
    chunk.stop_sequence = string(choice.get("stop_reason"));
    let delta = choice.get("delta").filter(|delta| !delta.is_null()).or_else(|| choice.get("message"));
    let Some(delta) = delta.and_then(Value::as_object) else {
        return Ok(());
    };
    // Servers on their way from one name to the other send both.
    let thinking = ["reasoning_content", "reasoning"].iter().find_map(|key| string(delta.get(*key)));
    chunk.said.extend(thinking.map(Said::Thinking));
    read_content(delta.get("content"), &mut chunk.said)?;
    chunk.said.extend(string(delta.get("refusal")).map(Said::Refusal));
    let calls = match delta.get("tool_calls") {
        Some(Value::Array(calls)) => calls.as_slice(),
        None | Some(Value::Null) => &[],
        Some(_) => return Err("`tool_calls` is no list".to_owned()),
    };
    for call in calls {
        chunk.said.push(Said::Call(read_call(call)?));
    }
    // The form before there were parallel calls.
    if let Some(function) = delta.get("function_call").and_then(Value::as_object) {
        chunk.said.push(Said::Call(CallPiece { index: Some(0), ..read_function(function) }));
    }
    Ok(())
}

/// A string, or a list of parts of which some think.
fn read_content(content: Option<&Value>, said: &mut Vec<Said>) -> Result<(), String> {
    let parts = match content {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(text)) => {
            if !text.is_empty() {
                said.push(Said::Text(text.clone()));
            }
            return Ok(());
        }
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err("`content` is neither a string nor a list".to_owned()),
    };
    for part in parts {
        match part.get("type").and_then(Value::as_str).unwrap_or("text") {
            "text" | "output_text" => said.extend(string(part.get("text")).map(Said::Text)),
            "thinking" | "reasoning" => said.extend(thoughts(part).map(Said::Thinking)),
            "refusal" => said.extend(string(part.get("refusal")).map(Said::Refusal)),
            other => tracing::warn!(part = %Brief(other), "skipping a part of unknown type"),
        }
    }
    Ok(())
}

fn thoughts(part: &Value) -> Option<String> {
    let thinking = part.get("thinking").or_else(|| part.get("text"))?;
    match thinking {
        Value::Array(parts) => {
            let texts: String = parts.iter().filter_map(|part| string(part.get("text"))).collect();
            Some(texts).filter(|texts| !texts.is_empty())
        }
        other => string(Some(other)),
    }
}

fn read_call(call: &Value) -> Result<CallPiece, String> {
    let Some(members) = call.as_object() else {
        return Err("a call is no object".to_owned());
    };
    let function = members.get("function").and_then(Value::as_object);
    Ok(CallPiece {
        index: members.get("index").and_then(Value::as_u64),
        id: string(members.get("id")),
        ..function.map(read_function).unwrap_or_default()
    })
}

/// Arguments are a string of JSON; some servers send the JSON itself.
fn read_function(function: &Map<String, Value>) -> CallPiece {
    let arguments = match function.get("arguments") {
        Some(object @ (Value::Object(_) | Value::Array(_))) => Some(object.to_string()),
        other => string(other),
    };
    CallPiece { name: string(function.get("name")), arguments, ..CallPiece::default() }
}

/// A string that is not empty.
fn string(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Counts as far as they are counts. Cached tokens are among the prompt's here, and beside them in the Messages API.
fn usage(usage: &Value) -> Option<Usage> {
    let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    let (prompt, completion) = (number("/prompt_tokens"), number("/completion_tokens"));
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    let prompt = prompt.unwrap_or(0);
    let cached = number("/prompt_tokens_details/cached_tokens").or(number("/prompt_cache_hit_tokens")).unwrap_or(0);
    let cached = cached.min(prompt);
    let thinking = number("/completion_tokens_details/reasoning_tokens");
    Some(Usage {
        input_tokens: prompt - cached,
        cache_read_input_tokens: cached,
        output_tokens: completion.unwrap_or(0),
        output_tokens_details: thinking.map(|thinking_tokens| OutputTokensDetails { thinking_tokens }),
        ..Usage::default()
    })
}
