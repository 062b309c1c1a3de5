//! From a model's name to the upstream that serves it.

use std::collections::HashSet;
use std::sync::Arc;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::anthropic::Anthropic;
use crate::config::{ConfigError, Like, UpstreamConfig, UpstreamKind};
use crate::openai::OpenAi;
use crate::scripted::Scripted;
use crate::upstream::Upstream;

/// All upstreams, in the configuration's order: the first whose globs match a name serves it.
pub struct Router {
    routes: Vec<Route>,
}

struct Route {
    globs: GlobSet,
    /// The name sent upstream instead of the request's.
    model: Option<String>,
    like: Like,
    upstream: Arc<dyn Upstream>,
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
            let (model, like) = (config.model.clone(), config.like.clone());
            routes.push(Route { globs: globs(&config)?, model, like, upstream: build(config)? });
        }
        Ok(Self { routes })
    }

    /// The upstream for a model's name; none when no glob matches.
    pub fn route(&self, model: &str) -> Option<Arc<dyn Upstream>> {
        self.find(model).map(|route| Arc::clone(&route.upstream))
    }

    /// The hosted model whose rules a model of that name follows; none when it is held to no rules, or nobody serves it.
    pub fn like<'a>(&'a self, model: &'a str) -> Option<&'a str> {
        let route = self.find(model)?;
        match &route.like {
            Like::Nobody => None,
            Like::Itself => Some(route.model.as_deref().unwrap_or(model)),
            Like::Model(name) => Some(name),
        }
    }

    fn find(&self, model: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.globs.is_match(model))
    }

    /// Every name that some glob spells out, in order, once. A name that an earlier upstream's glob takes is still listed: it is
    /// served, whoever serves it.
    pub fn models(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let all = self.routes.iter().flat_map(|route| route.upstream.models());
        all.filter(|model| seen.insert(model.clone())).collect()
    }
}

fn globs(config: &UpstreamConfig) -> Result<GlobSet, ConfigError> {
    if config.models.is_empty() {
        return Err(ConfigError::NoModels { upstream: config.name.clone() });
    }
    let glob_error =
        |error: globset::Error| ConfigError::Glob { upstream: config.name.clone(), problem: error.to_string() };
    let mut set = GlobSetBuilder::new();
    for glob in &config.models {
        set.add(Glob::new(glob).map_err(glob_error)?);
    }
    set.build().map_err(glob_error)
}

fn build(config: UpstreamConfig) -> Result<Arc<dyn Upstream>, ConfigError> {
    let models = literal_models(&config.models);
    match config.kind {
        UpstreamKind::Anthropic { base_url, api_key, proxy } => {
            let address = crate::link::Address { base_url: &base_url, proxy: proxy.as_deref() };
            let upstream = Anthropic::new(config.name, &address, &api_key, config.model, config.timeouts, models)?;
            Ok(Arc::new(upstream))
        }
        UpstreamKind::Scripted { scripts_dir } => {
            Ok(Arc::new(Scripted::new(config.name, scripts_dir.as_deref(), models)?))
        }
        UpstreamKind::OpenAi { base_url, api_key, proxy, settings } => {
            let address = crate::link::Address { base_url: &base_url, proxy: proxy.as_deref() };
            let upstream =
                OpenAi::new(config.name, &address, api_key.as_ref(), config.model, config.timeouts, settings, models)?;
            Ok(Arc::new(upstream))
        }
        UpstreamKind::Recorded => Err(ConfigError::NotAvailable { upstream: config.name, kind: "recorded" }),
    }
}

/// Globs that match one name only.
fn literal_models(globs: &[String]) -> Vec<String> {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\');
    globs.iter().filter(|glob| !glob.contains(special)).cloned().collect()
}
