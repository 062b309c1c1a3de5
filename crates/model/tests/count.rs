//! Counting tokens: the upstream's word where it has one, else an estimate.

mod support;

use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{Router, SamplingHints, Secret, TokenCount, UpstreamConfig, UpstreamErrorKind, UpstreamKind};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::SamplingRequest;
use serde_json::json;
use support::request::sampling;
use support::{Answer, Fake};

fn request() -> SamplingRequest {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "How many words are these?"}]});
    let read = MessagesRequest::read_to_count(body.to_string().as_bytes()).expect("the request is legal");
    sampling(read, |_| None)
}

async fn count(kind: UpstreamKind, model: Option<&str>) -> Result<TokenCount, belljar_model::UpstreamError> {
    let config = UpstreamConfig {
        model: model.map(str::to_owned),
        timeouts: belljar_model::Timeouts {
            connect_max: Duration::from_secs(5),
            first_byte_max: Duration::from_secs(5),
            between_bytes_max: Duration::from_secs(5),
            whole_max: None,
        },
        ..UpstreamConfig::new("u", kind)
    };
    let router = Router::new(vec![config]).expect("a good upstream");
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    router.route("m").expect("every model is served").count_tokens(request(), hints).await
}

async fn counted(answer: Answer) -> (Fake, Result<TokenCount, belljar_model::UpstreamError>) {
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let kind = UpstreamKind::Anthropic { base_url: fake.url.clone(), api_key: Secret::new("k"), proxy: None };
    let found = count(kind, Some("theirs")).await;
    (fake, found)
}

#[tokio::test]
async fn the_upstream_is_asked_by_its_own_rules() {
    let (fake, found) =
        counted(Answer { raw: Some("{\"input_tokens\": 2263, \"more\": 1}".to_owned()), ..Answer::default() }).await;
    assert_eq!(found, Ok(TokenCount::Counted(2263)));
    assert_eq!(fake.violations(), Vec::<String>::new());
    let seen = fake.seen();
    let content = json!([{"type": "text", "text": "How many words are these?"}]);
    assert_eq!(seen[0].body, json!({"model": "theirs", "messages": [{"role": "user", "content": content}]}));
}

#[tokio::test]
async fn an_upstream_without_this_endpoint_has_it_estimated() {
    for status in [404, 405, 501] {
        let refusal =
            Answer { status: Some(status), error: Some(("nothing".to_owned(), "no".to_owned())), ..Answer::default() };
        let (_, found) = counted(refusal).await;
        assert!(matches!(found, Ok(TokenCount::Estimated(7..=30))), "{status}: {found:?}");
    }
    let scripted = count(UpstreamKind::Scripted { scripts_dir: None }, None).await;
    assert!(matches!(scripted, Ok(TokenCount::Estimated(7..=30))), "{scripted:?}");
}

#[tokio::test]
async fn other_failures_are_failures() {
    let refusal = |status, tag: &str| Answer {
        status: Some(status),
        error: Some((tag.to_owned(), "no".to_owned())),
        ..Answer::default()
    };
    let cases = [
        (refusal(404, "not_found_error"), UpstreamErrorKind::ModelNotFound),
        (refusal(401, "authentication_error"), UpstreamErrorKind::Authentication),
        (refusal(400, "invalid_request_error"), UpstreamErrorKind::Rejected { status: 400 }),
        (Answer { raw: Some("<html>".to_owned()), ..Answer::default() }, UpstreamErrorKind::Protocol),
        (Answer { raw: Some("{\"input_tokens\": -1}".to_owned()), ..Answer::default() }, UpstreamErrorKind::Protocol),
        (Answer { raw: Some("x".repeat(70_000)), ..Answer::default() }, UpstreamErrorKind::TooLarge),
    ];
    for (answer, kind) in cases {
        let (_, found) = counted(answer).await;
        assert_eq!(found.map_err(|error| error.kind), Err(kind));
    }
}
