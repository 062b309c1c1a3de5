//! The vendor's rules for a request, strictly: what the fake upstream refuses.

use std::collections::HashSet;

use serde_json::{Map, Value};

const TOP_LEVEL: [&str; 23] = [
    "cache_control",
    "compaction",
    "context_management",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "diagnostics",
];
const COUNTED: [&str; 11] = [
    "cache_control",
    "context_management",
    "messages",
    "mcp_servers",
    "model",
    "output_config",
    "speed",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];
const OURS: [&str; 3] = ["bash_code_execution", "code_execution", "text_editor_code_execution"];

/// The first rule that a request breaks.
pub fn request(body: &Value) -> Result<(), String> {
    let body = body.as_object().ok_or("the body is no object")?;
    for key in body.keys() {
        expect(TOP_LEVEL.contains(&key.as_str()), || format!("{key}: Extra inputs are not permitted"))?;
    }
    expect(body.get("stream") == Some(&Value::Bool(true)), || "stream is not true".into())?;
    expect(body.get("model").is_some_and(Value::is_string), || "model: Field required".into())?;
    let max_tokens = body.get("max_tokens").and_then(Value::as_u64);
    expect(max_tokens.is_some_and(|tokens| tokens > 0), || "max_tokens: Field required".into())?;
    tools(body.get("tools"), body.contains_key("tool_choice"))?;
    let conversation = body.get("messages").and_then(Value::as_array).ok_or("messages: Field required")?;
    messages(conversation)?;
    server_calls(conversation, body.get("tools"))
}

/// The vendor's own calls: each has one id, its result stands behind it, and where it waits for one, its tool is declared.
fn server_calls(messages: &[Value], tools: Option<&Value>) -> Result<(), String> {
    let (mut used, mut open) = (HashSet::new(), Vec::new());
    let blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
    for block in blocks {
        let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
        match block["type"].as_str().unwrap_or_default() {
            "server_tool_use" => {
                expect(used.insert(text("id")), || format!("`server_tool_use` ids must be unique: {}", text("id")))?;
                open.push((text("id"), text("name")));
            }
            "web_search_tool_result" | "web_fetch_tool_result" | "tool_search_tool_result" => {
                let answered = open.iter().position(|(id, _)| *id == text("tool_use_id"));
                let at = answered.ok_or_else(|| format!("a result for no call: {}", text("tool_use_id")))?;
                open.remove(at);
            }
            _ => {}
        }
    }
    let declared = |name: &str| tools.and_then(Value::as_array).into_iter().flatten().any(|tool| tool["name"] == name);
    match open.into_iter().find(|(_, name)| !declared(name)) {
        Some((id, name)) => Err(format!("`{name}` tool use with id `{id}` but no `{name}` tool was provided")),
        None => Ok(()),
    }
}

/// The first rule that a request which counts breaks.
pub fn count(body: &Value) -> Result<(), String> {
    let body = body.as_object().ok_or("the body is no object")?;
    for key in body.keys() {
        expect(COUNTED.contains(&key.as_str()), || format!("{key}: Extra inputs are not permitted"))?;
    }
    expect(body.get("model").is_some_and(Value::is_string), || "model: Field required".into())?;
    tools(body.get("tools"), body.contains_key("tool_choice"))?;
    messages(body.get("messages").and_then(Value::as_array).ok_or("messages: Field required")?)
}

fn expect(good: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(problem()) }
}

fn only_keys(object: &Map<String, Value>, allowed: &[&str], path: &str) -> Result<(), String> {
    for key in object.keys() {
        expect(allowed.contains(&key.as_str()), || format!("{path}.{key}: Extra inputs are not permitted"))?;
    }
    Ok(())
}

fn tools(tools: Option<&Value>, chosen: bool) -> Result<(), String> {
    let tools = match tools {
        None => return expect(!chosen, || "tool_choice without tools".into()),
        Some(tools) => tools.as_array().ok_or("tools: not a list")?,
    };
    let mut names = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("tools.{index}");
        if tool["type"] == "mcp_toolset" {
            expect(tool["mcp_server_name"].is_string(), || format!("{path}.mcp_server_name: Field required"))?;
            continue;
        }
        let name = tool["name"].as_str().ok_or(format!("{path}.name: Field required"))?;
        expect(names.insert(name), || format!("{path}: Tool names must be unique"))?;
        match tool.get("allowed_callers") {
            // These versions would start a sandbox over there.
            callers if tool["type"].as_str().is_some_and(|tag| tag.starts_with("web_") && tag >= "web_fetch_2026") => {
                let direct = callers.is_some_and(|callers| *callers == serde_json::json!(["direct"]));
                expect(direct || tool["type"] == "web_search_20250305", || {
                    format!("{path}: code over there could call it")
                })?;
            }
            None => {}
            Some(callers) if *callers == serde_json::json!(["direct"]) => {}
            Some(_) => return Err(format!("{path}.allowed_callers leaks")),
        }
        match tool.get("type").and_then(Value::as_str) {
            None | Some("custom") => {
                expect(tool["input_schema"]["type"] == "object", || format!("{path}.input_schema: Field required"))?;
            }
            Some(tag) => expect(!tag.starts_with("code_execution_"), || format!("{path}: {tag} leaks"))?,
        }
    }
    Ok(())
}

/// The first rule that a conversation breaks.
pub fn messages(messages: &[Value]) -> Result<(), String> {
    let mut ids = HashSet::new();
    let mut due: Vec<String> = Vec::new();
    let mut last_role = "";
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages.{index}");
        let role = message["role"].as_str().ok_or(format!("{path}.role: Field required"))?;
        expect(index > 0 || role == "user", || "first message must use the user role".into())?;
        expect(role != last_role, || format!("{path}: roles must alternate"))?;
        last_role = role;
        let content = message["content"].as_array().ok_or(format!("{path}.content: not a list"))?;
        expect(!content.is_empty(), || format!("{path}.content: empty"))?;
        answers(content, &mut due, &path)?;
        for (index, block) in content.iter().enumerate() {
            self::block(block, role, &format!("{path}.content.{index}"))?;
            if block["type"] == "tool_use" {
                let id = block["id"].as_str().unwrap_or_default().to_owned();
                expect(ids.insert(id.clone()), || format!("{path}: `tool_use` ids must be unique"))?;
                due.push(id);
            }
        }
    }
    expect(due.is_empty(), || format!("calls without results at the end: {due:?}"))
}

/// The first blocks answer the calls of the message before, all of them, in order; no other block is a result.
fn answers(content: &[Value], due: &mut Vec<String>, path: &str) -> Result<(), String> {
    let found: Vec<String> = content
        .iter()
        .filter(|block| block["type"] == "tool_result")
        .map(|block| block["tool_use_id"].as_str().unwrap_or_default().to_owned())
        .collect();
    expect(found == *due, || format!("{path}: results {found:?} for calls {due:?}"))?;
    let leading = content.iter().take_while(|block| block["type"] == "tool_result");
    expect(leading.count() == due.len(), || format!("{path}: results must come first"))?;
    due.clear();
    Ok(())
}

fn block(block: &Value, role: &str, path: &str) -> Result<(), String> {
    let members = block.as_object().ok_or(format!("{path}: not an object"))?;
    let tag = block["type"].as_str().ok_or(format!("{path}.type: Field required"))?;
    let assistant = role == "assistant";
    match (tag, assistant) {
        ("text", _) => {
            let text = block["text"].as_str().ok_or(format!("{path}.text: Field required"))?;
            expect(!text.is_empty(), || format!("{path}: text content blocks must be non-empty"))?;
            only_keys(members, &["type", "text", "citations", "cache_control"], path)
        }
        ("thinking", true) => only_keys(members, &["type", "thinking", "signature"], path),
        ("redacted_thinking", true) => only_keys(members, &["type", "data"], path),
        ("tool_use", true) => {
            let id = block["id"].as_str().ok_or(format!("{path}.id: Field required"))?;
            expect(!id.starts_with("srvtoolu_"), || format!("{path}.id leaks"))?;
            expect(block["input"].is_object(), || format!("{path}.input: not an object"))?;
            only_keys(members, &["type", "id", "name", "input", "cache_control"], path)
        }
        ("tool_result", false) => {
            only_keys(members, &["type", "tool_use_id", "content", "is_error", "cache_control"], path)
        }
        ("image" | "document" | "search_result", false) => Ok(()),
        ("server_tool_use", true) => {
            let name = block["name"].as_str().unwrap_or_default();
            expect(!OURS.contains(&name), || format!("{path}: {name} leaks"))
        }
        ("web_search_tool_result" | "web_fetch_tool_result" | "tool_search_tool_result", true) => Ok(()),
        ("mcp_tool_use" | "mcp_tool_result" | "mcp_tool_listing", true) => Ok(()),
        _ => Err(format!("{path}: `{tag}` may not stand in a message of role {role}")),
    }
}
