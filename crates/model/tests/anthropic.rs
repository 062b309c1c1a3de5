//! The Messages API upstream against a strict fake: what is sent, how replies are read, and every way that they fail.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{
    KnownFiles, Phase, Router, SamplingHints, Secret, Timeouts, UpstreamConfig, UpstreamError, UpstreamErrorKind,
    UpstreamKind,
};
use belljar_wire::event::Delta;
use belljar_wire::message::{ServerToolUsage, StopReason, Usage};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SampledBlock, SamplingEvent, SamplingRequest};
use belljar_wire::tool::{CustomTool, SubTool, Tool};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::request::sampling;
use support::{Answer, Fake};

const KEY: &str = "sk-test-0123456789";

fn config(base_url: &str) -> UpstreamConfig {
    let kind = UpstreamKind::Anthropic { base_url: base_url.to_owned(), api_key: Secret::new(KEY), proxy: None };
    UpstreamConfig {
        model: Some("sent-upstream".to_owned()),
        timeouts: Timeouts {
            connect_max: Duration::from_secs(5),
            first_byte_max: Duration::from_millis(1500),
            between_bytes_max: Duration::from_millis(1500),
            whole_max: None,
        },
        ..UpstreamConfig::new("up", kind)
    }
}

fn request() -> SamplingRequest {
    let body = json!({"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "be brief"}],
        "stop_sequences": ["END"], "temperature": 0.5, "metadata": {"user_id": "u"}, "service_tier": "auto",
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "tools": [{"name": "look_up", "input_schema": {"type": "object"}, "allowed_callers": ["direct"]}],
        "messages": [
            {"role": "user", "content": [{"type": "container_upload", "file_id": "file_01a"}, {"type": "text", "text": "go"}]},
            {"role": "assistant", "content": [
                {"type": "server_tool_use", "id": "srvtoolu_a", "name": "bash_code_execution", "input": {"command": "ls"}},
                {"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_a", "content":
                    {"type": "bash_code_execution_result", "stdout": "x\n", "stderr": "", "return_code": 0, "content": []}}]}]});
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    let server = ModelTool::Server {
        sub_tool: SubTool::BashCodeExecution,
        description: "runs bash".to_owned(),
        input_schema: json!({"type": "object"}),
        cache_control: Some(json!({"type": "ephemeral"})),
    };
    let custom = |tool: Tool| match tool {
        Tool::Custom(tool) => Some(ModelTool::Custom(CustomTool { strict: true, ..tool })),
        Tool::CodeExecution(_) | Tool::Host(_) | Tool::Hosted(_) | Tool::Vendor(_) => None,
    };
    let mut request = sampling(read, custom);
    request.tools.insert(0, server);
    request.betas = vec!["interleaved-thinking-2025-05-14".to_owned(), "code-execution-2025-05-22".to_owned()];
    request
}

fn hints() -> SamplingHints {
    let mut hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    let uploads = BTreeMap::from([("file_01a".to_owned(), "a.csv".to_owned())]);
    hints.files = Arc::new(KnownFiles { uploads, ..KnownFiles::default() });
    hints
}

type Sampled = Vec<Result<SamplingEvent, UpstreamError>>;

async fn sample(base_url: &str) -> Sampled {
    let router = Router::new(vec![config(base_url)]).expect("a good upstream");
    let upstream = router.route("m").expect("every model is served");
    upstream.sample(request(), hints()).collect().await
}

async fn answered(answer: Answer) -> (Fake, Sampled) {
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let events = sample(&fake.url).await;
    (fake, events)
}

/// The error that ends a sampling, and how many events came before it.
fn failure(events: &Sampled) -> (usize, &UpstreamError) {
    let error = events.last().expect("something came").as_ref().expect_err("the sampling failed");
    assert!(!error.client.message.contains(KEY) && !error.operator.contains(KEY));
    assert!(!error.client.message.contains("127.0.0.1"), "{}", error.client.message);
    assert!(events[..events.len() - 1].iter().all(Result::is_ok));
    (events.len() - 1, error)
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn reply() -> Answer {
    Answer {
        content: vec![
            json!({"type": "thinking", "thinking": "hm, é…", "signature": "sig"}),
            json!({"type": "redacted_thinking", "data": "xyz"}),
            text("Grüße"),
            json!({"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"q": "a\nb"}}),
        ],
        usage: Some(json!({"input_tokens": 11, "output_tokens": 22, "cache_read_input_tokens": 3,
            "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0}})),
        ..Answer::default()
    }
}

/// Events with the pieces of each block joined.
fn joined(events: Sampled) -> Vec<SamplingEvent> {
    let mut out: Vec<SamplingEvent> = Vec::new();
    for event in events {
        let event = event.expect("no error");
        match (out.last_mut(), event) {
            (
                Some(SamplingEvent::BlockDelta(Delta::TextDelta { text })),
                SamplingEvent::BlockDelta(Delta::TextDelta { text: more }),
            ) => text.push_str(&more),
            (
                Some(SamplingEvent::BlockDelta(Delta::ThinkingDelta { thinking })),
                SamplingEvent::BlockDelta(Delta::ThinkingDelta { thinking: more }),
            ) => thinking.push_str(&more),
            (
                Some(SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json })),
                SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json: more }),
            ) => partial_json.push_str(&more),
            (_, event) => out.push(event),
        }
    }
    out
}

fn expected_events() -> Vec<SamplingEvent> {
    use SamplingEvent::{BlockDelta, BlockEnded, BlockStarted, Ended, Started};
    vec![
        Started { usage: Usage { input_tokens: 11, output_tokens: 1, ..Usage::default() } },
        BlockStarted(SampledBlock::Thinking),
        BlockDelta(Delta::ThinkingDelta { thinking: "hm, é…".to_owned() }),
        BlockDelta(Delta::SignatureDelta { signature: "sig".to_owned() }),
        BlockEnded,
        BlockStarted(SampledBlock::RedactedThinking { data: "xyz".to_owned() }),
        BlockEnded,
        BlockStarted(SampledBlock::Text),
        BlockDelta(Delta::TextDelta { text: "Grüße".to_owned() }),
        BlockEnded,
        BlockStarted(SampledBlock::ToolUse { id: "toolu_1".parse().expect("an id"), name: "look_up".to_owned() }),
        BlockDelta(Delta::InputJsonDelta { partial_json: "{\"q\":\"a\\nb\"}".to_owned() }),
        BlockEnded,
        Ended {
            stop_reason: StopReason::ToolUse,
            stop_sequence: None,
            stop_details: None,
            usage: Usage {
                input_tokens: 11,
                output_tokens: 22,
                cache_read_input_tokens: 3,
                server_tool_use: Some(ServerToolUsage::default()),
                ..Usage::default()
            },
        },
    ]
}

#[tokio::test]
async fn what_is_sent() {
    let (fake, events) = answered(reply()).await;
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!(joined(events), expected_events());
    let [seen] = &fake.seen()[..] else {
        panic!("one request");
    };
    assert_eq!(seen.headers["x-api-key"], KEY);
    assert_eq!(seen.headers["anthropic-beta"], "interleaved-thinking-2025-05-14");
    assert_eq!(
        seen.body,
        json!({"model": "sent-upstream", "max_tokens": 9, "system": [{"type": "text", "text": "be brief"}],
            "messages": [
                {"role": "user", "content": [text("[The user uploaded a file named \"a.csv\"; it is in $INPUT_DIR.]"), text("go")]},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "toolu_a", "name": "bash_code_execution", "input": {"command": "ls"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_a", "content": "x\n",
                    "cache_control": {"type": "ephemeral"}}]}],
            "tools": [
                {"name": "bash_code_execution", "description": "runs bash", "input_schema": {"type": "object"},
                 "cache_control": {"type": "ephemeral"}},
                {"name": "look_up", "input_schema": {"type": "object"}, "strict": true}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
            "stop_sequences": ["END"], "temperature": 0.5, "thinking": {"type": "enabled", "budget_tokens": 1024},
            "metadata": {"user_id": "u"}, "stream": true, "service_tier": "auto"})
    );
}

#[tokio::test]
async fn replies_may_be_padded_and_split_anywhere() {
    for chunk_bytes in [1, 7, 4096] {
        let (_, events) = answered(Answer { padded: true, chunk_bytes: Some(chunk_bytes), ..reply() }).await;
        assert_eq!(joined(events), expected_events(), "{chunk_bytes}");
    }
}

#[tokio::test]
async fn a_reply_cut_anywhere_is_cut() {
    let whole = support::sse(&reply());
    for end in [0, 1, whole.len() / 2, whole.len() - 10] {
        let (_, events) = answered(Answer { cut_after_bytes: Some(end), ..reply() }).await;
        assert_eq!(failure(&events).1.kind, UpstreamErrorKind::Cut, "{end}");
        // The same, ended in good order but too early.
        let (_, events) =
            answered(Answer { raw: Some(whole[..whole.floor_char_boundary(end)].to_owned()), ..Answer::default() })
                .await;
        assert_eq!(failure(&events).1.kind, UpstreamErrorKind::Cut, "{end}");
    }
}

fn event(data: &Value) -> String {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

/// The hosted API says in a block's start that it will cite.
#[tokio::test]
async fn a_text_that_cites_begins_as_one() {
    let start = event(&json!({"type": "message_start", "message": {}}));
    let cited = json!({"citations": [], "type": "text", "text": ""});
    let block = event(&json!({"type": "content_block_start", "index": 0, "content_block": cited}));
    let (_, events) = answered(Answer { raw: Some(format!("{start}{block}")), ..Answer::default() }).await;
    let (before, _) = failure(&events);
    let begun = events[before - 1].as_ref().expect("an event");
    assert_eq!(*begun, SamplingEvent::BlockStarted(SampledBlock::CitedText));
}

#[tokio::test]
async fn broken_promises_are_protocol_errors() {
    let start = event(&json!({"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}}));
    let block = |index: u64| event(&json!({"type": "content_block_start", "index": index, "content_block": text("")}));
    let delta =
        |index: u64, delta: Value| event(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
    let piece = json!({"type": "text_delta", "text": "x"});
    let stop = event(&json!({"type": "message_stop"}));
    let ending = |reason: &str| event(&json!({"type": "message_delta", "delta": {"stop_reason": reason}}));
    let unknown_block =
        event(&json!({"type": "content_block_start", "index": 0, "content_block": {"type": "hologram"}}));
    let bad_id = json!({"type": "tool_use", "id": "a b", "name": "x", "input": {}});
    let bad_call = event(&json!({"type": "content_block_start", "index": 0, "content_block": bad_id}));
    let cases = [
        (block(0), 0),
        (format!("{start}{start}"), 1),
        (format!("{start}{}", delta(0, piece.clone())), 1),
        (format!("{start}{}{}", block(1), block(0)), 2),
        (format!("{start}{}{}", block(0), delta(1, piece)), 2),
        (format!("{start}{}{}", block(0), delta(0, json!({"type": "thinking_delta", "thinking": "x"}))), 2),
        (format!("{start}{}{stop}", block(0)), 2),
        (format!("{start}{stop}"), 1),
        (format!("{start}{}{stop}", ending("because")), 1),
        (format!("{start}{unknown_block}"), 1),
        (format!("{start}{bad_call}"), 1),
        (format!("{start}data: nonsense\n\n"), 1),
        (format!("{start}data: {{\"type\": \"content_block_stop\"}}\n\n"), 1),
    ];
    for (raw, good) in cases {
        let (_, events) = answered(Answer { raw: Some(raw.clone()), ..Answer::default() }).await;
        let (before, error) = failure(&events);
        assert_eq!((before, error.kind), (good, UpstreamErrorKind::Protocol), "{raw}: {error}");
    }
    let (_, events) = answered(Answer {
        raw: Some("{}".to_owned()),
        headers: BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]),
        ..Answer::default()
    })
    .await;
    assert_eq!(failure(&events).1.kind, UpstreamErrorKind::Protocol);
}

#[tokio::test]
async fn what_is_not_known_yet_is_skipped() {
    let whole = support::sse(&reply());
    let strange = event(&json!({"type": "from_next_year", "index": 3}));
    let raw = whole.replacen("event: content_block_start", &format!("{strange}event: content_block_start"), 1);
    let (_, events) = answered(Answer { raw: Some(raw), ..Answer::default() }).await;
    assert_eq!(joined(events), expected_events());
}

#[tokio::test]
async fn error_events_end_the_sampling() {
    let start = event(&json!({"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}}));
    let cases = [
        ("overloaded_error", UpstreamErrorKind::Overloaded { retry_after: None }, 529, "Overloaded"),
        ("invalid_request_error", UpstreamErrorKind::Rejected { status: 400 }, 400, "the text"),
        (
            "api_error",
            UpstreamErrorKind::Unavailable,
            500,
            "The model's upstream failed or cannot be reached. Please try again later.",
        ),
    ];
    for (tag, kind, status, message) in cases {
        let error = event(&json!({"type": "error", "error": {"type": tag, "message": "the text"}}));
        let (_, events) = answered(Answer { raw: Some(format!("{start}{error}")), ..Answer::default() }).await;
        let (before, error) = failure(&events);
        assert_eq!((before, error.kind, error.client.kind.status()), (1, kind, status), "{tag}");
        assert_eq!(error.client.message, message, "{tag}");
    }
}

fn refusal(status: u16, headers: &[(&str, &str)]) -> Answer {
    Answer {
        status: Some(status),
        error: Some(("invalid_request_error".to_owned(), format!("no, not with {KEY}"))),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Answer::default()
    }
}

#[tokio::test]
async fn passing_refusals_are_asked_again() {
    for status in [429, 500, 503, 529] {
        let soon = [("retry-after-ms", "20")];
        let fake =
            Fake::start(vec![refusal(status, &soon), refusal(status, &soon), reply()]).await.expect("it listens");
        assert_eq!(joined(sample(&fake.url).await), expected_events(), "{status}");
        assert_eq!(fake.seen().len(), 3);
        assert_eq!(fake.seen()[0].body, fake.seen()[2].body);
    }
}

#[tokio::test]
async fn lasting_refusals_are_not() {
    let minute = Duration::from_secs(60);
    let cases = [
        (refusal(400, &[]), UpstreamErrorKind::Rejected { status: 400 }, "no, not with ***"),
        (refusal(401, &[]), UpstreamErrorKind::Authentication, ""),
        (refusal(413, &[]), UpstreamErrorKind::Rejected { status: 413 }, ""),
        (refusal(302, &[("location", "/elsewhere")]), UpstreamErrorKind::Unavailable, ""),
        (refusal(529, &[("x-should-retry", "false")]), UpstreamErrorKind::Overloaded { retry_after: None }, ""),
        (refusal(429, &[("retry-after", "60")]), UpstreamErrorKind::RateLimited { retry_after: Some(minute) }, ""),
    ];
    for (answer, kind, message) in cases {
        let (fake, events) = answered(answer.clone()).await;
        let (before, error) = failure(&events);
        assert_eq!((before, error.kind), (0, kind), "{answer:?}");
        assert_eq!(fake.seen().len(), 1, "{answer:?}");
        if !message.is_empty() {
            assert_eq!(error.client.message, message);
        }
    }
}

#[tokio::test]
async fn retries_end() {
    let soon = [("retry-after-ms", "5")];
    let fake = Fake::start(vec![refusal(529, &soon); 4]).await.expect("it listens");
    let events = sample(&fake.url).await;
    assert_eq!(failure(&events).1.kind, UpstreamErrorKind::Overloaded { retry_after: Some(Duration::from_millis(5)) });
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn slow_upstreams_time_out_by_phase() {
    let slow_head = Answer { head_delay_ms: 60_000, ..reply() };
    let slow_body = Answer { first_byte_delay_ms: 60_000, ..reply() };
    let stalling = Answer { chunk_bytes: Some(200), chunk_delay_ms: 60_000, ..reply() };
    let cases = [(slow_head, Phase::FirstByte), (slow_body, Phase::FirstByte), (stalling, Phase::BetweenBytes)];
    for (mut answer, phase) in cases {
        answer.padded = true;
        let fake = Fake::start(vec![answer]).await.expect("it listens");
        let mut config = config(&fake.url);
        config.timeouts = Timeouts {
            connect_max: Duration::from_millis(100),
            first_byte_max: Duration::from_millis(200),
            between_bytes_max: Duration::from_millis(200),
            whole_max: None,
        };
        let router = Router::new(vec![config]).expect("a good upstream");
        let upstream = router.route("m").expect("every model is served");
        let events: Sampled = upstream.sample(request(), hints()).collect().await;
        let error = failure(&events).1;
        assert_eq!(error.kind, UpstreamErrorKind::TimedOut { phase });
        assert_eq!(error.client.kind.status(), 504);
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let events = sample(&format!("http://{address}")).await;
    let error = failure(&events).1;
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let endless = Answer {
        chunk_bytes: Some(50),
        chunk_delay_ms: 20,
        content: vec![text(&"x".repeat(100_000))],
        ..Answer::default()
    };
    let fake = Fake::start(vec![endless]).await.expect("it listens");
    let router = Router::new(vec![config(&fake.url)]).expect("a good upstream");
    let upstream = router.route("m").expect("every model is served");
    let mut stream = upstream.sample(request(), hints());
    assert!(matches!(stream.next().await, Some(Ok(SamplingEvent::Started { .. }))));
    assert_eq!(fake.bodies_open(), 1);
    drop(stream);
    fake.bodies_closed().await;
}

#[tokio::test]
async fn a_base_url_may_end_in_v1() {
    let fake = Fake::start(vec![reply()]).await.expect("it listens");
    let events = sample(&format!("{}/v1/", fake.url)).await;
    assert_eq!(joined(events), expected_events());
}

/// A conversation with every kind of block that the vendor takes; `tool_result`s stand in the order of their calls.
fn every_content() -> Value {
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    let cached = json!({"type": "ephemeral", "ttl": "1h"});
    let image = json!({"type": "image", "source": source});
    let searched = json!({"type": "search_result", "source": "https://a", "title": "t", "content": [text("found")],
        "citations": {"enabled": true}, "cache_control": cached});
    let cited = json!({"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": "t",
        "start_char_index": 0, "end_char_index": 1});
    let hit = json!({"type": "web_search_result", "url": "https://a", "title": "t", "encrypted_content": "Eo4B"});
    json!([
        {"role": "user", "content": [
            {"type": "text", "text": "look", "cache_control": cached},
            {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}, image,
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}, "title": "t",
             "context": "c", "citations": {"enabled": true}, "cache_control": cached},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            {"type": "document", "source": {"type": "content", "content": [text("a part")]}}, searched]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "a", "citations": [cited]},
            {"type": "server_tool_use", "id": "srvtoolu_w", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_w", "content": [hit]},
            {"type": "server_tool_use", "id": "srvtoolu_f", "name": "web_fetch", "input": {"url": "https://a"}},
            {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_f", "content":
                {"type": "web_fetch_tool_result_error", "error_code": "url_not_accessible"}},
            {"type": "server_tool_use", "id": "srvtoolu_t", "name": "tool_search_tool_regex", "input": {"query": "q"}},
            {"type": "tool_search_tool_result", "tool_use_id": "srvtoolu_t", "content":
                {"type": "tool_search_tool_search_result", "tool_references": [{"type": "tool_reference", "tool_name": "look_up"}]}},
            {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"q": 1}, "cache_control": cached}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": false, "cache_control": cached,
             "content": [text("x"), image, searched, {"type": "tool_reference", "tool_name": "look_up"}]}]}])
}

#[tokio::test]
async fn every_content_type_is_sent_as_it_came() {
    let body = json!({"model": "m", "max_tokens": 9, "messages": every_content()});
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    let fake = Fake::start(vec![reply()]).await.expect("it listens");
    let router = Router::new(vec![config(&fake.url)]).expect("a good upstream");
    let asked = SamplingRequest { messages: read.messages, ..request() };
    let events: Sampled = router.route("m").expect("served").sample(asked, hints()).collect().await;
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!(joined(events), expected_events());
    assert_eq!(fake.seen()[0].body["messages"], every_content());
}

#[tokio::test]
async fn citations_come_through_as_they_are() {
    let citation = json!({"type": "page_location", "cited_text": "é", "document_index": 0, "document_title": null,
        "start_page_number": 1, "end_page_number": 2});
    let delta = json!({"type": "citations_delta", "citation": citation});
    let raw = [
        json!({"type": "message_start", "message": {}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"citations": [], "type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        json!({"type": "message_stop"}),
    ];
    let raw = raw.iter().map(event).collect::<String>();
    let (_, events) = answered(Answer { raw: Some(raw), ..Answer::default() }).await;
    let expected = SamplingEvent::BlockDelta(Delta::CitationsDelta { citation });
    assert!(joined(events).contains(&expected));
}
