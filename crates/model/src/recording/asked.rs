//! A request as people read it, in whichever dialect it was asked: what the model was told before all else, and the conversation.

use serde_json::Value;

use super::turn::{Part, Said};

/// The messages, or what the Responses API has for them.
pub(super) fn messages(request: &Value) -> &[Value] {
    ["messages", "input"].iter().find_map(|key| request[*key].as_array()).map_or(&[], Vec::as_slice)
}

/// The system prompt and the conversation.
pub(super) fn read(request: &Value) -> (String, Vec<Said>) {
    let mut system = ["system", "instructions"].iter().map(|key| texts(&request[*key])).collect::<String>();
    let mut conversation: Vec<Said> = Vec::new();
    for message in messages(request) {
        let said = match message["type"].as_str() {
            None | Some("message") => message_said(message),
            Some(_) => item_said(message),
        };
        if said.role == "system" && conversation.is_empty() && system.is_empty() {
            system = texts(&message["content"]);
            continue;
        }
        // Calls are items of their own in the Responses API, and a part of a message everywhere else.
        match conversation.last_mut().filter(|last| message["type"] == "function_call" && last.role == said.role) {
            Some(last) => last.parts.extend(said.parts),
            None => conversation.push(said),
        }
    }
    (system, conversation)
}

fn message_said(message: &Value) -> Said {
    let role = message["role"].as_str().unwrap_or_default();
    let mut parts: Vec<Part> = match (role, &message["content"]) {
        ("tool", content) => {
            let call = message["tool_call_id"].as_str().unwrap_or_default().to_owned();
            vec![Part::Result { call, text: texts(content) }]
        }
        (_, Value::String(text)) => vec![Part::Text { text: text.clone() }],
        (_, content) => content.as_array().into_iter().flatten().map(part).collect(),
    };
    let thinking = ["reasoning_content", "reasoning"].iter().find_map(|key| message[*key].as_str());
    if let Some(text) = thinking {
        parts.insert(0, Part::Thinking { text: text.to_owned() });
    }
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    parts.extend(calls.map(|call| called(&call["function"])));
    Said { role: role.to_owned(), parts }
}

/// An item of the Responses API that is no message.
fn item_said(item: &Value) -> Said {
    let (role, part) = match item["type"].as_str() {
        Some("function_call") => ("assistant", called(item)),
        Some("function_call_output") => {
            let call = item["call_id"].as_str().unwrap_or_default().to_owned();
            ("tool", Part::Result { call, text: texts(&item["output"]) })
        }
        _ => ("assistant", part(item)),
    };
    Said { role: role.to_owned(), parts: vec![part] }
}

/// A call whose arguments are a text of JSON.
fn called(function: &Value) -> Part {
    let written = function["arguments"].as_str().unwrap_or_default();
    let input = serde_json::from_str(written).unwrap_or_else(|_| written.into());
    Part::Call { name: function["name"].as_str().unwrap_or_default().to_owned(), input }
}

pub(super) fn part(block: &Value) -> Part {
    let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("text" | "input_text" | "output_text") => Part::Text { text: text("text") },
        Some("thinking") => Part::Thinking { text: text("thinking") },
        Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
            Part::Call { name: text("name"), input: block["input"].clone() }
        }
        Some("tool_result") => Part::Result { call: text("tool_use_id"), text: texts(&block["content"]) },
        kind => Part::Other { kind: kind.unwrap_or_default().to_owned(), bytes: block.to_string().len() },
    }
}

/// What of a content is text.
fn texts(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One conversation, as each dialect has it.
    #[test]
    fn every_dialect_is_read() {
        let call = json!({"command": "ls"});
        let chat = json!({"messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "go"}]},
            {"role": "assistant", "content": "I look.", "tool_calls": [{"id": "c", "function": {"name": "bash", "arguments": call.to_string()}}]},
            {"role": "tool", "tool_call_id": "c", "content": "x"}]});
        let responses = json!({"instructions": "be brief", "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
            {"type": "message", "role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c", "name": "bash", "arguments": call.to_string()},
            {"type": "function_call_output", "call_id": "c", "output": "x"}]});
        let hosted = json!({"system": [{"type": "text", "text": "be brief"}], "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "c", "name": "bash", "input": call}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]}]});
        let text = |text: &str| Part::Text { text: text.to_owned() };
        let said = |role: &str, parts: Vec<Part>| Said { role: role.to_owned(), parts };
        let result = Part::Result { call: "c".to_owned(), text: "x".to_owned() };
        let expected = [
            said("user", vec![text("go")]),
            said("assistant", vec![text("I look."), Part::Call { name: "bash".to_owned(), input: call.clone() }]),
            said("tool", vec![result.clone()]),
        ];
        for (request, count) in [(&chat, 4), (&responses, 4)] {
            assert_eq!(read(request), ("be brief".to_owned(), expected.to_vec()), "{request}");
            assert_eq!(messages(request).len(), count);
        }
        // There, results are the user's to bring.
        let (system, conversation) = read(&hosted);
        assert_eq!((system.as_str(), &conversation[..2]), ("be brief", &expected[..2]));
        assert_eq!(conversation[2], said("user", vec![result]));
    }
}
