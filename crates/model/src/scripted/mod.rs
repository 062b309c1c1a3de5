//! The scripted model: plays scripts, follows a fixed rule without one, and never pretends to be a language model.
//!
//! It is stateless: what comes next follows from the request's history alone.

mod fence;
mod history;
mod load;
mod play;
mod rule;
mod script;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use belljar_wire::read::Brief;
use belljar_wire::sampling::SamplingRequest;

use self::history::Turn;
use self::script::{Script, Step, StepBlock};
use crate::config::ConfigError;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::{SamplingHints, SamplingStream, Upstream};

/// The scripted model with its scripts.
pub(crate) struct Scripted {
    name: String,
    models: Vec<String>,
    scripts: BTreeMap<String, Script>,
}

impl Scripted {
    /// Reads and checks every script.
    pub(crate) fn new(name: String, scripts_dir: Option<&Path>, models: Vec<String>) -> Result<Self, ConfigError> {
        let scripts = match scripts_dir {
            None => BTreeMap::new(),
            Some(dir) => load::load(dir).map_err(|problem| ConfigError::Scripts { upstream: name.clone(), problem })?,
        };
        Ok(Self { name, models, scripts })
    }

    /// The script that a request names, or whose `match` stands in what the user said last; in the order of their names.
    fn choose(&self, named: Option<&str>, text: &str) -> Result<Option<(&str, &Script)>, UpstreamError> {
        let mut scripts = self.scripts.iter().map(|(name, script)| (name.as_str(), script));
        let Some(wanted) = named else {
            return Ok(scripts.find(|(_, script)| {
                let matches = script.matches.as_deref();
                matches.is_some_and(|matches| text.contains(matches))
            }));
        };
        let found = scripts.find(|(name, _)| *name == wanted);
        found.map(Some).ok_or_else(|| {
            let text = format!("belljar-script: there is no script named `{}`", Brief(wanted));
            UpstreamError::new(UpstreamErrorKind::Rejected { status: 400 }, format!("upstream `{}`: {text}", self.name))
                .telling(text)
        })
    }

    fn step(&self, request: &SamplingRequest, hints: &SamplingHints) -> Result<(Step, usize), UpstreamError> {
        let turn = Turn::of(&request.messages);
        let step = match self.choose(hints.script.as_deref(), &turn.text)? {
            None => rule::next_step(request, &turn, &hints.uploads),
            Some((name, script)) => match script.steps.get(turn.samplings) {
                Some(step) => step.clone(),
                None => past_the_end(name, script, turn.samplings),
            },
        };
        Ok((step, turn.samplings))
    }
}

fn past_the_end(name: &str, script: &Script, samplings: usize) -> Step {
    let (wanted, all) = (samplings + 1, script.steps.len());
    Step::saying(vec![StepBlock::Text(format!("The script `{name}` has no step {wanted}: it ends after {all}."))])
}

impl Upstream for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        match self.step(&request, &hints) {
            Err(error) => Box::pin(futures_util::stream::iter([Err(error)])),
            Ok((step, samplings)) => {
                let mut hasher = DefaultHasher::new();
                (&hints.request_id, samplings).hash(&mut hasher);
                play::play(self.name.clone(), step, hasher.finish(), input_bytes(&request))
            }
        }
    }

    fn models(&self) -> Vec<String> {
        self.models.clone()
    }
}

/// The size of the prompt, for the count of tokens.
fn input_bytes(request: &SamplingRequest) -> usize {
    let size = |text: serde_json::Result<String>| text.map_or(0, |text| text.len());
    let tools: usize =
        crate::lower::lower(request, &BTreeMap::new()).tools.iter().map(|tool| size(serde_json::to_string(tool))).sum();
    size(serde_json::to_string(&request.messages)) + size(serde_json::to_string(&request.system)) + tools
}
