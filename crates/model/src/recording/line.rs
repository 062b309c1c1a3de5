//! The lines of a recording.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Api, ChatSettings, MaxTokensKey, Rescue};

/// The form of files that this version writes, and the newest that it reads.
pub(crate) const FORM: u32 = 1;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Recording(Head),
    Exchange(Exchange),
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// The Messages API.
    Anthropic,
    /// Chat completions.
    Openai,
}

impl Dialect {
    /// The `kind` of its upstreams.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Openai => "openai",
        }
    }
}

/// What holds for the exchanges that follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) form: u32,
    pub(crate) dialect: Dialect,
    /// The operator's name for the upstream.
    pub(crate) upstream: String,
    /// What wrote it.
    pub(crate) belljar: String,
    /// How an `openai` upstream wanted to be asked: what is sent depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<Settings>,
    /// Which betas an `anthropic` upstream was told of, where its configuration said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) betas: Option<Vec<String>>,
    /// Which of the vendor's own tools an `anthropic` upstream was given, as the configuration said it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) server_tools: Vec<String>,
}

impl Head {
    pub(crate) fn new(dialect: Dialect, upstream: &str, settings: Option<&ChatSettings>) -> Self {
        Self {
            form: FORM,
            dialect,
            upstream: upstream.to_owned(),
            belljar: env!("CARGO_PKG_VERSION").to_owned(),
            settings: settings.map(Settings::of),
            betas: None,
            server_tools: Vec::new(),
        }
    }

    /// How an `openai` upstream is asked.
    pub(crate) fn chat_settings(&self) -> ChatSettings {
        self.settings.as_ref().map(Settings::read).unwrap_or_default()
    }
}

/// [`ChatSettings`] under the names of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    max_tokens_key: String,
    output_tokens_max: Option<u64>,
    stream: bool,
    stream_usage: bool,
    thinking: bool,
    thinking_key: Option<String>,
    pub(crate) body: Map<String, Value>,
    rescue: Vec<String>,
    #[serde(default)]
    strict_roles: bool,
    /// Files of before there were two have none.
    #[serde(default)]
    api: Option<String>,
}

impl Settings {
    fn of(settings: &ChatSettings) -> Self {
        let ChatSettings {
            api,
            max_tokens_key,
            output_tokens_max,
            stream,
            stream_usage,
            thinking,
            thinking_key,
            body,
            rescue,
            strict_roles,
        } = settings;
        Self {
            max_tokens_key: max_tokens_key.name().to_owned(),
            output_tokens_max: *output_tokens_max,
            stream: *stream,
            stream_usage: *stream_usage,
            thinking: *thinking,
            thinking_key: thinking_key.clone(),
            body: body.clone(),
            rescue: rescue.iter().map(|rescue| rescue.name().to_owned()).collect(),
            strict_roles: *strict_roles,
            api: Some(api.name().to_owned()),
        }
    }

    /// What a newer version can rescue and this one cannot is left out.
    fn read(&self) -> ChatSettings {
        ChatSettings {
            api: self.api.as_deref().and_then(Api::from_name).unwrap_or(Api::Chat),
            max_tokens_key: MaxTokensKey::from_name(&self.max_tokens_key).unwrap_or(MaxTokensKey::MaxTokens),
            output_tokens_max: self.output_tokens_max,
            stream: self.stream,
            stream_usage: self.stream_usage,
            thinking: self.thinking,
            thinking_key: self.thinking_key.clone(),
            body: self.body.clone(),
            rescue: self.rescue.iter().filter_map(|name| Rescue::from_name(name)).collect(),
            strict_roles: self.strict_roles,
        }
    }
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Endpoint {
    #[serde(rename = "messages")]
    Messages,
    #[serde(rename = "messages/count_tokens")]
    CountTokens,
    #[serde(rename = "chat/completions")]
    ChatCompletions,
    #[serde(rename = "responses")]
    Responses,
}

impl Endpoint {
    /// Its path below the upstream's root.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CountTokens => "messages/count_tokens",
            Self::ChatCompletions => "chat/completions",
            Self::Responses => "responses",
        }
    }
}

/// One call and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// When it was sent, RFC 3339. For people.
    #[serde(default)]
    pub(crate) at: String,
    /// The request of ours that it was for. For people.
    #[serde(default)]
    pub(crate) request_id: String,
    /// How often that had been sent before, in vain.
    #[serde(default)]
    pub(crate) attempt: u32,
    pub(crate) endpoint: Endpoint,
    /// Of what was asked. For people: who reads the file makes it anew.
    #[serde(default)]
    pub(crate) digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) betas: Option<String>,
    pub(crate) request: Value,
    /// None when there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// The body, cut as it came.
    #[serde(default)]
    pub(crate) pieces: Vec<Piece>,
    pub(crate) end: End,
    #[serde(default)]
    pub(crate) whole_ms: u64,
}

impl Exchange {
    /// Whether it says one thing: an answer has a status, and what came to none has not.
    pub(crate) fn is_whole(&self) -> bool {
        self.status.is_some() == self.end.is_of_a_body()
    }
}

/// A piece of a body: after how many milliseconds it came, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece(pub(crate) u64, pub(crate) Content);

/// Bytes, readable where they are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Base64 { base64: String },
}

impl Content {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64 { base64: STANDARD.encode(bytes) },
        }
    }

    /// The bytes; none where they cannot be read.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.as_bytes().to_vec()),
            Self::Base64 { base64 } => STANDARD.decode(base64).ok(),
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// The body ended, or the reply in it did.
    Complete,
    /// Nobody read on: its reader had gone, or had seen enough.
    Left,
    /// The connection ended in mid-body.
    Cut(String),
    /// The next piece of the body was waited for in vain.
    TimedOut,
    /// There was no connection.
    Unreachable(String),
    /// The call was sent, and failed.
    Unanswered(String),
    /// The connection did not come about in time.
    ConnectTimedOut,
    /// The answer did not come in time.
    FirstByteTimedOut,
}

impl End {
    const fn is_of_a_body(&self) -> bool {
        match self {
            Self::Complete | Self::Left | Self::Cut(_) | Self::TimedOut => true,
            Self::Unreachable(_) | Self::Unanswered(_) | Self::ConnectTimedOut | Self::FirstByteTimedOut => false,
        }
    }
}
