//! Making room when all containers exist: which idle one has to go for a new one.
//!
//! Every turn that names no container makes one, and it lives for an idle hour: without this, as many turns as there
//! are places would lock everybody out for that hour. With it, a workspace is only ever refused while the others
//! hold no more than it does, or while everything is in use.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use belljar_ids::ContainerId;
use belljar_sandbox::{ContainerState, ContainerStatus, Sandbox};
use belljar_store::WorkspaceId;

use crate::clock;

/// A container that was in use so lately stays: its next request is likely on its way.
const IDLE_MIN: Duration = Duration::from_secs(5);

/// Whose the containers are.
#[derive(Debug, Default)]
pub struct Owners(Mutex<Whose>);

#[derive(Debug, Default)]
struct Whose {
    live: HashMap<ContainerId, WorkspaceId>,
    /// Those that are being made: in no list yet.
    making: HashMap<ContainerId, WorkspaceId>,
}

/// The place of a container that is being made, among those of its workspace; given up when dropped.
#[derive(Debug)]
pub struct Making<'a> {
    owners: &'a Owners,
    id: ContainerId,
}

impl Making<'_> {
    /// It has started: in one step it is no longer one that is being made, so that it is counted once at every instant.
    pub fn started(self, workspace: WorkspaceId) {
        let mut whose = self.owners.lock();
        whose.making.remove(&self.id);
        whose.live.insert(self.id.clone(), workspace);
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.owners.lock().making.remove(&self.id);
    }
}

impl Owners {
    fn lock(&self) -> MutexGuard<'_, Whose> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down whose a container is, once it has started.
    pub fn enter(&self, id: ContainerId, workspace: WorkspaceId) {
        self.lock().live.insert(id, workspace);
    }

    /// Whose a container is.
    pub fn of_one(&self, id: &ContainerId) -> Option<WorkspaceId> {
        self.lock().live.get(id).cloned()
    }

    /// A place for one more container of a workspace that may have `max` live ones, its end users' among them.
    ///
    /// # Errors
    /// Where there is none: its idle ones with their owners, the longest unused first.
    pub fn reserve<'a>(
        &'a self,
        sandbox: &Sandbox,
        id: &ContainerId,
        workspace: &WorkspaceId,
        max: Option<u64>,
    ) -> Result<Making<'a>, Vec<(ContainerId, WorkspaceId)>> {
        let mut whose = self.lock();
        if let Some(max) = max {
            let whole = workspace.whole();
            let owned = Self::listed(&mut whose, sandbox);
            let live: Vec<_> = owned
                .iter()
                .filter(|one| one.workspace.whole() == whole && one.status.state != ContainerState::Dead)
                .collect();
            let making = whose.making.values().filter(|owner| owner.whole() == whole).count();
            if live.len() + making >= usize::try_from(max).unwrap_or(usize::MAX) {
                return Err(idle(&live, clock::system_now()));
            }
        }
        whose.making.insert(id.clone(), workspace.clone());
        Ok(Making { owners: self, id: id.clone() })
    }

    /// The containers that still are, each with its owner; what is gone is forgotten.
    fn of(&self, sandbox: &Sandbox) -> Vec<Owned> {
        Self::listed(&mut self.lock(), sandbox)
    }

    fn listed(whose: &mut Whose, sandbox: &Sandbox) -> Vec<Owned> {
        // Listed only now: whatever is entered by now has started, so what the list lacks is gone.
        let all = sandbox.list();
        let mut kept = HashMap::with_capacity(all.len());
        let mut owned = Vec::with_capacity(all.len());
        for status in all {
            let Some((id, workspace)) = whose.live.remove_entry(&status.id) else { continue };
            kept.insert(id, workspace.clone());
            owned.push(Owned { status, workspace });
        }
        whose.live = kept;
        owned
    }
}

/// Those that nobody uses, the longest unused first.
fn idle(live: &[&Owned], now: SystemTime) -> Vec<(ContainerId, WorkspaceId)> {
    let unused = |one: &&&Owned| one.status.state == ContainerState::Ready && is_idle(one, now);
    let mut idle: Vec<_> = live.iter().filter(unused).collect();
    idle.sort_by_key(|one| one.status.last_used_at);
    idle.into_iter().map(|one| (one.status.id.clone(), one.workspace.clone())).collect()
}

fn is_idle(one: &Owned, now: SystemTime) -> bool {
    now.duration_since(one.status.last_used_at).is_ok_and(|idle| idle >= IDLE_MIN)
}

#[derive(Debug)]
struct Owned {
    status: ContainerStatus,
    workspace: WorkspaceId,
}

/// Removes one idle container so that `workspace` can have another; its id and its owner, or `None` when there is none
/// that it may take the place of.
pub async fn make(sandbox: &Sandbox, owners: &Owners, workspace: &WorkspaceId) -> Option<(ContainerId, WorkspaceId)> {
    let owned = owners.of(sandbox);
    for victim in victims(&owned, workspace, clock::system_now()) {
        // Somebody may have taken hold of it meanwhile: then the next one.
        if sandbox.remove_idle(&victim.status.id).await {
            return Some((victim.status.id.clone(), victim.workspace.clone()));
        }
    }
    None
}

/// Whose places may be taken, in order: of the workspace with the most containers, the longest unused; then of the next.
/// A workspace that would have fewer than the newcomer afterwards is left alone.
fn victims<'a>(owned: &'a [Owned], newcomer: &WorkspaceId, now: SystemTime) -> Vec<&'a Owned> {
    // End users count towards their workspace: who has many of them has no more places for it.
    let newcomer = newcomer.whole();
    let mut held: HashMap<WorkspaceId, usize> = HashMap::new();
    for one in owned.iter().filter(|one| one.status.state != ContainerState::Dead) {
        *held.entry(one.workspace.whole()).or_default() += 1;
    }
    let of = |workspace: &WorkspaceId| held.get(&workspace.whole()).copied().unwrap_or_default();
    let mut victims: Vec<_> = owned
        .iter()
        .filter(|one| one.status.state == ContainerState::Ready && is_idle(one, now))
        .filter(|one| one.workspace.whole() == newcomer || of(&one.workspace) > of(&newcomer) + 1)
        .collect();
    let rank = |one: &Owned| -> (std::cmp::Reverse<usize>, SystemTime) {
        (std::cmp::Reverse(of(&one.workspace)), one.status.last_used_at)
    };
    victims.sort_by_key(|one| rank(one));
    victims
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContainerState::{Dead, Leased, Ready};
    type Row = (&'static str, ContainerState);

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// Containers of (workspace, state), each used a second after the one before.
    fn owned(rows: &[Row]) -> Vec<Owned> {
        let rows = rows.iter().zip(1..);
        rows.map(|((workspace, state), second)| Owned {
            status: ContainerStatus {
                id: ContainerId::mint(&mut crate::random::OsIds),
                created_at: SystemTime::UNIX_EPOCH,
                last_used_at: at(second),
                isolation: belljar_sandbox::Isolation::Namespaces,
                state: *state,
            },
            workspace: workspace.parse().expect("a workspace"),
        })
        .collect()
    }

    #[test]
    fn the_longest_idle_of_whoever_holds_the_most_goes_first() {
        let (a, b, c) = ("a", "b", "c");
        let cases: [(&[Row], &str, &[usize]); 7] = [
            // One's own, the longest unused first; not what is in use or dead.
            (&[(a, Leased), (a, Ready), (a, Dead), (a, Ready)], a, &[1, 3]),
            // A newcomer takes a place of whoever has more than it will have.
            (&[(a, Ready), (a, Ready), (a, Ready)], b, &[0, 1, 2]),
            (&[(b, Ready), (a, Ready), (a, Ready), (a, Ready)], b, &[1, 2, 3, 0]),
            // Of equals, and of who would have fewer, nothing is taken but one's own.
            (&[(a, Ready), (a, Ready), (b, Leased)], b, &[]),
            (&[(a, Ready), (b, Ready), (c, Ready)], b, &[1]),
            // The dead take no place.
            (&[(a, Ready), (a, Dead), (a, Dead)], b, &[]),
            // Who floods pays first, whoever asks.
            (&[(b, Ready), (a, Ready), (a, Ready), (a, Ready), (b, Ready)], a, &[1, 2, 3]),
        ];
        for (rows, newcomer, expected) in cases {
            let owned = owned(rows);
            let found = victims(&owned, &newcomer.parse().expect("a workspace"), at(60));
            let expected: Vec<_> = expected.iter().map(|index| &owned[*index].status.id).collect();
            let found: Vec<_> = found.iter().map(|one| &one.status.id).collect();
            assert_eq!(found, expected, "{rows:?}");
        }
    }

    #[test]
    fn what_was_in_use_just_now_stays() {
        let owned = owned(&[("a", Ready), ("a", Ready), ("a", Ready)]);
        let found = victims(&owned, &owned[0].workspace, at(7));
        let found: Vec<_> = found.iter().map(|one| &one.status.id).collect();
        assert_eq!(found, [&owned[0].status.id, &owned[1].status.id]);
        // A clock that was set back makes nothing older.
        assert!(victims(&owned, &owned[0].workspace, at(0)).is_empty());
    }
}
