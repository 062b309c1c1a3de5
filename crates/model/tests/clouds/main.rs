//! The Messages API in Amazon Bedrock and in Vertex AI, against strict fakes: who asks, what is sent, and every way that it fails.

mod fake;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{
    AwsCredentials, GoogleCredentials, Router, SamplingHints, Secret, Timeouts, TokenCount, UpstreamConfig,
    UpstreamError, UpstreamErrorKind, UpstreamKind,
};
use belljar_wire::event::Delta;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use support::request::sampling;

use fake::{ACCESS_KEY_ID, BEARER, Cloud, PROJECT, REGION, SECRET, SESSION_TOKEN, Script};

fn request() -> SamplingRequest {
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]});
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    let betas = vec!["interleaved-thinking-2025-05-14".to_owned(), "code-execution-2025-05-22".to_owned()];
    SamplingRequest { betas, ..sampling(read, |_| None) }
}

fn config(model: &str, kind: UpstreamKind) -> UpstreamConfig {
    UpstreamConfig {
        model: Some(model.to_owned()),
        timeouts: Timeouts {
            connect_max: Duration::from_secs(5),
            first_byte_max: Duration::from_secs(5),
            between_bytes_max: Duration::from_secs(5),
            whole_max: None,
        },
        ..UpstreamConfig::new("up", kind)
    }
}

fn signing(temporary_token: Option<&str>) -> AwsCredentials {
    AwsCredentials::Keys {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: Secret::new(SECRET),
        temporary_token: temporary_token.map(Secret::new),
    }
}

fn bedrock(url: &str, model: &str, credentials: AwsCredentials) -> UpstreamConfig {
    let kind = UpstreamKind::Bedrock { base_url: url.to_owned(), region: REGION.to_owned(), credentials, proxy: None };
    config(model, kind)
}

fn vertex(url: &str, credentials: GoogleCredentials) -> UpstreamConfig {
    let kind = UpstreamKind::Vertex {
        base_url: url.to_owned(),
        region: REGION.to_owned(),
        project: PROJECT.to_owned(),
        credentials,
        proxy: None,
    };
    config("claude-haiku-4-5@20251001", kind)
}

fn hints() -> SamplingHints {
    SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)))
}

type Sampled = Vec<Result<SamplingEvent, UpstreamError>>;

async fn sample(configs: Vec<UpstreamConfig>) -> Sampled {
    let router = Router::new(configs).expect("good upstreams");
    router.route("m").expect("every model is served").sample(request(), hints()).collect().await
}

fn said(events: &Sampled) -> String {
    let text = |event: &Result<SamplingEvent, UpstreamError>| match event.as_ref().expect("no error") {
        SamplingEvent::BlockDelta(Delta::TextDelta { text }) => text.clone(),
        _ => String::new(),
    };
    assert!(matches!(events.last(), Some(Ok(SamplingEvent::Ended { .. }))));
    events.iter().map(text).collect()
}

fn reply(chunk_bytes: Option<usize>) -> Script {
    Script { content: vec![json!({"type": "text", "text": "Grüße aus der Wolke"})], chunk_bytes, ..Script::default() }
}

/// The fake makes the signature again by itself, and refuses another.
#[tokio::test]
async fn requests_to_bedrock_are_signed() {
    let arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0";
    let models = [
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1%3A0"),
        (
            arn,
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.claude-haiku-4-5-20251001-v1%3A0",
        ),
    ];
    for (model, segment) in models {
        for credentials in [signing(None), signing(Some(SESSION_TOKEN)), AwsCredentials::Bearer(Secret::new(BEARER))] {
            let cloud = Cloud::start(vec![reply(None)], Vec::new()).await;
            let events = sample(vec![bedrock(&cloud.url, model, credentials)]).await;
            assert_eq!(cloud.violations(), Vec::<String>::new());
            assert_eq!(said(&events), "Grüße aus der Wolke");
            let [seen] = &cloud.seen()[..] else { panic!("one request") };
            assert_eq!(seen.path, format!("/model/{segment}/invoke-with-response-stream"));
            let body = json!({"anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["interleaved-thinking-2025-05-14"],
                "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": "go"}]}]});
            assert_eq!(seen.body, body);
        }
    }
}

#[tokio::test]
async fn a_wrong_secret_makes_another_signature() {
    let cloud = Cloud::start(vec![reply(None)], Vec::new()).await;
    let AwsCredentials::Keys { access_key_id, temporary_token, .. } = signing(None) else { panic!("keys") };
    let wrong = AwsCredentials::Keys { access_key_id, secret_access_key: Secret::new("another"), temporary_token };
    let events = sample(vec![bedrock(&cloud.url, "m", wrong)]).await;
    assert!(events[0].is_err());
    assert!(cloud.violations()[0].starts_with("AWS4-HMAC-SHA256 "), "{:?}", cloud.violations());
}

#[tokio::test]
async fn frames_may_be_split_anywhere() {
    for size in [1, 7, 13, 4096] {
        let cloud = Cloud::start(vec![reply(Some(size))], Vec::new()).await;
        let events = sample(vec![bedrock(&cloud.url, "m", signing(None))]).await;
        assert_eq!(said(&events), "Grüße aus der Wolke", "{size}");
    }
}

/// One way that a cloud fails.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    via: String,
    answer: Script,
    /// Events before the failure.
    before: usize,
    kind: String,
    client_status: u16,
    /// What the client reads, where that is the cloud's own word.
    told: Option<String>,
    /// What the operator's line holds.
    operator: String,
    /// Requests that are made: retries are on, and without a pause where the cloud says so.
    requests: usize,
}

fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clouds/replies");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("it can be read");
        let case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, case)
    };
    paths.iter().map(|path| read(path)).collect()
}

#[tokio::test]
async fn failures_as_data() {
    for (name, case) in cases() {
        let cloud = Cloud::start(vec![case.answer.clone(); 3], vec![3600]).await;
        let config = match case.via.as_str() {
            "bedrock" => bedrock(&cloud.url, "m", signing(Some(SESSION_TOKEN))),
            "vertex" => vertex(&cloud.url, GoogleCredentials::Token(Secret::new("ya29.fixed"))),
            other => panic!("{name}: {other}"),
        };
        let events = sample(vec![config]).await;
        assert_eq!(cloud.violations(), Vec::<String>::new(), "{name}");
        let error = events.last().expect("something came").as_ref().expect_err(&name);
        assert_eq!(format!("{:?}", error.kind), case.kind, "{name}: {error}");
        assert_eq!(events.len() - 1, case.before, "{name}");
        assert_eq!(error.client.kind.status(), case.client_status, "{name}");
        assert!(error.operator.contains(&case.operator), "{name}: {}", error.operator);
        if let Some(told) = &case.told {
            assert_eq!(error.client.message, *told, "{name}");
        }
        for secret in [SECRET, SESSION_TOKEN, "ya29.", "arn:"] {
            assert!(!error.client.message.contains(secret), "{name}: {}", error.client.message);
        }
        for secret in [SECRET, SESSION_TOKEN, "ya29."] {
            assert!(!error.operator.contains(secret), "{name}: {}", error.operator);
        }
        assert_eq!(cloud.seen().len(), case.requests, "{name}");
    }
}

#[tokio::test]
async fn a_throttled_cloud_is_asked_again_and_signed_anew_and_then_the_next_upstream() {
    let throttled = Script {
        status: Some(429),
        headers: [("x-amzn-errortype", "ThrottlingException"), ("retry-after-ms", "5")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: Some("{\"message\":\"Too many tokens\"}".to_owned()),
        ..Script::default()
    };
    let first = Cloud::start(vec![throttled.clone(), reply(None)], Vec::new()).await;
    assert_eq!(said(&sample(vec![bedrock(&first.url, "m", signing(None))]).await), "Grüße aus der Wolke");
    assert_eq!((first.seen().len(), first.violations()), (2, Vec::new()));

    let first = Cloud::start(vec![throttled; 3], Vec::new()).await;
    let second = Cloud::start(vec![reply(None)], Vec::new()).await;
    let mut throttling = bedrock(&first.url, "m", signing(None));
    throttling.resilience.failover = true;
    let mut next = vertex(&second.url, GoogleCredentials::Token(Secret::new("ya29.fixed")));
    next.name = "next".to_owned();
    assert_eq!(said(&sample(vec![throttling, next]).await), "Grüße aus der Wolke");
    assert_eq!((first.seen().len(), second.seen().len()), (3, 1));
}

fn service_account(token_uri: &str) -> Secret {
    let account = json!({"type": "service_account", "project_id": PROJECT, "private_key_id": "k",
        "private_key": include_str!("service-account.pem"), "token_uri": token_uri,
        "client_email": "robot@my-project-1.iam.gserviceaccount.com"});
    Secret::new(account.to_string())
}

#[tokio::test]
async fn vertex_is_asked_with_tokens_that_are_renewed_before_they_end() {
    // One that holds for an hour is kept; those that end within seconds are not used again.
    for (lives, tokens) in [(3600, ["Bearer ya29.1", "Bearer ya29.1"]), (10, ["Bearer ya29.1", "Bearer ya29.0"])] {
        let cloud = Cloud::start(vec![reply(None), reply(None)], vec![lives; 2]).await;
        let config =
            vertex(&cloud.url, GoogleCredentials::ServiceAccount(service_account(&format!("{}/token", cloud.url))));
        let router = Router::new(vec![config]).expect("a good upstream");
        let upstream = router.route("m").expect("every model is served");
        for _ in 0..2 {
            let events: Sampled = upstream.sample(request(), hints()).collect().await;
            assert_eq!(said(&events), "Grüße aus der Wolke");
        }
        assert_eq!(cloud.violations(), Vec::<String>::new());
        let seen = cloud.seen();
        assert_eq!(seen.iter().map(|seen| seen.headers["authorization"].as_str()).collect::<Vec<_>>(), tokens);
        assert_eq!(
            seen[0].path,
            "/v1/projects/my-project-1/locations/us-east-1/publishers/anthropic/models/claude-haiku-4-5@20251001:streamRawPredict"
        );
        assert_eq!(seen[0].headers["anthropic-beta"], "interleaved-thinking-2025-05-14");
        let counted = upstream.count_tokens(request(), hints()).await;
        assert_eq!(counted.ok(), (lives == 3600).then_some(TokenCount::Counted(42)), "{lives}");
    }
}

#[tokio::test]
async fn a_refused_account_is_the_operators_to_mend_and_a_silent_server_a_time_out_of_connecting() {
    let cloud = Cloud::start(Vec::new(), Vec::new()).await;
    let config =
        vertex(&cloud.url, GoogleCredentials::ServiceAccount(service_account(&format!("{}/token", cloud.url))));
    let events = sample(vec![config]).await;
    assert_eq!(events[0].as_ref().expect_err("no token").kind, UpstreamErrorKind::Authentication);

    let config = vertex(&cloud.url, GoogleCredentials::ServiceAccount(service_account("http://127.0.0.1:1/token")));
    let events = sample(vec![config]).await;
    assert_eq!(events[0].as_ref().expect_err("no token").kind, UpstreamErrorKind::Unavailable);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = format!("http://{}/token", listener.local_addr().expect("an address"));
    let mut config = vertex(&cloud.url, GoogleCredentials::ServiceAccount(service_account(&silent)));
    config.timeouts.connect_max = Duration::from_millis(100);
    config.resilience.retries_max = 0;
    let events = sample(vec![config]).await;
    let kind = events[0].as_ref().expect_err("no token").kind;
    assert_eq!(kind, UpstreamErrorKind::TimedOut { phase: belljar_model::Phase::Connect });
    assert_eq!(cloud.seen().len(), 0);
}

#[tokio::test]
async fn a_fetched_token_is_taken_out_of_what_the_cloud_says() {
    let echo = json!({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "Bearer ya29.0 is no more"}});
    let refusal = Script { status: Some(401), body: Some(echo.to_string()), ..Script::default() };
    let cloud = Cloud::start(vec![refusal], vec![3600]).await;
    let config =
        vertex(&cloud.url, GoogleCredentials::ServiceAccount(service_account(&format!("{}/token", cloud.url))));
    let events = sample(vec![config]).await;
    let error = events[0].as_ref().expect_err("refused");
    assert!(error.operator.ends_with("UNAUTHENTICATED: Bearer *** is no more"), "{error}");
}

#[tokio::test]
async fn bedrock_counts_nothing_and_an_estimate_says_so() {
    let cloud = Cloud::start(Vec::new(), Vec::new()).await;
    let router = Router::new(vec![bedrock(&cloud.url, "m", signing(None))]).expect("a good upstream");
    let counted = router.route("m").expect("served").count_tokens(request(), hints()).await;
    assert!(matches!(counted, Ok(TokenCount::Estimated(tokens)) if tokens > 0), "{counted:?}");
    assert_eq!(cloud.seen().len(), 0);
}

#[test]
fn what_is_wrong_is_named() {
    let problem = |config: UpstreamConfig| Router::new(vec![config]).map(|_| ()).expect_err("it is wrong").to_string();
    let region = |region: &str| UpstreamKind::Bedrock {
        base_url: "http://h".to_owned(),
        region: region.to_owned(),
        credentials: signing(None),
        proxy: None,
    };
    let wrong = "upstream `up`: region is not one like `us-east-1`";
    assert_eq!(problem(config("m", region(""))), wrong);
    assert_eq!(problem(config("m", region("us/east"))), wrong);
    let account =
        |json: Value| problem(vertex("http://h", GoogleCredentials::ServiceAccount(Secret::new(json.to_string()))));
    assert_eq!(account(json!({})), "upstream `up`: the service account is not the JSON of a service account's key");
    let no_address = json!({"private_key": "k", "client_email": "e", "token_uri": "http://a b/"});
    assert_eq!(account(no_address), "upstream `up`: the service account has a `token_uri` that is no address");
    let no_key = json!({"private_key": "k", "client_email": "e", "token_uri": "http://a/"});
    assert!(account(no_key).starts_with("upstream `up`: the service account has a `private_key` that cannot be used"));
}

#[test]
fn a_models_rules_are_found_under_the_clouds_names() {
    let names = [
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5-20251001-v1:0"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-x", "claude-x"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5@20251001"),
    ];
    for (sent, vendors) in names {
        let router = Router::new(vec![bedrock("http://h", sent, signing(None))]).expect("a good upstream");
        assert_eq!(router.like("m"), Some(vendors));
    }
}
