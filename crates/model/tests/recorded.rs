//! What is recorded of an upstream is replayed when the upstream is gone: the same events, the same failures. The cases are data, in
//! `recorded/`.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::recording::Recording;
use belljar_model::{
    ChatSettings, ConfigError, Rescue, Router, SamplingHints, Secret, Timeouts, TokenCount, UpstreamConfig,
    UpstreamError, UpstreamErrorKind, UpstreamKind,
};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingEvent, SamplingRequest};
use belljar_wire::tool::Tool;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use support::request::sampling;
use support::{Answer, Fake};

const KEY: &str = "sk-test-0123456789";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    dialect: String,
    answers: Vec<Answer>,
    /// How often the same is asked of the fake.
    asks: usize,
    /// How often it is asked of the recording beyond that.
    #[serde(default)]
    more: usize,
    /// What stands in the file: how each exchange ended, and its status.
    exchanges: Vec<(String, Option<u16>)>,
    /// Why each reply ended, or which error it came to.
    ends: Vec<String>,
}

type Sampled = Vec<Result<SamplingEvent, UpstreamError>>;

fn live(dialect: &str, url: &str, record: &Path) -> UpstreamConfig {
    let kind = match dialect {
        "anthropic" => UpstreamKind::Anthropic { base_url: url.to_owned(), api_key: Secret::new(KEY), proxy: None },
        _ => UpstreamKind::OpenAi {
            base_url: format!("{url}/v1"),
            api_key: Some(Secret::new(KEY)),
            proxy: None,
            settings: ChatSettings { rescue: vec![Rescue::Hermes], ..ChatSettings::default() },
        },
    };
    let timeouts = Timeouts {
        connect_max: Duration::from_secs(5),
        first_byte_max: Duration::from_millis(700),
        between_bytes_max: Duration::from_millis(700),
        whole_max: None,
    };
    UpstreamConfig { timeouts, record: Some(record.to_owned()), ..UpstreamConfig::new("up", kind) }
}

fn recorded(file: &Path) -> UpstreamConfig {
    let timeouts = Timeouts {
        first_byte_max: Duration::from_millis(700),
        between_bytes_max: Duration::from_millis(700),
        ..Timeouts::default()
    };
    UpstreamConfig { timeouts, ..UpstreamConfig::new("up", UpstreamKind::Recorded { file: file.to_owned() }) }
}

fn router(config: UpstreamConfig) -> Router {
    Router::new(vec![config]).expect("a good upstream")
}

fn request(said: &str) -> SamplingRequest {
    let body = json!({"model": "m", "max_tokens": 9, "tools": [{"name": "look_up", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": said}]});
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    let custom = |tool: Tool| match tool {
        Tool::Custom(tool) => Some(ModelTool::Custom(tool)),
        Tool::CodeExecution(_) | Tool::Host(_) | Tool::Hosted(_) | Tool::Vendor(_) => None,
    };
    sampling(read, custom)
}

async fn ask(router: &Router, said: &str) -> Sampled {
    let upstream = router.route("m").expect("every model is served");
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    upstream.sample(request(said), hints).collect().await
}

fn end(sampled: &Sampled) -> String {
    match sampled.last() {
        Some(Ok(SamplingEvent::Ended { stop_reason, .. })) => {
            json!(stop_reason).as_str().unwrap_or_default().to_owned()
        }
        Some(Err(error)) => format!("{:?}", error.kind),
        other => format!("{other:?}"),
    }
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/cases.json");
    serde_json::from_slice(&std::fs::read(path).expect("the cases")).expect("cases")
}

/// The exchanges of a file as it was written.
fn exchanges(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("the recording");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a document a line"));
    lines.filter_map(|line| line.get("exchange").cloned()).collect()
}

fn place(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("up.jsonl")
}

#[tokio::test]
async fn what_was_recorded_is_replayed() {
    for case in cases() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = place(&folder);
        let name = &case.name;
        let fake = Fake::start(case.answers).await.expect("the fake listens");
        let upstream = router(live(&case.dialect, &fake.url, &file));
        let mut heard = Vec::new();
        for _ in 0..case.asks {
            heard.push(ask(&upstream, "go").await);
        }
        assert_eq!(fake.violations(), Vec::<String>::new(), "{name}");
        let written: Vec<(String, Option<u16>)> = exchanges(&file)
            .iter()
            .map(|exchange| {
                let end = &exchange["end"];
                let word = end.as_str().or_else(|| end.as_object()?.keys().next().map(String::as_str));
                (
                    word.unwrap_or_default().to_owned(),
                    exchange["status"].as_u64().and_then(|status| status.try_into().ok()),
                )
            })
            .collect();
        assert_eq!(written, case.exchanges, "{name}");
        assert!(!std::fs::read_to_string(&file).expect("the recording").contains(KEY), "{name}");
        // Nothing is asked of the fake from here on.
        let seen = fake.seen().len();
        let upstream = router(recorded(&file));
        for round in 0..case.asks + case.more {
            let replayed = ask(&upstream, "go").await;
            assert_eq!(end(&replayed), case.ends[round], "{name}, {round}");
            assert_eq!(Some(&replayed), heard.get(round).or(heard.last()), "{name}, {round}");
        }
        assert_eq!(fake.seen().len(), seen, "{name}");
    }
}

/// Pieces are kept as they came, and so is what is no text.
#[tokio::test]
async fn pieces_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = place(&folder);
    let text = json!({"type": "text", "text": "é"});
    let answer = Answer { chunk_bytes: Some(1), content: vec![text], ..Answer::default() };
    let bytes = support::sse(&answer).into_bytes();
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let _heard = ask(&router(live("anthropic", &fake.url, &file)), "go").await;
    let exchange = exchanges(&file).remove(0);
    let pieces = exchange["pieces"].as_array().expect("pieces");
    // A connection may join what was written apart; it cannot cut a byte.
    assert!(pieces.len() > 10 && pieces.len() <= bytes.len(), "{}", pieces.len());
    let base64 = pieces.iter().filter(|piece| piece[1].is_object()).count();
    let joined: usize = pieces.iter().filter_map(|piece| piece[1].as_str()).map(str::len).sum();
    assert!(joined <= bytes.len() && (base64 > 0 || joined == bytes.len()), "{base64} {joined}");
}

#[tokio::test]
async fn what_was_not_recorded_is_an_error_that_says_what_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = place(&folder);
    let answers =
        ["one", "two"].map(|text| Answer { content: vec![json!({"type": "text", "text": text})], ..Answer::default() });
    let fake = Fake::start(answers.to_vec()).await.expect("the fake listens");
    let upstream = router(live("anthropic", &fake.url, &file));
    for said in ["a question", "quite another"] {
        let _heard = ask(&upstream, said).await;
    }
    let upstream = router(recorded(&file));
    let error = ask(&upstream, "quite another one").await.remove(0).expect_err("it was not recorded");
    assert_eq!((error.kind, error.client.kind.status()), (UpstreamErrorKind::NotRecorded, 404));
    let digest: String = error.client.message.chars().skip_while(|c| *c != '(').take_while(|c| *c != ')').collect();
    assert_eq!(digest.len(), "(digest ".len() + 64, "{}", error.client.message);
    assert!(!error.client.message.contains("question"), "others' words are not the client's: {}", error.client.message);
    let hint = "exchange 1 is the most similar: at `messages.0.content.0.text` it has \"a question\", and was asked \"quite another one\"";
    assert!(error.operator.contains(hint), "{}", error.operator);
    // What was not counted is estimated.
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    let count = upstream.route("m").expect("served").count_tokens(request("go"), hints).await;
    assert!(matches!(count, Ok(TokenCount::Estimated(1..))), "{count:?}");
}

#[tokio::test]
async fn an_upstream_behind_the_recording_answers_what_it_has_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = place(&folder);
    let text = |text: &str| Answer { content: vec![json!({"type": "text", "text": text})], ..Answer::default() };
    let fake = Fake::start(vec![text("one"), text("two")]).await.expect("the fake listens");
    let first = ask(&router(live("openai", &fake.url, &file)), "one").await;
    let mut replay = recorded(&file);
    replay.name = "replay".to_owned();
    replay.resilience.failover = true;
    let both = Router::new(vec![replay, live("openai", &fake.url, &file)]).expect("good upstreams");
    assert_eq!(ask(&both, "one").await, first);
    assert_eq!(fake.seen().len(), 1);
    assert_eq!(end(&ask(&both, "two").await), "end_turn");
    assert_eq!((fake.seen().len(), Recording::open(&file).expect("a recording").count()), (2, 2));
}

#[tokio::test]
async fn nobody_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = place(&folder);
    // Nobody listens on the port of a listener that is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut config = live("anthropic", &format!("http://{port}"), &file);
    config.resilience.retries_max = 1;
    let heard = ask(&router(config), "go").await;
    assert_eq!(end(&heard), "Unavailable");
    assert_eq!(exchanges(&file).len(), 2);
    assert_eq!(ask(&router(recorded(&file)), "go").await, heard);
}

#[test]
fn files_that_are_no_recordings_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = place(&folder);
    let refused = || match Router::new(vec![recorded(&file)]).map(|_| ()) {
        Err(ConfigError::Recording { key, problem, .. }) => (key, problem),
        other => panic!("{other:?}"),
    };
    let (key, missing) = refused();
    assert!(key == "recording" && missing.contains("No such file"), "{missing}");
    std::fs::write(&file, "{}\n").expect("the file");
    assert!(refused().1.contains("not a recording"), "{}", refused().1);
    std::fs::write(
        &file,
        "{\"recording\": {\"form\": 2, \"dialect\": \"anthropic\", \"upstream\": \"u\", \"belljar\": \"9\"}}\n",
    )
    .expect("the file");
    assert!(refused().1.contains("not a recording"), "{}", refused().1);
    assert!(folder.path().is_dir());
    let directory = recorded(folder.path());
    assert!(matches!(Router::new(vec![directory]).map(|_| ()), Err(ConfigError::Recording { .. })));
}

#[tokio::test]
async fn the_operators_betas_are_a_part_of_what_was_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = place(&folder);
    let answer = Answer { content: vec![json!({"type": "text", "text": "hi"})], ..Answer::default() };
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let config = UpstreamConfig { betas: Some(vec!["compact-*".to_owned()]), ..live("anthropic", &fake.url, &file) };
    let betas = ["compact-2026-01-12", "effort-2025-11-24", "code-execution-2025-08-25"];
    let request = SamplingRequest { betas: betas.map(str::to_owned).into(), ..request("go") };
    let mut ends = Vec::new();
    for config in [config, recorded(&file)] {
        let router = router(config);
        let upstream = router.route("m").expect("every model is served");
        let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
        let sampled: Sampled = upstream.sample(request.clone(), hints).collect().await;
        ends.push(end(&sampled));
    }
    assert_eq!(ends, ["end_turn", "end_turn"]);
    assert_eq!(exchanges(&file)[0]["betas"], "compact-2026-01-12");
}
