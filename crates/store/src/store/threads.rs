//! What the writer and the reader thread do with their connection and the blobs.

use super::{PLACE_KEPT_AFTER_DELETION, RECORD_KEPT_AFTER_EXPIRY};
use crate::blobs::{Blobs, Objects, Placed, Staged};
use crate::db::{self, Connection, Transaction, files::Deleted};
use crate::writer::Finished;
use crate::{
    CheckpointDraft, CheckpointRecord, ContentDigest, FileDraft, FileQuota, FileRecord, StoreError, SweepReport,
    Timestamp, WorkspaceId,
};
use belljar_ids::{CheckpointId, ContainerId, FileId};
use sha2::Digest as _;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

/// Owned by the writer thread: every change goes through here, one after another.
pub(crate) struct Writer {
    pub(super) connection: Connection,
    pub(super) blobs: Arc<Blobs>,
}

/// One step of a sweep, and whether it found nothing more to do.
pub(super) struct SweepStep {
    pub(super) report: SweepReport,
    pub(super) is_last: bool,
}

impl Writer {
    /// Does `work` in one transaction.
    pub(super) fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let change = db::begin(&mut self.connection)?;
        let done = work(&change)?;
        change.commit()?;
        Ok(done)
    }

    /// Puts a durable content in its place, then commits its row.
    pub(crate) fn commit_file(
        &mut self,
        draft: FileDraft,
        finished: Finished,
        quota: FileQuota,
    ) -> Result<FileRecord, StoreError> {
        let Finished { mut staged, digest, size_bytes } = finished;
        let change = db::begin(&mut self.connection)?;
        refuse_beyond(quota, &change, &draft.workspace, size_bytes)?;
        if db::files::is_taken(&change, &draft.id)? {
            return Err(StoreError::IdTaken { id: draft.id.to_string() });
        }
        let referenced = db::files::blob_is_known(&change, &digest)?;
        let placed = self.blobs.place(&change, &mut staged, &digest, size_bytes, referenced)?;
        let committed = db::files::insert(&change, draft, digest, size_bytes)
            .and_then(|record| change.commit().map(|()| record).map_err(StoreError::from));
        if let (Err(error), Placed::New) = (&committed, placed) {
            self.take_back(staged, &digest, error);
        }
        committed
    }

    /// Puts a durable layer in its place, then commits its row in the place of the container's former one.
    pub(crate) fn commit_checkpoint(
        &mut self,
        draft: &CheckpointDraft,
        finished: Finished,
        now: Timestamp,
    ) -> Result<CheckpointRecord, StoreError> {
        let Finished { mut staged, digest, size_bytes } = finished;
        let change = db::begin(&mut self.connection)?;
        let referenced = db::files::blob_is_known(&change, &digest)?;
        let placed = self.blobs.place(&change, &mut staged, &digest, size_bytes, referenced)?;
        let committed = db::checkpoints::replace(&change, draft, digest, size_bytes, now)
            .and_then(|orphan| change.commit().map(|()| orphan).map_err(StoreError::from));
        match (&committed, placed) {
            (Ok(Some(orphan)), _) => self.blobs.remove(&mut self.connection, orphan),
            (Err(error), Placed::New) => self.take_back(staged, &digest, error),
            (Ok(None), _) | (Err(_), Placed::Shared) => {}
        }
        committed.map(|_orphan| CheckpointRecord {
            isolation: draft.isolation,
            image: draft.image.clone(),
            size_bytes,
            made_at: now,
            content: digest,
        })
    }

    /// Removes a container's checkpoint: the row first, the blob next.
    pub(super) fn delete_checkpoint(
        &mut self,
        workspace: &WorkspaceId,
        container: &ContainerId,
    ) -> Result<bool, StoreError> {
        let (found, orphan) = self.change(|change| {
            let found = db::checkpoints::find(change, workspace, container)?.is_some();
            Ok((found, db::checkpoints::delete(change, workspace, container)?))
        })?;
        if let Some(digest) = orphan {
            self.blobs.remove(&mut self.connection, &digest);
        }
        Ok(found)
    }

    /// Removes contents whose last references are gone.
    pub(super) fn remove_all<'d>(&mut self, orphans: impl IntoIterator<Item = &'d ContentDigest>) {
        for digest in orphans {
            self.blobs.remove(&mut self.connection, digest);
        }
    }

    /// Forgets a container and its checkpoints.
    pub(super) fn delete_container(
        &mut self,
        workspace: &WorkspaceId,
        container: &ContainerId,
    ) -> Result<bool, StoreError> {
        let (removed, orphans) = self.change(|change| {
            let mut orphans = db::named_checkpoints::delete_all(change, workspace, container)?;
            orphans.extend(db::checkpoints::delete(change, workspace, container)?);
            Ok((db::containers::delete(change, workspace, container)?, orphans))
        })?;
        self.remove_all(&orphans);
        Ok(removed)
    }

    /// Removes a blob whose row was not committed. A commit that failed in its sync may yet turn out done
    /// after a power cut, so then the blob stays, and the next opening decides.
    pub(super) fn take_back(&self, staged: Staged, digest: &ContentDigest, error: &StoreError) {
        match error {
            StoreError::Broken { .. }
            | StoreError::Corrupt { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Unreachable { .. } => {
                tracing::warn!(%digest, "a blob was left for the next start to judge");
            }
            StoreError::TooLarge { .. }
            | StoreError::QuotaExceeded { .. }
            | StoreError::TooManyFiles { .. }
            | StoreError::AnchorNotFound { .. }
            | StoreError::TooManyWaiting { .. }
            | StoreError::IdTaken { .. }
            | StoreError::NoContainer { .. }
            | StoreError::Interrupted
            | StoreError::DiskFull { .. }
            | StoreError::Busy
            | StoreError::Locked { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::Held { .. }
            | StoreError::Superseded { .. }
            | StoreError::Foreign { .. }
            | StoreError::Misconfigured { .. }
            | StoreError::Exposed { .. } => self.blobs.take_back(staged, digest),
        }
    }

    /// Commits the deletion, then removes the blob if that was its last reference. No upload of the same
    /// content can come in between: uploads are committed on this same thread.
    pub(super) fn delete_file(
        &mut self,
        workspace: &WorkspaceId,
        id: &FileId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        match self.change(|change| db::files::delete(change, workspace, id, now))? {
            Deleted::Nothing => Ok(false),
            Deleted::File(orphan) => {
                if let Some(digest) = orphan {
                    self.blobs.remove(&mut self.connection, &digest);
                }
                Ok(true)
            }
        }
    }

    pub(super) fn sweep_step(&mut self, now: Timestamp, rows_max: u32) -> Result<SweepStep, StoreError> {
        let (released, orphans, removed, forgotten) = self.change(|change| {
            let (released, orphans) = db::files::release_expired(change, now, rows_max)?;
            let expired_by = now.saturating_sub(RECORD_KEPT_AFTER_EXPIRY);
            let removed = db::files::remove_expired(change, expired_by, rows_max)?;
            let deleted_by = now.saturating_sub(PLACE_KEPT_AFTER_DELETION);
            let forgotten = db::places::forget(change, deleted_by, rows_max)?;
            Ok((released, orphans, removed, forgotten))
        })?;
        self.remove_all(&orphans);
        let rows_max = u64::from(rows_max);
        Ok(SweepStep {
            report: SweepReport { contents_released: released, records_removed: removed },
            is_last: released < rows_max && removed < rows_max && forgotten < rows_max,
        })
    }
}

/// One more file of so many bytes, unless the workspace would have too much then, its end users' files among it.
///
/// # Errors
/// [`StoreError::QuotaExceeded`], [`StoreError::TooManyFiles`].
pub(super) fn refuse_beyond(
    quota: FileQuota,
    connection: &Connection,
    workspace: &WorkspaceId,
    size_bytes: u64,
) -> Result<u64, StoreError> {
    let held = db::tenants::held_with_room(connection, workspace, size_bytes, quota.bytes_max)?;
    match quota.files_max {
        Some(files_max) if held.files >= files_max => Err(StoreError::TooManyFiles { files_max }),
        Some(_) | None => Ok(held.bytes),
    }
}

/// Owned by the reader thread.
pub(crate) struct Reader {
    pub(super) connection: Connection,
    pub(super) blobs: Arc<Blobs>,
}

/// What [`Reader::open_content`] found.
pub(super) enum Found {
    Open(FileRecord, File),
    /// In an object store, under this name.
    Object(FileRecord, Arc<Objects>, String),
    Expired(FileRecord),
}

impl Reader {
    pub(super) fn open_content(
        &self,
        workspace: &WorkspaceId,
        id: &FileId,
        now: Timestamp,
    ) -> Result<Option<Found>, StoreError> {
        let Some(record) = db::files::find(&self.connection, workspace, id)? else {
            return Ok(None);
        };
        let digest = match record.content {
            Some(digest) if !record.expired(now) => digest,
            _ => return Ok(Some(Found::Expired(record))),
        };
        let dir = match &*self.blobs {
            Blobs::Disk(dir) => dir,
            Blobs::Objects(objects) => {
                return match db::objects::find(&self.connection, &digest)? {
                    Some(name) => Ok(Some(Found::Object(record, Arc::clone(objects), name))),
                    None => self.gone_meanwhile(workspace, id, &digest),
                };
            }
        };
        let Some(file) = dir.open(&digest)? else {
            return self.gone_meanwhile(workspace, id, &digest);
        };
        let there = file.metadata().map_err(StoreError::io("reading a blob's size"))?.len();
        if there != record.size_bytes {
            let what = format!("blob {digest} has {there} bytes instead of {}", record.size_bytes);
            return Err(StoreError::Corrupt { what });
        }
        Ok(Some(Found::Open(record, file)))
    }

    /// A row without its blob: rightly so, if the file was deleted or released since its row was read.
    fn gone_meanwhile(
        &self,
        workspace: &WorkspaceId,
        id: &FileId,
        digest: &ContentDigest,
    ) -> Result<Option<Found>, StoreError> {
        match db::files::find(&self.connection, workspace, id)? {
            None => Ok(None),
            Some(record) if record.content.is_none() => Ok(Some(Found::Expired(record))),
            Some(_) => Err(StoreError::Corrupt { what: format!("blob {digest} is missing") }),
        }
    }
}

/// A container's checkpoint and its content.
pub(super) struct FoundCheckpoint {
    pub(super) record: CheckpointRecord,
    pub(super) content: FoundContent,
}

/// Where a content is.
pub(super) enum FoundContent {
    File(File),
    Object(Arc<Objects>, String),
}

impl Reader {
    pub(super) fn open_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
    ) -> Result<Option<FoundCheckpoint>, StoreError> {
        let found = db::checkpoints::find(&self.connection, workspace, container)?;
        found.map(|record| self.open_layer(record)).transpose()
    }

    /// The same of one that has an id.
    pub(super) fn open_named_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: &CheckpointId,
    ) -> Result<Option<FoundCheckpoint>, StoreError> {
        let found = db::named_checkpoints::find(&self.connection, workspace, container, id)?;
        found.map(|named| self.open_layer(named.record)).transpose()
    }

    fn open_layer(&self, record: CheckpointRecord) -> Result<FoundCheckpoint, StoreError> {
        let missing = || StoreError::Corrupt { what: format!("blob {} is missing", record.content) };
        let content = match &*self.blobs {
            Blobs::Disk(dir) => FoundContent::File(dir.open(&record.content)?.ok_or_else(missing)?),
            Blobs::Objects(objects) => {
                let name = db::objects::find(&self.connection, &record.content)?.ok_or_else(missing)?;
                FoundContent::Object(Arc::clone(objects), name)
            }
        };
        Ok(FoundCheckpoint { record, content })
    }
}

/// Holds a file against the digest its content was kept with. Blocks.
pub(super) fn check(kept: &ContentDigest, mut file: &File) -> Result<(), StoreError> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let count = file.read(&mut buffer).map_err(StoreError::io("reading a blob"))?;
        if count == 0 {
            return compare(kept, hasher);
        }
        hasher.update(&buffer[..count]);
    }
}

/// Whether what was hashed is what was kept.
pub(super) fn compare(kept: &ContentDigest, hasher: sha2::Sha256) -> Result<(), StoreError> {
    let found = ContentDigest(hasher.finalize().into());
    match *kept == found {
        true => Ok(()),
        false => Err(StoreError::Corrupt { what: format!("blob {kept} holds content with digest {found}") }),
    }
}
