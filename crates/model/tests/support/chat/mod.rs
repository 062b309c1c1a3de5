//! The fake's other dialect: chat completions.

pub mod check;

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};

use super::{Answer, with_headers};

/// As most servers of one's own: a key is not needed, but what is sent is one.
pub fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), String> {
    if headers.get("content-type").map(String::as_str) != Some("application/json") {
        return Err(format!("header content-type: {:?}", headers.get("content-type")));
    }
    match headers.get("authorization") {
        None => Ok(()),
        Some(value) if value.strip_prefix("Bearer ").is_some_and(|key| !key.is_empty()) => Ok(()),
        Some(value) => Err(format!("header authorization: {value:?}")),
    }
}

pub fn refusal(status: u16, error: Option<(String, String)>, headers: &BTreeMap<String, String>) -> Response {
    let (tag, message) = error.unwrap_or_else(|| ("server_error".to_owned(), "refused".to_owned()));
    let body = json!({"error": {"message": message, "type": tag, "param": null, "code": null}});
    with_headers(status, headers, Body::from(body.to_string()))
}

/// The body of a reply and its type, as the request asks for it.
pub fn reply(answer: &Answer, request: &Value) -> (&'static str, String) {
    if request["stream"] != true && answer.chunks.is_none() {
        return ("application/json", document(answer).to_string());
    }
    let asked = request["stream_options"]["include_usage"] == true;
    let chunks = answer.chunks.clone().unwrap_or_else(|| chunks(answer, asked));
    ("text/event-stream", sse(&chunks))
}

/// Chunks as a stream; a string is sent as it is.
pub fn sse(chunks: &[Value]) -> String {
    let data = chunks.iter().map(|chunk| match chunk {
        Value::String(text) => format!("data: {text}\n\n"),
        other => format!("data: {other}\n\n"),
    });
    data.collect()
}

fn finish_reason(answer: &Answer) -> String {
    let calls = answer.content.iter().any(|block| block["type"] == "tool_use");
    answer.stop_reason.clone().unwrap_or_else(|| if calls { "tool_calls" } else { "stop" }.to_owned())
}

fn usage(answer: &Answer) -> Value {
    let default = || json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12});
    answer.usage.clone().unwrap_or_else(default)
}

fn call(block: &Value) -> Value {
    json!({"id": block["id"], "type": "function",
        "function": {"name": block["name"], "arguments": block["input"].to_string()}})
}

fn document(answer: &Answer) -> Value {
    let text = |tag: &str, key: &str| -> Option<String> {
        let texts = answer.content.iter().filter(|block| block["type"] == tag).filter_map(|block| block[key].as_str());
        Some(texts.collect::<String>()).filter(|text| !text.is_empty())
    };
    let mut message = json!({"role": "assistant", "content": text("text", "text")});
    if let Some(thinking) = text("thinking", "thinking") {
        message["reasoning_content"] = thinking.into();
    }
    let calls: Vec<Value> = answer.content.iter().filter(|block| block["type"] == "tool_use").map(call).collect();
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    json!({"id": "chatcmpl-fake", "object": "chat.completion", "created": 1, "model": "fake", "usage": usage(answer),
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(answer), "logprobs": null}]})
}

/// The chunks of a whole reply, as the vendor writes them: texts in pieces of five characters.
fn chunks(answer: &Answer, with_usage: bool) -> Vec<Value> {
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "fake",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null}]})
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)];
    let mut calls = 0;
    for block in &answer.content {
        match block["type"].as_str() {
            Some("tool_use") => {
                let mut start = call(block);
                start["index"] = calls.into();
                let arguments = start["function"]["arguments"].take();
                start["function"]["arguments"] = "".into();
                chunks.push(chunk(json!({"tool_calls": [start]}), Value::Null));
                for piece in pieces(&arguments) {
                    let delta = json!({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]});
                    chunks.push(chunk(delta, Value::Null));
                }
                calls += 1;
            }
            Some("thinking") => {
                let thought = |piece| chunk(json!({"reasoning_content": piece, "content": null}), Value::Null);
                chunks.extend(pieces(&block["thinking"]).into_iter().map(thought));
            }
            _ => {
                let said = |piece| chunk(json!({"content": piece}), Value::Null);
                chunks.extend(pieces(&block["text"]).into_iter().map(said));
            }
        }
    }
    chunks.push(chunk(json!({}), finish_reason(answer).into()));
    if with_usage {
        let mut last = chunk(Value::Null, Value::Null);
        last["choices"] = json!([]);
        last["usage"] = usage(answer);
        chunks.push(last);
    }
    chunks.push("[DONE]".into());
    chunks
}

fn pieces(text: &Value) -> Vec<String> {
    let characters: Vec<char> = text.as_str().unwrap_or_default().chars().collect();
    characters.chunks(5).map(|piece| piece.iter().collect()).collect()
}
