//! Batches of requests, as their users see them.

use super::Store;
use crate::db;
use crate::{
    BatchClosing, BatchDraft, BatchItem, BatchItemDraft, BatchOutcome, BatchQuery, BatchRecord, BatchResult, Paged,
    StoreError, WorkspaceId,
};
use belljar_ids::BatchId;
use std::time::Duration;

/// How long results stay after their batch was made (wire.md §17.3).
pub const BATCH_RESULTS_KEPT: Duration = Duration::from_hours(29 * 24);

/// The most requests of a workspace that may wait in its batches together: five batches of the most that one may have.
pub const BATCH_ITEMS_WAITING_MAX: u64 = 500_000;

/// How much one change writes or closes, so that other changes get in between.
const STEP_ITEMS: usize = 2_000;
const STEP_BYTES: usize = 4 * 1024 * 1024;

impl Store {
    /// Keeps a batch. It exists for nobody until all of it is kept; it is kept whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::TooManyWaiting`], [`StoreError::IdTaken`], [`StoreError::DiskFull`].
    pub async fn create_batch(&self, mut draft: BatchDraft) -> Result<BatchRecord, StoreError> {
        let now = self.inner.limits.clock.now();
        let id = draft.id.clone();
        let writer = &self.inner.writer;
        let items = writer
            .call(move |writer| {
                writer.change(|change| {
                    let waiting = db::batches::items_waiting(change, &draft.workspace.whole())?;
                    if waiting.saturating_add(draft.items.len() as u64) > BATCH_ITEMS_WAITING_MAX {
                        return Err(StoreError::TooManyWaiting { items_max: BATCH_ITEMS_WAITING_MAX });
                    }
                    db::batches::insert(change, &draft, now)
                })?;
                Ok(std::mem::take(&mut draft.items))
            })
            .await?;
        match self.write_items(&id, items).await {
            Ok(()) => {
                let id = id.clone();
                writer.call(move |writer| writer.change(|change| db::batches::complete(change, &id))).await
            }
            Err(error) => {
                // What this leaves behind where it fails too, the next start removes.
                let id = id.clone();
                let cleared =
                    writer.call(move |writer| writer.change(|change| db::batches::take_back(change, &id))).await;
                if let Err(error) = cleared {
                    tracing::warn!(%error, "an unfinished batch stays until the next start");
                }
                Err(error)
            }
        }
    }

    async fn write_items(&self, id: &BatchId, items: Vec<BatchItemDraft>) -> Result<(), StoreError> {
        let mut items = items.into_iter().peekable();
        let mut from = 0;
        while items.peek().is_some() {
            let mut step = Vec::new();
            let mut bytes = 0;
            while step.len() < STEP_ITEMS && bytes < STEP_BYTES {
                let Some(item) = items.next() else { break };
                bytes += item.params.len();
                step.push(item);
            }
            let (id, next) = (id.clone(), from + u32::try_from(step.len()).unwrap_or(u32::MAX));
            let write = move |writer: &mut super::threads::Writer| {
                writer.change(|change| db::batches::insert_items(change, &id, from, &step))
            };
            self.inner.writer.call(write).await?;
            from = next;
        }
        Ok(())
    }

    /// One batch.
    pub async fn batch(&self, workspace: &WorkspaceId, id: &BatchId) -> Result<Option<BatchRecord>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.inner.reader.call(move |reader| db::batches::find(&reader.connection, &workspace, &id)).await
    }

    /// One page of the workspace's batches, newest first.
    ///
    /// # Errors
    /// [`StoreError::AnchorNotFound`] for a batch to list from that is not there.
    pub async fn list_batches(
        &self,
        workspace: &WorkspaceId,
        query: BatchQuery,
        limit: u16,
    ) -> Result<Paged<BatchRecord>, StoreError> {
        let workspace = workspace.clone();
        self.inner.reader.call(move |reader| db::batches::list(&reader.connection, &workspace, &query, limit)).await
    }

    /// Every batch of any workspace that has not ended, oldest first.
    pub async fn open_batches(&self) -> Result<Vec<BatchRecord>, StoreError> {
        self.inner.reader.call(|reader| db::batches::open(&reader.connection)).await
    }

    /// A batch's first request behind a position that has not come to anything.
    pub async fn next_batch_item(&self, id: &BatchId, after: Option<u32>) -> Result<Option<BatchItem>, StoreError> {
        let id = id.clone();
        self.inner.reader.call(move |reader| db::batches::next_item(&reader.connection, &id, after)).await
    }

    /// Keeps what a request came to, once; none when it was gone or had come to something already. A batch ends with its last
    /// request.
    pub async fn finish_batch_item(
        &self,
        id: &BatchId,
        position: u32,
        outcome: BatchOutcome,
    ) -> Result<Option<BatchRecord>, StoreError> {
        let (id, now) = (id.clone(), self.inner.limits.clock.now());
        let finish = move |writer: &mut super::threads::Writer| {
            writer.change(|change| db::batches::finish_item(change, &id, position, &outcome, now))
        };
        self.inner.writer.call(finish).await
    }

    /// Closes every request that has not come to anything, and with them the batch.
    pub async fn close_batch(&self, id: &BatchId, closing: BatchClosing) -> Result<BatchRecord, StoreError> {
        let now = self.inner.limits.clock.now();
        loop {
            let id = id.clone();
            let limit = u32::try_from(STEP_ITEMS).unwrap_or(u32::MAX);
            let close = move |writer: &mut super::threads::Writer| {
                writer.change(|change| db::batches::close(change, &id, closing, now, limit))
            };
            let batch = self.inner.writer.call(close).await?;
            if batch.ended_at.is_some() {
                return Ok(batch);
            }
        }
    }

    /// Notes that a batch is to be canceled, unless it has ended; answers it as it is then.
    pub async fn cancel_batch(&self, workspace: &WorkspaceId, id: &BatchId) -> Result<Option<BatchRecord>, StoreError> {
        let (workspace, id, now) = (workspace.clone(), id.clone(), self.inner.limits.clock.now());
        let cancel = move |writer: &mut super::threads::Writer| {
            writer.change(|change| db::batches::cancel(change, &workspace, &id, now))
        };
        self.inner.writer.call(cancel).await
    }

    /// Results behind a position, in order, some `bytes_max` bytes of them; none at the end.
    pub async fn batch_results(
        &self,
        id: &BatchId,
        after: Option<u32>,
        bytes_max: usize,
    ) -> Result<Vec<BatchResult>, StoreError> {
        let id = id.clone();
        self.inner.reader.call(move |reader| db::batches::results(&reader.connection, &id, after, bytes_max)).await
    }

    /// Removes a batch that has ended, with its results; `false` when there is none. Files that its code made stay.
    pub async fn delete_batch(&self, workspace: &WorkspaceId, id: &BatchId) -> Result<bool, StoreError> {
        let (workspace, id, now) = (workspace.clone(), id.clone(), self.inner.limits.clock.now());
        let delete = move |writer: &mut super::threads::Writer| {
            writer.change(|change| db::batches::delete(change, &workspace, &id, now))
        };
        self.inner.writer.call(delete).await
    }

    /// Removes results that have been kept for [`BATCH_RESULTS_KEPT`]; answers of how many batches.
    pub async fn archive_batches(&self) -> Result<u64, StoreError> {
        let now = self.inner.limits.clock.now();
        let made_by = now.saturating_sub(BATCH_RESULTS_KEPT);
        let mut archived = 0;
        loop {
            let archive = move |writer: &mut super::threads::Writer| {
                writer.change(|change| db::batches::archive_one(change, made_by, now))
            };
            if !self.inner.writer.call(archive).await? {
                return Ok(archived);
            }
            archived += 1;
        }
    }
}
