//! How replies are read.

use std::collections::BTreeMap;
use std::time::Duration;

use belljar_model::{ChatSettings, Rescue, UpstreamErrorKind};
use belljar_wire::event::Delta;
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{Answer, Fake, chat};
use super::{KEY, Sampled, cases, config, request, sample};

/// One way to answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Changes of the request.
    #[serde(default)]
    request: Option<Value>,
    /// The answer, byte for byte.
    raw: Option<String>,
    /// Or its chunks.
    chunks: Option<Vec<Value>>,
    /// Or one document.
    document: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    expect: Value,
}

/// One text in which something is to be found, or not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rescued {
    name: String,
    rescue: Vec<String>,
    text: String,
    /// Names of tools that are offered beside bash; `code_execution` runs Python.
    #[serde(default)]
    tools: Option<Value>,
    #[serde(default)]
    request: Option<Value>,
    finish: Option<String>,
    blocks: Value,
    stop_reason: String,
}

impl Case {
    fn body(&self) -> String {
        match (&self.raw, &self.chunks, &self.document) {
            (Some(raw), None, None) => raw.clone(),
            (None, Some(chunks), None) => chat::sse(chunks),
            (None, None, Some(document)) => document.to_string(),
            _ => panic!("{}: one of `raw`, `chunks` and `document`", self.name),
        }
    }
}

/// What was sampled, in the form of the cases: whole blocks, and the end; or the error.
pub(super) fn told(events: &Sampled) -> Value {
    let mut blocks: Vec<Value> = Vec::new();
    for event in events {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                assert!(!error.client.message.contains(KEY) && !error.operator.contains(KEY), "{error}");
                assert!(error.operator.contains("upstream `up`"), "{error}");
                let mut told =
                    json!({"blocks": blocks, "error": kind(error.kind), "status": error.client.kind.status()});
                if let UpstreamErrorKind::Rejected { .. } = error.kind {
                    told["message"] = error.client.message.clone().into();
                }
                return told;
            }
        };
        match event {
            SamplingEvent::Started { .. } | SamplingEvent::BlockEnded => {}
            SamplingEvent::BlockStarted(block) => blocks.push(match block {
                SampledBlock::Text => json!({"text": ""}),
                SampledBlock::Thinking => json!({"thinking": "", "signature": ""}),
                SampledBlock::ToolUse { id, name } => {
                    assert!(id.as_str().starts_with("toolu_01"), "{id}");
                    json!({"call": name, "input": ""})
                }
                SampledBlock::CitedText | SampledBlock::RedactedThinking { .. } | SampledBlock::Hosted(_) => {
                    panic!("no such block in this dialect")
                }
            }),
            SamplingEvent::BlockDelta(delta) => {
                let (key, piece) = match delta {
                    Delta::TextDelta { text } => ("text", text),
                    Delta::ThinkingDelta { thinking } => ("thinking", thinking),
                    Delta::SignatureDelta { signature } => ("signature", signature),
                    Delta::InputJsonDelta { partial_json } => ("input", partial_json),
                    Delta::CitationsDelta { .. } => panic!("no such piece in this dialect"),
                };
                let block = blocks.last_mut().expect("a block is open");
                let whole = format!("{}{piece}", block[key].as_str().expect("the block takes such pieces"));
                block[key] = whole.into();
            }
            SamplingEvent::Ended { stop_reason, stop_sequence, stop_details, usage } => {
                assert_eq!(*stop_details, None);
                let mut told = json!({"blocks": blocks, "stop_reason": stop_reason,
                    "usage": [usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens]});
                if let Some(hit) = stop_sequence {
                    told["stop_sequence"] = hit.clone().into();
                }
                if let Some(details) = usage.output_tokens_details {
                    told["thinking_tokens"] = details.thinking_tokens.into();
                }
                return told;
            }
        }
    }
    panic!("neither an end nor an error: {events:?}")
}

fn kind(kind: UpstreamErrorKind) -> &'static str {
    match kind {
        UpstreamErrorKind::Overloaded { .. } => "overloaded",
        UpstreamErrorKind::RateLimited { .. } => "rate limited",
        UpstreamErrorKind::Rejected { .. } => "rejected",
        UpstreamErrorKind::Authentication => "authentication",
        UpstreamErrorKind::ModelNotFound => "model not found",
        UpstreamErrorKind::NoSuchEndpoint => "no such endpoint",
        UpstreamErrorKind::NotRecorded => "not recorded",
        UpstreamErrorKind::Unavailable => "unavailable",
        UpstreamErrorKind::TimedOut { .. } => "timed out",
        UpstreamErrorKind::Protocol => "protocol",
        UpstreamErrorKind::Cut => "cut",
        UpstreamErrorKind::TooLarge => "too large",
    }
}

/// Every case, however its bytes are split.
#[tokio::test]
async fn replies_as_data() {
    let mut wrong = Vec::new();
    for (file, case) in cases::<Case>("replies") {
        let asked = case.request.clone().unwrap_or_else(|| json!({}));
        for chunk_bytes in [1, 13, 1 << 20] {
            let answer = Answer {
                raw: Some(case.body()),
                headers: case.headers.clone(),
                chunk_bytes: Some(chunk_bytes),
                ..Answer::default()
            };
            let fake = Fake::start(vec![answer]).await.expect("the fake listens");
            let events = sample(config(&fake.url, ChatSettings::default()), request(&asked)).await;
            assert_eq!(fake.violations(), Vec::<String>::new(), "{file}: {}", case.name);
            let told = told(&events);
            if told != case.expect {
                wrong.push(format!("{file}: {} in pieces of {chunk_bytes}:\n  {told}\n  {}", case.name, case.expect));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{}", wrong.join("\n"));
}

/// What models write into their text, however it is cut into chunks.
#[tokio::test]
async fn rescues_as_data() {
    let mut wrong = Vec::new();
    for (file, case) in cases::<Rescued>("rescue") {
        let mut asked = case.request.clone().unwrap_or_else(|| json!({}));
        asked["tools"] = case
            .tools
            .clone()
            .unwrap_or_else(|| json!([{"type": "code_execution_20250825", "name": "code_execution"}]));
        let rescue = case.rescue.iter().map(|name| Rescue::from_name(name).expect("a known form")).collect();
        let settings = ChatSettings { rescue, ..ChatSettings::default() };
        let characters: Vec<char> = case.text.chars().collect();
        for size in [1, 5, 10_000] {
            let piece = |piece: &[char]| json!({"choices": [{"delta": {"content": piece.iter().collect::<String>()}}]});
            let mut chunks: Vec<Value> = characters.chunks(size).map(piece).collect();
            let finish = case.finish.as_deref().unwrap_or("stop");
            chunks.push(json!({"choices": [{"delta": {}, "finish_reason": finish}]}));
            let fake =
                Fake::start(vec![Answer { chunks: Some(chunks), ..Answer::default() }]).await.expect("it listens");
            let told = told(&sample(config(&fake.url, settings.clone()), request(&asked)).await);
            let expected = json!([case.blocks, case.stop_reason]);
            let found = json!([told["blocks"], told["stop_reason"]]);
            if found != expected {
                wrong.push(format!("{file}: {} in pieces of {size}:\n  {found}\n  {expected}", case.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{}", wrong.join("\n"));
}

/// What the first chunks say is handed out before the last ones are there.
#[tokio::test]
async fn pieces_are_handed_out_as_they_come() {
    let chunk = |delta: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    let call = |piece: &str| chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
    let begin =
        json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look_up", "arguments": "{\"q\":"}}]});
    let raw = chat::sse(&[chunk(json!({"content": "Hm"})), chunk(begin), call("\"x")]);
    let answer = Answer { raw: Some(raw), first_byte_delay_ms: 0, ..Answer::default() };
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let events = sample(config(&fake.url, ChatSettings::default()), request(&json!({}))).await;
    // What the model will have read is an estimate until it is counted: some thirty bytes of text.
    let Some(Ok(SamplingEvent::Started { usage })) = events.first() else { panic!("{events:?}") };
    assert!((1..100).contains(&usage.input_tokens) && usage.output_tokens == 0, "{usage:?}");
    let told = told(&events);
    assert_eq!(told["blocks"], json!([{"text": "Hm"}, {"call": "look_up", "input": "{\"q\":\"x"}]));
    assert_eq!(told["error"], "cut");
}

/// Some servers say that the model has finished and leave the connection open.
#[tokio::test]
async fn a_finished_reply_is_not_waited_for() {
    let raw = chat::sse(&[json!({"choices": [{"delta": {"content": "Hm"}, "finish_reason": "stop"}]})]);
    let length = raw.len();
    let answer = Answer {
        raw: Some(format!("{raw}{}", ": waiting\n\n".repeat(20))),
        chunk_bytes: Some(length),
        chunk_delay_ms: 60_000,
        ..Answer::default()
    };
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let mut config = config(&fake.url, ChatSettings::default());
    config.timeouts.between_bytes_max = Duration::from_millis(200);
    let told = told(&sample(config, request(&json!({}))).await);
    assert_eq!(told["blocks"], json!([{"text": "Hm"}]));
    assert_eq!(told["stop_reason"], "end_turn");
}

#[tokio::test]
async fn an_endless_event_is_refused() {
    let raw = format!("data: {}", "x".repeat(17 << 20));
    let answer = Answer { raw: Some(raw), ..Answer::default() };
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let told = told(&sample(config(&fake.url, ChatSettings::default()), request(&json!({}))).await);
    assert_eq!(told["error"], "too large");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let endless = Answer {
        chunk_bytes: Some(50),
        chunk_delay_ms: 20,
        content: vec![json!({"type": "text", "text": "x".repeat(100_000)})],
        ..Answer::default()
    };
    let fake = Fake::start(vec![endless]).await.expect("it listens");
    let router = belljar_model::Router::new(vec![config(&fake.url, ChatSettings::default())]).expect("a good upstream");
    let upstream = router.route("m").expect("every model is served");
    let hints = belljar_model::SamplingHints::new(belljar_ids::RequestId::mint(&mut belljar_ids::SeededIds::new(7)));
    let mut stream = upstream.sample(request(&json!({})), hints);
    assert!(matches!(stream.next().await, Some(Ok(SamplingEvent::Started { .. }))));
    assert_eq!(fake.bodies_open(), 1);
    drop(stream);
    fake.bodies_closed().await;
}
