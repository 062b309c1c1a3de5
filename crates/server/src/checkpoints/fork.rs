//! Another container with the files of one: of a checkpoint by a row more in the store, of a live one by a copy.
//!
//! `docs/adr/2026-11-29-a-fork-copies-files.md` says why a live one's files are copied, and not shared until they change.

use belljar_ids::{CheckpointId, ContainerId};
use belljar_sandbox::{Lease, LeaseError};
use belljar_store::ContainerRecord;

use super::{CheckpointError, LEASE_WAIT, is_live, never_weaker, to_its_end};
use crate::app::{App, Shared};
use crate::clock;
use crate::driver::place::{PlaceError, new_container};
use crate::principal::Principal;
use crate::random::OsIds;

/// How often a container that changes between live and kept under one's hands is looked at again.
const ATTEMPTS_MAX: u32 = 3;

/// What a fork begins with.
#[derive(Debug, Clone)]
pub enum Source {
    /// The container's files as they are now.
    Now,
    /// Those of one of its checkpoints.
    Checkpoint(CheckpointId),
}

/// Forks a container; answers the new one's id.
///
/// Dropping the future does not undo it, nor leave it half done: nobody would know of a container with half of its files.
///
/// # Errors
/// [`CheckpointError`]; nothing is left of the new one, and the other is as it was.
pub async fn fork(
    app: &Shared,
    principal: &Principal,
    record: &ContainerRecord,
    source: Source,
) -> Result<ContainerId, CheckpointError> {
    let (shared, principal, record) = (Shared::clone(app), principal.clone(), record.clone());
    let forking = async move {
        match source {
            Source::Now => fork_now(&shared, &principal, &record).await,
            Source::Checkpoint(id) => {
                fork_kept(&shared, &record, Some(&id)).await?.ok_or(CheckpointError::NoCheckpoint)
            }
        }
    };
    to_its_end(app, forking).await
}

async fn fork_now(
    app: &Shared,
    principal: &Principal,
    record: &ContainerRecord,
) -> Result<ContainerId, CheckpointError> {
    for _attempt in 0..ATTEMPTS_MAX {
        // Behind whoever changes it: a container that is on its way back is live before its files are there.
        let change = app.changes.of(&record.id).await;
        if !is_live(app, &record.id) {
            return fork_kept(app, record, None).await?.ok_or(CheckpointError::Unknown);
        }
        drop(change);
        match app.sandbox.lease(&record.id, app.serving.lease_wait).await {
            Ok(mut lease) => return copy(app, principal, &mut lease).await,
            Err(LeaseError::Busy(_)) => return Err(CheckpointError::Busy),
            // Put away since.
            Err(LeaseError::Unknown(_) | LeaseError::Dead { .. }) => {}
        }
    }
    Err(CheckpointError::Busy)
}

/// The new one is kept, and comes to life when it is first named: until then it takes no more than a row.
async fn fork_kept(
    app: &App,
    of: &ContainerRecord,
    checkpoint: Option<&CheckpointId>,
) -> Result<Option<ContainerId>, CheckpointError> {
    let fork = kept_container(app, &of.workspace);
    let id = fork.id.clone();
    Ok(app.store.fork_kept(&of.id, checkpoint, fork).await?.map(|_kept| id))
}

/// The record of a container that begins its life on disk.
pub fn kept_container(app: &App, workspace: &belljar_store::WorkspaceId) -> ContainerRecord {
    let created_at = clock::now();
    ContainerRecord {
        id: ContainerId::mint(&mut OsIds),
        workspace: workspace.clone(),
        created_at,
        expires_at: created_at.saturating_add(app.container_life),
    }
}

/// While one is held, it cannot be the one that gives way to the other.
async fn copy(app: &Shared, principal: &Principal, lease: &mut Lease) -> Result<ContainerId, CheckpointError> {
    let isolation = never_weaker(principal.isolation, lease.isolation());
    let id = new_container(app, &Principal { isolation, ..principal.clone() }).await?;
    let copied = fill(app, lease, &id).await;
    if copied.is_err() {
        app.sandbox.remove(&id).await;
        app.store.delete_container(&principal.workspace, &id).await?;
    }
    copied.map(|()| id)
}

async fn fill(app: &App, lease: &mut Lease, id: &ContainerId) -> Result<(), CheckpointError> {
    let fork = app.sandbox.lease(id, LEASE_WAIT).await;
    let mut fork = fork.map_err(|error| PlaceError::Broken(error.to_string()))?;
    Ok(lease.copy_into(&mut fork).await?)
}
