//! Both ends of a comparison of gateways: a fake upstream that writes the time into each token, and a client that reads it.
//! `bench/gateways.py` puts a gateway between them, or nothing.
//!
//! `stream_load fake` prints its address, and serves chat completions (`/v1/chat/completions`) and messages (`/v1/messages`)
//! until standard input ends. The model's name says what is streamed: `load-TOKENS-PAUSE_MS`.
//!
//! `stream_load copier URL` prints its address, and passes requests and replies on without reading them: what any gateway made of these parts
//! pays at least.
//!
//! `stream_load client URL DIALECT MODEL STREAMS ROUNDS` opens so many streams at once, so many times, and prints one line of
//! JSON: per stream the milliseconds from the request to the end, per token the microseconds from the fake's pen to here.
//! A stream that lacks a token is an error, and ends the run.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str =
    "usage: stream_load fake | stream_load copier URL | stream_load client URL chat|messages MODEL STREAMS ROUNDS";
/// What a token begins with; its time, in nanoseconds of the system's clock, has always as many digits.
const MARK: &[u8] = b"@";
const DIGITS: usize = 19;
/// Connections that have been idle for longer are not used again: LiteLLM's server closes them after five seconds, and a request that
/// crosses with that would be a failure of nobody's.
const IDLE_MAX: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["fake"] => fake().await,
        ["copier", url] => copier((*url).to_owned()).await,
        ["client", url, dialect, model, streams, rounds] => {
            let run = Run { url: (*url).to_owned(), messages: *dialect == "messages", model: (*model).to_owned() };
            run.measure(streams.parse()?, rounds.parse()?).await
        }
        _ => Err(USAGE.into()),
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

async fn fake() -> Result<(), Failure> {
    serve(
        Router::new()
            .route("/v1/chat/completions", post(|body: Bytes| async move { stream(&body, chat) }))
            .route("/v1/messages", post(|body: Bytes| async move { stream(&body, messages) })),
    )
    .await
}

async fn copier(upstream: String) -> Result<(), Failure> {
    let client = client(usize::MAX)?;
    let passed = move |uri: Uri, body: Bytes| async move {
        let asked =
            client.post(format!("{upstream}{}", uri.path())).header(CONTENT_TYPE, "application/json").body(body);
        match asked.send().await {
            Ok(reply) => {
                let status = reply.status();
                (status, [(CONTENT_TYPE, "text/event-stream")], Body::from_stream(reply.bytes_stream())).into_response()
            }
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    };
    serve(Router::new().route("/v1/messages", post(passed.clone())).route("/v1/chat/completions", post(passed))).await
}

fn client(idle_max: usize) -> Result<reqwest::Client, Failure> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "a provider of cryptography was there")?;
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(idle_max);
    Ok(client.pool_idle_timeout(IDLE_MAX).build()?)
}

/// Prints the address, and serves until standard input ends.
async fn serve(app: Router) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    // Otherwise the kernel holds small writes back until earlier ones are acknowledged: 40 ms that no gateway is to blame for.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let served = tokio::spawn(axum::serve(listener, app).into_future());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    served.abort();
    Ok(())
}

/// What stands before, around and behind the tokens of a dialect.
struct Frames {
    head: String,
    token: fn(&str) -> String,
    tail: String,
}

fn stream(body: &[u8], dialect: fn(&str, u32) -> Frames) -> Response {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = asked["model"].as_str().unwrap_or_default().to_owned();
    let mut numbers = name.split('-').filter_map(|part| part.parse::<u32>().ok());
    let (Some(tokens), Some(pause_ms)) = (numbers.next(), numbers.next()) else {
        return (StatusCode::NOT_FOUND, format!("no such model: {name}")).into_response();
    };
    let frames = dialect(&name, tokens);
    let written = async_stream::stream! {
        yield Ok::<_, Infallible>(Bytes::from(frames.head));
        for _ in 0..tokens {
            if pause_ms > 0 {
                tokio::time::sleep(Duration::from_millis(pause_ms.into())).await;
            } else {
                tokio::task::yield_now().await;
            }
            yield Ok(Bytes::from((frames.token)(&format!("@{:0DIGITS$} ", now_ns()))));
        }
        yield Ok(Bytes::from(frames.tail));
    };
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(written)).into_response()
}

fn chunk(delta: &Value, finish: &Value) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    let whole = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "load", "choices": [choice]});
    format!("data: {whole}\n\n")
}

fn chat(_model: &str, tokens: u32) -> Frames {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10});
    let last = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "load", "choices": [], "usage": usage});
    Frames {
        head: chunk(&json!({"role": "assistant", "content": ""}), &Value::Null),
        token: |text| chunk(&json!({"content": text}), &Value::Null),
        tail: format!("{}data: {last}\n\ndata: [DONE]\n\n", chunk(&json!({}), &json!("stop"))),
    }
}

fn event(body: &Value) -> String {
    format!("event: {}\ndata: {body}\n\n", body["type"].as_str().unwrap_or_default())
}

fn messages(model: &str, tokens: u32) -> Frames {
    let message = json!({"id": "msg_01LoadLoadLoadLoadLoadLoad", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": tokens}});
    Frames {
        head: event(&json!({"type": "message_start", "message": message})) + &event(&block),
        token: |text| {
            event(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}))
        },
        tail: event(&json!({"type": "content_block_stop", "index": 0}))
            + &event(&delta)
            + &event(&json!({"type": "message_stop"})),
    }
}

struct Run {
    url: String,
    messages: bool,
    model: String,
}

/// One stream, as it arrived.
struct Arrived {
    total: Duration,
    token_us: Vec<u64>,
}

impl Run {
    async fn measure(self, streams: usize, rounds: usize) -> Result<(), Failure> {
        let client = client(streams)?;
        let (mut stream_ms, mut token_us, mut wall_ms) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            let began = Instant::now();
            let all = futures_util::future::try_join_all((0..streams).map(|_| self.one(&client))).await?;
            // The first round opens the connections, and what is lazy on the way.
            if round == 0 {
                continue;
            }
            wall_ms.push(began.elapsed().as_secs_f64() * 1e3);
            stream_ms.extend(all.iter().map(|arrived| arrived.total.as_secs_f64() * 1e3));
            token_us.extend(all.into_iter().flat_map(|arrived| arrived.token_us));
        }
        stream_ms.sort_by(f64::total_cmp);
        token_us.sort_unstable();
        let at = |percent: usize, length: usize| (length - 1) * percent / 100;
        let of_streams = |percent| stream_ms[at(percent, stream_ms.len())];
        let of_tokens = |percent| token_us[at(percent, token_us.len())];
        println!(
            "{}",
            json!({"streams": streams, "rounds": rounds, "tokens": token_us.len(), "wall_ms": wall_ms,
                "stream_ms": {"min": of_streams(0), "p50": of_streams(50), "p99": of_streams(99)},
                "token_us": {"min": of_tokens(0), "p50": of_tokens(50), "p99": of_tokens(99)},
                "streams_per_s": (streams * rounds) as f64 * 1e3 / wall_ms.iter().sum::<f64>()})
        );
        Ok(())
    }

    async fn one(&self, client: &reqwest::Client) -> Result<Arrived, Failure> {
        let expected = self
            .model
            .split('-')
            .find_map(|part| part.parse::<usize>().ok())
            .ok_or("no number of tokens in the model")?;
        let mut body = json!({"model": self.model, "max_tokens": 4096, "stream": true,
            "messages": [{"role": "user", "content": "Count."}]});
        if !self.messages {
            body["stream_options"] = json!({"include_usage": true});
        }
        let began = Instant::now();
        let path = if self.messages { "messages" } else { "chat/completions" };
        let asked = client
            .post(format!("{}/v1/{path}", self.url))
            .header(CONTENT_TYPE, "application/json")
            .header("authorization", "Bearer sk-bench")
            .header("x-api-key", "sk-bench")
            .header("anthropic-version", "2023-06-01")
            .body(body.to_string());
        let reply = asked.send().await?;
        if !reply.status().is_success() {
            return Err(format!("{}: {}", reply.status(), reply.text().await?).into());
        }
        let (mut pieces, mut rest, mut token_us) = (reply.bytes_stream(), Vec::new(), Vec::new());
        while let Some(piece) = pieces.next().await {
            rest.extend_from_slice(&piece?);
            read_tokens(&mut rest, &mut token_us);
        }
        match token_us.len() == expected {
            true => Ok(Arrived { total: began.elapsed(), token_us }),
            false => {
                Err(format!("{} tokens came of {expected}; then: {}", token_us.len(), String::from_utf8_lossy(&rest))
                    .into())
            }
        }
    }
}

/// Takes what is read off the front of `rest`; a token cut in its middle stays for the next piece.
fn read_tokens(rest: &mut Vec<u8>, token_us: &mut Vec<u64>) {
    let now = now_ns();
    let mut read = 0;
    while let Some(found) = rest[read..].iter().position(|byte| MARK.contains(byte)) {
        let digits = read + found + 1..read + found + 1 + DIGITS;
        let Some(text) = rest.get(digits.clone()) else { break };
        let stamp = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        token_us.extend(stamp.map(|stamp| now.saturating_sub(stamp) / 1000));
        read = digits.end;
    }
    rest.drain(..read.max(rest.len().saturating_sub(512)).min(rest.len()));
}
