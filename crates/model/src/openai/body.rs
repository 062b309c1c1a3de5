//! The body of one call.

use belljar_wire::sampling::SamplingRequest;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Written, effort, messages, responses, tools};
use crate::config::{Api, ChatSettings};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::estimate;
use crate::lower::lower;
use crate::upstream::KnownFiles;

/// Something in a request that this dialect has no form for. The text is the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) String);

impl Unfit {
    pub(super) fn into_error(self, upstream: &str) -> UpstreamError {
        let operator = format!("upstream `{upstream}`: the request does not fit its dialect: {}", self.0);
        UpstreamError::new(UpstreamErrorKind::Rejected { status: 400 }, operator).telling(self.0)
    }
}

/// Writes the body.
pub(super) fn write(request: &SamplingRequest, files: &KnownFiles, settings: &ChatSettings) -> Result<Written, Unfit> {
    let plain = lower(request, files);
    let system =
        request.system.as_ref().map(|system| messages::system_text(&system.content)).filter(|text| !text.is_empty());
    let lowered = messages::lowered(plain.messages, system, settings)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), request.model.as_str().into());
    body.insert("messages".to_owned(), lowered.messages.into());
    let max_tokens = request.max_tokens.min(settings.output_tokens_max.unwrap_or(u64::MAX));
    body.insert(settings.max_tokens_key.name().to_owned(), max_tokens.into());
    body.insert("stream".to_owned(), settings.stream.into());
    if settings.stream && settings.stream_usage {
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    if !plain.tools.is_empty() {
        let choice = request.tool_choice.as_ref();
        body.extend(tools::choice(choice, plain.tools_are_history));
        body.insert("tools".to_owned(), tools::lowered(plain.tools)?.into());
    }
    body.extend(sampling(request));
    body.extend(answer_format(request).map(|format| ("response_format".to_owned(), format)));
    if settings.thinking {
        body.extend(effort::of(request).map(|effort| ("reasoning_effort".to_owned(), effort.into())));
    }
    if settings.api == Api::Responses {
        body = responses::of_chat(body)?;
    }
    for (key, value) in &settings.body {
        body.insert(key.clone(), value.clone());
    }
    let body = Value::Object(body);
    let input_tokens = estimate::of_body(&body);
    Ok(Written { body: Bytes::from(body.to_string()), calls: lowered.calls, input_tokens })
}

/// What the dialect shares with the Messages API, under its own names. `metadata.user_id` is not passed on: not every server takes
/// `user`, and none needs it.
fn sampling(request: &SamplingRequest) -> Map<String, Value> {
    let mut members = Map::new();
    let numbers = [("temperature", &request.temperature), ("top_p", &request.top_p), ("top_k", &request.top_k)];
    for (key, number) in numbers {
        if let Some(number) = number {
            members.insert(key.to_owned(), Value::Number(number.clone()));
        }
    }
    if !request.stop_sequences.is_empty() {
        members.insert("stop".to_owned(), json!(request.stop_sequences));
    }
    members
}

/// Structured outputs: `output_config.format`, or `output_format` of the older beta.
fn answer_format(request: &SamplingRequest) -> Option<Value> {
    let rest = &request.rest;
    let format =
        rest.get("output_config").and_then(|config| config.get("format")).or_else(|| rest.get("output_format"))?;
    let schema = format.get("schema").filter(|_| format["type"] == "json_schema")?;
    Some(json!({
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": true},
    }))
}
