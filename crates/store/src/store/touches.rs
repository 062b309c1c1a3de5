//! Ends of containers that have moved and are not on disk yet.
//!
//! Each turn moves its container's end, some many times in a second, and nobody waits for the disk for that: what a crash could lose
//! of it is about containers that end with the server. Whoever reads a record meanwhile gets the end that holds. A
//! container that is to outlive the server has its end made durable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_ids::ContainerId;

use crate::{ContainerRecord, Timestamp, WorkspaceId};

type Key = (WorkspaceId, ContainerId);

/// See the module's head. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Touches(Arc<Mutex<HashMap<Key, Timestamp>>>);

/// The touches of one moment.
#[derive(Debug)]
pub(super) struct Noted(HashMap<Key, Timestamp>);

impl Touches {
    /// The last word about a container's end.
    pub(super) fn note(&self, workspace: &WorkspaceId, id: &ContainerId, expires_at: Timestamp) {
        self.lock().insert((workspace.clone(), id.clone()), expires_at);
    }

    /// To be taken before the database is read: what is on disk by then is in what is read.
    pub(super) fn noted(&self) -> Noted {
        Noted(self.lock().clone())
    }

    /// As [`Touches::noted`], for one container.
    pub(super) fn of(&self, workspace: &WorkspaceId, id: &ContainerId) -> Option<Timestamp> {
        self.lock().get(&(workspace.clone(), id.clone())).copied()
    }

    /// These are on disk; what was noted since is not.
    pub(super) fn written(&self, noted: &Noted) {
        self.lock().retain(|key, expires_at| noted.0.get(key) != Some(expires_at));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    /// Each container with its end.
    pub(super) fn all(&self) -> impl Iterator<Item = (&WorkspaceId, &ContainerId, Timestamp)> {
        self.0.iter().map(|((workspace, id), expires_at)| (workspace, id, *expires_at))
    }

    /// A record with the end that holds.
    pub(super) fn correct(&self, record: &mut ContainerRecord) {
        if let Some(expires_at) = self.0.get(&(record.workspace.clone(), record.id.clone())) {
            record.expires_at = *expires_at;
        }
    }
}
