//! Asking the scripted model, and what it answers, in short.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{
    ConfigError, Router, SamplingHints, SamplingStream, Upstream, UpstreamConfig, UpstreamError, UpstreamKind,
};
use belljar_wire::event::Delta;
use belljar_wire::message::StopReason;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SampledBlock, SamplingEvent, SamplingRequest};
use belljar_wire::tool::SubTool;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::request::sampling;

/// The tests' own scripts.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

pub(crate) fn router(scripts_dir: Option<PathBuf>) -> Result<Router, ConfigError> {
    Router::new(vec![UpstreamConfig::new("built-in", UpstreamKind::Scripted { scripts_dir })])
}

pub(crate) fn scripted() -> Arc<dyn Upstream> {
    let router = router(Some(fixtures())).expect("the fixtures load");
    router.route("any").expect("`*` serves every name")
}

/// One question.
pub(crate) struct Asked {
    pub(crate) request: SamplingRequest,
    pub(crate) hints: SamplingHints,
}

/// A question with a conversation, and bash to run things with.
pub(crate) fn asked(messages: Value) -> Asked {
    let body = json!({"model": "any", "max_tokens": 1000, "messages": messages});
    let request = MessagesRequest::read(body.to_string().as_bytes()).expect("a request");
    Asked {
        request: SamplingRequest { tools: vec![sub_tool(SubTool::BashCodeExecution)], ..sampling(request, |_| None) },
        hints: SamplingHints::new(RequestId::mint(&mut SeededIds::new(7))),
    }
}

pub(crate) fn sub_tool(sub_tool: SubTool) -> ModelTool {
    ModelTool::Server {
        sub_tool,
        description: String::new(),
        input_schema: json!({"type": "object"}),
        cache_control: None,
    }
}

impl Asked {
    pub(crate) fn script(mut self, name: &str) -> Self {
        self.hints.script = Some(name.to_owned());
        self
    }

    pub(crate) fn tools(mut self, sub_tools: &[SubTool]) -> Self {
        self.request.tools = sub_tools.iter().copied().map(sub_tool).collect();
        self
    }

    pub(crate) fn upload(mut self, id: &str, name: &str) -> Self {
        Arc::make_mut(&mut self.hints.files).uploads.insert(id.to_owned(), name.to_owned());
        self
    }

    pub(crate) fn stream(&self) -> SamplingStream {
        scripted().sample(self.request.clone(), self.hints.clone())
    }

    /// Everything that comes, to the end or to an error.
    pub(crate) async fn events(&self) -> (Vec<SamplingEvent>, Option<UpstreamError>) {
        let mut events = Vec::new();
        let mut stream = self.stream();
        while let Some(item) = stream.next().await {
            match item {
                Ok(event) => events.push(event),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "an error is the last item");
                    return (events, Some(error));
                }
            }
        }
        (events, None)
    }

    /// A whole answer.
    pub(crate) async fn answer(&self) -> Answer {
        let (events, error) = self.events().await;
        assert_eq!(error, None);
        Answer::of(&events)
    }
}

/// What a sampling adds up to.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// Name and input.
    pub(crate) calls: Vec<(String, Value)>,
    pub(crate) stop_reason: Option<StopReason>,
    pub(crate) output_tokens: u64,
}

impl Answer {
    fn of(events: &[SamplingEvent]) -> Self {
        let mut answer = Self::default();
        let mut input = String::new();
        let mut name = None;
        for event in events {
            match event {
                SamplingEvent::BlockStarted(SampledBlock::ToolUse { name: called, .. }) => {
                    name = Some(called.clone());
                }
                SamplingEvent::BlockDelta(Delta::TextDelta { text }) => answer.text.push_str(text),
                SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json }) => {
                    input.push_str(partial_json);
                }
                SamplingEvent::BlockEnded => {
                    if let Some(name) = name.take() {
                        let input = std::mem::take(&mut input);
                        let input = serde_json::from_str(&input).expect("JSON");
                        answer.calls.push((name, input));
                    }
                }
                SamplingEvent::Ended { stop_reason, usage, .. } => {
                    answer.stop_reason = Some(*stop_reason);
                    answer.output_tokens = usage.output_tokens;
                }
                SamplingEvent::Started { .. } | SamplingEvent::BlockStarted(_) | SamplingEvent::BlockDelta(_) => {}
            }
        }
        answer
    }
}

/// A user's message.
pub(crate) fn user(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

/// An assistant's message.
pub(crate) fn assistant(content: Value) -> Value {
    json!({"role": "assistant", "content": content})
}

pub(crate) fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// A call of bash.
pub(crate) fn call(id: &str) -> Value {
    json!({"type": "server_tool_use", "id": format!("srvtoolu_{id}"), "name": "bash_code_execution",
           "input": {"command": "true"}})
}

/// The result of a call of bash.
pub(crate) fn result(id: &str, stdout: &str) -> Value {
    json!({"type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{id}"),
           "content": {"type": "bash_code_execution_result", "stdout": stdout, "stderr": "", "return_code": 0, "content": []}})
}

/// A call of a client tool.
pub(crate) fn client_call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "get_weather", "input": {}})
}

/// The client's answer.
pub(crate) fn client_result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "4 degrees"})
}
