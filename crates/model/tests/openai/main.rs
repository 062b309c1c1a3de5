//! The chat completions upstream against a strict fake: what is sent, and every way in which servers answer. The cases are data,
//! in `replies/` and `requests/`.

#[path = "../support/mod.rs"]
mod support;

mod replies;
mod requests;
mod responses;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{
    ChatSettings, KnownFiles, Router, SamplingHints, Secret, Timeouts, UpstreamConfig, UpstreamError, UpstreamKind,
};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingEvent, SamplingRequest};
use belljar_wire::tool::{SubTool, Tool};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::request::sampling;

const KEY: &str = "sk-test-0123456789";

fn config(url: &str, settings: ChatSettings) -> UpstreamConfig {
    let api_key = Some(Secret::new(KEY));
    let kind = UpstreamKind::OpenAi { base_url: format!("{url}/v1"), api_key, proxy: None, settings };
    UpstreamConfig {
        model: Some("sent-upstream".to_owned()),
        timeouts: Timeouts {
            connect_max: Duration::from_secs(5),
            first_byte_max: Duration::from_secs(5),
            between_bytes_max: Duration::from_millis(1500),
            whole_max: None,
        },
        ..UpstreamConfig::new("up", kind)
    }
}

/// A request of the Messages API as the loop would hand it on: bash is offered, unless the request says otherwise.
fn request(body: &Value) -> SamplingRequest {
    let mut whole = json!({"model": "m", "max_tokens": 900, "messages": [{"role": "user", "content": "go"}]});
    for (key, value) in body.as_object().expect("a request is an object") {
        whole[key] = value.clone();
    }
    let read = MessagesRequest::read(whole.to_string().as_bytes()).expect("the request is legal");
    let tool = |tool: Tool| match tool {
        Tool::CodeExecution(_) => Some(ModelTool::Server {
            sub_tool: SubTool::BashCodeExecution,
            description: "runs bash".to_owned(),
            input_schema: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
            cache_control: Some(json!({"type": "ephemeral"})),
        }),
        Tool::Custom(tool) => Some(ModelTool::Custom(tool)),
        Tool::Vendor(tool) => Some(ModelTool::Vendor(tool)),
        Tool::Hosted(tool) => Some(ModelTool::Hosted(tool)),
        Tool::Host(_) => panic!("tools of the host are no model's"),
    };
    SamplingRequest { betas: vec!["code-execution-2025-05-22".to_owned()], ..sampling(read, tool) }
}

type Sampled = Vec<Result<SamplingEvent, UpstreamError>>;

async fn sample(config: UpstreamConfig, request: SamplingRequest) -> Sampled {
    let router = Router::new(vec![config]).expect("a good upstream");
    let upstream = router.route("m").expect("every model is served");
    let mut hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(7)));
    let uploads = BTreeMap::from([("file_01a".to_owned(), "a.csv".to_owned())]);
    hints.files = Arc::new(KnownFiles { uploads, ..KnownFiles::default() });
    upstream.sample(request, hints).collect().await
}

/// Every case of the files in a folder beside this one, with the file's name.
fn cases<T: DeserializeOwned>(folder: &str) -> Vec<(String, T)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai").join(folder);
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder of cases").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no cases in {}", folder.display());
    let read = |path: &Path| -> Vec<T> {
        let text = std::fs::read_to_string(path).expect("a file of cases");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().flat_map(|path| read(path).into_iter().map(|case| (file(path), case))).collect()
}
