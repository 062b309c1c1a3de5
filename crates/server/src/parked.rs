//! Cells that wait for the client's tools between two turns (wire.md §10).
//!
//! What is in here holds its container. It is taken out once, by the continuation that answers every call, so that no
//! result is used twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belljar_ids::{ContainerId, ServerToolUseId, ToolUseId};
use belljar_sandbox::{Parked, ToolAnswer};
use belljar_store::WorkspaceId;
use belljar_turn::{PendingCall, Resume};
use belljar_wire::result::ResultContent;

use crate::driver::code::Form;
use crate::running::RunningCell;

/// How long it is remembered that a cell was let go, so that results which come later still are told what became of it.
const LET_GO_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The cells of one server; `C` is what is kept of each, so that the rules can be tried without a sandbox.
#[derive(Debug)]
pub struct ParkedCells<C>(Mutex<HashMap<ContainerId, Entry<C>>>);

impl<C> Default for ParkedCells<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What a continuation is about: a call, in a workspace's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Where it waits.
    pub container: ContainerId,
    /// The call whose code waits.
    pub call: ServerToolUseId,
}

/// A cell that stands still. The first field goes first: once the container is free, somebody else may run in it.
#[derive(Debug)]
pub struct StillCell {
    /// Lets others interrupt it.
    pub running: RunningCell,
    /// In whose form its result will be told.
    pub form: Form,
    /// The cell, and the hold on its container.
    pub cell: Parked,
}

/// What a continuation finds.
#[derive(Debug, PartialEq)]
pub enum Kept<C> {
    /// The cell, which waits.
    Cell(C),
    /// What the cell came to in an earlier attempt at this continuation, which failed afterwards.
    Outcome(ResultContent),
}

/// What waits, and for what.
#[derive(Debug, PartialEq)]
pub struct Waiting<C> {
    /// The call and its place.
    pub spot: Spot,
    /// Every call that wants an answer.
    pub pending: Vec<PendingCall>,
    /// The cell, or what it came to.
    pub kept: Kept<C>,
}

/// A continuation's answers do not fit.
#[derive(Debug, PartialEq, Eq)]
pub enum NoFit {
    /// The call waits for nothing in this container.
    NotWaiting,
    /// It was let go, because the results did not come in time.
    LetGo,
    /// It waits, but not for exactly these results. It waits on.
    OtherResults {
        /// Calls without a result.
        unanswered: Vec<ToolUseId>,
        /// Results of no call.
        unknown: Vec<ToolUseId>,
    },
}

#[derive(Debug)]
enum Entry<C> {
    Waits { waiting: Box<Waiting<C>>, until: Instant },
    LetGo(LetGo),
}

/// Code that was let go of.
#[derive(Debug)]
pub struct LetGo {
    /// What waited, and where.
    pub spot: Spot,
    /// When it was let go of.
    pub since: Instant,
}

impl<C> Entry<C> {
    const fn spot(&self) -> &Spot {
        match self {
            Self::Waits { waiting, .. } => &waiting.spot,
            Self::LetGo(let_go) => &let_go.spot,
        }
    }
}

impl<C> ParkedCells<C> {
    /// Keeps a cell for its continuation, until then.
    pub fn park(&self, waiting: Waiting<C>, until: Instant) {
        let container = waiting.spot.container.clone();
        let entry = Entry::Waits { waiting: Box::new(waiting), until };
        let before = self.lock().insert(container, entry);
        drop(before);
    }

    /// Takes out what waits for exactly these results.
    ///
    /// # Errors
    /// [`NoFit`]; then nothing is changed.
    pub fn take(&self, spot: &Spot, resume: &Resume) -> Result<Waiting<C>, NoFit> {
        let mut entries = self.lock();
        let waiting = match entries.get(&spot.container) {
            Some(entry) if entry.spot() != spot => return Err(NoFit::NotWaiting),
            None => return Err(NoFit::NotWaiting),
            Some(Entry::LetGo(_)) => return Err(NoFit::LetGo),
            Some(Entry::Waits { waiting, .. }) => waiting,
        };
        fits(&waiting.pending, resume)?;
        match entries.remove(&spot.container) {
            Some(Entry::Waits { waiting, .. }) => Ok(*waiting),
            Some(Entry::LetGo(_)) | None => Err(NoFit::NotWaiting),
        }
    }

    /// Whether this waits here, or has been let go here.
    pub fn holds(&self, spot: &Spot) -> bool {
        self.lock().get(&spot.container).is_some_and(|entry| entry.spot() == spot)
    }

    /// The call whose code waits in a container.
    pub fn waiting_in(&self, container: &ContainerId) -> Option<ServerToolUseId> {
        match self.lock().get(container)? {
            Entry::Waits { waiting, .. } => Some(waiting.spot.call.clone()),
            Entry::LetGo(_) => None,
        }
    }

    /// Whether code of this call waits in any container of the workspace.
    pub fn waits(&self, workspace: &WorkspaceId, call: &ServerToolUseId) -> bool {
        let entries = self.lock();
        entries.values().any(|entry| match entry {
            Entry::Waits { waiting, .. } => waiting.spot.call == *call && waiting.spot.workspace == *workspace,
            Entry::LetGo(_) => false,
        })
    }

    /// Lets go of what has waited too long by now, and of memories that are too old; the containers that are free again.
    pub fn sweep(&self, now: Instant) -> Vec<ContainerId> {
        let mut dropped = Vec::new();
        let mut entries = self.lock();
        entries.retain(|_, entry| match entry {
            Entry::Waits { .. } => true,
            Entry::LetGo(let_go) => now.saturating_duration_since(let_go.since) < LET_GO_REMEMBERED,
        });
        for entry in entries.values_mut() {
            if let Entry::Waits { waiting, until } = entry
                && *until <= now
            {
                let spot = waiting.spot.clone();
                dropped.push(std::mem::replace(entry, Entry::LetGo(LetGo { spot, since: now })));
            }
        }
        drop(entries);
        dropped.iter().map(|entry| entry.spot().container.clone()).collect()
    }

    /// Remembers code that was let go of before.
    pub fn remember(&self, let_go: LetGo) {
        let before = self.lock().insert(let_go.spot.container.clone(), Entry::LetGo(let_go));
        drop(before);
    }

    /// Takes everything out: what waits, each until when, and what was let go of.
    pub fn take_all(&self) -> (Vec<(Waiting<C>, Instant)>, Vec<LetGo>) {
        let (mut waiting, mut remembered) = (Vec::new(), Vec::new());
        for entry in std::mem::take(&mut *self.lock()).into_values() {
            match entry {
                Entry::Waits { waiting: one, until } => waiting.push((*one, until)),
                Entry::LetGo(let_go) => remembered.push(let_go),
            }
        }
        (waiting, remembered)
    }

    /// Forgets what is in a container that is no more.
    pub fn forget(&self, container: &ContainerId) {
        let before = self.lock().remove(container);
        drop(before);
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        let before = std::mem::take(&mut *self.lock());
        drop(before);
    }

    // What is dropped gives a container back: never while this is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Entry<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fits(pending: &[PendingCall], resume: &Resume) -> Result<(), NoFit> {
    let answered: HashSet<&ToolUseId> = resume.results.iter().map(|result| &result.tool_use_id).collect();
    let asked: HashSet<&ToolUseId> = pending.iter().map(|call| &call.tool_use_id).collect();
    let unanswered: Vec<_> = pending.iter().map(|call| &call.tool_use_id).filter(|id| !answered.contains(id)).collect();
    let unknown: Vec<_> =
        resume.results.iter().map(|result| &result.tool_use_id).filter(|id| !asked.contains(id)).collect();
    if unanswered.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    let owned = |ids: Vec<&ToolUseId>| ids.into_iter().cloned().collect();
    Err(NoFit::OtherResults { unanswered: owned(unanswered), unknown: owned(unknown) })
}

/// The results under the numbers by which the sandbox knows the calls.
pub fn answers(pending: &[PendingCall], resume: &[belljar_turn::CallResult]) -> Vec<ToolAnswer> {
    let numbers: HashMap<&ToolUseId, u64> = pending.iter().map(|call| (&call.tool_use_id, call.number)).collect();
    let answers = resume.iter().filter_map(|result| {
        let number = *numbers.get(&result.tool_use_id)?;
        Some(ToolAnswer { number, text: result.text.clone(), is_error: result.is_error })
    });
    answers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsIds;
    use belljar_turn::CallResult;
    use belljar_wire::tool::SubTool;

    const MINUTE: Duration = Duration::from_secs(60);

    fn spot() -> Spot {
        Spot {
            workspace: "a".parse().expect("a workspace"),
            container: ContainerId::mint(&mut OsIds),
            call: ServerToolUseId::mint(&mut OsIds),
        }
    }

    fn ids<const N: usize>() -> [ToolUseId; N] {
        std::array::from_fn(|_| ToolUseId::mint(&mut OsIds))
    }

    fn pending(ids: &[ToolUseId]) -> Vec<PendingCall> {
        ids.iter().cloned().zip(1..).map(|(tool_use_id, number)| PendingCall { tool_use_id, number }).collect()
    }

    fn resume(call: &ServerToolUseId, ids: &[ToolUseId]) -> Resume {
        let result = |id: &ToolUseId| CallResult { tool_use_id: id.clone(), text: format!("of {id}"), is_error: false };
        Resume { id: call.clone(), sub_tool: SubTool::CodeExecution, results: ids.iter().map(result).collect() }
    }

    fn parked(cells: &ParkedCells<&'static str>, spot: &Spot, ids: &[ToolUseId], until: Instant) {
        let waiting = Waiting { spot: spot.clone(), pending: pending(ids), kept: Kept::Cell("the cell") };
        cells.park(waiting, until);
    }

    #[test]
    fn a_cell_is_taken_once_and_only_by_exactly_its_results() {
        let (cells, spot, [a, b, c], now) = (ParkedCells::default(), spot(), ids(), Instant::now());
        parked(&cells, &spot, &[a.clone(), b.clone()], now + MINUTE);
        let other = |unanswered: &[&ToolUseId], unknown: &[&ToolUseId]| {
            let owned = |ids: &[&ToolUseId]| ids.iter().map(|id| (*id).clone()).collect();
            NoFit::OtherResults { unanswered: owned(unanswered), unknown: owned(unknown) }
        };
        let cases: [(&[&ToolUseId], NoFit); 4] = [
            (&[], other(&[&a, &b], &[])),
            (&[&a], other(&[&b], &[])),
            (&[&a, &b, &c], other(&[], &[&c])),
            (&[&c, &b], other(&[&a], &[&c])),
        ];
        for (results, expected) in cases {
            let results: Vec<_> = results.iter().map(|id| (*id).clone()).collect();
            assert_eq!(cells.take(&spot, &resume(&spot.call, &results)), Err(expected));
        }
        let all = resume(&spot.call, &[b.clone(), a.clone()]);
        let foreign = Spot { workspace: "b".parse().expect("a workspace"), ..spot.clone() };
        let another = Spot { call: ServerToolUseId::mint(&mut OsIds), ..spot.clone() };
        assert_eq!([&spot, &foreign, &another].map(|spot| cells.holds(spot)), [true, false, false]);
        assert_eq!(cells.take(&foreign, &all), Err(NoFit::NotWaiting));
        assert_eq!(cells.take(&another, &all), Err(NoFit::NotWaiting));
        let taken = cells.take(&spot, &all).expect("it waits");
        assert_eq!(taken.kept, Kept::Cell("the cell"));
        let numbers: Vec<_> =
            answers(&taken.pending, &all.results).into_iter().map(|one| (one.number, one.text)).collect();
        assert_eq!(numbers, [(2, format!("of {b}")), (1, format!("of {a}"))]);
        assert_eq!(cells.take(&spot, &all), Err(NoFit::NotWaiting));
    }

    #[test]
    fn what_waits_too_long_is_let_go_and_remembered_for_a_while() {
        let (cells, spot, [a], now) = (ParkedCells::default(), spot(), ids(), Instant::now());
        parked(&cells, &spot, std::slice::from_ref(&a), now + MINUTE);
        assert_eq!(cells.sweep(now), []);
        assert!(cells.waits(&spot.workspace, &spot.call));
        assert_eq!(cells.waiting_in(&spot.container), Some(spot.call.clone()));
        assert_eq!(cells.sweep(now + MINUTE), std::slice::from_ref(&spot.container));
        assert!(!cells.waits(&spot.workspace, &spot.call));
        let late = resume(&spot.call, &[a]);
        assert_eq!(cells.take(&spot, &late), Err(NoFit::LetGo));
        assert_eq!(cells.sweep(now + MINUTE + LET_GO_REMEMBERED), []);
        assert_eq!(cells.take(&spot, &late), Err(NoFit::NotWaiting));
    }
}
