//! What the operator says about upstreams, already read: no file and no environment here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use belljar_wire::hosted_tool::HostedTools;
use serde_json::{Map, Value};

use crate::recording::Endpoint;

/// One `[[upstream]]` of the configuration.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The operator's name for it, for logs and errors.
    pub name: String,
    /// What it speaks.
    pub kind: UpstreamKind,
    /// Globs over the request's `model`; `*` serves every name.
    pub models: Vec<String>,
    /// The name sent upstream instead of the request's.
    pub model: Option<String>,
    /// Whose rules its models follow.
    pub like: Like,
    /// Other names that it serves, each with the name that is sent upstream.
    pub aliases: BTreeMap<String, String>,
    /// What its models can do.
    pub capabilities: Capabilities,
    /// Time limits of one sampling.
    pub timeouts: Timeouts,
    /// What is done about its failures.
    pub resilience: Resilience,
    /// Of the Messages API: globs over the `anthropic-beta` values that are passed on; none for those that concern the model.
    pub betas: Option<Vec<String>>,
    /// Of the Messages API: the vendor's own server tools that are passed on.
    pub server_tools: HostedTools,
    /// The file that what it is asked and answers is added to; not for scripts, clouds and recordings.
    pub record: Option<PathBuf>,
}

impl UpstreamConfig {
    /// An upstream for every model name, with the defaults of its kind.
    pub fn new(name: impl Into<String>, kind: UpstreamKind) -> Self {
        let like = Like::default_of(&kind);
        Self {
            name: name.into(),
            kind,
            models: vec!["*".to_owned()],
            model: None,
            like,
            aliases: BTreeMap::new(),
            capabilities: Capabilities::default(),
            timeouts: Timeouts::default(),
            resilience: Resilience::default(),
            betas: None,
            server_tools: HostedTools::default(),
            record: None,
        }
    }
}

/// What the models of an upstream can do. Of what is not said nothing is assumed: the upstream is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether they take images.
    pub vision: Option<bool>,
    /// Whether they take documents that are no text.
    pub documents: Option<bool>,
    /// Whether they think when asked to.
    pub thinking: Option<bool>,
    /// Whether they call tools.
    pub tools: Option<bool>,
    /// Most tokens that they read.
    pub context_tokens_max: Option<u64>,
}

/// What is done about an upstream's failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resilience {
    /// How often a call is sent again before the first byte of a reply.
    pub retries_max: u32,
    /// Whether the next upstream that serves the name is asked when this one fails before its first word.
    pub failover: bool,
    /// Failures in a row after which it is left alone; 0 never.
    pub failures_max: u32,
    /// For how long.
    pub rest: Duration,
}

impl Default for Resilience {
    /// Two retries, five failures, ten seconds. Another upstream is another model: nobody is sent there unasked.
    fn default() -> Self {
        Self { retries_max: 2, failover: false, failures_max: 5, rest: Duration::from_secs(10) }
    }
}

/// Which hosted model's rules the models of an upstream follow. An upstream that breaks them is told so by its own server; one that
/// is served under a hosted model's name, and is another model, has no part in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Like {
    /// No one's.
    Nobody,
    /// Those of the name that is sent upstream.
    Itself,
    /// Those of this model.
    Model(String),
}

impl Like {
    /// What an upstream of that kind follows when nothing is said.
    pub const fn default_of(kind: &UpstreamKind) -> Self {
        match kind {
            UpstreamKind::Anthropic { .. } | UpstreamKind::Bedrock { .. } | UpstreamKind::Vertex { .. } => Self::Itself,
            UpstreamKind::Scripted { .. } | UpstreamKind::OpenAi { .. } | UpstreamKind::Recorded { .. } => Self::Nobody,
        }
    }
}

/// What an upstream speaks.
#[derive(Clone, Debug)]
pub enum UpstreamKind {
    /// The Messages API.
    Anthropic {
        /// `https://host`, with or without a final `/v1`.
        base_url: String,
        /// Sent as `x-api-key`.
        api_key: Secret,
        /// An HTTP proxy to go through; none is taken from the environment.
        proxy: Option<String>,
    },
    /// The Messages API inside Amazon Bedrock.
    Bedrock {
        /// `https://bedrock-runtime.REGION.amazonaws.com`, or what stands for it.
        base_url: String,
        /// The region that a signature is for.
        region: String,
        /// Who asks.
        credentials: AwsCredentials,
        /// An HTTP proxy to go through; none is taken from the environment.
        proxy: Option<String>,
    },
    /// The Messages API inside Vertex AI.
    Vertex {
        /// `https://REGION-aiplatform.googleapis.com`, or what stands for it.
        base_url: String,
        /// The location that is asked.
        region: String,
        /// The project that pays.
        project: String,
        /// Who asks.
        credentials: GoogleCredentials,
        /// An HTTP proxy to go through; none is taken from the environment.
        proxy: Option<String>,
    },
    /// The built-in model that plays scripts.
    Scripted {
        /// Where `*.json`, `*.yaml` and `*.yml` scripts are.
        scripts_dir: Option<PathBuf>,
    },
    /// The Chat Completions API.
    OpenAi {
        /// What stands before `/chat/completions`, mostly ending in `/v1`.
        base_url: String,
        /// Sent as `Authorization: Bearer`; servers of one's own mostly need none.
        api_key: Option<Secret>,
        /// An HTTP proxy to go through; none is taken from the environment.
        proxy: Option<String>,
        /// Where it differs from others.
        settings: ChatSettings,
    },
    /// Replies from a recording. It knows what was spoken, and how.
    Recorded {
        /// The recording.
        file: PathBuf,
    },
}

/// Who asks Amazon Bedrock.
#[derive(Clone, Debug)]
pub enum AwsCredentials {
    /// A Bedrock API key, sent as `Authorization: Bearer`.
    Bearer(Secret),
    /// Every request is signed with these (SigV4).
    Keys {
        /// Says whose signature it is.
        access_key_id: String,
        /// Never leaves this process.
        secret_access_key: Secret,
        /// Sent along where the keys are temporary.
        temporary_token: Option<Secret>,
    },
}

/// Who asks Vertex AI.
#[derive(Clone, Debug)]
pub enum GoogleCredentials {
    /// An access token, sent as it is: whoever configured it renews it.
    Token(Secret),
    /// A service account's key, as the JSON that the console hands out: tokens are fetched with it, and renewed before they end.
    ServiceAccount(Secret),
}

/// How one server of the Chat Completions API wants to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatSettings {
    /// Which of its two APIs it is asked by.
    pub api: Api,
    /// What it calls the limit of a reply.
    pub max_tokens_key: MaxTokensKey,
    /// Most tokens of a reply that it takes as a limit; more is cut to this.
    pub output_tokens_max: Option<u64>,
    /// Whether replies are streamed; otherwise they come whole.
    pub stream: bool,
    /// Whether it is asked for usage in a stream.
    pub stream_usage: bool,
    /// Whether it takes `reasoning_effort`.
    pub thinking: bool,
    /// The member of a past message that takes its thinking; none leaves it out.
    pub thinking_key: Option<String>,
    /// Members of every body; they outweigh ours.
    pub body: Map<String, Value>,
    /// What is looked for in the text of replies.
    pub rescue: Vec<Rescue>,
    /// Whether its template takes one system message, at the head, and users and assistants by turns.
    pub strict_roles: bool,
}

/// The APIs of an `openai` upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Chat completions.
    Chat,
    /// The Responses API.
    Responses,
}

impl Api {
    /// Each with its name.
    pub const ALL: [(Self, &'static str); 2] = [(Self::Chat, "chat"), (Self::Responses, "responses")];

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(api, _)| api)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
        }
    }

    /// What is called.
    pub(crate) fn endpoint(self) -> Endpoint {
        match self {
            Self::Chat => Endpoint::ChatCompletions,
            Self::Responses => Endpoint::Responses,
        }
    }
}

/// A format of calls, or of thinking, that a model writes into its text where its server does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescue {
    /// `<think>…</think>`.
    Thinking,
    /// `<tool_call>…</tool_call>` with JSON or with elements, and its kin.
    Hermes,
    /// `<|python_tag|>…`, and JSON at the start of a line.
    Llama,
    /// `[TOOL_CALLS]…`.
    Mistral,
    /// A fenced block of JSON.
    Fenced,
    /// JSON anywhere.
    Json,
    /// `<｜tool▁calls▁begin｜>…`.
    DeepSeek,
    /// `<|tool_calls_section_begin|>…`.
    Kimi,
}

impl Rescue {
    /// Each with its name.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Thinking, "thinking"),
        (Self::Hermes, "hermes"),
        (Self::Llama, "llama"),
        (Self::Mistral, "mistral"),
        (Self::Fenced, "fenced"),
        (Self::Json, "json"),
        (Self::DeepSeek, "deepseek"),
        (Self::Kimi, "kimi"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(rescue, _)| rescue)
    }
}

impl Default for ChatSettings {
    /// What the most servers take.
    fn default() -> Self {
        Self {
            api: Api::Chat,
            max_tokens_key: MaxTokensKey::MaxTokens,
            output_tokens_max: None,
            stream: true,
            stream_usage: true,
            thinking: false,
            thinking_key: None,
            body: Map::new(),
            rescue: Vec::new(),
            strict_roles: false,
        }
    }
}

/// The two names of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensKey {
    /// `max_tokens`: every server but the newest hosted models.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

impl MaxTokensKey {
    /// Both with their names.
    pub const ALL: [(Self, &'static str); 2] =
        [(Self::MaxTokens, "max_tokens"), (Self::MaxCompletionTokens, "max_completion_tokens")];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(key, _)| key)
    }
}

/// Time limits of one sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect_max: Duration,
    /// From there to the first byte of the reply's body.
    pub first_byte_max: Duration,
    /// From one piece of the reply to the next.
    pub between_bytes_max: Duration,
    /// From the call to the end of the reply; none for as long as it comes.
    pub whole_max: Option<Duration>,
}

impl Default for Timeouts {
    /// 10 s, 300 s, 120 s: hosted models send a `ping` every few seconds once they have begun.
    fn default() -> Self {
        Self {
            connect_max: Duration::from_secs(10),
            first_byte_max: Duration::from_secs(300),
            between_bytes_max: Duration::from_secs(120),
            whole_max: None,
        }
    }
}

/// A key. `Debug` prints `***`, and it cannot be serialized.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a key as it is to be sent.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An upstream that cannot be set up. Every text names the upstream and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A recording that cannot be read, or written.
    #[error("upstream `{upstream}`: `{key}`: {problem}")]
    Recording {
        /// The upstream.
        upstream: String,
        /// `record` or `recording`.
        key: &'static str,
        /// The file, and what is wrong with it.
        problem: String,
    },
    /// No two upstreams may have one name.
    #[error("upstream `{upstream}`: another upstream has this name")]
    DuplicateName {
        /// The upstream.
        upstream: String,
    },
    /// An upstream without a model is never asked.
    #[error("upstream `{upstream}`: `models` is empty; say `models = [\"*\"]` to serve every name")]
    NoModels {
        /// The upstream.
        upstream: String,
    },
    /// A glob that is none.
    #[error("upstream `{upstream}`: `{key}`: {problem}")]
    Glob {
        /// The upstream.
        upstream: String,
        /// `models` or `betas`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An address that is none.
    #[error("upstream `{upstream}`: `{key}`: {problem}")]
    Address {
        /// The upstream.
        upstream: String,
        /// `base_url` or `proxy`.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key that cannot be sent in a header.
    #[error("upstream `{upstream}`: the API key is empty or has characters that no HTTP header may hold")]
    Key {
        /// The upstream.
        upstream: String,
    },
    /// A region, a project or a service account that is none.
    #[error("upstream `{upstream}`: {what} {problem}")]
    Cloud {
        /// The upstream.
        upstream: String,
        /// `region`, `project`, …
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The HTTP client cannot be made.
    #[error("upstream `{upstream}`: no HTTP client: {problem}")]
    Client {
        /// The upstream.
        upstream: String,
        /// Why.
        problem: String,
    },
    /// Scripts that cannot be read or are not scripts.
    #[error("upstream `{upstream}`: {problem}")]
    Scripts {
        /// The upstream.
        upstream: String,
        /// The file, the field, and what is wrong with it.
        problem: String,
    },
}
