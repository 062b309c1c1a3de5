//! What calls that a reply had left came to, in turns that failed afterwards (wire.md §13.1, §13.2).
//!
//! The turn that goes on runs such calls first. When the model fails behind them, the client sends the same conversation again;
//! the code has run by then, and does not run again. A cell that had waited for the client's results has the same in
//! `parked`, which holds its container; this does not, because the result is all that is left to be told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belljar_ids::{ContainerId, ServerToolUseId};
use belljar_store::WorkspaceId;
use belljar_turn::ServerCall;
use belljar_wire::result::ResultContent;

/// How long an outcome is kept: as long as an answer to a continuation, for the same clients.
const KEPT: Duration = Duration::from_secs(600);
/// Bytes of all outcomes; the oldest go first.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The outcomes of one server.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<Key, Entry>>);

type Key = (WorkspaceId, ServerToolUseId);

/// A call that has run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Where. What it did besides is nowhere else, so elsewhere it has not run.
    pub container: ContainerId,
    /// What was called.
    pub call: ServerCall,
    /// What it came to.
    pub result: ResultContent,
}

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    since: Instant,
    bytes: usize,
}

impl Outcomes {
    /// Keeps what a call came to.
    pub fn keep(&self, workspace: &WorkspaceId, id: ServerToolUseId, outcome: Outcome, now: Instant) {
        // Never fails: every key of a result is a string.
        let bytes = serde_json::to_vec(&outcome.result).map_or(0, |text| text.len());
        let mut entries = self.lock();
        entries.insert((workspace.clone(), id), Entry { outcome, since: now, bytes });
        let mut all: usize = entries.values().map(|entry| entry.bytes).sum();
        while all > BYTES_MAX {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.since).map(|(key, _)| key.clone());
            let Some(gone) = oldest.and_then(|key| entries.remove(&key)) else { return };
            all -= gone.bytes;
        }
    }

    /// What this call came to in this container. A call that the client has changed has not run.
    pub fn of(
        &self,
        workspace: &WorkspaceId,
        id: &ServerToolUseId,
        container: &ContainerId,
        call: &ServerCall,
    ) -> Option<ResultContent> {
        let entries = self.lock();
        let outcome = &entries.get(&(workspace.clone(), id.clone()))?.outcome;
        (outcome.container == *container && outcome.call.does_as(call)).then(|| outcome.result.clone())
    }

    /// Where the first of these calls that has run did: the place for the others, if the client knows of none.
    pub fn container<'a>(
        &self,
        workspace: &WorkspaceId,
        ids: impl IntoIterator<Item = &'a ServerToolUseId>,
    ) -> Option<ContainerId> {
        let entries = self.lock();
        let found = ids.into_iter().find_map(|id| entries.get(&(workspace.clone(), id.clone())));
        found.map(|entry| entry.outcome.container.clone())
    }

    /// Forgets what has been told.
    pub fn forget<'a>(&self, workspace: &WorkspaceId, ids: impl IntoIterator<Item = &'a ServerToolUseId>) {
        let mut entries = self.lock();
        for id in ids {
            entries.remove(&(workspace.clone(), id.clone()));
        }
    }

    /// Forgets what nobody will ask for any more.
    pub fn sweep(&self, now: Instant) {
        self.lock().retain(|_, entry| now.saturating_duration_since(entry.since) < KEPT);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsIds;
    use belljar_wire::result::BashResult;

    fn bash(command: &str) -> ServerCall {
        ServerCall::Bash { command: command.to_owned(), tools: Vec::new().into() }
    }

    fn printed(stdout: &str) -> ResultContent {
        ResultContent::BashCodeExecutionResult(BashResult {
            stdout: stdout.to_owned(),
            stderr: String::new(),
            return_code: 0,
            content: Vec::new(),
        })
    }

    fn outcome(container: &ContainerId, stdout: &str) -> Outcome {
        Outcome { container: container.clone(), call: bash("run"), result: printed(stdout) }
    }

    #[test]
    fn an_outcome_is_told_of_the_same_call_in_the_same_place() {
        let (outcomes, now) = (Outcomes::default(), Instant::now());
        let [ours, other]: [WorkspaceId; 2] = ["a", "b"].map(|name| name.parse().expect("a workspace"));
        let [here, there] = std::array::from_fn(|_| ContainerId::mint(&mut OsIds));
        let [id, unknown] = std::array::from_fn(|_| ServerToolUseId::mint(&mut OsIds));
        outcomes.keep(&ours, id.clone(), outcome(&here, "1"), now);
        assert_eq!(outcomes.of(&ours, &id, &here, &bash("run")), Some(printed("1")));
        assert_eq!(outcomes.of(&other, &id, &here, &bash("run")), None);
        assert_eq!(outcomes.of(&ours, &unknown, &here, &bash("run")), None);
        assert_eq!(outcomes.of(&ours, &id, &there, &bash("run")), None);
        assert_eq!(outcomes.of(&ours, &id, &here, &bash("run again")), None);
        assert_eq!(outcomes.container(&ours, [&unknown, &id]), Some(here.clone()));
        assert_eq!(outcomes.container(&other, [&id]), None);
        outcomes.sweep(now + KEPT / 2);
        assert!(outcomes.of(&ours, &id, &here, &bash("run")).is_some());
        outcomes.forget(&ours, [&id]);
        assert_eq!(outcomes.of(&ours, &id, &here, &bash("run")), None);
        outcomes.keep(&ours, id.clone(), outcome(&here, "1"), now);
        outcomes.sweep(now + KEPT);
        assert_eq!(outcomes.of(&ours, &id, &here, &bash("run")), None);
    }

    #[test]
    fn outcomes_are_kept_within_bounds() {
        let (outcomes, now, workspace) = (Outcomes::default(), Instant::now(), "a".parse().expect("a workspace"));
        let here = ContainerId::mint(&mut OsIds);
        let ids: [ServerToolUseId; 3] = std::array::from_fn(|_| ServerToolUseId::mint(&mut OsIds));
        let text = "x".repeat(BYTES_MAX / 5 * 2);
        for (id, age) in ids.iter().zip([2, 3, 1]) {
            outcomes.keep(&workspace, id.clone(), outcome(&here, &text), now + Duration::from_secs(10 - age));
        }
        let kept = ids.each_ref().map(|id| outcomes.of(&workspace, id, &here, &bash("run")).is_some());
        assert_eq!(kept, [true, false, true]);
    }
}
