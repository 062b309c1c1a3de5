//! The fake's third dialect, the Responses API: strictly what comes, and the events of its vendor.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::Answer;

const TOP_LEVEL: [&str; 13] = [
    "input",
    "instructions",
    "max_output_tokens",
    "model",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "stream",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
];

/// The first rule that a request breaks.
pub fn check(body: &Value) -> Result<(), String> {
    let members = body.as_object().ok_or("the body is not an object")?;
    only_keys(members, &TOP_LEVEL, "body")?;
    expect(body["model"].as_str().is_some_and(|model| !model.is_empty()), "missing required parameter: 'model'")?;
    expect(body["stream"].is_boolean() && body["store"] == false, "stream, store")?;
    expect(body["max_output_tokens"].as_u64().is_some_and(|most| most >= 16), "max_output_tokens: below 16")?;
    expect(members.get("instructions").is_none_or(Value::is_string), "instructions: not a string")?;
    if let Some(text) = members.get("text") {
        let format = &text["format"];
        let good = format["type"] == "json_schema" && format["name"].is_string() && format["schema"].is_object();
        expect(good, &format!("text.format: {format}"))?;
    }
    if let Some(reasoning) = members.get("reasoning") {
        let good = ["low", "medium", "high"].iter().any(|word| reasoning["effort"] == *word);
        expect(good && reasoning["summary"] == "auto", &format!("reasoning: {reasoning}"))?;
    }
    let mut offered = HashSet::new();
    for tool in members.get("tools").and_then(Value::as_array).into_iter().flatten() {
        only_keys(
            tool.as_object().ok_or("a tool is no object")?,
            &["type", "name", "description", "parameters", "strict"],
            "tools",
        )?;
        let good = tool["type"] == "function" && tool["parameters"]["type"] == "object" && tool["strict"].is_boolean();
        expect(good, &format!("tools: {tool}"))?;
        offered.insert(tool["name"].as_str().unwrap_or_default());
    }
    match members.get("tool_choice") {
        None => {}
        Some(Value::String(mode)) => expect(["auto", "none", "required"].contains(&mode.as_str()), "tool_choice")?,
        Some(named) => expect(
            named["type"] == "function" && offered.contains(named["name"].as_str().unwrap_or_default()),
            "tool_choice",
        )?,
    }
    input(body["input"].as_array().ok_or("input: not a list")?)
}

fn input(items: &[Value]) -> Result<(), String> {
    expect(!items.is_empty(), "input: empty")?;
    let mut due: Vec<&str> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("input[{index}]");
        let members = item.as_object().ok_or(format!("{path}: not an object"))?;
        match item["type"].as_str() {
            Some("message") => {
                only_keys(members, &["type", "role", "content"], &path)?;
                expect(due.is_empty(), &format!("No tool output found for function call {due:?}"))?;
                let role = item["role"].as_str().unwrap_or_default();
                expect(["user", "assistant", "system"].contains(&role), &format!("{path}.role: {role}"))?;
                said(role, &item["content"], &path)?;
            }
            Some("function_call") => {
                only_keys(members, &["type", "call_id", "name", "arguments"], &path)?;
                let object = serde_json::from_str::<Value>(item["arguments"].as_str().unwrap_or_default())
                    .is_ok_and(|value| value.is_object());
                expect(object && item["name"].is_string(), &format!("{path}: {item}"))?;
                due.push(item["call_id"].as_str().unwrap_or_default());
            }
            Some("function_call_output") => {
                only_keys(members, &["type", "call_id", "output"], &path)?;
                let id = item["call_id"].as_str().unwrap_or_default();
                expect(due.contains(&id), &format!("No tool call found for function call output with call_id {id}"))?;
                expect(item["output"].is_string(), &format!("{path}.output"))?;
                due.retain(|other| *other != id);
            }
            other => return Err(format!("{path}.type: {other:?}")),
        }
    }
    expect(due.is_empty(), &format!("No tool output found for function call {due:?}"))
}

fn said(role: &str, content: &Value, path: &str) -> Result<(), String> {
    let parts = match content {
        Value::String(_) => return Ok(()),
        Value::Array(parts) if role == "user" => parts,
        other => return Err(format!("{path}.content: {other}")),
    };
    for part in parts {
        let good = match part["type"].as_str() {
            Some("input_text") => part["text"].is_string(),
            Some("input_image") => part["image_url"].is_string(),
            Some("input_file") => part["filename"].is_string() && part["file_data"].is_string(),
            _ => false,
        };
        expect(good, &format!("{path}.content: {part}"))?;
    }
    Ok(())
}

/// The events of a whole reply, as the vendor writes them; or the reply as one document.
pub fn reply(answer: &Answer, request: &Value) -> (&'static str, String) {
    if let Some(chunks) = &answer.chunks {
        return ("text/event-stream", sse(chunks));
    }
    let usage =
        answer.usage.clone().unwrap_or_else(|| json!({"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}));
    let output: Vec<Value> = answer.content.iter().enumerate().map(|(index, block)| item(index, block)).collect();
    let whole = json!({"id": "resp_1", "object": "response", "status": "completed", "error": null, "incomplete_details": null,
        "model": "fake", "output": output, "usage": usage});
    if request["stream"] != true {
        return ("application/json", whole.to_string());
    }
    let mut begun = whole.clone();
    (begun["status"], begun["output"], begun["usage"]) = ("in_progress".into(), json!([]), Value::Null);
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    for (index, item) in output.iter().enumerate() {
        pieces(index, item, &mut events);
    }
    events.push(json!({"type": "response.completed", "response": whole}));
    ("text/event-stream", sse(&events))
}

fn item(index: usize, block: &Value) -> Value {
    match block["type"].as_str() {
        Some("tool_use") => {
            json!({"type": "function_call", "id": format!("fc_{index}"), "call_id": format!("call_{index}"), "status": "completed",
            "name": block["name"], "arguments": block["input"].to_string()})
        }
        Some("thinking") => {
            json!({"type": "reasoning", "id": format!("rs_{index}"), "summary": [{"type": "summary_text", "text": block["thinking"]}]})
        }
        _ => json!({"type": "message", "id": format!("msg_{index}"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": block["text"], "annotations": []}]}),
    }
}

fn pieces(index: usize, item: &Value, events: &mut Vec<Value>) {
    let (key, tag, whole) = match item["type"].as_str() {
        Some("function_call") => ("arguments", "response.function_call_arguments.delta", &item["arguments"]),
        Some("reasoning") => ("summary", "response.reasoning_summary_text.delta", &item["summary"][0]["text"]),
        _ => ("content", "response.output_text.delta", &item["content"][0]["text"]),
    };
    let mut begun = item.clone();
    begun[key] = if item[key].is_string() { "".into() } else { json!([]) };
    events.push(json!({"type": "response.output_item.added", "output_index": index, "item": begun}));
    let characters: Vec<char> = whole.as_str().unwrap_or_default().chars().collect();
    for piece in characters.chunks(5) {
        let delta: String = piece.iter().collect();
        events.push(
            json!({"type": tag, "item_id": item["id"], "output_index": index, "content_index": 0, "delta": delta}),
        );
    }
    events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
}

/// Events as a stream, each with its name; a string is sent as it is.
pub fn sse(events: &[Value]) -> String {
    let lines = events.iter().map(|event| match event {
        Value::String(text) => format!("data: {text}\n\n"),
        event => format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()),
    });
    lines.collect()
}

fn only_keys(members: &Map<String, Value>, allowed: &[&str], path: &str) -> Result<(), String> {
    let extra = members.keys().find(|key| !allowed.contains(&key.as_str()));
    extra.map_or(Ok(()), |key| Err(format!("Unknown parameter: '{path}.{key}'")))
}

fn expect(good: bool, what: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(what.to_owned()) }
}
