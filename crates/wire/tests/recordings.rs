//! Requests that real clients sent to the hosted API must read, but for the documented exceptions, and every reply that was
//! recorded must replay. Runs when `BELLJAR_RECORDINGS` names the folder of recordings; says so when it does not.
//!
//! A file is a list of `{"request": {"method", "path", "body"}, "response": {"status", "body"}}`; a stream's body is
//! `{"__sse__": [{"event", "data"}, …]}`.

use std::path::Path;

use belljar_wire::request::MessagesRequest;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Exchange {
    request: Request,
    response: Response,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    path: String,
    #[serde(default)]
    body: Value,
}

#[derive(Deserialize)]
struct Response {
    status: u16,
    #[serde(default)]
    body: Value,
}

/// A recorded request that this server refuses, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    recording: String,
    /// Position in the file.
    exchange: usize,
    error: String,
    #[allow(dead_code, reason = "for readers of the list")]
    why: String,
}

#[derive(Default)]
struct Tally {
    requests: usize,
    blocks: usize,
    met: usize,
    faults: Vec<String>,
}

/// Reads one exchange's request, and its reply as a replay.
fn check(name: &str, index: usize, exchange: &Exchange, exceptions: &[Exception], tally: &mut Tally) {
    let messages = exchange.request.path.split('?').next() == Some("/v1/messages");
    if exchange.request.method != "POST" || !messages || exchange.response.status != 200 {
        return;
    }
    tally.requests += 1;
    let read = MessagesRequest::read(exchange.request.body.to_string().as_bytes());
    let expected = exceptions.iter().find(|exception| exception.recording == name && exception.exchange == index);
    match (read, expected) {
        (Ok(_), None) => {}
        (Err(error), Some(exception)) if error.message == exception.error => tally.met += 1,
        (Ok(_), Some(_)) => tally.faults.push(format!("{name} {index}: accepted, though it is listed as refused")),
        (Err(error), _) => tally.faults.push(format!("{name} {index}: {}", error.message)),
    }
    let content = content(&exchange.response.body);
    tally.blocks += content.as_array().map_or(0, Vec::len);
    let sent = json!([{"role": "assistant", "content": content}]);
    let body = json!({"model": "any", "max_tokens": 1, "messages": sent});
    match MessagesRequest::read(body.to_string().as_bytes()) {
        Ok(request) => {
            let written = serde_json::to_value(&request.messages).expect("messages serialize");
            if written != sent {
                tally.faults.push(format!("{name} {index}: replayed as {written}"));
            }
        }
        Err(error) => tally.faults.push(format!("{name} {index}, reply: {}", error.message)),
    }
}

/// The reply's content; a stream's blocks are put together.
fn content(body: &Value) -> Value {
    let Some(events) = body["__sse__"].as_array() else {
        return body["content"].clone();
    };
    let mut blocks: Vec<Value> = Vec::new();
    let mut inputs: Vec<String> = Vec::new();
    for event in events {
        let data = match &event["data"] {
            Value::String(text) => serde_json::from_str(text).expect("an event's data is JSON"),
            data => data.clone(),
        };
        match data["type"].as_str() {
            Some("message_start") => blocks = data["message"]["content"].as_array().cloned().unwrap_or_default(),
            Some("content_block_start") => {
                blocks.push(data["content_block"].clone());
                inputs.resize(blocks.len(), String::new());
            }
            Some("content_block_delta") => {
                let delta = &data["delta"];
                let at = blocks.len() - 1;
                inputs[at].push_str(delta["partial_json"].as_str().unwrap_or_default());
                for key in ["text", "thinking", "signature"] {
                    if let Some(piece) = delta[key].as_str() {
                        let so_far = blocks[at][key].as_str().unwrap_or_default();
                        blocks[at][key] = format!("{so_far}{piece}").into();
                    }
                }
            }
            _ => {}
        }
    }
    for (block, input) in blocks.iter_mut().zip(&inputs).filter(|(_, input)| !input.is_empty()) {
        block["input"] = serde_json::from_str(input).expect("a recorded input is JSON");
    }
    blocks.into()
}

#[test]
fn recordings_read_and_replay() {
    let Some(folder) = std::env::var_os("BELLJAR_RECORDINGS") else {
        eprintln!("SKIP recordings_read_and_replay: BELLJAR_RECORDINGS names no folder of recordings");
        return;
    };
    let exceptions: Vec<Exception> =
        serde_json::from_str(include_str!("recordings.json")).expect("the list of exceptions reads");
    let mut tally = Tally::default();
    for file in std::fs::read_dir(Path::new(&folder)).expect("the folder of recordings lists") {
        let path = file.expect("the folder of recordings lists").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a recording reads");
        let exchanges: Vec<Exchange> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (index, exchange) in exchanges.iter().enumerate() {
            check(&name, index, exchange, &exceptions, &mut tally);
        }
    }
    let Tally { requests, blocks, met, faults } = tally;
    eprintln!("{requests} recorded requests, {met} refused as listed, {blocks} recorded blocks");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(requests > 0 && blocks > 0, "no recorded messages in the folder");
}
