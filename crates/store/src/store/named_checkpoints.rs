//! Checkpoints with an id, and what begins with one: going back to it, and another container.
//!
//! Contents are kept once under their digest, so none of this copies a byte: a row more refers to the same content.

use super::threads::Writer;
use super::{Store, opened};
use crate::blobs::Placed;
use crate::db::{self, Transaction, named_checkpoints::Deleted};
use crate::writer::Finished;
use crate::{
    CheckpointDraft, CheckpointRecord, CheckpointWriter, ContainerRecord, KeyIsolation, NamedCheckpoint, PageCursor,
    Paged, StoreError, Timestamp, WorkspaceId,
};
use belljar_ids::{CheckpointId, ContainerId};

impl CheckpointWriter {
    /// Makes the checkpoint durable under an id, beside the container's others, and answers once it is both.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`], [`StoreError::NoContainer`], [`StoreError::IdTaken`], [`StoreError::DiskFull`].
    pub async fn finish_named(self, id: CheckpointId) -> Result<NamedCheckpoint, StoreError> {
        let (store, draft, finished) = self.durable().await?;
        let (now, bytes_max) = (store.limits.clock.now(), store.limits.file_quota_of(&draft.workspace).bytes_max);
        store.writer.call(move |writer| writer.commit_named(&draft, finished, id, now, bytes_max)).await
    }

    /// Makes a container that has never been live out of the checkpoint, and answers once both are durable. What is to stand
    /// between its code and the host may be known only now.
    ///
    /// # Errors
    /// [`StoreError::IdTaken`], [`StoreError::DiskFull`].
    pub async fn finish_new(
        self,
        container: ContainerRecord,
        isolation: KeyIsolation,
    ) -> Result<CheckpointRecord, StoreError> {
        let (store, draft, finished) = self.durable().await?;
        let draft = CheckpointDraft { isolation, ..draft };
        let now = store.limits.clock.now();
        store.writer.call(move |writer| writer.commit_new(&draft, finished, &container, now)).await
    }
}

impl Store {
    /// One of a container's named checkpoints.
    pub async fn named_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: &CheckpointId,
    ) -> Result<Option<NamedCheckpoint>, StoreError> {
        let (workspace, container, id) = (workspace.clone(), container.clone(), id.clone());
        let find = move |reader: &mut super::Reader| {
            db::named_checkpoints::find(&reader.connection, &workspace, &container, &id)
        };
        self.inner.reader.call(find).await
    }

    /// As [`Store::named_checkpoint`], after its content has been held against its digest.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the content is absent or not what was written.
    pub async fn check_named_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: &CheckpointId,
    ) -> Result<Option<NamedCheckpoint>, StoreError> {
        let record = opened::check_named(&self.inner, workspace, container, id).await?;
        Ok(record.map(|record| NamedCheckpoint { id: id.clone(), record }))
    }

    /// One page of a container's named checkpoints, newest first.
    pub async fn list_named_checkpoints(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        after: Option<PageCursor>,
        limit: u16,
    ) -> Result<Paged<NamedCheckpoint>, StoreError> {
        let (workspace, container) = (workspace.clone(), container.clone());
        let list = move |reader: &mut super::Reader| {
            db::named_checkpoints::list(&reader.connection, &workspace, &container, after, limit)
        };
        self.inner.reader.call(list).await
    }

    /// Removes a named checkpoint; `false` when there is none. What was made from it stays.
    pub async fn delete_named_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: &CheckpointId,
    ) -> Result<bool, StoreError> {
        let (workspace, container, id) = (workspace.clone(), container.clone(), id.clone());
        self.inner.writer.call(move |writer| writer.delete_named(&workspace, &container, &id)).await
    }

    /// Gives a container's checkpoint an id of its own; `None` when the container is not kept.
    ///
    /// # Errors
    /// As [`CheckpointWriter::finish_named`].
    pub async fn name_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: CheckpointId,
    ) -> Result<Option<NamedCheckpoint>, StoreError> {
        let (workspace, container) = (workspace.clone(), container.clone());
        let limits = &self.inner.limits;
        let (now, bytes_max) = (limits.clock.now(), limits.file_quota_of(&workspace).bytes_max);
        let name = move |writer: &mut Writer| {
            writer.change(|change| {
                let Some(kept) = db::checkpoints::find(change, &workspace, &container)? else { return Ok(None) };
                let named = NamedCheckpoint { id, record: CheckpointRecord { made_at: now, ..kept } };
                let draft = draft(workspace, container, &named.record);
                db::named_checkpoints::insert(change, &draft, &named, bytes_max)?;
                Ok(Some(named))
            })
        };
        self.inner.writer.call(name).await
    }

    /// Puts a named checkpoint in the place of the container's own, durably; `None` when there is no such one.
    pub async fn keep_named_checkpoint(
        &self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: &CheckpointId,
    ) -> Result<Option<CheckpointRecord>, StoreError> {
        let (workspace, container, id) = (workspace.clone(), container.clone(), id.clone());
        let now = self.inner.limits.clock.now();
        let keep = move |writer: &mut Writer| {
            let kept = writer.change(|change| {
                let named = db::named_checkpoints::find(change, &workspace, &container, &id)?;
                let Some(NamedCheckpoint { record, .. }) = named else { return Ok(None) };
                let draft = draft(workspace, container, &record);
                let orphan = db::checkpoints::replace(change, &draft, record.content, record.size_bytes, now)?;
                Ok(Some((record, orphan)))
            })?;
            let Some((record, orphan)) = kept else { return Ok(None) };
            writer.remove_all(&orphan);
            Ok(Some(record))
        };
        self.inner.writer.call(keep).await
    }

    /// Makes `fork` a kept container with the files of another: those of its checkpoint of that id, or else those it was
    /// kept with. `None`, and nothing made, when there are none.
    ///
    /// # Errors
    /// [`StoreError::IdTaken`], [`StoreError::DiskFull`].
    pub async fn fork_kept(
        &self,
        of: &ContainerId,
        id: Option<&CheckpointId>,
        fork: ContainerRecord,
    ) -> Result<Option<CheckpointRecord>, StoreError> {
        let (of, id, now) = (of.clone(), id.cloned(), self.inner.limits.clock.now());
        let make = move |writer: &mut Writer| {
            writer.change(|change| {
                let workspace = &fork.workspace;
                let found = match &id {
                    Some(id) => db::named_checkpoints::find(change, workspace, &of, id)?.map(|named| named.record),
                    None => db::checkpoints::find(change, workspace, &of)?,
                };
                let Some(record) = found else { return Ok(None) };
                db::containers::insert(change, &fork)?;
                let draft = draft(workspace.clone(), fork.id.clone(), &record);
                db::checkpoints::replace(change, &draft, record.content, record.size_bytes, now)?;
                Ok(Some(record))
            })
        };
        self.inner.writer.call(make).await
    }
}

fn draft(workspace: WorkspaceId, container: ContainerId, record: &CheckpointRecord) -> CheckpointDraft {
    CheckpointDraft { workspace, container, image: record.image.clone(), isolation: record.isolation }
}

impl Writer {
    fn commit_named(
        &mut self,
        draft: &CheckpointDraft,
        finished: Finished,
        id: CheckpointId,
        now: Timestamp,
        workspace_bytes_max: u64,
    ) -> Result<NamedCheckpoint, StoreError> {
        self.commit_layer(draft, finished, now, |change, record| {
            let named = NamedCheckpoint { id, record };
            db::named_checkpoints::insert(change, draft, &named, workspace_bytes_max)?;
            Ok(named)
        })
    }

    fn commit_new(
        &mut self,
        draft: &CheckpointDraft,
        finished: Finished,
        container: &ContainerRecord,
        now: Timestamp,
    ) -> Result<CheckpointRecord, StoreError> {
        self.commit_layer(draft, finished, now, |change, record| {
            db::containers::insert(change, container)?;
            db::checkpoints::replace(change, draft, record.content, record.size_bytes, now)?;
            Ok(record)
        })
    }

    /// Puts a durable layer in its place, then commits the rows that refer to it.
    fn commit_layer<T>(
        &mut self,
        draft: &CheckpointDraft,
        finished: Finished,
        now: Timestamp,
        rows: impl FnOnce(&Transaction<'_>, CheckpointRecord) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Finished { mut staged, digest, size_bytes } = finished;
        let change = db::begin(&mut self.connection)?;
        let referenced = db::files::blob_is_known(&change, &digest)?;
        let placed = self.blobs.place(&change, &mut staged, &digest, size_bytes, referenced)?;
        let record = CheckpointRecord {
            image: draft.image.clone(),
            isolation: draft.isolation,
            size_bytes,
            made_at: now,
            content: digest,
        };
        let committed = rows(&change, record).and_then(|done| change.commit().map(|()| done).map_err(StoreError::from));
        if let (Err(error), Placed::New) = (&committed, placed) {
            self.take_back(staged, &digest, error);
        }
        committed
    }

    fn delete_named(
        &mut self,
        workspace: &WorkspaceId,
        container: &ContainerId,
        id: &CheckpointId,
    ) -> Result<bool, StoreError> {
        match self.change(|change| db::named_checkpoints::delete(change, workspace, container, id))? {
            Deleted::Nothing => Ok(false),
            Deleted::Checkpoint(orphan) => {
                self.remove_all(&orphan);
                Ok(true)
            }
        }
    }
}
