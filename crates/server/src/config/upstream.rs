//! `[[upstream]]` as it was written, and what it comes to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use belljar_model::{
    Capabilities, ChatSettings, Dialect, Like, MaxTokensKey, Rescue, Resilience, Secret, Timeouts, UpstreamConfig,
    UpstreamKind,
};
use belljar_turn::HostedModel;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::{ConfigError, cloud};

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
    dialect: Option<String>,
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
}

impl UpstreamTable {
    pub(super) fn resolve(&self, environment: &Environment) -> Result<UpstreamConfig, ConfigError> {
        self.refuse_keys_of_others()?;
        let kind = match self.kind.as_str() {
            "anthropic" => cloud::kind(self, environment)?,
            "openai" => self.openai(environment)?,
            "scripted" => UpstreamKind::Scripted { scripts_dir: self.scripts_dir.clone() },
            // Refused by the room of models, in its own words.
            "recorded" => UpstreamKind::Recorded,
            _ => return Err(self.wrong("kind", "must be \"anthropic\", \"openai\" or \"scripted\"")),
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

    pub(super) fn wrong(&self, key: &str, problem: &str) -> ConfigError {
        let separator = if problem.starts_with("is ") { " " } else { ": " };
        ConfigError(format!("upstream \"{}\": {key}{separator}{problem}", self.name))
    }

    fn openai(&self, environment: &Environment) -> Result<UpstreamKind, ConfigError> {
        let Some(base_url) = self.base_url.clone() else {
            return Err(self.wrong("base_url", "is missing; it is what stands before `/chat/completions`"));
        };
        let defaults = ChatSettings::default();
        let dialect = match self.dialect.as_deref() {
            None => defaults.dialect,
            Some(name) => {
                Dialect::from_name(name).ok_or_else(|| self.wrong("dialect", "must be \"chat\" or \"responses\""))?
            }
        };
        if dialect == Dialect::Responses {
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
                dialect,
                max_tokens_key,
                output_tokens_max: self.output_tokens_max,
                stream: self.stream.unwrap_or(defaults.stream),
                stream_usage: self.stream_usage.unwrap_or(defaults.stream_usage),
                thinking: self.thinking.unwrap_or(defaults.thinking),
                thinking_key: self.thinking_key.clone().filter(|key| !key.is_empty()),
                body: self.body.clone().unwrap_or_default(),
                rescue: self.rescue()?,
            },
        })
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
            ("dialect", "openai", self.dialect.is_some()),
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
            Some((name, _)) => Err(self.wrong(name, "is for `dialect = \"chat\"` alone")),
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
        let upstreams = file.upstreams(environment);
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
             stream_usage=false\nthinking=true\nthinking_key=\"reasoning\"\nrescue=[\"hermes\"]\n[upstream.body.chat_template_kwargs]\nenable_thinking=false",
        );
        assert_eq!(proxy.as_deref(), Some("http://proxy:3128"));
        let body = serde_json::json!({"chat_template_kwargs": {"enable_thinking": false}});
        let expected = ChatSettings {
            dialect: Dialect::Chat,
            max_tokens_key: MaxTokensKey::MaxCompletionTokens,
            output_tokens_max: Some(8),
            stream: false,
            stream_usage: false,
            thinking: true,
            thinking_key: Some("reasoning".to_owned()),
            body: body.as_object().cloned().unwrap_or_default(),
            rescue: vec![Rescue::Hermes],
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
            ("kind=\"ollama\"", "upstream \"a\": kind: must be \"anthropic\", \"openai\" or \"scripted\""),
            ("kind=\"openai\"", "upstream \"a\": base_url is missing; it is what stands before `/chat/completions`"),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\ndialect=\"x\"",
                "upstream \"a\": dialect: must be \"chat\" or \"responses\"",
            ),
            (
                "kind=\"openai\"\nbase_url=\"http://h\"\ndialect=\"responses\"\nstream_usage=true",
                "upstream \"a\": stream_usage is for `dialect = \"chat\"` alone",
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
                "upstream \"a\": rescue: \"qwen\" is none of \"thinking\", \"hermes\", \"llama\", \"mistral\", \"fenced\", \"json\"",
            ),
            ("kind=\"scripted\"\nwhole_s_max=0", "upstream \"a\": whole_s_max: must be greater than 0"),
            ("kind=\"scripted\"\nstream=false", "upstream \"a\": stream is for `kind = \"openai\"` alone"),
            ("kind=\"anthropic\"", "upstream \"a\": api_key_env is missing"),
        ];
        for (lines, expected) in cases {
            assert_eq!(read(lines, &Environment::default()).map(|_| ()), Err(expected.to_owned()), "{lines}");
        }
    }

    #[test]
    fn whose_rules_an_upstream_follows_is_read() {
        let read = |line: &str| {
            let text = format!("[[upstream]]\nname=\"a\"\nkind=\"scripted\"\n{line}");
            let upstreams = ConfigFile::parse(&text).expect("the file parses").upstreams(&Environment::default());
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
        let error = file.upstreams(&Environment::default()).map(|_| ()).map_err(|error| error.to_string());
        let expected = "upstream \"hosted\": the environment variable NO_SUCH_KEY (api_key_env) is not set";
        assert_eq!(error, Err(expected.to_owned()));
    }
}
