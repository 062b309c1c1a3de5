//! Fakes of Amazon Bedrock and of Vertex AI: they check who asks, and how, and answer from a list.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use crate::support::{Answer, check, sse, with_headers};

pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const SESSION_TOKEN: &str = "FwoGZXIvYXdzEXAMPLE";
pub const BEARER: &str = "bedrock-api-key-0123";
pub const REGION: &str = "us-east-1";
pub const PROJECT: &str = "my-project-1";

/// What the fake answers: a refusal, frames, or a reply of blocks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    pub status: Option<u16>,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub frames: Option<Vec<Piece>>,
    pub content: Vec<Value>,
    /// Bytes per write.
    pub chunk_bytes: Option<usize>,
}

/// A part of a body in Amazon's frames.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// One event of the Messages API.
    Event(Value),
    /// An exception and its message.
    Exception(String, String),
    /// An error that is no exception.
    Error(String, String),
    /// An event of a type that is not known.
    Unknown(String),
    /// The first bytes of a frame that never ends.
    Torn(usize),
    /// A frame whose last checksum is wrong.
    WrongChecksum,
    /// A prelude with that length, and right checksum.
    Length(u32),
    /// A chunk with this payload.
    Payload(String),
    /// Bytes as they are.
    Raw(String),
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<Seen>>,
    violations: Mutex<Vec<String>>,
    tokens: Mutex<Vec<u64>>,
    url: Mutex<String>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// The running fake; it ends with the runtime.
pub struct Cloud {
    pub url: String,
    shared: Arc<Shared>,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cloud {
    /// Listens, and answers in order. `tokens` says for how long each access token holds, in seconds.
    pub async fn start(scripts: Vec<Script>, tokens: Vec<u64>) -> Self {
        let shared =
            Arc::new(Shared { scripts: Mutex::new(scripts.into()), tokens: Mutex::new(tokens), ..Shared::default() });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        held(&shared.url).clone_from(&url);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    pub fn seen(&self) -> Vec<Seen> {
        held(&self.shared.seen).clone()
    }

    pub fn violations(&self) -> Vec<String> {
        held(&self.shared.violations).clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers: BTreeMap<String, String> = headers.iter().map(text).collect();
    let path = uri.path().to_owned();
    if path == "/token" {
        return token(&shared, &body);
    }
    let document: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let checked = if path.starts_with("/model/") {
        amazon(&path, &headers, &body, &document)
    } else {
        google(&path, &headers, &document)
    };
    let count = path.ends_with("/count-tokens:rawPredict");
    let framed = path.starts_with("/model/");
    held(&shared.seen).push(Seen { path, headers, body: document });
    if let Err(violation) = checked {
        held(&shared.violations).push(violation.clone());
        return with_headers(400, &BTreeMap::new(), Body::from(json!({"message": violation}).to_string()));
    }
    if count {
        return with_headers(200, &BTreeMap::new(), Body::from("{\"input_tokens\": 42}"));
    }
    let script = held(&shared.scripts).pop_front().unwrap_or_default();
    reply(script, framed)
}

fn reply(script: Script, framed: bool) -> Response {
    let mut headers = script.headers;
    let body = match (script.body, &script.frames) {
        (Some(body), _) => body.into_bytes(),
        (None, Some(pieces)) => pieces.iter().flat_map(written).collect(),
        (None, None) if framed => {
            events(&script.content).iter().flat_map(|event| written(&Piece::Event(event.clone()))).collect()
        }
        (None, None) => sse(&Answer { content: script.content, ..Answer::default() }).into_bytes(),
    };
    let default = if framed { "application/vnd.amazon.eventstream" } else { "text/event-stream" };
    headers.entry("content-type".to_owned()).or_insert_with(|| default.to_owned());
    let size = script.chunk_bytes.unwrap_or(body.len()).max(1);
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        body.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    with_headers(script.status.unwrap_or(200), &headers, Body::from_stream(futures_util::stream::iter(pieces)))
}

/// The events of a whole reply.
pub fn events(content: &[Value]) -> Vec<Value> {
    let text = sse(&Answer { content: content.to_vec(), ..Answer::default() });
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).expect("an event")).collect()
}

/// A piece of a body.
pub fn written(piece: &Piece) -> Vec<u8> {
    let chunk = |event: &str| json!({"bytes": STANDARD.encode(event), "p": "abcdefgh"}).to_string();
    let event = [(":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event")];
    match piece {
        Piece::Event(value) => frame(&event, &chunk(&value.to_string())),
        Piece::Exception(name, message) => {
            let headers = [(":exception-type", name.as_str()), (":message-type", "exception")];
            frame(&headers, &json!({"message": message}).to_string())
        }
        Piece::Error(code, message) => frame(
            &[(":error-code", code.as_str()), (":error-message", message.as_str()), (":message-type", "error")],
            "",
        ),
        Piece::Unknown(name) => frame(&[(":event-type", name.as_str()), (":message-type", "event")], "{}"),
        Piece::Torn(bytes) => frame(&event, &chunk("{\"type\":\"ping\"}"))[..*bytes].to_vec(),
        Piece::WrongChecksum => {
            let mut bytes = frame(&event, &chunk("{\"type\":\"ping\"}"));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes
        }
        Piece::Length(length) => prelude(*length, 0),
        Piece::Payload(payload) => frame(&event, payload),
        Piece::Raw(text) => text.clone().into_bytes(),
    }
}

fn prelude(total: u32, headers: u32) -> Vec<u8> {
    let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_be_bytes());
    bytes
}

/// A frame, written by hand: `:name`, type 7 (a string), length, text.
fn frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).expect("short"));
        head.extend(name.bytes());
        head.push(7);
        head.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        head.extend(value.bytes());
    }
    let size = |bytes: usize| u32::try_from(bytes).expect("small");
    let mut bytes = prelude(size(12 + head.len() + payload.len() + 4), size(head.len()));
    bytes.extend(head);
    bytes.extend(payload.bytes());
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_be_bytes());
    bytes
}

/// An access token for an assertion that says the right things.
fn token(shared: &Shared, body: &[u8]) -> Response {
    let body = String::from_utf8_lossy(body);
    let claims = body.split('&').find_map(|pair| pair.strip_prefix("assertion=")).and_then(|jwt| {
        let claims = jwt.split('.').nth(1)?.replace("%3D", "=");
        serde_json::from_slice::<Value>(&URL_SAFE.decode(claims).ok()?).ok()
    });
    let claims = claims.unwrap_or(Value::Null);
    let lives = {
        let mut tokens = held(&shared.tokens);
        if tokens.is_empty() { None } else { Some(tokens.remove(0)) }
    };
    let good = claims["iss"] == "robot@my-project-1.iam.gserviceaccount.com"
        && claims["aud"] == format!("{}/token", held(&shared.url))
        && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform";
    match lives {
        Some(lives) if good => {
            let number = held(&shared.tokens).len();
            let token = json!({"access_token": format!("ya29.{number}"), "expires_in": lives, "token_type": "Bearer"});
            with_headers(200, &BTreeMap::new(), Body::from(token.to_string()))
        }
        Some(_) | None => with_headers(401, &BTreeMap::new(), Body::from("{\"error\": \"invalid_grant\"}")),
    }
}

fn google(path: &str, headers: &BTreeMap<String, String>, body: &Value) -> Result<(), String> {
    let models = format!("/v1/projects/{PROJECT}/locations/{REGION}/publishers/anthropic/models/");
    let call = path.strip_prefix(&models).ok_or_else(|| format!("{path}: 404"))?;
    let authorization = headers.get("authorization").map(String::as_str).unwrap_or_default();
    expect(authorization.starts_with("Bearer ya29."), "authorization")?;
    expect(
        !headers.contains_key("x-api-key") && !headers.contains_key("anthropic-version"),
        "a header of the vendor's",
    )?;
    let mut body = body.clone();
    let members = body.as_object_mut().ok_or("no object")?;
    expect(members.shift_remove("anthropic_version") == Some(json!("vertex-2023-10-16")), "anthropic_version")?;
    if call == "count-tokens:rawPredict" {
        return check::count(&body);
    }
    expect(call.ends_with(":streamRawPredict"), "the call")?;
    expect(members.insert("model".to_owned(), json!("m")).is_none(), "model: extra input")?;
    check::request(&body)
}

fn amazon(path: &str, headers: &BTreeMap<String, String>, raw: &[u8], body: &Value) -> Result<(), String> {
    expect(path.ends_with("/invoke-with-response-stream"), "the call")?;
    expect(!headers.contains_key("anthropic-beta") && !headers.contains_key("x-api-key"), "a header of the vendor's")?;
    let mut body = body.clone();
    let members = body.as_object_mut().ok_or("no object")?;
    expect(members.shift_remove("anthropic_version") == Some(json!("bedrock-2023-05-31")), "anthropic_version")?;
    let betas = members.shift_remove("anthropic_beta");
    expect(betas.is_none_or(|betas| betas.is_array()), "anthropic_beta")?;
    expect(members.insert("model".to_owned(), json!("m")).is_none(), "model: extra input")?;
    expect(members.insert("stream".to_owned(), json!(true)).is_none(), "stream: extra input")?;
    check::request(&body)?;
    let authorization = headers.get("authorization").map(String::as_str).unwrap_or_default();
    if authorization == format!("Bearer {BEARER}") {
        return Ok(());
    }
    let wanted = signature(path, headers, raw)?;
    expect(authorization == wanted, &format!("{authorization} is not {wanted}"))
}

fn expect(good: bool, problem: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(problem.to_owned()) }
}

/// The `authorization` that AWS would expect, made from its documentation and not by the crate that signs: HMAC over the canonical
/// request, with the path escaped once more than it was sent.
fn signature(path: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Result<String, String> {
    let date = headers.get("x-amz-date").ok_or("x-amz-date is missing")?;
    let day = date.get(..8).ok_or("x-amz-date")?;
    let mut names = vec!["content-type", "host", "x-amz-date"];
    if headers.contains_key("x-amz-security-token") {
        expect(headers["x-amz-security-token"] == SESSION_TOKEN, "x-amz-security-token")?;
        names.push("x-amz-security-token");
    }
    let canonical_headers: String = names.iter().map(|name| format!("{name}:{}\n", headers[*name])).collect();
    let signed = names.join(";");
    let canonical =
        format!("POST\n{}\n\n{canonical_headers}\n{signed}\n{}", path.replace('%', "%25"), hex(&Sha256::digest(body)));
    let scope = format!("{day}/{REGION}/bedrock/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [day, REGION, "bedrock", "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    let signature = hex(&hmac(&key, to_sign.as_bytes()));
    Ok(format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={signed}, Signature={signature}"))
}

/// RFC 2104, for keys of at most a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = key.to_vec();
    block.resize(64, 0);
    let padded = |pad: u8| block.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let inner = Sha256::digest([padded(0x36), text.to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _written = write!(text, "{byte:02x}");
    }
    text
}
