//! Containers that nobody uses rest on disk, and come back when they are named again.
//!
//! A container is either live or kept, never both: its checkpoint is made durable before its processes are ended, and
//! removed only once its files stand in a container again. So there is never an old state to come back to by mistake.

pub mod fork;
pub mod named;

use std::time::Duration;

use async_compression::tokio::bufread::{ZstdDecoder, ZstdEncoder};
use belljar_ids::ContainerId;
use belljar_sandbox::{ContainerState, Isolation, Lease, LeaseError, PutError, SandboxError};
use belljar_store::{CheckpointDraft, CheckpointRecord, CheckpointWriter, ContainerRecord, StoreError, WorkspaceId};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::sync::{Mutex, MutexGuard};

use crate::app::{App, Shared};
use crate::clock;
use crate::driver::place::{PlaceError, start};
use crate::principal::{Principal, isolation_of, key_isolation};

/// Bytes copied at once between a container and the store.
const CHUNK_BYTES: usize = 256 * 1024;
/// Nobody else knows of a container that has just been made.
const LEASE_WAIT: Duration = Duration::from_secs(1);
/// Containers whose names fall together wait for each other; so many need not.
const STRIPES: usize = 64;

/// One change between live and kept at a time for each container.
#[derive(Debug)]
pub struct Changes([Mutex<()>; STRIPES]);

impl Default for Changes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Changes {
    /// Waits until nobody else changes this container.
    pub async fn of(&self, container: &ContainerId) -> MutexGuard<'_, ()> {
        self.0[Self::stripe(container)].lock().await
    }

    /// The same, if nobody does now: for who holds one already, and must not wait for another.
    pub fn try_of(&self, container: &ContainerId) -> Option<MutexGuard<'_, ()>> {
        self.0[Self::stripe(container)].try_lock().ok()
    }

    fn stripe(container: &ContainerId) -> usize {
        let sum = container.as_str().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        sum % STRIPES
    }
}

/// Why a container could not be kept, or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is no such container, live or kept.
    #[error("there is no such container")]
    Unknown,
    /// It has no checkpoint of that id, or none at all.
    #[error("there is no such checkpoint")]
    NoCheckpoint,
    /// Somebody uses it.
    #[error("it is in use")]
    Busy,
    /// Its files could not be read out.
    #[error("its files could not be read: {0}")]
    Read(#[from] std::io::Error),
    /// Its files could not be put back.
    #[error("its files could not be put back: {0}")]
    Write(#[from] PutError),
    /// It lies over another image than the server's.
    #[error(
        "it was made from the image {made_from}, and this server has {present}; it comes back when the server has that image again"
    )]
    OtherImage {
        /// The checkpoint's.
        made_from: String,
        /// The server's.
        present: String,
    },
    /// No container could be made for it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The container or the host failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a container of this workspace is kept.
pub async fn kept(
    app: &App,
    workspace: &WorkspaceId,
    id: &ContainerId,
) -> Result<Option<CheckpointRecord>, StoreError> {
    app.store.checkpoint(workspace, id).await
}

/// Does what must not stop half way when whoever asked for it goes away: a container that is live with half of its files, or
/// live beside an older state of its own on disk, would be taken for whole.
async fn to_its_end<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = Result<T, CheckpointError>> + Send + 'static,
) -> Result<T, CheckpointError> {
    app.turns.spawn(work).await.map_err(|error| PlaceError::Broken(error.to_string()))?
}

/// Keeps a live container, once nobody uses it, and ends its processes. Waits at most `wait` for whoever does. Dropping the
/// future does not undo it.
///
/// # Errors
/// [`CheckpointError`]; the container is as it was.
pub async fn put_away(
    app: &Shared,
    record: &ContainerRecord,
    wait: Duration,
) -> Result<CheckpointRecord, CheckpointError> {
    let (shared, record) = (Shared::clone(app), record.clone());
    to_its_end(app, async move { put_away_now(&shared, &record, wait).await }).await
}

async fn put_away_now(
    app: &App,
    record: &ContainerRecord,
    wait: Duration,
) -> Result<CheckpointRecord, CheckpointError> {
    let _change = app.changes.of(&record.id).await;
    put_away_held(app, record, wait).await
}

/// As [`put_away`], for who holds the container's change.
async fn put_away_held(
    app: &App,
    record: &ContainerRecord,
    wait: Duration,
) -> Result<CheckpointRecord, CheckpointError> {
    let mut lease = app.sandbox.lease(&record.id, wait).await.map_err(|error| match error {
        LeaseError::Busy(_) => CheckpointError::Busy,
        LeaseError::Unknown(_) | LeaseError::Dead { .. } => CheckpointError::Unknown,
    })?;
    let kept = keep(app, &record.workspace, &mut lease).await?;
    // While it is held, so that nobody changes what has been kept.
    app.sandbox.remove(&record.id).await;
    drop(lease);
    let end = record.created_at.saturating_add(app.container_life);
    app.store.touch_container(&record.workspace, &record.id, end).await?;
    Ok(kept)
}

async fn keep(app: &App, workspace: &WorkspaceId, lease: &mut Lease) -> Result<CheckpointRecord, CheckpointError> {
    Ok(write(app, workspace, lease).await?.finish().await?)
}

/// Has a container's files written into the store; what they become there is for the caller to say.
async fn write(app: &App, workspace: &WorkspaceId, lease: &mut Lease) -> Result<CheckpointWriter, CheckpointError> {
    let draft = CheckpointDraft {
        workspace: workspace.clone(),
        container: lease.container().clone(),
        image: app.image_digest.clone(),
        isolation: key_isolation(lease.isolation()),
    };
    let mut writer = app.store.begin_checkpoint(draft, app.checkpoint_bytes_max).await?;
    let layer = BufReader::with_capacity(CHUNK_BYTES, lease.checkpoint()?);
    let mut compressed = ZstdEncoder::new(layer);
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    while compressed.read_buf(&mut chunk).await? > 0 {
        writer.write(chunk.split().freeze()).await?;
        chunk.reserve(CHUNK_BYTES);
    }
    Ok(writer)
}

/// Sees to it that a container is live, if it was kept. To be called before a lease. Dropping the future does not undo it.
///
/// # Errors
/// [`CheckpointError::Unknown`] when there is nothing to bring back; anything else leaves the checkpoint as it is.
pub async fn bring_back(app: &Shared, principal: &Principal, id: &ContainerId) -> Result<(), CheckpointError> {
    // Behind whoever changes it: a container that is on its way back is live before its files are there.
    let change = app.changes.of(id).await;
    if is_live(app, id) {
        return Ok(());
    }
    drop(change);
    let (shared, principal, id) = (Shared::clone(app), principal.clone(), id.clone());
    to_its_end(app, async move { bring_back_now(&shared, &principal, &id).await }).await
}

pub fn is_live(app: &App, id: &ContainerId) -> bool {
    app.sandbox.status(id).is_some_and(|status| status.state != ContainerState::Dead)
}

async fn bring_back_now(app: &App, principal: &Principal, id: &ContainerId) -> Result<(), CheckpointError> {
    let workspace = &principal.workspace;
    let _change = app.changes.of(id).await;
    if is_live(app, id) {
        return Ok(());
    }
    let (record, file) = app.store.open_checkpoint(workspace, id).await?.ok_or(CheckpointError::Unknown)?;
    if record.image != app.image_digest {
        return Err(CheckpointError::OtherImage { made_from: record.image, present: app.image_digest.clone() });
    }
    // What died under this name, and was not kept since, is only remembered.
    app.sandbox.remove(id).await;
    let isolation = never_weaker(principal.isolation, isolation_of(record.isolation));
    start(app, &Principal { isolation, ..principal.clone() }, id).await?;
    let restored = put_back(app, id, file).await;
    if restored.is_err() {
        app.sandbox.remove(id).await;
    }
    restored?;
    let expires_at = clock::now().saturating_add(app.container_idle);
    app.store.touch_container(workspace, id, expires_at).await?;
    app.store.delete_checkpoint(workspace, id).await?;
    Ok(())
}

/// What was gVisor's comes back in gVisor, whoever names it.
const fn never_weaker(asked: Option<Isolation>, kept: Isolation) -> Option<Isolation> {
    match kept {
        Isolation::Gvisor => Some(Isolation::Gvisor),
        Isolation::Namespaces => asked,
    }
}

async fn put_back(app: &App, id: &ContainerId, file: tokio::fs::File) -> Result<(), CheckpointError> {
    let lease = app.sandbox.lease(id, LEASE_WAIT).await;
    let mut lease = lease.map_err(|error| PlaceError::Broken(error.to_string()))?;
    let layer = ZstdDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
    Ok(lease.restore(layer).await?)
}

/// Keeps one of these idle containers, the first that can be, so that its workspace may have another; whether one was. Waits for
/// nobody: who asks may hold a change already.
pub async fn put_one_away(app: &App, idle: Vec<(ContainerId, WorkspaceId)>) -> bool {
    for (id, workspace) in idle {
        let Some(_change) = app.changes.try_of(&id) else { continue };
        let Ok(Some(record)) = app.store.container(&workspace, &id).await else { continue };
        let kept = put_away_held(app, &record, Duration::ZERO).await;
        let is_kept = kept.is_ok();
        tell(&record, kept);
        if is_kept {
            return true;
        }
    }
    false
}

/// Keeps every container that has been unused for long enough.
pub async fn put_idle_away(app: &Shared) {
    let now = clock::system_now();
    for status in app.sandbox.list() {
        let idle = now.duration_since(status.last_used_at).unwrap_or_default();
        let unused = status.state == ContainerState::Ready;
        if !unused || idle < app.serving.container_checkpoint {
            continue;
        }
        let Some(workspace) = app.owners.of_one(&status.id) else { continue };
        match app.store.container(&workspace, &status.id).await {
            Ok(Some(record)) => tell(&record, put_away(app, &record, Duration::ZERO).await),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, container = %status.id, "an idle container could not be looked up"),
        }
    }
}

fn tell(record: &ContainerRecord, kept: Result<CheckpointRecord, CheckpointError>) {
    match kept {
        Ok(kept) => {
            tracing::info!(container = %record.id, size_bytes = kept.size_bytes, "an idle container was put away")
        }
        Err(CheckpointError::Busy | CheckpointError::Unknown) => {}
        Err(error) => {
            tracing::warn!(%error, container = %record.id, "an idle container could not be put away; it stays")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Isolation::{Gvisor, Namespaces};

    #[test]
    fn what_was_gvisors_comes_back_in_gvisor_and_nothing_in_less_than_is_asked_for() {
        let cases = [
            (None, Gvisor, Some(Gvisor)),
            (Some(Namespaces), Gvisor, Some(Gvisor)),
            (Some(Gvisor), Namespaces, Some(Gvisor)),
            (Some(Namespaces), Namespaces, Some(Namespaces)),
            (None, Namespaces, None),
        ];
        for (asked, kept, expected) in cases {
            assert_eq!(never_weaker(asked, kept), expected, "{asked:?} {kept:?}");
        }
    }
}
