//! `[[upstream]]` as it was written, and what it comes to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use belljar_model::{
    Api, Capabilities, ChatSettings, Like, MaxTokensKey, Rescue, Resilience, Secret, Timeouts, UpstreamConfig,
    UpstreamKind,
};
use belljar_turn::{HostedModel, ToolTexts};
use belljar_wire::hosted_tool::{HostedFamily, HostedTools};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::{ConfigError, cloud, tool_texts};

/// One `[[upstream]]`.
#[derive(Clone, Debug, Deserialize)]
pub struct UpstreamTable {
    pub(super) name: String,
    kind: String,
    pub(super) base_url: Option<String>,
    pub(super) api_key_env: Option<String>,
    models: Option<Vec<String>>,
    model: Option<String>,
    like: Option<String>,
    scripts_dir: Option<PathBuf>,
    api: Option<String>,
    max_tokens_key: Option<String>,
    output_tokens_max: Option<u64>,
    stream: Option<bool>,
    stream_usage: Option<bool>,
    thinking: Option<bool>,
    thinking_key: Option<String>,
    body: Option<Map<String, Value>>,
    rescue: Option<Vec<String>>,
    aliases: Option<BTreeMap<String, String>>,
    vision: Option<bool>,
    documents: Option<bool>,
    tools: Option<bool>,
    context_tokens_max: Option<u64>,
    connect_s_max: Option<u64>,
    first_byte_s_max: Option<u64>,
    between_bytes_s_max: Option<u64>,
    whole_s_max: Option<u64>,
    retries_max: Option<u32>,
    failover: Option<bool>,
    failures_max: Option<u32>,
    rest_s: Option<u64>,
    pub(super) via: Option<String>,
    pub(super) region: Option<String>,
    pub(super) project: Option<String>,
    betas: Option<Vec<String>>,
    server_tools: Option<Vec<String>>,
    record: Option<Record>,
    recording: Option<PathBuf>,
    tool_texts: Option<String>,
    strict_roles: Option<bool>,
}

/// `record`: whether, or where.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Record {
    Whether(bool),
    Where(PathBuf),
}

/// Where recordings are, below the data directory.
const RECORDINGS: &str = "recordings";

impl UpstreamTable {
    pub(super) fn resolve(&self, environment: &Environment, data_dir: &Path) -> Result<UpstreamConfig, ConfigError> {
        self.refuse_keys_of_others()?;
        let kind = match self.kind.as_str() {
            "anthropic" => cloud::kind(self, environment)?,
            "openai" => self.openai(environment)?,
            "scripted" => UpstreamKind::Scripted { scripts_dir: self.scripts_dir.clone() },
            "recorded" => {
                let file = self.recording.as_ref().ok_or_else(|| self.wrong("recording", "is missing"))?;
                UpstreamKind::Recorded { file: data_dir.join(RECORDINGS).join(file) }
            }
            _ => {
                let kinds = "must be \"anthropic\", \"openai\", \"scripted\" or \"recorded\"";
                return Err(self.wrong("kind", kinds));
            }
        };
        let mut config = UpstreamConfig::new(self.name.clone(), kind);
        if let Some(models) = &self.models {
            config.models.clone_from(models);
        }
        config.model.clone_from(&self.model);
        config.aliases = self.aliases.clone().unwrap_or_default();
        config.capabilities = Capabilities {
            vision: self.vision,
            documents: self.documents,
            thinking: self.thinking,
            tools: self.tools,
            context_tokens_max: self.context_tokens_max,
        };
        config.timeouts = self.timeouts()?;
        config.resilience = self.resilience();
        config.betas.clone_from(&self.betas);
        config.server_tools = self.server_tools()?;
        config.record = self.record(data_dir)?;
        config.like = match self.like.as_deref() {
            None => config.like,
            Some("nobody") => Like::Nobody,
            Some("itself") => Like::Itself,
            Some(name) if HostedModel::of(name).is_some() => Like::Model(name.to_owned()),
            Some(_) => {
                let known = "must be \"nobody\", \"itself\" or the name of a hosted model, as `claude-haiku-4-5`";
                return Err(self.wrong("like", known));
            }
        };
        Ok(config)
    }

    /// The words in which its models are told of the tool, where the configuration says so, by the upstream's name.
    pub(super) fn tool_texts(&self) -> Result<Option<(String, ToolTexts)>, ConfigError> {
        let Some(given) = &self.tool_texts else {
            return Ok(None);
        };
        let texts = tool_texts::read(given).map_err(|problem| self.wrong("tool_texts", &problem))?;
        Ok(Some((self.name.clone(), texts)))
    }

    pub(super) fn wrong(&self, key: &str, problem: &str) -> ConfigError {
        let separator = if problem.starts_with("is ") { " " } else { ": " };
        ConfigError(format!("upstream \"{}\": {key}{separator}{problem}", self.name))
    }

    fn openai(&self, environment: &Environment) -> Result<UpstreamKind, ConfigError> {
        let Some(base_url) = self.base_url.clone() else {
            return Err(self.wrong("base_url", "is missing; it is what stands before `/chat/completions`"));
        };
        let defaults = ChatSettings::default();
        let api = match self.api.as_deref() {
            None => defaults.api,
            Some(name) => Api::from_name(name).ok_or_else(|| self.wrong("api", "must be \"chat\" or \"responses\""))?,
        };
        if api == Api::Responses {
            self.refuse_keys_of_chat()?;
        }
        let max_tokens_key = match self.max_tokens_key.as_deref() {
            None => defaults.max_tokens_key,
            Some(name) => MaxTokensKey::from_name(name)
                .ok_or_else(|| self.wrong("max_tokens_key", "must be \"max_tokens\" or \"max_completion_tokens\""))?,
        };
        if self.output_tokens_max == Some(0) {
            return Err(self.wrong("output_tokens_max", "must be greater than 0"));
        }
        // A server of one's own is not behind the proxy towards the world.
        let proxy = proxy(environment).filter(|_| base_url.starts_with("https:"));
        Ok(UpstreamKind::OpenAi {
            base_url,
            api_key: self.api_key(environment)?,
            proxy,
            settings: ChatSettings {
                api,
                max_tokens_key,
                output_tokens_max: self.output_tokens_max,
                stream: self.stream.unwrap_or(defaults.stream),
                stream_usage: self.stream_usage.unwrap_or(defaults.stream_usage),
                thinking: self.thinking.unwrap_or(defaults.thinking),
                thinking_key: self.thinking_key.clone().filter(|key| !key.is_empty()),
                body: self.body.clone().unwrap_or_default(),
                rescue: self.rescue()?,
                strict_roles: self.strict_roles.unwrap_or(defaults.strict_roles),
            },
        })
    }

    /// The file to record to. A relative path is one beside other recordings.
    fn record(&self, data_dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
        let file = match &self.record {
            None | Some(Record::Whether(false)) => return Ok(None),
            Some(_) if !matches!(self.kind.as_str(), "anthropic" | "openai") => {
                return Err(self.wrong("record", "is for `kind = \"anthropic\"` and `kind = \"openai\"` alone"));
            }
            // A body there does not name the model: recordings would mix them up.
            Some(_) if self.via.is_some() => {
                return Err(self.wrong("record", "is not for upstreams with `via`"));
            }
            Some(Record::Where(path)) => path.clone(),
            Some(Record::Whether(true)) => {
                let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                if self.name.starts_with('.') || !self.name.bytes().all(legal) {
                    return Err(self.wrong("record", "this upstream's name is no good as a file's; say a path"));
                }
                PathBuf::from(format!("{}.jsonl", self.name))
            }
        };
        Ok(Some(data_dir.join(RECORDINGS).join(file)))
    }

    fn timeouts(&self) -> Result<Timeouts, ConfigError> {
        let seconds = |key: &str, value: Option<u64>| match value {
            Some(0) => Err(self.wrong(key, "must be greater than 0")),
            value => Ok(value.map(Duration::from_secs)),
        };
        let defaults = Timeouts::default();
        Ok(Timeouts {
            connect_max: seconds("connect_s_max", self.connect_s_max)?.unwrap_or(defaults.connect_max),
            first_byte_max: seconds("first_byte_s_max", self.first_byte_s_max)?.unwrap_or(defaults.first_byte_max),
            between_bytes_max: seconds("between_bytes_s_max", self.between_bytes_s_max)?
                .unwrap_or(defaults.between_bytes_max),
            whole_max: seconds("whole_s_max", self.whole_s_max)?,
        })
    }

    fn resilience(&self) -> Resilience {
        let defaults = Resilience::default();
        Resilience {
            retries_max: self.retries_max.unwrap_or(defaults.retries_max),
            failover: self.failover.unwrap_or(defaults.failover),
            failures_max: self.failures_max.unwrap_or(defaults.failures_max),
            rest: self.rest_s.map_or(defaults.rest, Duration::from_secs),
        }
    }

    /// The vendor's own tools that are passed on.
    fn server_tools(&self) -> Result<HostedTools, ConfigError> {
        HostedTools::read(self.server_tools.as_deref().unwrap_or_default()).map_err(|unknown| {
            let known = HostedFamily::ALL.map(|family| format!("\"{}\"", family.name())).join(", ");
            let problem = format!("\"{unknown}\" is none of {known}, and names no type of such a tool");
            self.wrong("server_tools", &problem)
        })
    }

    fn rescue(&self) -> Result<Vec<Rescue>, ConfigError> {
        let read = |name: &String| {
            Rescue::from_name(name).ok_or_else(|| {
                let known = Rescue::ALL.map(|(_, name)| format!("\"{name}\"")).join(", ");
                self.wrong("rescue", &format!("\"{name}\" is none of {known}"))
            })
        };
        self.rescue.iter().flatten().map(read).collect()
    }

    /// A key that the kind has no use for is a mistake, and most likely one about the kind.
    fn refuse_keys_of_others(&self) -> Result<(), ConfigError> {
        let set = [
            ("scripts_dir", "scripted", self.scripts_dir.is_some()),
            ("api", "openai", self.api.is_some()),
            ("max_tokens_key", "openai", self.max_tokens_key.is_some()),
            ("output_tokens_max", "openai", self.output_tokens_max.is_some()),
            ("stream", "openai", self.stream.is_some()),
            ("stream_usage", "openai", self.stream_usage.is_some()),
            ("thinking_key", "openai", self.thinking_key.is_some()),
            ("body", "openai", self.body.is_some()),
            ("rescue", "openai", self.rescue.is_some()),
            ("via", "anthropic", self.via.is_some()),
            ("region", "anthropic", self.region.is_some()),
            ("project", "anthropic", self.project.is_some()),
            ("betas", "anthropic", self.betas.is_some()),
            ("server_tools", "anthropic", self.server_tools.is_some()),
            ("strict_roles", "openai", self.strict_roles.is_some()),
            ("recording", "recorded", self.recording.is_some()),
        ];
        match set.into_iter().find(|(_, kind, set)| *set && self.kind != *kind) {
            Some((name, kind, _)) => Err(self.wrong(name, &format!("is for `kind = \"{kind}\"` alone"))),
            None => Ok(()),
        }
    }

    /// What the Responses API has one form for, or none.
    fn refuse_keys_of_chat(&self) -> Result<(), ConfigError> {
        let set = [
            ("max_tokens_key", self.max_tokens_key.is_some()),
            ("stream_usage", self.stream_usage.is_some()),
            ("thinking_key", self.thinking_key.is_some()),
        ];
        match set.into_iter().find(|(_, set)| *set) {
            Some((name, _)) => Err(self.wrong(name, "is for `api = \"chat\"` alone")),
            None => Ok(()),
        }
    }

    /// The key, where one is configured.
    pub(super) fn api_key(&self, environment: &Environment) -> Result<Option<Secret>, ConfigError> {
        let Some(variable) = &self.api_key_env else {
            return Ok(None);
        };
        let value = environment.get(variable).ok_or_else(|| {
            ConfigError(format!(
                "upstream \"{}\": the environment variable {variable} (api_key_env) is not set",
                self.name
            ))
        })?;
        Ok(Some(Secret::new(value)))
    }
}

pub(super) fn proxy(environment: &Environment) -> Option<String> {
    environment.get("HTTPS_PROXY").or(environment.get("https_proxy")).map(str::to_owned)
}

/// The scripted model, under every name.
pub(super) fn default_upstream() -> UpstreamConfig {
    UpstreamConfig::new("scripted", UpstreamKind::Scripted { scripts_dir: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::ConfigFile;

    fn read(lines: &str, environment: &Environment) -> Result<UpstreamConfig, String> {
        let file = ConfigFile::parse(&format!("[[upstream]]\nname=\"a\"\n{lines}")).expect("the file parses");
        let upstreams = file.upstreams(environment, Path::new("/data"));
        upstreams.map(|mut upstreams| upstreams.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_of_ones_own_needs_an_address_and_nothing_else() {
        let proxied = Environment::of(&[("HTTPS_PROXY", "http://proxy:3128")]);
        let kind = |lines: &str| {
            let config = read(&format!("kind=\"openai\"\n{lines}"), &proxied).expect("a good upstream");
            match config.kind {
                UpstreamKind::OpenAi { base_url, api_key, proxy, settings } => {
                    (base_url, api_key.is_some(), proxy, settings)
                }
                other => panic!("{other:?}"),
            }
        };
        let url = "http://127.0.0.1:11434/v1".to_owned();
        let expected = (url, false, None, ChatSettings::default());
        assert_eq!(kind("base_url=\"http://127.0.0.1:11434/v1\""), expected);
        let (_, _, proxy, settings) = kind(
            "base_url=\"https://host/v1\"\nmax_tokens_key=\"max_completion_tokens\"\noutput_tokens_max=8\nstream=false\n\
             stream_usage=false\nthinking=true\nthinking_key=\"reasoning\"\nstrict_roles=true\nrescue=[\"hermes\"]\n[upstream.body.chat_template_kwargs]\nenable_thinking=false",
        );
        assert_eq!(proxy.as_deref(), Some("http://proxy:3128"));
        let body = serde_json::json!({"chat_template_kwargs": {"enable_thinking": false}});
        let expected = ChatSettings {
            api: Api::Chat,
            max_tokens_key: MaxTokensKey::MaxCompletionTokens,
            output_tokens_max: Some(8),
            stream: false,
            stream_usage: false,
            thinking: true,
            thinking_key: Some("reasoning".to_owned()),
            body: body.as_object().cloned().unwrap_or_default(),
            rescue: vec![Rescue::Hermes],
            strict_roles: true,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn names_limits_and_what_is_done_about_failures_are_read() {
        let lines = "kind=\"scripted\"\nvision=false\ntools=true\ncontext_tokens_max=8192\nconnect_s_max=1\nwhole_s_max=600\nretries_max=0\n\
                     failover=true\nrest_s=3\n[upstream.aliases]\nclaude-sonnet-5=\"qwen3:32b\"";
        let config = read(lines, &Environment::default()).expect("a good upstream");
        let aliases = BTreeMap::from([("claude-sonnet-5".to_owned(), "qwen3:32b".to_owned())]);
        assert_eq!(config.aliases, aliases);
        let can = Capabilities {
            vision: Some(false),
            tools: Some(true),
            context_tokens_max: Some(8192),
            ..Capabilities::default()
        };
        assert_eq!(config.capabilities, can);
        let timeouts = Timeouts {
            connect_max: Duration::from_secs(1),
            whole_max: Some(Duration::from_secs(600)),
            ..Timeouts::default()
        };
        assert_eq!(config.timeouts, timeouts);
        let rest = Duration::from_secs(3);
        assert_eq!(config.resilience, Resilience { retries_max: 0, failover: true, failures_max: 5, rest });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (
                "kind=\"ollama\"",
                "upstream \"a\": kind: must be \"anthropic\", \"openai\", \"scripted\" or \"recorded\"",
            ),
            ("kind=\"openai\"", "upstream \"a\": base_url is missing; it is what stands before `/chat/completions`"),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\napi=\"x\"",
                "upstream \"a\": api: must be \"chat\" or \"responses\"",
            ),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\napi=\"responses\"\nstream_usage=true",
                "upstream \"a\": stream_usage is for `api = \"chat\"` alone",
            ),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\nmax_tokens_key=\"x\"",
                "upstream \"a\": max_tokens_key: must be \"max_tokens\" or \"max_completion_tokens\"",
            ),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\noutput_tokens_max=0",
                "upstream \"a\": output_tokens_max: must be greater than 0",
            ),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\nrescue=[\"qwen\"]",
                "upstream \"a\": rescue: \"qwen\" is none of \"thinking\", \"hermes\", \"llama\", \"mistral\", \"fenced\", \"json\", \"deepseek\", \"kimi\"",
            ),
            ("kind=\"scripted\"\nwhole_s_max=0", "upstream \"a\": whole_s_max: must be greater than 0"),
            ("kind=\"scripted\"\nstream=false", "upstream \"a\": stream is for `kind = \"openai\"` alone"),
            ("kind=\"anthropic\"", "upstream \"a\": api_key_env is missing"),
            ("kind=\"recorded\"", "upstream \"a\": recording is missing"),
            ("kind=\"scripted\"\nrecording=\"x\"", "upstream \"a\": recording is for `kind = \"recorded\"` alone"),
            (
                "kind=\"scripted\"\nrecord=true",
                "upstream \"a\": record is for `kind = \"anthropic\"` and `kind = \"openai\"` alone",
            ),
            ("kind=\"scripted\"\nserver_tools=[]", "upstream \"a\": server_tools is for `kind = \"anthropic\"` alone"),
            (
                "kind=\"anthropic\"\napi_key_env=\"K\"\nserver_tools=[\"web_search\", \"web_surf\"]",
                "upstream \"a\": server_tools: \"web_surf\" is none of \"web_search\", \"web_fetch\", \"tool_search\", \"mcp\", and \
                 names no type of such a tool",
            ),
            ("kind=\"scripted\"\nvia=\"bedrock\"", "upstream \"a\": via is for `kind = \"anthropic\"` alone"),
        ];
        for (lines, expected) in cases {
            assert_eq!(read(lines, &Environment::of(&[("K", "k")])).map(|_| ()), Err(expected.to_owned()), "{lines}");
        }
    }

    #[test]
    fn recordings_are_beside_each_other_unless_they_are_said_to_be_elsewhere() {
        let environment = Environment::default();
        let recorded = |lines: &str| {
            let config = read(lines, &environment);
            config.map(|config| match config.kind {
                UpstreamKind::Recorded { file } => Some(file),
                _ => config.record,
            })
        };
        let openai = "kind=\"openai\"\nbase_url=\"http://h\"\nrecord";
        let cases = [
            (format!("{openai}=true"), Some("/data/recordings/a.jsonl")),
            (format!("{openai}=false"), None),
            (format!("{openai}=\"b.jsonl\""), Some("/data/recordings/b.jsonl")),
            (format!("{openai}=\"/elsewhere/b\""), Some("/elsewhere/b")),
            ("kind=\"recorded\"\nrecording=\"b.jsonl\"".to_owned(), Some("/data/recordings/b.jsonl")),
        ];
        for (lines, expected) in cases {
            assert_eq!(recorded(&lines), Ok(expected.map(PathBuf::from)), "{lines}");
        }
        let file =
            ConfigFile::parse("[[upstream]]\nname=\"../a\"\nkind=\"openai\"\nbase_url=\"http://h\"\nrecord=true");
        let refused = file.and_then(|file| file.upstreams(&environment, Path::new("/data")).map(|_| ()));
        let expected = "upstream \"../a\": record: this upstream's name is no good as a file's; say a path";
        assert_eq!(refused.map_err(|error| error.to_string()), Err(expected.to_owned()));
    }

    #[test]
    fn whose_rules_an_upstream_follows_is_read() {
        let read = |line: &str| {
            let text = format!("[[upstream]]\nname=\"a\"\nkind=\"scripted\"\n{line}");
            let upstreams = ConfigFile::parse(&text)
                .expect("the file parses")
                .upstreams(&Environment::default(), Path::new("/data"));
            upstreams.map(|upstreams| upstreams[0].like.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(read(""), Ok(Like::Nobody));
        assert_eq!(read("like = \"nobody\""), Ok(Like::Nobody));
        assert_eq!(read("like = \"itself\""), Ok(Like::Itself));
        assert_eq!(read("like = \"claude-haiku-4-5\""), Ok(Like::Model("claude-haiku-4-5".to_owned())));
        let refused =
            "upstream \"a\": like: must be \"nobody\", \"itself\" or the name of a hosted model, as `claude-haiku-4-5`";
        assert_eq!(read("like = \"qwen3\""), Err(refused.to_owned()));
    }

    #[test]
    fn a_missing_upstream_key_names_the_variable() {
        let text = "[[upstream]]\nname=\"hosted\"\nkind=\"anthropic\"\napi_key_env=\"NO_SUCH_KEY\"";
        let file = ConfigFile::parse(text).expect("the file parses");
        let error =
            file.upstreams(&Environment::default(), Path::new("/data")).map(|_| ()).map_err(|error| error.to_string());
        let expected = "upstream \"hosted\": the environment variable NO_SUCH_KEY (api_key_env) is not set";
        assert_eq!(error, Err(expected.to_owned()));
    }
}
