//! The scripted model: plays scripts, and without one follows a fixed rule. It needs no key and no network, and never pretends to be
//! a language model.
//!
//! It keeps nothing between two samplings: [`history`] tells from the conversation which step is next.

mod fences;
mod history;
mod load;
mod play;
mod quote;
mod rule;
mod script;
mod shell;

use std::collections::BTreeMap;
use std::path::Path;

use belljar_wire::message::StopReason;
use belljar_wire::read::Brief;
use belljar_wire::sampling::SamplingRequest;

use crate::config::ConfigError;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::scripted::history::TurnSoFar;
use crate::scripted::play::{Part, play};
use crate::scripted::script::{Script, Step, StepBlock};
use crate::upstream::{SamplingHints, SamplingStream, Upstream};

/// What a script says behind its last step.
const NO_MORE_STEPS: &str = "The script has no more steps.";

pub(crate) struct Scripted {
    name: String,
    models: Vec<String>,
    /// By name.
    scripts: BTreeMap<String, Script>,
}

impl Scripted {
    /// Reads every script of `scripts_dir`.
    ///
    /// # Errors
    /// A script that cannot be read or is none, with its file and field.
    pub(crate) fn new(name: String, scripts_dir: Option<&Path>, models: Vec<String>) -> Result<Self, ConfigError> {
        let scripts = match scripts_dir.map(load::scripts).transpose() {
            Ok(scripts) => scripts.unwrap_or_default(),
            Err(problem) => {
                return Err(ConfigError::Scripts { upstream: name, problem });
            }
        };
        Ok(Self { name, models, scripts })
    }

    /// The script of this turn: the one that is named, else the one whose `match` is the longest text in the user's words, the
    /// first by name among equals.
    fn choose(&self, hint: Option<&str>, turn: &TurnSoFar<'_>) -> Result<Option<&Script>, UpstreamError> {
        if let Some(name) = hint {
            let script = self.scripts.get(name).map(Some);
            return script.ok_or_else(|| self.unknown_script(name));
        }
        let words = turn.text();
        let mut best: Option<(usize, &Script)> = None;
        for script in self.scripts.values() {
            let Some(matches) = &script.matches else {
                continue;
            };
            let longer = best.is_none_or(|(length, _)| matches.len() > length);
            if longer && words.contains(matches.as_str()) {
                best = Some((matches.len(), script));
            }
        }
        Ok(best.map(|(_, script)| script))
    }

    fn unknown_script(&self, name: &str) -> UpstreamError {
        let message = format!("belljar-script: there is no script `{}`; {}", Brief(name), load::names(&self.scripts));
        let operator = format!("upstream `{}`: {message}", self.name);
        UpstreamError::new(UpstreamErrorKind::Rejected { status: 400 }, operator).telling(message)
    }
}

impl Upstream for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let turn = TurnSoFar::of(&request.messages);
        let script = match self.choose(hints.script.as_deref(), &turn) {
            Ok(script) => script,
            Err(error) => return Box::pin(futures_util::stream::iter([Err(error)])),
        };
        let mut part = Part {
            upstream: &self.name,
            request: &request,
            request_id: &hints.request_id,
            step_index: turn.samplings(),
        };
        let Some(script) = script else {
            return play(&rule::step(&request, &turn, &hints.files.uploads), &part);
        };
        part.step_index = next_step(script, &turn);
        match script.steps.get(part.step_index) {
            Some(step) => play(step, &part),
            None => {
                let end = Step::of(vec![StepBlock::Text(NO_MORE_STEPS.to_owned())]);
                play(&end, &part)
            }
        }
    }

    fn models(&self) -> Vec<String> {
        self.models.clone()
    }
}

/// The step that comes next. A step that pauses without a call leaves its text as its only trace.
fn next_step(script: &Script, turn: &TurnSoFar<'_>) -> usize {
    let mut next = turn.samplings();
    let mut said = turn.said();
    while let Some(step) = script.steps.get(next) {
        let pauses = step.stop_reason == Some(StopReason::PauseTurn) && !step.calls();
        let text = step.text();
        match said.strip_prefix(text.as_str()) {
            Some(rest) if pauses && !text.is_empty() => said = rest,
            Some(_) | None => break,
        }
        next += 1;
    }
    next
}
