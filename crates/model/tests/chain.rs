//! What is done about upstreams that fail, and about requests that they cannot serve.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{
    Capabilities, ChatSettings, Phase, Resilience, Router, SamplingHints, UpstreamConfig, UpstreamError,
    UpstreamErrorKind, UpstreamKind,
};
use belljar_wire::event::Delta;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingEvent, SamplingRequest};
use belljar_wire::tool::Tool;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::request::sampling;
use support::{Answer, Fake};

fn upstream(name: &str, fake: &Fake) -> UpstreamConfig {
    let base_url = format!("{}/v1", fake.url);
    let kind = UpstreamKind::OpenAi { base_url, api_key: None, proxy: None, settings: ChatSettings::default() };
    UpstreamConfig {
        model: Some(format!("{name}-model")),
        resilience: Resilience { retries_max: 0, failover: true, ..Resilience::default() },
        ..UpstreamConfig::new(name, kind)
    }
}

fn request(model: &str, more: &Value) -> SamplingRequest {
    let mut body = json!({"model": model, "max_tokens": 2000, "messages": [{"role": "user", "content": "go"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    let custom = |tool: Tool| match tool {
        Tool::Custom(tool) => Some(ModelTool::Custom(tool)),
        Tool::Hosted(tool) => Some(ModelTool::Hosted(tool)),
        Tool::CodeExecution(_) | Tool::Host(_) | Tool::Vendor(_) => panic!("not in these tests"),
    };
    sampling(read, custom)
}

/// The text of a reply, and the error that ended it.
async fn ask(router: &Router, request: SamplingRequest) -> (String, Option<UpstreamError>) {
    let upstream = router.route(&request.model).expect("the name is served");
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    let mut events = upstream.sample(request, hints);
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(SamplingEvent::BlockDelta(Delta::TextDelta { text: piece })) => text.push_str(&piece),
            Ok(_) => {}
            Err(error) => return (text, Some(error)),
        }
    }
    (text, None)
}

async fn go(router: &Router) -> (String, Option<UpstreamErrorKind>) {
    let (text, error) = ask(router, request("m", &Value::Null)).await;
    (text, error.map(|error| error.kind))
}

fn says(text: &str) -> Answer {
    Answer { content: vec![json!({"type": "text", "text": text})], ..Answer::default() }
}

fn refuses(status: u16) -> Answer {
    Answer { status: Some(status), ..Answer::default() }
}

async fn fake(answers: Vec<Answer>) -> Fake {
    Fake::start(answers).await.expect("it listens")
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_fails_before_its_first_word() {
    let page = Answer { raw: Some("<html>".to_owned()), ..Answer::default() };
    let cut = Answer { cut_after_bytes: Some(0), ..says("one") };
    for failing in [refuses(529), refuses(500), refuses(429), refuses(401), refuses(404), page, cut] {
        let (one, two) = (fake(vec![failing.clone()]).await, fake(vec![says("two")]).await);
        let router = Router::new(vec![upstream("one", &one), upstream("two", &two)]).expect("good upstreams");
        assert_eq!(go(&router).await, ("two".to_owned(), None), "{failing:?}");
        let models =
            [&one, &two].map(|fake| fake.seen().iter().map(|seen| seen.body["model"].clone()).collect::<Vec<_>>());
        assert_eq!(models, [vec![json!("one-model")], vec![json!("two-model")]], "{failing:?}");
    }
}

#[tokio::test]
async fn but_not_later_nor_for_the_requests_own_faults_nor_unasked() {
    let late = Answer { cut_after_bytes: Some(500), ..says("abcdefghijklmnopqrstuvwxyz") };
    let rejected = UpstreamErrorKind::Rejected { status: 400 };
    for (failing, kind) in [(refuses(400), rejected), (late, UpstreamErrorKind::Cut)] {
        let (one, two) = (fake(vec![failing.clone()]).await, fake(vec![says("two")]).await);
        let router = Router::new(vec![upstream("one", &one), upstream("two", &two)]).expect("good upstreams");
        assert_eq!(go(&router).await.1, Some(kind), "{failing:?}");
        assert_eq!(two.seen().len(), 0);
    }
    let (one, two) = (fake(vec![refuses(500)]).await, fake(vec![says("two")]).await);
    let mut alone = upstream("one", &one);
    alone.resilience.failover = false;
    let router = Router::new(vec![alone, upstream("two", &two)]).expect("good upstreams");
    assert_eq!(go(&router).await, (String::new(), Some(UpstreamErrorKind::Unavailable)));
    assert_eq!(two.seen().len(), 0);
}

#[tokio::test]
async fn the_last_error_is_told_and_the_chain_ends_where_it_is_told_to() {
    let (one, two, three) =
        (fake(vec![refuses(500)]).await, fake(vec![refuses(529)]).await, fake(vec![says("three")]).await);
    let mut last = upstream("two", &two);
    last.resilience.failover = false;
    let router = Router::new(vec![upstream("one", &one), last, upstream("three", &three)]).expect("good upstreams");
    assert_eq!(go(&router).await.1, Some(UpstreamErrorKind::Overloaded { retry_after: None }));
    assert_eq!((one.seen().len(), two.seen().len(), three.seen().len()), (1, 1, 0));
}

#[tokio::test]
async fn an_upstream_that_fails_and_fails_rests() {
    let one = fake(vec![refuses(500); 9]).await;
    let mut config = upstream("one", &one);
    config.resilience = Resilience { failures_max: 2, rest: Duration::from_secs(60), ..config.resilience };
    let router = Router::new(vec![config.clone()]).expect("good upstreams");
    for _ in 0..2 {
        assert_eq!(go(&router).await.1, Some(UpstreamErrorKind::Unavailable));
    }
    let (_, error) = ask(&router, request("m", &Value::Null)).await;
    let error = error.expect("it rests");
    assert_eq!(error.client.kind.status(), 529);
    let wait = error.kind.retry_after().expect("the client is told for how long");
    assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
    assert_eq!(one.seen().len(), 2);
    // The next one is asked at once.
    let (one, two) = (fake(vec![refuses(500); 9]).await, fake(vec![says("two"); 9]).await);
    let config = UpstreamConfig { resilience: config.resilience.clone(), ..upstream("one", &one) };
    let router = Router::new(vec![config, upstream("two", &two)]).expect("good upstreams");
    for _ in 0..4 {
        assert_eq!(go(&router).await, ("two".to_owned(), None));
    }
    assert_eq!((one.seen().len(), two.seen().len()), (2, 4));
}

#[tokio::test]
async fn a_reply_that_drips_for_ever_is_ended() {
    let dripping = Answer { chunk_bytes: Some(30), chunk_delay_ms: 20, ..says(&"x".repeat(100_000)) };
    let one = fake(vec![dripping]).await;
    let mut config = upstream("one", &one);
    config.timeouts.whole_max = Some(Duration::from_millis(300));
    let router = Router::new(vec![config]).expect("good upstreams");
    assert_eq!(go(&router).await.1, Some(UpstreamErrorKind::TimedOut { phase: Phase::Whole }));
    one.bodies_closed().await;
}

/// A client that reads slowly slows the upstream down; nothing piles up in between but what the sockets hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_the_upstream() {
    const SOCKETS_BYTES_MAX: usize = 16 << 20;
    let text = "x".repeat(1_000);
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    let raw = support::chat::sse(&vec![chunk; 50_000]);
    assert!(raw.len() > 2 * SOCKETS_BYTES_MAX);
    let one = fake(vec![Answer { raw: Some(raw.clone()), chunk_bytes: Some(64 << 10), ..Answer::default() }]).await;
    let router = Router::new(vec![upstream("one", &one)]).expect("good upstreams");
    let serving = router.route("m").expect("the name is served");
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    let mut events = serving.sample(request("m", &Value::Null), hints);
    assert!(matches!(events.next().await, Some(Ok(SamplingEvent::Started { .. }))));
    // Until it takes no more.
    let mut taken = one.bytes_taken();
    let more = async |taken: usize| {
        while one.bytes_taken() == taken {
            tokio::task::yield_now().await;
        }
    };
    while tokio::time::timeout(Duration::from_millis(300), more(taken)).await.is_ok() {
        taken = one.bytes_taken();
    }
    assert!(taken < SOCKETS_BYTES_MAX, "{taken} of {} bytes were taken for a reader that reads nothing", raw.len());
    while let Some(event) = events.next().await {
        if event.is_err() {
            break;
        }
    }
    assert_eq!(one.bytes_taken(), raw.len());
}

#[tokio::test]
async fn retries_are_as_many_as_are_configured() {
    for retries_max in [0, 1, 3] {
        let soon = BTreeMap::from([("retry-after-ms".to_owned(), "1".to_owned())]);
        let one = fake(vec![Answer { headers: soon, ..refuses(503) }; 9]).await;
        let mut config = upstream("one", &one);
        config.resilience.retries_max = retries_max;
        let router = Router::new(vec![config]).expect("good upstreams");
        let wait = Some(Duration::from_millis(1));
        assert_eq!(go(&router).await.1, Some(UpstreamErrorKind::Overloaded { retry_after: wait }));
        assert_eq!(one.seen().len(), retries_max as usize + 1);
    }
}

#[tokio::test]
async fn aliases_are_served_listed_and_renamed() {
    let one = fake(vec![says("one"), says("one")]).await;
    let mut config = upstream("one", &one);
    config.models = vec!["local-*".to_owned()];
    config.aliases = BTreeMap::from([("claude-sonnet-5".to_owned(), "qwen3:32b".to_owned())]);
    let router = Router::new(vec![config]).expect("good upstreams");
    assert_eq!(router.models(), ["claude-sonnet-5"]);
    assert!(router.route("claude-sonnet-4").is_none());
    for (name, sent) in [("claude-sonnet-5", "qwen3:32b"), ("local-x", "one-model")] {
        ask(&router, request(name, &Value::Null)).await;
        assert_eq!(one.seen().last().map(|seen| seen.body["model"].clone()), Some(json!(sent)), "{name}");
    }
}

/// What a model cannot do is said before it is asked.
#[tokio::test]
async fn requests_that_a_model_cannot_serve_are_refused_with_the_reason() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}});
    let document =
        json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}});
    let text = json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}});
    let with = |block: &Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "x", "input": {}});
    let inside = json!({"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [image.clone()]}]}]});
    let tools = json!({"tools": [{"name": "x", "input_schema": {"type": "object"}}]});
    let thinking = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(4_000)}]});
    let no = Capabilities {
        vision: Some(false),
        documents: Some(false),
        thinking: Some(false),
        tools: Some(false),
        context_tokens_max: Some(900),
    };
    let cases = [
        (with(&image), Some("messages: the model `m` takes no images")),
        (inside, Some("messages: the model `m` takes no images")),
        (with(&document), Some("messages: the model `m` takes no documents")),
        (with(&text), None),
        (tools, Some("tools: the model `m` cannot call tools")),
        (thinking, Some("thinking: the model `m` does not think")),
        (json!({"thinking": {"type": "disabled"}}), None),
        (long, Some("prompt is too long: 1009 tokens > 900 maximum")),
        (Value::Null, None),
    ];
    for (more, refused) in cases {
        for (can, expected) in [(no.clone(), refused), (Capabilities::default(), None)] {
            let one = fake(vec![says("one")]).await;
            let config = UpstreamConfig { capabilities: can, ..upstream("one", &one) };
            let router = Router::new(vec![config]).expect("good upstreams");
            let (_, error) = ask(&router, request("m", &more)).await;
            let told = error.as_ref().map(|error| (error.client.kind.status(), error.client.message.as_str()));
            assert_eq!(told, expected.map(|text| (400, text)), "{more}");
            assert_eq!(one.seen().len(), usize::from(expected.is_none()), "{more}");
        }
    }
}
