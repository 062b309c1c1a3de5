//! Checkpoints that a client names: made of a container that lives on, and gone back to in its place.

use std::time::Duration;

use belljar_ids::{CheckpointId, ContainerId};
use belljar_sandbox::{Lease, LeaseError};
use belljar_store::{ContainerRecord, NamedCheckpoint, StoreError, WorkspaceId};

use super::{CheckpointError, to_its_end, write};
use crate::app::{App, Shared};
use crate::clock;
use crate::random::OsIds;

/// Makes a checkpoint of a container that nobody uses, live or kept. Its processes go on; they are only still meanwhile.
///
/// # Errors
/// [`CheckpointError`]; the container is as it was.
pub async fn make(app: &App, record: &ContainerRecord) -> Result<NamedCheckpoint, CheckpointError> {
    let _change = app.changes.of(&record.id).await;
    let id = CheckpointId::mint(&mut OsIds);
    match if_live(app, &record.id).await? {
        Some(mut lease) => Ok(write(app, &record.workspace, &mut lease).await?.finish_named(id).await?),
        None => {
            let named = app.store.name_checkpoint(&record.workspace, &record.id, id).await?;
            named.ok_or(CheckpointError::Unknown)
        }
    }
}

/// Forgets a container that has ended, unless it has checkpoints: those stay as long as it might have lived.
///
/// # Errors
/// The store's.
pub async fn forget(app: &App, workspace: &WorkspaceId, container: &ContainerId) -> Result<(), StoreError> {
    let Some(record) = app.store.container(workspace, container).await? else { return Ok(()) };
    let end = record.created_at.saturating_add(app.container_life);
    let named = app.store.list_named_checkpoints(workspace, container, None, 1).await?;
    if named.entries.is_empty() || end <= clock::now() {
        app.store.delete_container(workspace, container).await?;
    } else {
        app.store.touch_container(workspace, container, end).await?;
    }
    Ok(())
}

/// The id that was asked for, or else that of the container's newest checkpoint; `None` when it has none.
///
/// # Errors
/// The store's.
pub async fn choose(
    app: &App,
    record: &ContainerRecord,
    asked: Option<CheckpointId>,
) -> Result<Option<CheckpointId>, CheckpointError> {
    if asked.is_some() {
        return Ok(asked);
    }
    let newest = app.store.list_named_checkpoints(&record.workspace, &record.id, None, 1).await?;
    Ok(newest.entries.into_iter().next().map(|named| named.id))
}

/// Makes a container's files those of one of its checkpoints: what it holds is kept in the place of what it had, durably, and
/// then its processes are ended. It is to be brought back afterwards; a crash in between leaves it kept, with these files.
///
/// # Errors
/// [`CheckpointError`]; the container is as it was.
pub async fn go_back(app: &Shared, record: &ContainerRecord, id: &CheckpointId) -> Result<(), CheckpointError> {
    let (shared, record, id) = (Shared::clone(app), record.clone(), id.clone());
    to_its_end(app, async move { go_back_now(&shared, &record, &id).await }).await
}

async fn go_back_now(app: &App, record: &ContainerRecord, id: &CheckpointId) -> Result<(), CheckpointError> {
    let (workspace, container) = (&record.workspace, &record.id);
    let _change = app.changes.of(container).await;
    check(app, workspace, container, id).await?;
    let lease = if_live(app, container).await?;
    let kept = app.store.keep_named_checkpoint(workspace, container, id).await?;
    kept.ok_or(CheckpointError::NoCheckpoint)?;
    // While it is held, as when it is put away.
    app.sandbox.remove(container).await;
    drop(lease);
    let end = record.created_at.saturating_add(app.container_life);
    app.store.touch_container(workspace, container, end).await?;
    Ok(())
}

/// A checkpoint that could not be applied must not cost the files that are there.
async fn check(
    app: &App,
    workspace: &WorkspaceId,
    container: &ContainerId,
    id: &CheckpointId,
) -> Result<(), CheckpointError> {
    let named = app.store.check_named_checkpoint(workspace, container, id).await?;
    let record = named.ok_or(CheckpointError::NoCheckpoint)?.record;
    if record.image == app.image_digest {
        return Ok(());
    }
    Err(CheckpointError::OtherImage { made_from: record.image, present: app.image_digest.clone() })
}

/// The hold on a container that is live and that nobody uses; `None` when it is not live.
async fn if_live(app: &App, id: &ContainerId) -> Result<Option<Lease>, CheckpointError> {
    match app.sandbox.lease(id, Duration::ZERO).await {
        Ok(lease) => Ok(Some(lease)),
        Err(LeaseError::Busy(_)) => Err(CheckpointError::Busy),
        Err(LeaseError::Unknown(_) | LeaseError::Dead { .. }) => Ok(None),
    }
}
