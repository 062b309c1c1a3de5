//! A fake upstream that speaks the Messages API, chat completions and the Responses API: it checks every request strictly and answers from a list.
#![allow(dead_code, missing_docs)]

pub mod chat;
pub mod check;
pub mod request;
pub mod responses;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// One answer. Without `status` and `raw`, `content` is streamed as a reply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// A refusal with this status.
    pub status: Option<u16>,
    /// `error.type` and `error.message` of the refusal.
    pub error: Option<(String, String)>,
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub raw: Option<String>,
    /// Blocks of the reply.
    pub content: Vec<Value>,
    /// Of chat completions and responses: chunks, or events, in place of `content`; a string is sent as it is.
    pub chunks: Option<Vec<Value>>,
    pub stop_reason: Option<String>,
    pub usage: Option<Value>,
    /// Spaces before the last brace of every event, CRLF, comments.
    pub padded: bool,
    /// Bytes per write of the body.
    pub chunk_bytes: Option<usize>,
    pub head_delay_ms: u64,
    pub first_byte_delay_ms: u64,
    pub chunk_delay_ms: u64,
    /// The connection is cut after that many bytes of the body.
    pub cut_after_bytes: Option<usize>,
}

/// A request as it came.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    violations: Mutex<Vec<String>>,
    /// Bytes of bodies that the connection has taken.
    bytes_taken: Arc<std::sync::atomic::AtomicUsize>,
    /// Bodies that are being sent right now.
    bodies_open: Arc<std::sync::atomic::AtomicUsize>,
}

/// The running fake; it ends with the runtime.
pub struct Fake {
    /// To be given as `base_url`.
    pub url: String,
    shared: Arc<Shared>,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// Listens on a free port of the loopback and answers in order; afterwards every reply says that there are no more.
    pub async fn start(answers: Vec<Answer>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { answers: Mutex::new(answers.into()), ..Shared::default() });
        let app = Router::new()
            .route("/v1/messages", post(messages))
            .route("/v1/messages/count_tokens", post(count_tokens))
            .route("/v1/chat/completions", post(chat_completions))
            .route("/v1/responses", post(responses_api))
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, shared })
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        held(&self.shared.seen).clone()
    }

    /// Every broken rule so far.
    pub fn violations(&self) -> Vec<String> {
        held(&self.shared.violations).clone()
    }

    /// How many bytes of bodies the connection has taken so far.
    pub fn bytes_taken(&self) -> usize {
        self.shared.bytes_taken.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// How many bodies are being sent.
    pub fn bodies_open(&self) -> usize {
        self.shared.bodies_open.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Waits until nobody reads a body any more.
    pub async fn bodies_closed(&self) {
        let closed = async {
            while self.bodies_open() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the connection is closed");
    }
}

/// Counts the bytes of a request that keeps the rules; an answer with a status is refused with it.
async fn count_tokens(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let (headers, document) = (texts(&headers), serde_json::from_slice(&body).unwrap_or(Value::Null));
    let checked = check_headers(&headers).and_then(|()| check::count(&document));
    held(&shared.seen).push(Seen { headers, body: document });
    if let Err(violation) = checked {
        held(&shared.violations).push(violation.clone());
        return refusal(400, Some(("invalid_request_error".to_owned(), violation)), &BTreeMap::new());
    }
    match held(&shared.answers).pop_front() {
        Some(Answer { status: Some(status), error, headers, .. }) => refusal(status, error, &headers),
        Some(Answer { raw: Some(raw), headers, .. }) => with_headers(200, &headers, Body::from(raw)),
        Some(_) | None => {
            with_headers(200, &BTreeMap::new(), Body::from(format!("{{\"input_tokens\": {}}}", body.len())))
        }
    }
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(text).collect()
}

async fn messages(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let headers = texts(&headers);
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let checked = check_headers(&headers).and_then(|()| check::request(&body));
    held(&shared.seen).push(Seen { headers, body });
    if let Err(violation) = checked {
        held(&shared.violations).push(violation.clone());
        let error = ("invalid_request_error".to_owned(), violation);
        return refusal(400, Some(error), &BTreeMap::new());
    }
    let answer = held(&shared.answers).pop_front().unwrap_or_else(|| Answer {
        content: vec![json!({"type": "text", "text": "The fake upstream has no more answers."})],
        ..Answer::default()
    });
    sleep(Duration::from_millis(answer.head_delay_ms)).await;
    match answer.status {
        Some(status) => refusal(status, answer.error, &answer.headers),
        None => stream(answer, &shared),
    }
}

async fn chat_completions(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    openai(&shared, &headers, &body, chat::check::request, chat::reply).await
}

async fn responses_api(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    openai(&shared, &headers, &body, responses::check, responses::reply).await
}

/// Both dialects of `openai`: they differ in what a request may say, and in how a reply is written.
async fn openai(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    body: &[u8],
    check: fn(&Value) -> Result<(), String>,
    reply: fn(&Answer, &Value) -> (&'static str, String),
) -> Response {
    let headers = texts(headers);
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let checked = chat::check_headers(&headers).and_then(|()| check(&body));
    held(&shared.seen).push(Seen { headers, body: body.clone() });
    if let Err(violation) = checked {
        held(&shared.violations).push(violation.clone());
        return chat::refusal(400, Some(("invalid_request_error".to_owned(), violation)), &BTreeMap::new());
    }
    let mut answer = held(&shared.answers).pop_front().unwrap_or_else(|| Answer {
        content: vec![json!({"type": "text", "text": "The fake upstream has no more answers."})],
        ..Answer::default()
    });
    sleep(Duration::from_millis(answer.head_delay_ms)).await;
    if let (Some(status), None) = (answer.status, &answer.raw) {
        return chat::refusal(status, answer.error, &answer.headers);
    }
    if answer.raw.is_none() {
        let (content_type, text) = reply(&answer, &body);
        answer.headers.entry("content-type".to_owned()).or_insert_with(|| content_type.to_owned());
        answer.raw = Some(text);
    }
    stream(answer, shared)
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), String> {
    let is = |name: &str, wanted: &str| match headers.get(name) {
        Some(value) if value == wanted => Ok(()),
        other => Err(format!("header {name}: {other:?}")),
    };
    is("anthropic-version", "2023-06-01")?;
    is("content-type", "application/json")?;
    match headers.get("x-api-key") {
        Some(key) if !key.is_empty() => Ok(()),
        _ => Err("invalid x-api-key".to_owned()),
    }
}

pub fn with_headers(status: u16, headers: &BTreeMap<String, String>, body: Body) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap_or_default());
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body).unwrap_or_default()
}

fn refusal(status: u16, error: Option<(String, String)>, headers: &BTreeMap<String, String>) -> Response {
    let (tag, message) = error.unwrap_or_else(|| ("api_error".to_owned(), "refused".to_owned()));
    let body = json!({"type": "error", "error": {"type": tag, "message": message}});
    with_headers(status, headers, Body::from(body.to_string()))
}

/// Counts a body while it is being sent.
struct OpenBody(Arc<std::sync::atomic::AtomicUsize>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

fn stream(answer: Answer, shared: &Shared) -> Response {
    let (open, taken) = (Arc::clone(&shared.bodies_open), Arc::clone(&shared.bytes_taken));
    let bytes = match &answer.raw {
        Some(raw) => raw.clone().into_bytes(),
        None => sse(&answer).into_bytes(),
    };
    let mut headers = answer.headers.clone();
    headers.entry("content-type".to_owned()).or_insert_with(|| "text/event-stream; charset=utf-8".to_owned());
    let answer_status = answer.status.unwrap_or(200);
    open.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let guard = OpenBody(open);
    let body = async_stream::stream! {
        let _guard = guard;
        sleep(Duration::from_millis(answer.first_byte_delay_ms)).await;
        let end = answer.cut_after_bytes.unwrap_or(bytes.len()).min(bytes.len());
        for piece in bytes[..end].chunks(answer.chunk_bytes.unwrap_or(bytes.len()).max(1)) {
            taken.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
            yield Ok(Bytes::copy_from_slice(piece));
            if answer.chunk_delay_ms > 0 {
                sleep(Duration::from_millis(answer.chunk_delay_ms)).await;
            }
        }
        if answer.cut_after_bytes.is_some() {
            // A body that fails at once takes with it what the connection has not sent yet; one that is late does not.
            tokio::task::yield_now().await;
            yield Err(std::io::Error::other("cut"));
        }
    };
    with_headers(answer_status, &headers, Body::from_stream(body))
}

/// The event stream of a whole reply.
pub fn sse(answer: &Answer) -> String {
    let usage = answer.usage.clone().unwrap_or_else(|| json!({"input_tokens": 7, "output_tokens": 5}));
    let mut events = vec![json!({"type": "message_start", "message": {
        "id": "msg_fake", "type": "message", "role": "assistant", "model": "fake", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": usage["input_tokens"], "output_tokens": 1}}})];
    for (index, block) in answer.content.iter().enumerate() {
        events.extend(block_events(index, block));
        if index == 0 {
            events.push(json!({"type": "ping"}));
        }
    }
    let calls = answer.content.iter().any(|block| block["type"] == "tool_use");
    let natural = if calls { "tool_use" } else { "end_turn" };
    let stop_reason = answer.stop_reason.clone().unwrap_or_else(|| natural.to_owned());
    events.push(json!({"type": "message_delta",
        "delta": {"stop_reason": stop_reason, "stop_sequence": null}, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    let mut out = String::new();
    for (number, event) in events.iter().enumerate() {
        let name = event["type"].as_str().unwrap_or_default();
        let mut data = event.to_string();
        let end = if answer.padded { "\r\n" } else { "\n" };
        if answer.padded {
            data.truncate(data.len() - 1);
            data.push_str(&" ".repeat(number % 16));
            data.push('}');
            out.push_str(": padding\r\n");
        }
        out.push_str(&format!("event: {name}{end}data: {data}{end}{end}"));
    }
    out
}

fn block_events(index: usize, block: &Value) -> Vec<Value> {
    let (start, deltas) = match block["type"].as_str() {
        Some("text") => {
            let mut start = json!({"type": "text", "text": ""});
            let mut deltas = pieces(&block["text"], "text_delta", "text");
            for citation in block["citations"].as_array().into_iter().flatten() {
                start["citations"] = json!([]);
                deltas.push(json!({"type": "citations_delta", "citation": citation}));
            }
            (start, deltas)
        }
        Some("thinking") => {
            let mut deltas = pieces(&block["thinking"], "thinking_delta", "thinking");
            deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
            (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
        }
        Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
            let input = Value::from(block["input"].to_string());
            let mut deltas = vec![json!({"type": "input_json_delta", "partial_json": ""})];
            deltas.extend(pieces(&input, "input_json_delta", "partial_json"));
            let mut start = block.clone();
            start["input"] = json!({});
            (start, deltas)
        }
        _ => (block.clone(), Vec::new()),
    };
    let mut events = vec![json!({"type": "content_block_start", "index": index, "content_block": start})];
    let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    events.extend(deltas.into_iter().map(delta));
    events.push(json!({"type": "content_block_stop", "index": index}));
    events
}

/// A text in pieces of five characters.
fn pieces(text: &Value, tag: &str, key: &str) -> Vec<Value> {
    let characters: Vec<char> = text.as_str().unwrap_or_default().chars().collect();
    let piece = |piece: &[char]| json!({"type": tag, key: piece.iter().collect::<String>()});
    characters.chunks(5).map(piece).collect()
}
