//! A client of the Messages API whose tool is called from code, and which costs little itself: one blocking socket, kept
//! open; requests are made before and replies understood after they are timed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Failure;
use super::stopwatch::monotonic_ns;

/// Longer than any reply of the suite takes.
const READ_WAIT: Duration = Duration::from_secs(120);

/// How replies are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON document.
    Plain,
    /// Events.
    Streamed,
}

/// One conversation. Its messages are sent whole each time, as this API wants it.
pub struct Talk {
    socket: TcpStream,
    script: &'static str,
    form: Form,
    container: Option<String>,
    messages: Vec<Value>,
    /// Of the last request.
    request_bytes: usize,
}

/// A reply, timed by CLOCK_MONOTONIC in nanoseconds.
pub struct Reply {
    /// Before the first byte of the request was sent.
    pub sent: u64,
    /// When the last byte of the reply was read.
    pub read: u64,
    content: Vec<Value>,
}

impl Talk {
    /// Begins a conversation in which the model plays a script; in a container that is there, or in a new one.
    pub fn open(
        address: SocketAddr,
        script: &'static str,
        form: Form,
        container: Option<String>,
    ) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_WAIT))?;
        let messages = vec![json!({ "role": "user", "content": "Go on." })];
        Ok(Self { socket, script, form, container, messages, request_bytes: 0 })
    }

    /// Where its code ran last.
    pub fn container(&self) -> Option<String> {
        self.container.clone()
    }

    /// How long the last request was, in bytes.
    pub const fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    /// Sends all messages, and takes the reply among them.
    pub fn ask(&mut self) -> Result<Reply, Failure> {
        let request = self.request();
        self.request_bytes = request.len();
        let sent = monotonic_ns();
        self.socket.write_all(&request)?;
        let (head, body) = self.read_reply()?;
        let read = monotonic_ns();
        if !head.starts_with("http/1.1 200") {
            return Err(format!("unexpected reply: {head}{}", String::from_utf8_lossy(&body)).into());
        }
        let (content, container) = match self.form {
            Form::Plain => understood(&body)?,
            Form::Streamed => folded(&body)?,
        };
        if let Some(id) = container {
            self.container = Some(id);
        }
        self.messages.push(json!({ "role": "assistant", "content": content }));
        Ok(Reply { sent, read, content })
    }

    /// Answers every call of a reply; to be sent by the next [`Talk::ask`].
    pub fn answer(&mut self, reply: &Reply, tool: impl Fn(&Map<String, Value>) -> String) {
        let result = |call: &Value| {
            let text = call["input"].as_object().map(&tool);
            json!({ "type": "tool_result", "tool_use_id": call["id"], "content": text })
        };
        let results: Vec<Value> = reply.calls().map(result).collect();
        self.messages.push(json!({ "role": "user", "content": results }));
    }

    fn request(&self) -> Vec<u8> {
        let tool = json!({
            "name": "step", "description": "One step.", "input_schema": { "type": "object" },
            "allowed_callers": ["code_execution_20260120"],
        });
        let mut body = json!({
            "model": "claude-opus-5-5", "max_tokens": 4096, "stream": self.form == Form::Streamed,
            "tools": [{ "type": "code_execution_20260521", "name": "code_execution" }, tool],
            "messages": self.messages,
        });
        if let Some(id) = &self.container {
            body["container"] = json!(id);
        }
        let body = body.to_string();
        format!(
            "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: bench\r\nanthropic-version: 2023-06-01\r\n\
             belljar-script: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.script,
            body.len()
        )
        .into_bytes()
    }

    /// The head in small letters, and the body without its framing.
    fn read_reply(&mut self) -> Result<(String, Vec<u8>), Failure> {
        let mut bytes = Vec::with_capacity(16 * 1024);
        let body = loop {
            self.read_more(&mut bytes)?;
            if let Some(at) = find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..body]).to_ascii_lowercase();
        let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) else {
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                self.read_more(&mut bytes)?;
            }
            return Ok((head, dechunked(&bytes[body..])?));
        };
        let length: usize = length.trim().parse()?;
        while bytes.len() < body + length {
            self.read_more(&mut bytes)?;
        }
        Ok((head, bytes.split_off(body)))
    }

    fn read_more(&mut self, bytes: &mut Vec<u8>) -> Result<(), Failure> {
        let mut piece = [0_u8; 64 * 1024];
        match self.socket.read(&mut piece)? {
            0 => Err("the server hung up".into()),
            read => {
                bytes.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }
}

impl Reply {
    /// Every call of the tool.
    pub fn calls(&self) -> impl Iterator<Item = &Value> {
        self.content.iter().filter(|block| block["type"] == "tool_use")
    }

    /// The input of the one call; `None` of a reply with another number of calls.
    pub fn only_call(&self) -> Option<&Map<String, Value>> {
        let mut calls = self.calls();
        let only = calls.next()?;
        calls.next().is_none().then(|| only["input"].as_object())?
    }

    /// What the cell printed, which must have ended well.
    pub fn printed(&self) -> Result<&str, Failure> {
        let result = self.content.iter().find(|block| block["type"] == "code_execution_tool_result");
        let outcome = result.map_or(&Value::Null, |block| &block["content"]);
        match (outcome["return_code"].as_u64(), outcome["stdout"].as_str()) {
            (Some(0), Some(printed)) => Ok(printed),
            _ => Err(format!("a cell ended with {:?}", self.content).into()),
        }
    }
}

/// Content and container.
type Understood = (Vec<Value>, Option<String>);

fn understood(body: &[u8]) -> Result<Understood, Failure> {
    let mut message: Value = serde_json::from_slice(body)?;
    let container = message["container"]["id"].as_str().map(str::to_owned);
    match message["content"].take() {
        Value::Array(content) => Ok((content, container)),
        _ => Err(format!("no content: {message}").into()),
    }
}

/// As much of folding as is needed to replay a pause.
fn folded(body: &[u8]) -> Result<Understood, Failure> {
    let (mut content, mut container, mut input) = (Vec::new(), None, String::new());
    for line in std::str::from_utf8(body)?.lines() {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let mut event: Value = serde_json::from_str(data)?;
        for place in ["/message/container/id", "/delta/container/id"] {
            container = event.pointer(place).and_then(Value::as_str).map(str::to_owned).or(container);
        }
        input.push_str(event.pointer("/delta/partial_json").and_then(Value::as_str).unwrap_or_default());
        match event["type"].as_str() {
            Some("content_block_start") => content.push(event["content_block"].take()),
            Some("content_block_stop") if !input.is_empty() => {
                if let Some(block) = content.last_mut() {
                    block["input"] = serde_json::from_str(&input)?;
                }
                input.clear();
            }
            Some("error") => return Err(format!("a stream failed: {event}").into()),
            _ => {}
        }
    }
    Ok((content, container))
}

fn dechunked(mut body: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::with_capacity(body.len());
    loop {
        let line = find(body, b"\r\n").ok_or("a chunk without a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line])?, 16)?;
        if size == 0 {
            return Ok(payload);
        }
        let rest = &body[line + 2..];
        payload.extend_from_slice(rest.get(..size).ok_or("a chunk that is cut off")?);
        body = rest.get(size + 2..).ok_or("a chunk without an end")?;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamed_pause_is_understood_as_a_plain_one() {
        let events = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\n\
                      data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"server_tool_use\",\"input\":{}}}\n\n\
                      data: {\"type\":\"content_block_delta\",\"delta\":{\"partial_json\":\"{\\\"code\\\":\"}}\n\n\
                      data: {\"type\":\"content_block_delta\",\"delta\":{\"partial_json\":\"\\\"x\\\"}\"}}\n\n\
                      data: {\"type\":\"content_block_stop\"}\n\n\
                      data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"input\":{\"n\":1}}}\n\n\
                      data: {\"type\":\"content_block_stop\"}\n\n\
                      data: {\"type\":\"message_delta\",\"delta\":{\"container\":{\"id\":\"c\"}}}\n\n";
        let (first, second) = events.split_at(100);
        let chunked = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
        let (content, container) = folded(&dechunked(chunked.as_bytes()).expect("chunks")).expect("events");
        let expected = json!([
            { "type": "server_tool_use", "input": { "code": "x" } },
            { "type": "tool_use", "input": { "n": 1 } },
        ]);
        assert_eq!((Value::Array(content.clone()), container.as_deref()), (expected, Some("c")));
        let reply = Reply { sent: 0, read: 0, content };
        assert_eq!(reply.only_call().map(|input| json!(input)), Some(json!({ "n": 1 })));
        let plain = json!({ "content": reply.content, "container": { "id": "c" } }).to_string();
        assert_eq!(understood(plain.as_bytes()).expect("a message"), (reply.content, Some("c".to_owned())));
    }
}
