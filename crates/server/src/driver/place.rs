//! Where a turn's calls run: a container, made when it is first needed, with the turn's uploads in it.

use belljar_ids::{ContainerId, FileId};
use belljar_sandbox::{
    ContainerOptions, ContainerStatus, Lease, LeaseError, LiveChunk, Output, OutputFile, PutError, SandboxError,
};
use belljar_store::{
    ContainerRecord, Content, FileDraft, FileRecord, Filename, Origin, StoreError, Timestamp, WorkspaceId,
};
use belljar_wire::container::ContainerInfo;
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::app::{App, Shared};
use crate::checkpoints::{self, named};
use crate::clock;
use crate::driver::Upload;
use crate::principal::Principal;
use crate::random::OsIds;
use crate::room::{self, Making};

/// How long the holder of a new container waits for it: nobody else knows its id.
const NEW_LEASE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// How often room is made for one container. Others may be quicker to take it.
const ROOM_ATTEMPTS_MAX: u32 = 8;

/// Bytes copied at once between a container and the store.
const COPY_CHUNK_BYTES: usize = 256 * 1024;

/// A turn's container, or the way to get one.
pub struct Place {
    /// The server's organs.
    pub app: Shared,
    principal: Principal,
    lease: Option<Lease>,
    waiting: Vec<Upload>,
    live: Option<mpsc::Sender<LiveChunk>>,
}

/// Why there is no container to run in.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// All containers are in use.
    #[error("all containers are in use")]
    Full,
    /// The workspace has as many live containers as it may, and all are in use.
    #[error("all containers of the workspace are in use")]
    Quota,
    /// An upload could not be put into the container; the text is for the model.
    #[error("{0}")]
    Upload(String),
    /// The isolation that the key or the configuration asks for cannot be had; nothing weaker is given instead.
    #[error("a container of gVisor cannot be had on this server")]
    Isolation,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Ours to fix; the text is the operator's.
    #[error("{0}")]
    Broken(String),
}

impl Place {
    /// The place of one turn.
    pub fn new(app: Shared, principal: Principal, lease: Option<Lease>, uploads: Vec<Upload>) -> Self {
        let mut waiting = uploads;
        // Taken from the end: the first upload goes in first, so that of two with one name the later one stays.
        waiting.reverse();
        Self { app, principal, lease, waiting, live: None }
    }

    /// The container, if there is one already.
    pub fn container(&self) -> Option<&ContainerId> {
        self.lease.as_ref().map(Lease::container)
    }

    /// What code writes in this place is told to `listener` while it runs.
    pub fn listen(&mut self, listener: mpsc::Sender<LiveChunk>) {
        self.live = Some(listener);
    }

    /// Who listens.
    pub fn listener(&self) -> Option<mpsc::Sender<LiveChunk>> {
        self.live.clone()
    }

    /// The container, made and filled now if need be.
    pub async fn lease(&mut self) -> Result<&mut Lease, PlaceError> {
        let lease = self.claim().await?;
        Ok(self.lease.insert(lease))
    }

    /// As [`Place::lease`], for a cell that takes the container along; it comes back by [`Place::give_back`].
    pub async fn claim(&mut self) -> Result<Lease, PlaceError> {
        let mut lease = match self.lease.take() {
            Some(lease) => lease,
            None => self.make().await?,
        };
        while let Some(upload) = self.waiting.last().cloned() {
            self.mount(&mut lease, &upload).await?;
            self.waiting.pop();
        }
        Ok(lease)
    }

    /// Takes back what a cell had.
    pub fn give_back(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Lets go of a container that died: the next call gets a new one.
    pub fn forget(&mut self) {
        self.lease = None;
    }

    /// The container as the reply names it, alive for another idle time from now.
    pub fn info(&mut self) -> Option<ContainerInfo> {
        let id = self.lease.as_ref()?.container().clone();
        let expires_at = self.touch(&id);
        Some(ContainerInfo { id, expires_at: expires_at.to_string() })
    }

    /// As [`Place::info`] for code that waits for the client: then the time is over when its calls are (wire.md §7.2).
    pub fn pause_info(&self, container: &ContainerId) -> ContainerInfo {
        let expires_at = clock::now().saturating_add(self.app.call_wait);
        self.touch(container);
        ContainerInfo { id: container.clone(), expires_at: expires_at.to_string() }
    }

    fn touch(&self, id: &ContainerId) -> Timestamp {
        let expires_at = clock::now().saturating_add(self.app.container_idle);
        self.app.store.touch_live_container(&self.principal.workspace, id, expires_at);
        expires_at
    }

    /// Whose container it is.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.principal.workspace
    }

    async fn make(&self) -> Result<Lease, PlaceError> {
        let id = new_container(&self.app, &self.principal).await?;
        self.app
            .sandbox
            .lease(&id, NEW_LEASE_WAIT)
            .await
            .map_err(|error: LeaseError| PlaceError::Broken(error.to_string()))
    }

    async fn mount(&self, lease: &mut Lease, upload: &Upload) -> Result<(), PlaceError> {
        let opened = self.app.store.open_content(&self.principal.workspace, &upload.id).await?;
        let Some(Content::Open { record, file }) = opened else {
            return Err(PlaceError::Upload(format!("file {} is gone", upload.id)));
        };
        lease.put_input(&upload.filename, file, record.size_bytes).await.map_err(|error| match error {
            PutError::Sandbox(error) => PlaceError::Broken(error.to_string()),
            error => PlaceError::Upload(format!("{} could not be put into $INPUT_DIR: {error}", upload.filename)),
        })
    }

    /// See [`keep_all`].
    pub async fn keep_all(&self, output: &mut Output) -> (Vec<FileRecord>, Vec<String>) {
        match &self.lease {
            Some(lease) => keep_all(&self.app, &self.principal.workspace, lease.container(), output).await,
            None => (Vec::new(), Vec::new()),
        }
    }
}

/// A captured file that could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The container's file could not be read.
    #[error("reading the file: {0}")]
    Read(#[from] std::io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a container and records whose it is. When all exist, an idle one gives way (divergence/full-server.md).
///
/// Dropping the future does not undo it, nor leave it half done: a container that nobody owns would keep its place.
pub async fn new_container(app: &Shared, principal: &Principal) -> Result<ContainerId, PlaceError> {
    let (shared, principal) = (Shared::clone(app), principal.clone());
    let making = app.turns.spawn(async move { make_container(&shared, &principal).await });
    making.await.map_err(|error| PlaceError::Broken(error.to_string()))?
}

async fn make_container(app: &Shared, principal: &Principal) -> Result<ContainerId, PlaceError> {
    let (id, workspace) = (ContainerId::mint(&mut OsIds), &principal.workspace);
    let status = start(app, principal, &id).await?;
    let record = ContainerRecord {
        id: id.clone(),
        workspace: workspace.clone(),
        created_at: clock::timestamp(status.created_at),
        expires_at: clock::timestamp(status.created_at).saturating_add(app.container_idle),
    };
    if let Err(error) = app.store.record_container(record).await {
        app.sandbox.remove(&id).await;
        return Err(error.into());
    }
    Ok(id)
}

/// Starts it, making room as often as others snatch the room away, within reason, and writes down whose it is.
pub async fn start(app: &App, principal: &Principal, id: &ContainerId) -> Result<ContainerStatus, PlaceError> {
    // Held until it is written down: so many others cannot be made at once that there would be more than may be.
    let making = reserve(app, principal, id).await?;
    let status = start_reserved(app, principal, id).await?;
    making.started(principal.workspace.clone());
    Ok(status)
}

/// A place among the containers of the workspace. At its quota, an idle one of its own is put on disk; it comes back when it is named.
async fn reserve<'a>(app: &'a App, principal: &Principal, id: &ContainerId) -> Result<Making<'a>, PlaceError> {
    let max = app.tenants.limits(&principal.workspace).containers_max;
    for _attempt in 0..ROOM_ATTEMPTS_MAX {
        match app.owners.reserve(&app.sandbox, id, &principal.workspace, max) {
            Ok(making) => return Ok(making),
            Err(idle) => {
                if !checkpoints::put_one_away(app, idle).await {
                    return Err(PlaceError::Quota);
                }
            }
        }
    }
    Err(PlaceError::Quota)
}

async fn start_reserved(app: &App, principal: &Principal, id: &ContainerId) -> Result<ContainerStatus, PlaceError> {
    let options = ContainerOptions { isolation: principal.isolation, ..ContainerOptions::default() };
    for _attempt in 0..ROOM_ATTEMPTS_MAX {
        match app.sandbox.create_with(id.clone(), options).await {
            Ok(status) => return Ok(status),
            Err(SandboxError::Full { .. }) => {}
            Err(error @ SandboxError::Gvisor(_)) => {
                tracing::error!(%error, "a container that was to be of gVisor was not made");
                return Err(PlaceError::Isolation);
            }
            Err(error) => return Err(PlaceError::Broken(error.to_string())),
        }
        let Some((gone, owner)) = room::make(&app.sandbox, &app.owners, &principal.workspace).await else {
            return Err(PlaceError::Full);
        };
        tracing::info!(container = %gone, "an idle container gave way to a new one");
        if let Err(error) = named::forget(app, &owner, &gone).await {
            tracing::error!(%error, container = %gone, "a removed container could not be forgotten");
        }
    }
    Err(PlaceError::Full)
}

/// Stores the captured files, which are files of their own from then on. One that cannot be stored is said, in a line
/// for standard error, not swallowed.
pub async fn keep_all(
    app: &Shared,
    workspace: &WorkspaceId,
    container: &ContainerId,
    output: &mut Output,
) -> (Vec<FileRecord>, Vec<String>) {
    let mut kept = Vec::with_capacity(output.files.len());
    let mut lost = Vec::new();
    for file in std::mem::take(&mut output.files) {
        let name = file.name.clone();
        match keep(app, workspace, container.clone(), file).await {
            Ok(record) => kept.push(record),
            Err(error) => {
                tracing::error!(%error, name, "an output file could not be stored");
                lost.push(format!("belljar: not captured from $OUTPUT_DIR: {name} (it could not be stored)"));
            }
        }
    }
    (kept, lost)
}

/// Copies a captured file into the store: at most the size it had when it was captured, whatever its container does to it now.
async fn keep(
    app: &Shared,
    workspace: &WorkspaceId,
    container: ContainerId,
    output: OutputFile,
) -> Result<FileRecord, KeepError> {
    let mime_type = mime_guess::from_path(&output.name).first_or_octet_stream();
    let draft = FileDraft {
        id: FileId::mint(&mut OsIds),
        workspace: workspace.clone(),
        filename: Filename::of_generated(output.name.as_bytes()),
        mime_type: mime_type.essence_str().to_owned(),
        origin: Origin::Generated { container },
        created_at: clock::now(),
        expires_at: None,
    };
    let mut writer = app.store.begin_file(draft).await?;
    let mut source = tokio::fs::File::from_std(output.file).take(output.size);
    let mut chunk = BytesMut::with_capacity(COPY_CHUNK_BYTES);
    while source.read_buf(&mut chunk).await? > 0 {
        writer.write(chunk.split().freeze()).await?;
        chunk.reserve(COPY_CHUNK_BYTES);
    }
    Ok(writer.finish().await?)
}
