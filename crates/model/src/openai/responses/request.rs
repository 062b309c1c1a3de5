//! From the body of chat completions to that of the Responses API. One lowering decides what is said; this only says it again.

use serde_json::{Map, Value, json};

use crate::openai::body::Unfit;

/// Says a body again.
///
/// # Errors
/// Stop sequences: the API has none, and a reply that runs past them is not what was asked for.
pub(in crate::openai) fn of_chat(chat: Map<String, Value>) -> Result<Map<String, Value>, Unfit> {
    let mut body = Map::new();
    for (key, value) in chat {
        match (key.as_str(), value) {
            ("stop", _) => {
                let text = "stop_sequences: the model's upstream has no form for them";
                return Err(Unfit(text.to_owned()));
            }
            ("stream_options", _) => {}
            ("messages", Value::Array(messages)) => body.extend(conversation(messages)),
            ("max_tokens" | "max_completion_tokens", value) => drop(body.insert("max_output_tokens".to_owned(), value)),
            ("tools", Value::Array(tools)) => {
                let tools: Vec<Value> = tools.into_iter().map(tool_of).collect();
                body.insert(key, tools.into());
            }
            ("tool_choice", value) => drop(body.insert(key, beside_its_type(value, "function"))),
            ("response_format", value) => {
                let format = beside_its_type(value, "json_schema");
                body.insert("text".to_owned(), json!({"format": format}));
            }
            // The summary is all that it shows of what was thought.
            ("reasoning_effort", value) => {
                body.insert("reasoning".to_owned(), json!({"effort": value, "summary": "auto"}));
            }
            (_, value) => drop(body.insert(key, value)),
        }
    }
    body.insert("store".to_owned(), false.into());
    Ok(body)
}

/// Schemas are strict here unless one says that they are not, and most are not written for that.
fn tool_of(tool: Value) -> Value {
    let mut tool = beside_its_type(tool, "function");
    if let Some(members) = tool.as_object_mut() {
        members.entry("strict").or_insert(Value::Bool(false));
    }
    tool
}

/// `{"type": T, T: {…}}` is `{"type": T, …}` here.
fn beside_its_type(mut value: Value, key: &str) -> Value {
    let inner = value.as_object_mut().and_then(|members| members.shift_remove(key));
    if let (Some(members), Some(Value::Object(inner))) = (value.as_object_mut(), inner) {
        members.extend(inner);
    }
    value
}

/// A system prompt at the head is `instructions`; everything else is a list of items.
fn conversation(messages: Vec<Value>) -> Map<String, Value> {
    let mut members = Map::new();
    let mut messages = messages.into_iter().peekable();
    if let Some(system) = messages.next_if(|message| message["role"] == "system") {
        members.insert("instructions".to_owned(), system["content"].clone());
    }
    let items: Vec<Value> = messages.flat_map(items).collect();
    members.insert("input".to_owned(), items.into());
    members
}

/// The items of one message: calls and their results are items of their own.
fn items(mut message: Value) -> Vec<Value> {
    if message["role"] == "tool" {
        let (id, output) = (message["tool_call_id"].take(), message["content"].take());
        return vec![json!({"type": "function_call_output", "call_id": id, "output": output})];
    }
    let calls = match message["tool_calls"].take() {
        Value::Array(calls) => calls,
        _ => Vec::new(),
    };
    let mut items = Vec::with_capacity(calls.len() + 1);
    let content = message["content"].take();
    if !content.is_null() {
        let content = match content {
            Value::Array(parts) => parts.into_iter().map(part).collect(),
            text => text,
        };
        items.push(json!({"type": "message", "role": message["role"].take(), "content": content}));
    }
    items.extend(calls.into_iter().map(|mut call| {
        let function = call["function"].take();
        json!({"type": "function_call", "call_id": call["id"], "name": function["name"], "arguments": function["arguments"]})
    }));
    items
}

/// A part of what the user says.
fn part(mut part: Value) -> Value {
    match part["type"].as_str() {
        Some("text") => json!({"type": "input_text", "text": part["text"].take()}),
        Some("image_url") => json!({"type": "input_image", "image_url": part["image_url"]["url"].take()}),
        Some("file") => {
            let mut file = part["file"].take();
            json!({"type": "input_file", "filename": file["filename"].take(), "file_data": file["file_data"].take()})
        }
        _ => part,
    }
}
