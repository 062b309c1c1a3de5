//! How replies of the Messages API are read that are not as the hosted API writes them: servers of other makes, and what they break.
//!
//! Each case of `replies/*.json` is played with its bytes cut in several ways.

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{Router, SamplingHints, Secret, UpstreamConfig, UpstreamError, UpstreamErrorKind, UpstreamKind};
use belljar_wire::event::Delta;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{SampledBlock, SamplingEvent, SamplingRequest};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use support::request::sampling;
use support::{Answer, Fake};

/// One way to answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The events between the start of a message and its end, where the case does not write those itself.
    events: Vec<Value>,
    /// Whether the events are all that comes.
    #[serde(default)]
    alone: bool,
    /// The blocks, and why the model stopped; or the kind of the error.
    expect: Value,
}

impl Case {
    fn body(&self) -> String {
        let start = json!({"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 0}}});
        let mut events = vec![start];
        events.extend(self.events.iter().cloned());
        let ends = |event: &Value| event["type"] == "message_delta";
        if !events.iter().any(ends) {
            events.push(
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
            );
        }
        events.push(json!({"type": "message_stop"}));
        let events = if self.alone { &self.events } else { &events };
        events
            .iter()
            .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x")))
            .collect()
    }
}

fn request() -> SamplingRequest {
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]});
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    sampling(read, |_| None)
}

async fn sample(base_url: &str) -> Vec<Result<SamplingEvent, UpstreamError>> {
    let kind = UpstreamKind::Anthropic { base_url: base_url.to_owned(), api_key: Secret::new("sk-test"), proxy: None };
    let router = Router::new(vec![UpstreamConfig::new("up", kind)]).expect("a good upstream");
    let upstream = router.route("m").expect("every model is served");
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    upstream.sample(request(), hints).collect().await
}

/// What was sampled, in the form of the cases. Every block begins and ends, one after the other.
fn told(events: &[Result<SamplingEvent, UpstreamError>]) -> Value {
    let (mut blocks, mut open) = (Vec::<Value>::new(), false);
    for event in events {
        match event {
            Err(error) => {
                assert_eq!(error.kind, UpstreamErrorKind::Protocol, "{error}");
                return json!({"blocks": blocks, "error": "protocol"});
            }
            Ok(SamplingEvent::Started { .. }) => {}
            Ok(SamplingEvent::BlockStarted(block)) => {
                assert!(!std::mem::replace(&mut open, true), "a block begins in another: {events:?}");
                blocks.push(match block {
                    SampledBlock::Text | SampledBlock::CitedText => json!({"text": ""}),
                    SampledBlock::Thinking => json!({"thinking": "", "signature": ""}),
                    SampledBlock::RedactedThinking { data } => json!({"redacted": data}),
                    SampledBlock::ToolUse { name, .. } => json!({"call": name, "input": ""}),
                    SampledBlock::Hosted(block) => panic!("a tool that nobody declared: {block:?}"),
                });
            }
            Ok(SamplingEvent::BlockDelta(delta)) => {
                assert!(open, "a piece of no block: {events:?}");
                let (key, piece) = match delta {
                    Delta::TextDelta { text } => ("text", text),
                    Delta::ThinkingDelta { thinking } => ("thinking", thinking),
                    Delta::SignatureDelta { signature } => ("signature", signature),
                    Delta::InputJsonDelta { partial_json } => ("input", partial_json),
                    Delta::CitationsDelta { .. } => continue,
                };
                let block = blocks.last_mut().expect("a block is open");
                block[key] = format!("{}{piece}", block[key].as_str().expect("the block takes such pieces")).into();
            }
            Ok(SamplingEvent::BlockEnded) => assert!(std::mem::take(&mut open), "no block ends: {events:?}"),
            Ok(SamplingEvent::Ended { stop_reason, stop_sequence, .. }) => {
                assert!(!open, "the last block has no end: {events:?}");
                return json!({"blocks": blocks, "stop_reason": stop_reason, "stop_sequence": stop_sequence});
            }
        }
    }
    panic!("neither an end nor an error: {events:?}")
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages/replies");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let read = |path| -> Vec<Case> {
        let text = std::fs::read_to_string(&path).expect("a file of cases");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    };
    files.into_iter().flat_map(read).collect()
}

#[tokio::test]
async fn replies_as_data() {
    let mut wrong = Vec::new();
    for case in cases() {
        for chunk_bytes in [1, 13, 1 << 20] {
            let answer = Answer { raw: Some(case.body()), chunk_bytes: Some(chunk_bytes), ..Answer::default() };
            let fake = Fake::start(vec![answer]).await.expect("the fake listens");
            let told = told(&sample(&fake.url).await);
            if told != case.expect {
                wrong.push(format!("{} ({chunk_bytes}): {told}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
