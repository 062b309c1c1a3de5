//! From a model's name to the upstream that serves it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use belljar_wire::hosted_tool::{HostedFamily, HostedTools};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::anthropic::{Access, Anthropic, Betas, Way};
use crate::breaker::Breaker;
use crate::chain::{Candidate, Chain, Member};
use crate::config::{Capabilities, ConfigError, Like, Secret, Timeouts, UpstreamConfig, UpstreamKind};
use crate::link::{Address, Link, Patience};
use crate::openai::{self, OpenAi};
use crate::recording::{Dialect, Head, RecordingError, Replay, Tape};
use crate::scripted::Scripted;
use crate::upstream::Upstream;

/// All upstreams, in the configuration's order: the first that serves a name is asked for it.
pub struct Router {
    routes: Vec<Route>,
}

/// What is known of an upstream that serves a model.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The operator's name for it.
    pub upstream: &'a str,
    /// What it speaks, or spoke when it was recorded; scripts speak nothing.
    pub dialect: Option<Dialect>,
    /// What its models can do.
    pub capabilities: &'a Capabilities,
    /// Most tokens of a reply.
    pub output_tokens_max: Option<u64>,
    /// What of the vendor's own server tools it passes on; none where it has no such tools.
    pub server_tools: Option<&'a HostedTools>,
}

struct Route {
    globs: GlobSet,
    /// Other names, each with the one that is sent upstream.
    aliases: BTreeMap<String, String>,
    /// The name sent upstream instead of the request's.
    model: Option<String>,
    like: Like,
    /// Whether the next one is asked when this one fails.
    failover: bool,
    member: Arc<Member>,
}

impl Route {
    fn serves(&self, model: &str) -> bool {
        self.aliases.contains_key(model) || self.globs.is_match(model)
    }

    /// What the upstream calls it.
    fn sent<'a>(&'a self, model: &'a str) -> &'a str {
        self.aliases.get(model).or(self.model.as_ref()).map_or(model, String::as_str)
    }

    fn candidate(&self, model: &str) -> Candidate {
        Candidate { member: Arc::clone(&self.member), sent_model: self.sent(model).to_owned() }
    }
}

impl Router {
    /// Sets every upstream up: keys and addresses are checked, scripts are read. Connects to nothing.
    ///
    /// # Errors
    /// The first upstream that cannot be set up.
    pub fn new(configs: Vec<UpstreamConfig>) -> Result<Self, ConfigError> {
        let mut names = HashSet::new();
        let mut routes = Vec::with_capacity(configs.len());
        for config in configs {
            if !names.insert(config.name.clone()) {
                return Err(ConfigError::DuplicateName { upstream: config.name });
            }
            routes.push(Route {
                globs: globs(&config)?,
                aliases: config.aliases.clone(),
                model: config.model.clone(),
                like: config.like.clone(),
                failover: config.resilience.failover,
                member: Arc::new(member(config)?),
            });
        }
        Ok(Self { routes })
    }

    /// The upstream for a model's name, and those that are asked when it fails; none when nobody serves the name.
    pub fn route(&self, model: &str) -> Option<Arc<dyn Upstream>> {
        let mut serving = self.routes.iter().filter(|route| route.serves(model));
        let first = serving.next()?;
        let mut goes_on = first.failover;
        let others = serving.take_while(|route| std::mem::replace(&mut goes_on, route.failover));
        let others = others.map(|route| route.candidate(model)).collect();
        Some(Arc::new(Chain::new(first.candidate(model), others)))
    }

    /// The hosted model whose rules a model of that name follows; none when it is held to no rules, or nobody serves it.
    pub fn like<'a>(&'a self, model: &'a str) -> Option<&'a str> {
        let route = self.routes.iter().find(|route| route.serves(model))?;
        match &route.like {
            Like::Nobody => None,
            Like::Itself => Some(vendors_name(route.sent(model))),
            Like::Model(name) => Some(name),
        }
    }

    /// What is known of the upstream that is asked first for a model.
    pub fn served(&self, model: &str) -> Option<Served<'_>> {
        let route = self.routes.iter().find(|route| route.serves(model))?;
        let Member { upstream, capabilities, dialect, output_tokens_max, server_tools, .. } = &*route.member;
        Some(Served {
            upstream: upstream.name(),
            dialect: *dialect,
            capabilities,
            output_tokens_max: *output_tokens_max,
            server_tools: server_tools.as_ref(),
        })
    }

    /// Every name that some glob spells out, and every alias, in order, once. A name that an earlier upstream's glob takes is still
    /// listed: it is served, whoever serves it.
    pub fn models(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let of =
            |route: &Route| route.member.upstream.models().into_iter().chain(route.aliases.keys().cloned()).collect();
        let all = self.routes.iter().flat_map(|route| -> Vec<String> { of(route) });
        all.filter(|model| seen.insert(model.clone())).collect()
    }
}

fn globs(config: &UpstreamConfig) -> Result<GlobSet, ConfigError> {
    if config.models.is_empty() && config.aliases.is_empty() {
        return Err(ConfigError::NoModels { upstream: config.name.clone() });
    }
    let glob_error = |error: globset::Error| ConfigError::Glob {
        upstream: config.name.clone(),
        key: "models",
        problem: error.to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for glob in &config.models {
        set.add(Glob::new(glob).map_err(glob_error)?);
    }
    set.build().map_err(glob_error)
}

fn member(config: UpstreamConfig) -> Result<Member, ConfigError> {
    let whole_max = config.timeouts.whole_max;
    let breaker = match &config.kind {
        UpstreamKind::Anthropic { .. }
        | UpstreamKind::Bedrock { .. }
        | UpstreamKind::Vertex { .. }
        | UpstreamKind::OpenAi { .. } => Some(Breaker::new(&config.resilience)),
        UpstreamKind::Scripted { .. } | UpstreamKind::Recorded { .. } => None,
    };
    let capabilities = config.capabilities.clone();
    let output_tokens_max = match &config.kind {
        UpstreamKind::OpenAi { settings, .. } => settings.output_tokens_max,
        UpstreamKind::Anthropic { .. }
        | UpstreamKind::Bedrock { .. }
        | UpstreamKind::Vertex { .. }
        | UpstreamKind::Scripted { .. }
        | UpstreamKind::Recorded { .. } => None,
    };
    let Built { upstream, dialect, server_tools } = build(config)?;
    Ok(Member { upstream, capabilities, whole_max, breaker, dialect, output_tokens_max, server_tools })
}

/// An upstream that is set up.
struct Built {
    upstream: Arc<dyn Upstream>,
    /// What it speaks.
    dialect: Option<Dialect>,
    /// See [`Member::server_tools`].
    server_tools: Option<HostedTools>,
}

impl Built {
    fn messages(upstream: Anthropic, server_tools: HostedTools) -> Self {
        Self { upstream: Arc::new(upstream), dialect: Some(Dialect::Anthropic), server_tools: Some(server_tools) }
    }
}

fn build(config: UpstreamConfig) -> Result<Built, ConfigError> {
    let models = literal_models(&config.models);
    let patience = Patience { timeouts: config.timeouts, retries_max: config.resilience.retries_max };
    let UpstreamConfig { name, kind, record, betas: globs, server_tools, .. } = config;
    let tape = |head: &Head, key: Option<&Secret>| -> Result<Option<Arc<Tape>>, ConfigError> {
        let tape = record.as_deref().map(|path| Tape::open(path, head, key)).transpose();
        tape.map(|tape| tape.map(Arc::new)).map_err(|error| unrecorded(&head.upstream, "record", &error))
    };
    if record.is_some() && server_tools.has_of(HostedFamily::Mcp) {
        let problem =
            "not with `server_tools = [\"mcp\"]`: requests carry tokens of clients, which must not be written"
                .to_owned();
        return Err(ConfigError::Recording { upstream: name, key: "record", problem });
    }
    let betas = Betas::new(&name, globs.as_deref(), &server_tools)?;
    Ok(match kind {
        UpstreamKind::Anthropic { base_url, api_key, proxy } => {
            let address = Address { base_url: &base_url, proxy: proxy.as_deref() };
            let told = Head::new(Dialect::Anthropic, &name, None);
            let head = Head { betas: globs, server_tools: server_tools.tags(), ..told };
            let access = Access::vendor(&name, address, &api_key, tape(&head, Some(&api_key))?)?;
            Built::messages(Anthropic::new(name, access, patience, betas, models)?, server_tools)
        }
        UpstreamKind::Bedrock { base_url, region, credentials, proxy } => {
            let address = Address { base_url: &base_url, proxy: proxy.as_deref() };
            let access = Access::bedrock(&name, address, region, credentials)?;
            Built::messages(Anthropic::new(name, access, patience, betas, models)?, server_tools)
        }
        UpstreamKind::Vertex { base_url, region, project, credentials, proxy } => {
            let address = Address { base_url: &base_url, proxy: proxy.as_deref() };
            let access = Access::vertex(&name, address, &region, &project, credentials)?;
            Built::messages(Anthropic::new(name, access, patience, betas, models)?, server_tools)
        }
        UpstreamKind::OpenAi { base_url, api_key, proxy, settings } => {
            let address = Address { base_url: &base_url, proxy: proxy.as_deref() };
            let tape = tape(&Head::new(Dialect::Openai, &name, Some(&settings)), api_key.as_ref())?;
            let link = openai::link(name, &address, api_key.as_ref(), patience)?;
            let upstream = Arc::new(OpenAi::over(link.taped(tape), settings, models));
            Built { upstream, dialect: Some(Dialect::Openai), server_tools: None }
        }
        UpstreamKind::Scripted { scripts_dir } => {
            let upstream = Arc::new(Scripted::new(name, scripts_dir.as_deref(), models)?);
            Built { upstream, dialect: None, server_tools: None }
        }
        UpstreamKind::Recorded { file } => {
            let replay = Replay::open(&file).map_err(|error| unrecorded(&name, "recording", &error))?;
            replayed(name, replay, patience.timeouts, models)?
        }
    })
}

/// A recording in an upstream's place. What is sent depends on how that was configured, and the head knows it.
fn replayed(name: String, replay: Replay, timeouts: Timeouts, models: Vec<String>) -> Result<Built, ConfigError> {
    let head = replay.recording().head().clone();
    // What a later version could name is not in here: the rules refuse it.
    let server_tools = HostedTools::read(&head.server_tools).unwrap_or_default();
    let betas = Betas::new(&name, head.betas.as_deref(), &server_tools)?;
    let link = Link::replaying(name, Arc::new(replay), timeouts);
    Ok(match head.dialect {
        Dialect::Anthropic => Built::messages(Anthropic::over(link, Way::Vendor, betas, models), server_tools),
        Dialect::Openai => {
            let upstream = Arc::new(OpenAi::over(link, head.chat_settings(), models));
            Built { upstream, dialect: Some(Dialect::Openai), server_tools: None }
        }
    })
}

/// The name by which the vendor knows a model that Bedrock calls `anthropic.NAME`, with a region before it or a whole ARN.
fn vendors_name(sent: &str) -> &str {
    sent.rsplit_once("anthropic.").map_or(sent, |(_, name)| name)
}

fn unrecorded(upstream: &str, key: &'static str, error: &RecordingError) -> ConfigError {
    ConfigError::Recording { upstream: upstream.to_owned(), key, problem: error.to_string() }
}

/// Globs that match one name only.
fn literal_models(globs: &[String]) -> Vec<String> {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\');
    globs.iter().filter(|glob| !glob.contains(special)).cloned().collect()
}
