//! The rules of chat completions for a request, strictly: each is one that some real server refuses a request for.

use std::collections::HashSet;

use serde_json::{Map, Value};

const TOP_LEVEL: [&str; 16] = [
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "parallel_tool_calls",
    "reasoning_effort",
    "response_format",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    // What vLLM and llama.cpp hand to the chat template; sent where the operator configures it.
    "chat_template_kwargs",
];
/// Most stop sequences that the vendor takes.
const STOPS_MAX: usize = 4;
/// The only length of an id that Mistral's templates take.
const ID_CHARS: usize = 9;

/// The first rule that a request breaks.
pub fn request(body: &Value) -> Result<(), String> {
    let members = body.as_object().ok_or("the body is not an object")?;
    only_keys(members, &TOP_LEVEL, "body")?;
    expect(body["model"].as_str().is_some_and(|model| !model.is_empty()), || "you must provide a model".to_owned())?;
    let limits: Vec<&Value> =
        ["max_tokens", "max_completion_tokens"].iter().filter_map(|key| members.get(*key)).collect();
    expect(limits.len() == 1 && limits[0].as_u64().is_some_and(|limit| limit > 0), || format!("limits: {limits:?}"))?;
    expect(body["stream"].is_boolean(), || "stream: not a boolean".to_owned())?;
    expect(body["stream"] == true || !members.contains_key("stream_options"), || {
        "`stream_options` is only allowed when `stream` is true".to_owned()
    })?;
    if let Some(stop) = members.get("stop") {
        let stops = stop.as_array().ok_or("stop: not a list")?;
        expect((1..=STOPS_MAX).contains(&stops.len()), || format!("stop: {} sequences", stops.len()))?;
    }
    if let Some(effort) = members.get("reasoning_effort") {
        expect(["low", "medium", "high"].iter().any(|word| effort == word), || format!("reasoning_effort: {effort}"))?;
    }
    if let Some(format) = members.get("response_format") {
        let inner = &format["json_schema"];
        expect(format["type"] == "json_schema" && inner["name"].is_string() && inner["schema"].is_object(), || {
            format!("response_format: {format}")
        })?;
    }
    let offered = tools(members)?;
    choice(members, &offered)?;
    messages(body["messages"].as_array().ok_or("messages: not a list")?)
}

fn tools(members: &Map<String, Value>) -> Result<HashSet<String>, String> {
    let mut names = HashSet::new();
    let Some(tools) = members.get("tools") else {
        return Ok(names);
    };
    let tools = tools.as_array().ok_or("tools: not a list")?;
    expect(!tools.is_empty(), || "[] is too short - 'tools'".to_owned())?;
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("tools[{index}]");
        only_keys(tool.as_object().ok_or(format!("{path}: not an object"))?, &["type", "function"], &path)?;
        expect(tool["type"] == "function", || format!("{path}.type: {}", tool["type"]))?;
        let function = tool["function"].as_object().ok_or(format!("{path}.function: not an object"))?;
        only_keys(function, &["name", "description", "parameters", "strict"], &path)?;
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        expect((1..=64).contains(&name.len()) && name.chars().all(legal), || format!("{path}.function.name: {name}"))?;
        expect(names.insert(name.to_owned()), || format!("{path}.function.name: {name} twice"))?;
        let parameters = &tool["function"]["parameters"];
        expect(parameters["type"] == "object" && parameters["properties"].is_object(), || {
            format!("{path}: object schema missing properties: {parameters}")
        })?;
    }
    Ok(names)
}

fn choice(members: &Map<String, Value>, offered: &HashSet<String>) -> Result<(), String> {
    if offered.is_empty() {
        let with = ["tool_choice", "parallel_tool_calls"].iter().find(|key| members.contains_key(**key));
        return with.map_or(Ok(()), |key| Err(format!("'{key}' is only allowed when 'tools' are specified")));
    }
    match members.get("tool_choice") {
        None => Ok(()),
        Some(Value::String(mode)) if ["auto", "none", "required"].contains(&mode.as_str()) => Ok(()),
        Some(named) => {
            let name = named["function"]["name"].as_str().unwrap_or_default();
            expect(named["type"] == "function" && offered.contains(name), || format!("tool_choice: {named}"))
        }
    }
}

fn messages(messages: &[Value]) -> Result<(), String> {
    expect(!messages.is_empty(), || "[] is too short - 'messages'".to_owned())?;
    let mut due: Vec<String> = Vec::new();
    let mut ids = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        let members = message.as_object().ok_or(format!("{path}: not an object"))?;
        let role = message["role"].as_str().unwrap_or_default();
        expect(role == "tool" || due.is_empty(), || {
            format!("an assistant message with 'tool_calls' must be followed by tool messages; missing: {due:?}")
        })?;
        match role {
            "system" => {
                only_keys(members, &["role", "content"], &path)?;
                said(&message["content"], &path)?;
            }
            "user" => {
                only_keys(members, &["role", "content"], &path)?;
                said(&message["content"], &path)?;
            }
            "assistant" => {
                only_keys(members, &["role", "content", "tool_calls", "reasoning_content"], &path)?;
                due = calls(message, &mut ids, &path)?;
                expect(message["content"].is_string() || message["content"].is_null() && !due.is_empty(), || {
                    format!("{path}.content: {}", message["content"])
                })?;
            }
            "tool" => {
                only_keys(members, &["role", "content", "tool_call_id"], &path)?;
                expect(message["content"].is_string(), || format!("{path}.content: not a string"))?;
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                expect(due.first().is_some_and(|first| first == id), || {
                    format!("{path}: {id} answers none of {due:?}")
                })?;
                due.remove(0);
            }
            other => return Err(format!("{path}.role: {other}")),
        }
    }
    expect(due.is_empty(), || format!("calls without results at the end: {due:?}"))
}

fn calls(message: &Value, ids: &mut HashSet<String>, path: &str) -> Result<Vec<String>, String> {
    let Some(calls) = message.get("tool_calls") else {
        return Ok(Vec::new());
    };
    let calls = calls.as_array().ok_or(format!("{path}.tool_calls: not a list"))?;
    expect(!calls.is_empty(), || format!("[] is too short - '{path}.tool_calls'"))?;
    let mut due = Vec::new();
    for call in calls {
        only_keys(call.as_object().ok_or(format!("{path}: a call is no object"))?, &["id", "type", "function"], path)?;
        let id = call["id"].as_str().unwrap_or_default().to_owned();
        expect(id.len() == ID_CHARS && id.chars().all(|c| c.is_ascii_alphanumeric()), || {
            format!("{path}: tool call ids should be alphanumeric strings with length 9: {id}")
        })?;
        expect(ids.insert(id.clone()), || format!("{path}: the id {id} twice"))?;
        expect(call["type"] == "function", || format!("{path}: a call of type {}", call["type"]))?;
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let object = serde_json::from_str::<Value>(arguments).is_ok_and(|arguments| arguments.is_object());
        expect(object, || format!("{path}: arguments are no object: {arguments}"))?;
        due.push(id);
    }
    Ok(due)
}

fn said(content: &Value, path: &str) -> Result<(), String> {
    let parts = match content {
        Value::String(text) => return expect(!text.is_empty(), || format!("{path}.content: empty")),
        Value::Array(parts) => parts,
        other => return Err(format!("{path}.content: {other}")),
    };
    expect(!parts.is_empty(), || format!("{path}.content: empty"))?;
    for part in parts {
        let legal = match part["type"].as_str() {
            Some("text") => part["text"].as_str().is_some_and(|text| !text.is_empty()),
            Some("image_url") => {
                let url = part["image_url"]["url"].as_str().unwrap_or_default();
                url.starts_with("data:image/") || url.starts_with("https://")
            }
            Some("file") => part["file"]["file_data"].as_str().is_some_and(|data| data.starts_with("data:")),
            _ => false,
        };
        expect(legal, || format!("{path}.content: {part}"))?;
    }
    Ok(())
}

fn only_keys(members: &Map<String, Value>, allowed: &[&str], path: &str) -> Result<(), String> {
    let extra = members.keys().find(|key| !allowed.contains(&key.as_str()));
    extra.map_or(Ok(()), |key| Err(format!("{path}: unrecognized request argument supplied: {key}")))
}

fn expect(good: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(what()) }
}
