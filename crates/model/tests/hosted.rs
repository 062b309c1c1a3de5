//! Blocks of tools that the upstream's vendor runs: read wherever the bytes are cut, and nothing of them is lost.

mod support;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{Router, SamplingHints, Secret, UpstreamConfig, UpstreamError, UpstreamErrorKind, UpstreamKind};
use belljar_wire::event::Delta;
use belljar_wire::hosted_tool::{HostedBlock, HostedCall, HostedFamily, HostedTools};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SampledBlock, SamplingEvent, SamplingRequest};
use belljar_wire::tool::Tool;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::request::sampling;
use support::{Answer, Fake};

fn config(name: &str, base_url: &str, server_tools: &[&str]) -> UpstreamConfig {
    let kind = UpstreamKind::Anthropic { base_url: base_url.to_owned(), api_key: Secret::new("sk-test"), proxy: None };
    let server_tools: Vec<String> = server_tools.iter().map(|tool| (*tool).to_owned()).collect();
    let server_tools = HostedTools::read(&server_tools).expect("known tools");
    UpstreamConfig { server_tools, ..UpstreamConfig::new(name, kind) }
}

fn request() -> SamplingRequest {
    let tools = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 2, "of_the_vendors": [1]}]);
    let body = json!({"model": "m", "max_tokens": 9, "tools": tools, "messages": [{"role": "user", "content": "go"}]});
    let read = MessagesRequest::read(body.to_string().as_bytes()).expect("the request is legal");
    let hosted = |tool: Tool| match tool {
        Tool::Hosted(tool) => Some(ModelTool::Hosted(tool)),
        Tool::CodeExecution(_) | Tool::Custom(_) | Tool::Host(_) | Tool::Vendor(_) => None,
    };
    sampling(read, hosted)
}

async fn sampled(configs: Vec<UpstreamConfig>) -> Vec<Result<SamplingEvent, UpstreamError>> {
    let router = Router::new(configs).expect("good upstreams");
    let hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    router.route("m").expect("every model is served").sample(request(), hints).collect().await
}

async fn answered(answer: Answer) -> (Fake, Vec<Result<SamplingEvent, UpstreamError>>) {
    let fake = Fake::start(vec![answer]).await.expect("the fake listens");
    let events = sampled(vec![config("up", &fake.url, &["web_search"])]).await;
    (fake, events)
}

fn blocks() -> Vec<Value> {
    vec![
        json!({"type": "server_tool_use", "id": "srvtoolu_bdrk_01", "name": "web_search", "input": {"query": "é\n"},
            "caller": {"type": "direct"}, "extra": null}),
        json!({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_bdrk_01", "content": [
            {"type": "web_search_result", "url": "https://e.org", "title": "É", "encrypted_content": "Eo4B", "page_age": null}]}),
        json!({"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_2", "content":
            {"type": "web_fetch_tool_result_error", "error_code": "url_too_long"}}),
        json!({"type": "tool_search_tool_result", "tool_use_id": "srvtoolu_3", "content":
            {"type": "tool_search_tool_search_result", "tool_references": [{"type": "tool_reference", "tool_name": "x"}]}}),
        json!({"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "find", "server_name": "docs", "input": {"q": [1]}}),
        json!({"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": false, "content": []}),
        json!({"type": "mcp_tool_listing", "mcp_server_name": "docs", "tools": []}),
    ]
}

/// The blocks that events add up to.
fn added_up(events: &[Result<SamplingEvent, UpstreamError>]) -> Vec<Value> {
    let (mut out, mut open, mut input) = (Vec::new(), None, String::new());
    for event in events {
        match event.as_ref().expect("no error") {
            SamplingEvent::BlockStarted(SampledBlock::Hosted(block)) => open = Some(block.clone()),
            SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json }) => input.push_str(partial_json),
            SamplingEvent::BlockEnded => out.push(match open.take().expect("a block is open") {
                HostedBlock::Call(call) => {
                    let input: Value = serde_json::from_str(&std::mem::take(&mut input)).expect("an input");
                    json!(call.with_input(input))
                }
                HostedBlock::Answer(answer) => json!(answer.block),
                HostedBlock::Listing(block) => json!(block),
            }),
            SamplingEvent::Started { .. } | SamplingEvent::Ended { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    out
}

#[tokio::test]
async fn every_block_comes_through_wherever_its_bytes_are_cut() {
    for chunk_bytes in [1, 13, 4096] {
        let used = json!({"input_tokens": 1, "output_tokens": 2, "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": null}});
        let answer =
            Answer { content: blocks(), usage: Some(used), chunk_bytes: Some(chunk_bytes), ..Answer::default() };
        let (fake, events) = answered(answer).await;
        assert_eq!(added_up(&events), blocks(), "{chunk_bytes}");
        let Some(Ok(SamplingEvent::Ended { usage, .. })) = events.last() else { panic!("it ends: {events:?}") };
        assert_eq!(usage.server_tool_use.map(|used| (used.web_search_requests, used.web_fetch_requests)), Some((3, 0)));
        assert_eq!(fake.violations(), Vec::<String>::new());
        let sent = &fake.seen()[0].body["tools"];
        assert_eq!(
            *sent,
            json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 2, "of_the_vendors": [1]}])
        );
    }
}

#[tokio::test]
async fn blocks_that_lack_what_makes_them_one_are_protocol_errors() {
    let broken = [
        json!({"type": "server_tool_use", "id": "toolu_1", "name": "web_search", "input": {}}),
        json!({"type": "server_tool_use", "id": "srvtoolu_1", "input": {}}),
        json!({"type": "web_search_tool_result", "content": []}),
        json!({"type": "web_fetch_tool_result", "tool_use_id": 7, "content": []}),
        json!({"type": "mcp_tool_use", "id": "m", "name": "find", "input": {}}),
        json!({"type": "telepathy_tool_result", "tool_use_id": "srvtoolu_1"}),
        json!({"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {}}),
    ];
    for block in broken {
        let (_, events) = answered(Answer { content: vec![block.clone()], ..Answer::default() }).await;
        let error = events.last().expect("something came").as_ref().expect_err("it failed");
        assert_eq!(error.kind, UpstreamErrorKind::Protocol, "{block}");
    }
}

#[tokio::test]
async fn failing_over_skips_who_does_not_pass_the_tool_on() {
    let broken = Answer { status: Some(529), ..Answer::default() };
    let busy = Fake::start(vec![broken.clone(), broken.clone(), broken]).await.expect("the fake listens");
    let closed = Fake::start(Vec::new()).await.expect("the fake listens");
    let open = Fake::start(Vec::new()).await.expect("the fake listens");
    let mut first = config("first", &busy.url, &["web_search"]);
    (first.resilience.failover, first.resilience.retries_max) = (true, 0);
    let mut second = config("second", &closed.url, &["web_fetch"]);
    second.resilience.failover = true;
    let events = sampled(vec![first, second, config("third", &open.url, &["web_search"])]).await;
    assert!(matches!(events.last(), Some(Ok(SamplingEvent::Ended { .. }))), "{events:?}");
    assert_eq!((busy.seen().len(), closed.seen().len(), open.seen().len()), (1, 0, 1));
}

#[test]
fn the_operators_list_names_what_is_there() {
    let read =
        |entries: &[&str]| HostedTools::read(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>());
    let cases: [(&[&str], usize); 6] =
        [(&[], 0), (&["web_search"], 3), (&["web_fetch_2026*"], 3), (&["tool_search"], 4), (&["mcp"], 1), (&["*"], 11)];
    for (entries, count) in cases {
        assert_eq!(read(entries).map(|tools| tools.tags().len()), Ok(count), "{entries:?}");
    }
    for wrong in ["search", "mcp*", "mcp_toolset", "web_search_20991231", "", "memory_20250818"] {
        assert_eq!(read(&["web_search", wrong]), Err(wrong.to_owned()));
    }
    assert!(!read(&["*"]).expect("all").has_of(HostedFamily::Mcp));
    let Ok(Some(HostedBlock::Call(HostedCall::Tool(call)))) =
        HostedBlock::read(blocks()[0].as_object().expect("an object"))
    else {
        panic!("a call");
    };
    assert_eq!(call.id.as_str(), "srvtoolu_bdrk_01");
}
