//! The store as its users see it.

mod batches;
mod named_checkpoints;
mod opened;
mod tenants;
mod threads;
mod touches;

pub use batches::{BATCH_ITEMS_WAITING_MAX, BATCH_RESULTS_KEPT};

use crate::blobs::{BlobPlace, Blobs, ContentReader, Sweeping};
use crate::data_dir::DataDir;
use crate::database::Database;
use crate::db::{self, Role};
use crate::key_ring::ready;
use crate::worker::Worker;
use crate::writer::blocking;
use crate::{
    CheckpointDraft, CheckpointRecord, CheckpointWriter, Clock, ContainerRecord, FileDraft, FilePage, FileQuery,
    FileQuota, FileRecord, FileWriter, KeyDraft, KeyHash, KeyRecord, PageCursor, Paged, ShownKey, StoreError,
    SweepReport, Timestamp, WorkspaceId,
};
use belljar_ids::{ContainerId, FileId, KeyId};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tenants::Scopes;
use threads::{Reader, Writer};
use touches::Touches;

/// The most bytes one file may have by default: the hosted service's 500 MB (wire.md §2.8).
pub const FILE_BYTES_MAX: u64 = 500 * 1024 * 1024;

/// The most bytes the files of one workspace may have together by default: 1 TB (wire.md §9.5).
pub const WORKSPACE_BYTES_MAX: u64 = 1024 * 1024 * 1024 * 1024;

/// How much of the filesystem contents leave free by default: several times the database's log.
pub const DISK_FREE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// How long the record of a file stays readable after its content expired (wire.md §9.4).
pub const RECORD_KEPT_AFTER_EXPIRY: Duration = Duration::from_hours(30 * 24);

/// How long a deleted file still serves as the place a listing goes on from.
const PLACE_KEPT_AFTER_DELETION: Duration = Duration::from_hours(24);

/// How much one step of a sweep changes, so that other changes get in between.
const SWEEP_STEP_ROWS: u32 = 256;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The most bytes one file may have.
    pub file_bytes_max: u64,
    /// What the files and the named checkpoints of one workspace may come to together.
    pub file_quota: FileQuota,
    /// The same of workspaces for which something else holds.
    pub file_quotas: HashMap<WorkspaceId, FileQuota>,
    /// How much of the filesystem contents leave free, for the database.
    pub disk_free_bytes_min: u64,
    /// Where metadata is kept.
    pub database: Database,
    /// Where contents are kept.
    pub blobs: BlobPlace,
}

impl StoreOptions {
    /// The hosted service's limits.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            file_bytes_max: FILE_BYTES_MAX,
            file_quota: FileQuota { bytes_max: WORKSPACE_BYTES_MAX, files_max: None },
            file_quotas: HashMap::new(),
            disk_free_bytes_min: DISK_FREE_BYTES_MIN,
            database: Database::default(),
            blobs: BlobPlace::default(),
        }
    }

    /// What holds for a workspace, or for the one that a scope is part of.
    fn file_quota_of(&self, workspace: &WorkspaceId) -> FileQuota {
        self.file_quotas.get(&workspace.whole()).copied().unwrap_or(self.file_quota)
    }
}

/// A file's content, or why there is none.
#[derive(Debug)]
pub enum Content {
    /// The content, opened at its beginning. It stays readable even if the file is deleted meanwhile.
    Open {
        /// The file.
        record: FileRecord,
        /// Its content.
        file: ContentReader,
    },
    /// The file has expired; only its record is left, for 30 days.
    Expired {
        /// The file.
        record: FileRecord,
    },
}

/// Everything that must survive, in one data directory. Clones share it; the last one dropped waits for
/// changes under way and lets go of the directory.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) writer: Worker<Writer>,
    reader: Worker<Reader>,
    touches: Touches,
    scopes: Scopes,
    /// Where the secret of scopes is kept.
    dir: DataDir,
    /// Behind the threads, because it holds the lock and is to let go of it when they have ended.
    blobs: Arc<Blobs>,
    pub(crate) limits: StoreOptions,
}

impl Store {
    /// Opens the store in `data_dir`, making it if need be, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::NewerSchema`],
    /// [`StoreError::Exposed`], [`StoreError::DiskFull`], [`StoreError::Broken`].
    pub async fn open(data_dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let data_dir = data_dir.to_owned();
        let inner = blocking(move || Inner::open(&data_dir, options)).await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Begins a file. It exists for nobody until [`FileWriter::finish`] answers.
    pub async fn begin_file(&self, draft: FileDraft) -> Result<FileWriter, StoreError> {
        let (workspace, id) = (draft.workspace.clone(), draft.id.clone());
        let quota = self.inner.limits.file_quota_of(&workspace);
        let bytes_used = self
            .inner
            .reader
            .call(move |reader| {
                if db::files::is_taken(&reader.connection, &id)? {
                    return Err(StoreError::IdTaken { id: id.to_string() });
                }
                threads::refuse_beyond(quota, &reader.connection, &workspace, 0)
            })
            .await?;
        let blobs = Arc::clone(&self.inner.blobs);
        let staged = blocking(move || blobs.stage()).await?;
        Ok(FileWriter::new(Arc::clone(&self.inner), draft, staged, quota, bytes_used))
    }

    /// One file's record.
    pub async fn file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<Option<FileRecord>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.inner.reader.call(move |reader| db::files::find(&reader.connection, &workspace, &id)).await
    }

    /// One page of the workspace's files, newest first. Expired files are listed as long as their record is
    /// kept.
    ///
    /// # Errors
    /// [`StoreError::AnchorNotFound`] for a file to list from that never was, or is long gone.
    pub async fn list_files(&self, workspace: &WorkspaceId, query: FileQuery) -> Result<FilePage, StoreError> {
        let workspace = workspace.clone();
        self.inner.reader.call(move |reader| db::files::list(&reader.connection, &workspace, &query)).await
    }

    /// A file and its content. Whether the client may have it ([`FileRecord::downloadable`]) is for the
    /// caller to decide.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the content is absent or has another size than it was kept with.
    pub async fn open_content(&self, workspace: &WorkspaceId, id: &FileId) -> Result<Option<Content>, StoreError> {
        opened::content(&self.inner, workspace, id).await
    }

    /// Reads a file's content and holds it against its digest. `false` when there is no content to check.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not what was written.
    pub async fn check_content(&self, workspace: &WorkspaceId, id: &FileId) -> Result<bool, StoreError> {
        match self.open_content(workspace, id).await? {
            None | Some(Content::Expired { .. }) => Ok(false),
            Some(Content::Open { record, file }) => {
                opened::check(&record, file).await?;
                Ok(true)
            }
        }
    }

    /// Deletes a file; `false` when there is none. The content goes with its last reference.
    pub async fn delete_file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<bool, StoreError> {
        let (workspace, id, now) = (workspace.clone(), id.clone(), self.inner.limits.clock.now());
        self.inner.writer.call(move |writer| writer.delete_file(&workspace, &id, now)).await
    }

    /// Waits until contents that lost their last reference are removed. With an object store that is done behind the
    /// caller's back.
    pub async fn removals_done(&self) {
        self.inner.blobs.removed().await;
    }

    /// The bytes of the whole workspace's files and named checkpoints. Identical contents count each time; expired ones do not once a
    /// sweep released them.
    pub async fn workspace_bytes(&self, workspace: &WorkspaceId) -> Result<u64, StoreError> {
        let whole = workspace.whole();
        self.inner.reader.call(move |reader| Ok(db::tenants::held(&reader.connection, &whole)?.bytes)).await
    }

    /// Releases the contents of expired files, and removes records 30 days after. To be called from time to
    /// time; expired contents are refused whether or not it was.
    pub async fn sweep(&self) -> Result<SweepReport, StoreError> {
        let now = self.inner.limits.clock.now();
        let mut report = SweepReport::default();
        loop {
            let step = self.inner.writer.call(move |writer| writer.sweep_step(now, SWEEP_STEP_ROWS)).await?;
            report.contents_released += step.report.contents_released;
            report.records_removed += step.report.records_removed;
            if step.is_last {
                return Ok(report);
            }
        }
    }

    /// Keeps a new container's owner and end.
    ///
    /// # Errors
    /// [`StoreError::IdTaken`].
    pub async fn record_container(&self, record: ContainerRecord) -> Result<(), StoreError> {
        self.inner.writer.call(move |writer| writer.change(|change| db::containers::insert(change, &record))).await
    }

    /// One container's record, expired or not.
    pub async fn container(
        &self,
        workspace: &WorkspaceId,
        id: &ContainerId,
    ) -> Result<Option<ContainerRecord>, StoreError> {
        let noted = self.inner.touches.of(workspace, id);
        let (workspace, id) = (workspace.clone(), id.clone());
        let found =
            self.inner.reader.call(move |reader| db::containers::find(&reader.connection, &workspace, &id)).await?;
        Ok(found.map(|record| ContainerRecord { expires_at: noted.unwrap_or(record.expires_at), ..record }))
    }

    /// Moves the end of a container that ends with the server: it holds from now on, and is on disk after the next
    /// [`Store::write_touches`].
    pub fn touch_live_container(&self, workspace: &WorkspaceId, id: &ContainerId, expires_at: Timestamp) {
        self.inner.touches.note(workspace, id, expires_at);
    }

    /// Moves a container's end, on disk; `false` when there is no such container.
    pub async fn touch_container(
        &self,
        workspace: &WorkspaceId,
        id: &ContainerId,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.inner.touches.note(workspace, id, expires_at);
        self.write_touches().await?;
        Ok(self.container(workspace, id).await?.is_some())
    }

    /// Puts every container's end on disk, all of them at once. To be called from time to time, and at the end.
    pub async fn write_touches(&self) -> Result<(), StoreError> {
        let touches = self.inner.touches.clone();
        let written = move |writer: &mut Writer| {
            // Taken here, where one change follows another: an older end never comes after a newer one.
            let noted = touches.noted();
            if noted.all().next().is_none() {
                return Ok(());
            }
            writer.change(|change| {
                noted.all().try_for_each(|(workspace, id, expires_at)| {
                    db::containers::touch(change, workspace, id, expires_at).map(drop)
                })
            })?;
            touches.written(&noted);
            Ok(())
        };
        self.inner.writer.call(written).await
    }

    /// One page of the workspace's containers, newest first.
    pub async fn list_containers(
        &self,
        workspace: &WorkspaceId,
        after: Option<PageCursor>,
        limit: u16,
    ) -> Result<Paged<ContainerRecord>, StoreError> {
        let (workspace, noted) = (workspace.clone(), self.inner.touches.noted());
        let list = move |reader: &mut Reader| db::containers::list(&reader.connection, &workspace, after, limit);
        let mut page = self.inner.reader.call(list).await?;
        page.entries.iter_mut().for_each(|record| noted.correct(record));
        Ok(page)
    }

    /// Up to `limit` expired containers of all workspaces, for whoever clears them away.
    pub async fn expired_containers(&self, limit: u16) -> Result<Vec<ContainerRecord>, StoreError> {
        self.write_touches().await?;
        let (now, noted) = (self.inner.limits.clock.now(), self.inner.touches.noted());
        let found = self.inner.reader.call(move |reader| db::containers::expired(&reader.connection, now, limit)).await;
        let mut expired = found?;
        expired.iter_mut().for_each(|record| noted.correct(record));
        expired.retain(|record| record.expires_at <= now);
        Ok(expired)
    }

    /// Forgets a container; `false` when there is no such container. Files it made stay.
    pub async fn delete_container(&self, workspace: &WorkspaceId, id: &ContainerId) -> Result<bool, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.inner.writer.call(move |writer| writer.delete_container(&workspace, &id)).await
    }

    /// Begins a checkpoint of at most `bytes_max` bytes. It exists for nobody until [`CheckpointWriter::finish`] answers.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`].
    pub async fn begin_checkpoint(
        &self,
        draft: CheckpointDraft,
        bytes_max: u64,
    ) -> Result<CheckpointWriter, StoreError> {
        let blobs = Arc::clone(&self.inner.blobs);
        let staged = blocking(move || blobs.stage()).await?;
        Ok(CheckpointWriter::new(Arc::clone(&self.inner), draft, staged, bytes_max))
    }

    /// What is known of a container's checkpoint.
    pub async fn checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
    ) -> Result<Option<CheckpointRecord>, StoreError> {
        let (workspace, container) = (workspace.clone(), container.clone());
        self.inner.reader.call(move |reader| db::checkpoints::find(&reader.connection, &workspace, &container)).await
    }

    /// A container's checkpoint, opened at its beginning, after its content has been held against its digest.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the content is absent or not what was written.
    pub async fn open_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
    ) -> Result<Option<(CheckpointRecord, tokio::fs::File)>, StoreError> {
        opened::checkpoint(&self.inner, workspace, container).await
    }

    /// Removes a container's checkpoint; `false` when there is none.
    pub async fn delete_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
    ) -> Result<bool, StoreError> {
        let (workspace, container) = (workspace.clone(), container.clone());
        self.inner.writer.call(move |writer| writer.delete_checkpoint(&workspace, &container)).await
    }

    /// Keeps a new key's hash.
    ///
    /// # Errors
    /// [`StoreError::IdTaken`] for an id or a hash that is kept already.
    pub async fn create_key(&self, draft: KeyDraft) -> Result<KeyRecord, StoreError> {
        let now = self.inner.limits.clock.now();
        self.inner.writer.call(move |writer| writer.change(|change| db::keys::insert(change, draft, now))).await
    }

    /// All keys, oldest first, revoked ones too.
    pub async fn list_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.inner.reader.call(|reader| db::keys::list(&reader.connection)).await
    }

    /// Ends a key for good; `false` when there is none or it has ended already.
    pub async fn revoke_key(&self, id: &KeyId) -> Result<bool, StoreError> {
        let (id, now) = (id.clone(), self.inner.limits.clock.now());
        self.inner.writer.call(move |writer| writer.change(|change| db::keys::revoke(change, &id, now))).await
    }

    /// Whom a key speaks for now.
    pub async fn authenticate(&self, hash: KeyHash) -> Result<ShownKey, StoreError> {
        let now = self.inner.limits.clock.now();
        self.inner.reader.call(move |reader| db::keys::authenticate(&reader.connection, &hash, now)).await
    }
}

impl Inner {
    fn open(data_dir: &Path, limits: StoreOptions) -> Result<Self, StoreError> {
        let dir = DataDir::prepare(data_dir)?;
        let lock = dir.lock_to_serve()?;
        let (now, place) = (limits.clock.now(), limits.database.place(&dir));
        let mut writing = ready(db::connect(&place, Role::Serve, now)?)?;
        let reading = ready(db::connect(&place, Role::Beside, now)?)?;
        let change = db::begin(&mut writing)?;
        let identity = db::whole::identity(&change, &crate::random::name()?)?;
        db::batches::remove_incomplete(&change)?;
        change.commit()?;
        db::whole::begin_tenure(&mut writing)?;
        let blobs = Blobs::prepare(&limits.blobs, &dir, lock, limits.disk_free_bytes_min, &identity, &place)?;
        let blobs = Arc::new(blobs);
        dir.sync()?;
        crate::admin::remove_left(&dir.blobs())?;
        let swept = blobs.sweep(&mut writing, Sweeping::Remove)?;
        if swept.temporaries_removed + swept.orphans_removed > 0 {
            tracing::info!(?swept, "removed what an earlier process left unfinished");
        }
        let known = db::files::blobs_known(&reading)?;
        if known != swept.kept {
            tracing::error!(known, found = swept.kept, "contents are missing from where they are kept");
        }
        let writer = Writer { connection: writing, blobs: Arc::clone(&blobs) };
        let reader = Reader { connection: reading, blobs: Arc::clone(&blobs) };
        Ok(Self {
            writer: Worker::start("store-writer", writer)?,
            reader: Worker::start("store-reader", reader)?,
            touches: Touches::default(),
            scopes: Scopes::default(),
            dir,
            blobs,
            limits,
        })
    }
}
