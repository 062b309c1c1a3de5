//! What a server answered, and the message that it comes to.

use std::time::Duration;

use belljar_wire::sse::RawEvent;
use serde_json::Value;

/// One answer.
#[derive(Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub reply: Reply,
    /// Until the first event of a stream was there, or the first byte; unknown of what was recorded.
    pub first_event: Option<Duration>,
    /// Until the last byte.
    pub total: Option<Duration>,
}

/// The two forms of a reply.
#[derive(Clone)]
pub enum Reply {
    /// Events.
    Stream(Vec<RawEvent>),
    /// A body of JSON; `null` for one that is none.
    Plain(Value),
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Not from a cache.
    pub input: u64,
    /// Sampled.
    pub output: u64,
    /// Written to a cache.
    pub cache_write: u64,
    /// Read from one.
    pub cache_read: u64,
}

impl Answer {
    /// The message, or the error, that was told in whatever form. Nothing is checked: it may be any server's.
    pub fn message(&self) -> Value {
        match &self.reply {
            Reply::Plain(body) => body.clone(),
            Reply::Stream(events) => folded(events),
        }
    }

    /// What was used, as it says itself; none where it says nothing.
    pub fn tokens(&self) -> Option<Tokens> {
        let message = self.message();
        let count = |key: &str| message["usage"][key].as_u64();
        Some(Tokens {
            input: count("input_tokens")?,
            output: count("output_tokens")?,
            cache_write: count("cache_creation_input_tokens").unwrap_or(0),
            cache_read: count("cache_read_input_tokens").unwrap_or(0),
        })
    }
}

fn folded(events: &[RawEvent]) -> Value {
    let mut message = Value::Null;
    let mut content: Vec<Value> = Vec::new();
    let mut input = String::new();
    for RawEvent { data, .. } in events {
        match data["type"].as_str().unwrap_or_default() {
            "message_start" => {
                message = data["message"].clone();
                content = message["content"].as_array().cloned().unwrap_or_default();
            }
            "content_block_start" => {
                content.push(data["content_block"].clone());
                input.clear();
            }
            "content_block_delta" => grow(content.last_mut(), &mut input, &data["delta"]),
            "content_block_stop" => {
                let block = content.last_mut().and_then(Value::as_object_mut);
                if let (Some(block), Ok(whole)) = (block, serde_json::from_str::<Value>(&input)) {
                    block.insert("input".to_owned(), whole);
                }
                input.clear();
            }
            "message_delta" if message.is_object() => {
                copy(&data["delta"], &mut message);
                copy(&data["usage"], &mut message["usage"]);
            }
            "error" => return data.clone(),
            _ => {}
        }
    }
    if message.is_object() {
        message["content"] = content.into();
    }
    message
}

fn grow(block: Option<&mut Value>, input: &mut String, delta: &Value) {
    let Some(block) = block.filter(|block| block.is_object()) else { return };
    if let Some(piece) = delta["partial_json"].as_str() {
        input.push_str(piece);
    }
    for key in ["text", "thinking", "signature"] {
        let Some(piece) = delta[key].as_str() else { continue };
        match &mut block[key] {
            Value::String(so_far) => so_far.push_str(piece),
            so_far => *so_far = piece.into(),
        }
    }
    if !delta["citation"].is_null() {
        let mut citations = block["citations"].as_array().cloned().unwrap_or_default();
        citations.push(delta["citation"].clone());
        block["citations"] = citations.into();
    }
}

fn copy(from: &Value, to: &mut Value) {
    let (Some(from), Some(to)) = (from.as_object(), to.as_object_mut()) else { return };
    for (key, value) in from {
        to.insert(key.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(events: &[Value]) -> Value {
        let named = |data: &Value| RawEvent { name: String::new(), data: data.clone() };
        let reply = Reply::Stream(events.iter().map(named).collect());
        Answer { status: 200, reply, first_event: None, total: None }.message()
    }

    #[test]
    fn a_stream_comes_to_its_message() {
        let events = [
            json!({"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1, "service_tier": "s"}}}),
            json!({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "delta": {"text": "a"}}),
            json!({"type": "content_block_delta", "delta": {"text": "b"}}),
            json!({"type": "content_block_stop"}),
            json!({"type": "content_block_start", "content_block": {"type": "tool_use", "input": {}}}),
            json!({"type": "content_block_delta", "delta": {"partial_json": "{\"a\""}}),
            json!({"type": "content_block_delta", "delta": {"partial_json": ":1}"}}),
            json!({"type": "content_block_stop"}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}}),
        ];
        let expected = json!({
            "content": [{"type": "text", "text": "ab"}, {"type": "tool_use", "input": {"a": 1}}],
            "usage": {"input_tokens": 1, "service_tier": "s", "output_tokens": 2},
            "stop_reason": "tool_use",
        });
        assert_eq!(message(&events), expected);
    }

    /// Nobody has checked what comes from a server that may be anyone's.
    #[test]
    fn nonsense_comes_to_something() {
        for odd in [json!(1), json!("a"), json!([1]), json!({}), json!(null)] {
            let events =
                ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"];
            let events = events
                .map(|tag| json!({"type": tag, "message": odd, "content_block": odd, "delta": odd, "usage": odd}));
            let _comes_to_something = message(&events);
            let _so_does_this =
                message(&[&[json!({"type": "message_start", "message": {"content": odd}})][..], &events[1..]].concat());
        }
    }
}
