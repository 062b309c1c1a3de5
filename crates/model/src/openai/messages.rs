//! The conversation in this dialect: one message for each result, calls beside the text, strings where strings will do.

use std::collections::HashMap;

use belljar_wire::block::{Content, ContentBlock, PassiveBlock};
use belljar_wire::request::Role;
use serde_json::{Map, Value, json};

use super::body::Unfit;
use super::parts::{self, Part};
use crate::config::ChatSettings;
use crate::lower::{PlainBlock, PlainContent, PlainMessage, PlainToolResult, PlainToolUse};

/// What stands before the text of a result whose tool failed, unless it says so: the dialect has no mark for it.
const FAILED: &str = "[the tool failed]\n";
/// What separates the blocks of a user's message, or of a system prompt.
const BETWEEN: &str = "\n\n";

/// A conversation, and how many calls are in it.
pub(super) struct Lowered {
    pub(super) messages: Vec<Value>,
    pub(super) calls: usize,
}

/// Lowers a conversation; `system` stands first. Past thinking is written as the member that the settings name, if they name one.
pub(super) fn lowered(
    plain: Vec<PlainMessage>,
    system: Option<String>,
    settings: &ChatSettings,
) -> Result<Lowered, Unfit> {
    let thinking_key = settings.thinking_key.as_deref();
    let mut writer = Writer { messages: Vec::new(), ids: HashMap::new(), thinking_key, strict: settings.strict_roles };
    writer.messages.extend(system.map(|text| json!({"role": "system", "content": text})));
    let plain = if settings.strict_roles { by_turns(plain) } else { plain };
    for message in plain {
        match message.role {
            Role::Assistant => writer.assistant(message.content),
            Role::User => writer.user(message.content)?,
            Role::System => writer.system(message.content)?,
        }
    }
    Ok(Lowered { messages: writer.messages, calls: writer.ids.len() })
}

/// System messages behind the head as the user's, so that users and assistants speak by turns.
fn by_turns(plain: Vec<PlainMessage>) -> Vec<PlainMessage> {
    let mut out: Vec<PlainMessage> = Vec::with_capacity(plain.len());
    for mut message in plain {
        if message.role == Role::System {
            message.role = Role::User;
            message.content.insert(0, PlainBlock::text("[from the system, not from the user:]"));
        }
        match out.last_mut() {
            Some(last) if last.role == message.role => last.content.extend(message.content),
            _ => out.push(message),
        }
    }
    out
}

/// The text of a system prompt.
pub(super) fn system_text(content: &Content) -> String {
    let blocks = match content {
        Content::Text(text) => return text.clone(),
        Content::Blocks(blocks) => blocks,
    };
    let texts = blocks.iter().filter_map(|block| match block {
        ContentBlock::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join(BETWEEN)
}

struct Writer<'a> {
    messages: Vec<Value>,
    /// Ids of calls, by the ids that the client knows.
    ids: HashMap<String, String>,
    thinking_key: Option<&'a str>,
    strict: bool,
}

impl Writer<'_> {
    fn assistant(&mut self, blocks: Vec<PlainBlock>) {
        let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
        for block in blocks {
            match block {
                PlainBlock::Text(block) => text.push_str(&block.text),
                PlainBlock::Thinking(block) => thinking.push_str(&block.thinking),
                // Nobody but its vendor can read it.
                PlainBlock::RedactedThinking(_) => {}
                PlainBlock::ToolUse(call) => calls.push(self.call(call)),
                // The assistant answers no calls.
                PlainBlock::ToolResult(_) => {}
                PlainBlock::Passive(block) => text.push_str(&elsewhere(&block)),
            }
        }
        let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
        let mut message = json!({"role": "assistant", "content": content});
        if let Some(key) = self.thinking_key.filter(|_| !thinking.is_empty()) {
            message[key] = thinking.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        self.messages.push(message);
    }

    fn call(&mut self, call: PlainToolUse) -> Value {
        let id = short_id(self.ids.len());
        self.ids.insert(call.id, id.clone());
        // Chat templates go through the members of the arguments.
        let arguments = if call.input.is_object() { call.input } else { json!({"input": call.input}) };
        json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments.to_string()}})
    }

    fn user(&mut self, blocks: Vec<PlainBlock>) -> Result<(), Unfit> {
        let mut said = Vec::new();
        for block in blocks {
            match block {
                PlainBlock::ToolResult(result) => self.result(result, &mut said)?,
                other => said.extend(parts::of(other)?),
            }
        }
        if self.strict && self.joined(&said) {
            return Ok(());
        }
        self.say("user", said);
        Ok(())
    }

    /// Puts what the user says beside results into the last of them: behind results, some templates take the assistant alone. What is
    /// no text cannot stand there.
    fn joined(&mut self, said: &[Part]) -> bool {
        let texts: Option<Vec<&str>> = said.iter().map(Part::text).collect();
        let last = self.messages.last_mut().filter(|message| message["role"] == "tool");
        let (Some(texts), Some(last)) = (texts.filter(|texts| !texts.is_empty()), last) else {
            return false;
        };
        let result = last["content"].as_str().unwrap_or_default();
        let beside = texts.join(BETWEEN);
        last["content"] = format!("{result}{BETWEEN}[from the user, beside the result:]{BETWEEN}{beside}").into();
        true
    }

    fn system(&mut self, blocks: Vec<PlainBlock>) -> Result<(), Unfit> {
        let mut said = Vec::new();
        for block in blocks {
            said.extend(parts::of(block)?);
        }
        self.say("system", said);
        Ok(())
    }

    /// One message for the result. Pictures have no place in it: they come behind all results, and are named.
    fn result(&mut self, result: PlainToolResult, behind: &mut Vec<Part>) -> Result<(), Unfit> {
        let Some(id) = self.ids.get(&result.tool_use_id).cloned() else {
            return Err(Unfit(format!("messages: no call has the id {} of a result", result.tool_use_id)));
        };
        let mut text = String::new();
        match result.content {
            None => {}
            Some(PlainContent::Text(said)) => text = said,
            Some(PlainContent::Blocks(blocks)) => {
                let mut media = Vec::new();
                for part in blocks.into_iter().map(parts::of).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
                    match part {
                        Part::Text(said) if text.is_empty() => text = said,
                        Part::Text(said) => {
                            text.push_str(BETWEEN);
                            text.push_str(&said);
                        }
                        Part::Media(value) => media.push(Part::Media(value)),
                    }
                }
                if !media.is_empty() {
                    behind.push(Part::Text(format!("[belongs to the result of {id}:]")));
                    behind.extend(media);
                }
            }
        }
        if result.is_error == Some(true) && !text.starts_with("Error") {
            text.insert_str(0, FAILED);
        }
        self.messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
        Ok(())
    }

    /// A string where there is only text: not every chat template takes a list.
    fn say(&mut self, role: &str, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        let texts: Option<Vec<&str>> = parts.iter().map(Part::text).collect();
        let content = match texts {
            Some(texts) => Value::from(texts.join(BETWEEN)),
            None => parts.into_iter().map(Part::into_value).collect(),
        };
        self.messages.push(json!({"role": role, "content": content}));
    }
}

/// The id of the n-th call of a conversation. Nine letters and digits: no server takes all ids that clients know, and one
/// (Mistral's) takes no others than these. The same history has the same ids, so that prompt caches hold.
fn short_id(number: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = number;
    let mut digits = [b'0'; 5];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % DIGITS.len()];
        rest /= DIGITS.len();
    }
    format!("call{}", String::from_utf8_lossy(&digits))
}

/// A block of another server's tool: what of it can be read.
fn elsewhere(block: &PassiveBlock) -> String {
    fn readable(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let kept = members.iter().filter(|(key, _)| !key.starts_with("encrypted_") && *key != "cache_control");
                Value::Object(kept.map(|(key, value)| (key.clone(), readable(value))).collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(readable).collect(),
            other => other.clone(),
        }
    }
    format!("[{}]", readable(&Value::Object(block.members.clone())))
}
