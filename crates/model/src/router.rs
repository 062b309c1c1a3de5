//! From a model's name to the upstream that serves it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::anthropic::Anthropic;
use crate::breaker::Breaker;
use crate::chain::{Candidate, Chain, Member};
use crate::config::{ConfigError, Like, UpstreamConfig, UpstreamKind};
use crate::link::{Address, Patience};
use crate::openai::OpenAi;
use crate::scripted::Scripted;
use crate::upstream::Upstream;

/// All upstreams, in the configuration's order: the first that serves a name is asked for it.
pub struct Router {
    routes: Vec<Route>,
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
        UpstreamKind::Scripted { .. } | UpstreamKind::Recorded => None,
    };
    let capabilities = config.capabilities.clone();
    Ok(Member { upstream: build(config)?, capabilities, whole_max, breaker })
}

fn build(config: UpstreamConfig) -> Result<Arc<dyn Upstream>, ConfigError> {
    let models = literal_models(&config.models);
    let patience = Patience { timeouts: config.timeouts, retries_max: config.resilience.retries_max };
    match config.kind {
        UpstreamKind::Anthropic { .. } | UpstreamKind::Bedrock { .. } | UpstreamKind::Vertex { .. } => {
            Ok(Arc::new(Anthropic::new(config, patience, models)?))
        }
        UpstreamKind::OpenAi { base_url, api_key, proxy, settings } => {
            let address = Address { base_url: &base_url, proxy: proxy.as_deref() };
            Ok(Arc::new(OpenAi::new(config.name, &address, api_key.as_ref(), patience, settings, models)?))
        }
        UpstreamKind::Scripted { scripts_dir } => {
            Ok(Arc::new(Scripted::new(config.name, scripts_dir.as_deref(), models)?))
        }
        UpstreamKind::Recorded => Err(ConfigError::NotAvailable { upstream: config.name, kind: "recorded" }),
    }
}

/// The name by which the vendor knows a model that Bedrock calls `anthropic.NAME`, with a region before it or a whole ARN.
fn vendors_name(sent: &str) -> &str {
    sent.rsplit_once("anthropic.").map_or(sent, |(_, name)| name)
}

/// Globs that match one name only.
fn literal_models(globs: &[String]) -> Vec<String> {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\');
    globs.iter().filter(|glob| !glob.contains(special)).cloned().collect()
}
