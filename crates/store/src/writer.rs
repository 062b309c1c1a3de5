//! Writing one file, chunk by chunk.

use crate::blobs::Staged;
use crate::store::Inner;
use crate::{CheckpointDraft, CheckpointRecord, ContentDigest, FileDraft, FileQuota, FileRecord, StoreError};
use bytes::Bytes;
use sha2::Digest as _;
use std::sync::Arc;

/// A file being written. Dropping it, or a failed call, leaves no trace of it.
///
/// Chunks are written and hashed on tokio's blocking threads. If the future of a call is dropped before it
/// is done, the writer is of no more use: later calls answer [`StoreError::Interrupted`].
pub struct FileWriter {
    store: Arc<Inner>,
    draft: FileDraft,
    /// `None` while a chunk is being written, and for good once that failed or was abandoned.
    content: Option<Unfinished>,
    /// What the workspace held when this file was begun.
    quota: FileQuota,
    bytes_used_before: u64,
}

pub(crate) struct Unfinished {
    staged: Staged,
    hasher: sha2::Sha256,
    size_bytes: u64,
}

/// A content that is durable, and not in its place yet.
pub(crate) struct Finished {
    pub(crate) staged: Staged,
    pub(crate) digest: ContentDigest,
    pub(crate) size_bytes: u64,
}

impl Unfinished {
    fn new(staged: Staged) -> Self {
        Self { staged, hasher: sha2::Sha256::new(), size_bytes: 0 }
    }

    async fn write(self, chunk: Bytes) -> Result<Self, StoreError> {
        let Self { staged, hasher, size_bytes } = self;
        let hash = |hasher: &mut sha2::Sha256, chunk: &[u8]| hasher.update(chunk);
        let (staged, hasher) = staged.write(hasher, hash, chunk).await?;
        Ok(Self { staged, hasher, size_bytes })
    }

    async fn finish(self) -> Result<Finished, StoreError> {
        let digest = ContentDigest(self.hasher.finalize().into());
        Ok(Finished { staged: self.staged.finish().await?, digest, size_bytes: self.size_bytes })
    }
}

impl FileWriter {
    pub(crate) fn new(store: Arc<Inner>, draft: FileDraft, staged: Staged, quota: FileQuota, bytes_used: u64) -> Self {
        Self { store, draft, content: Some(Unfinished::new(staged)), quota, bytes_used_before: bytes_used }
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::QuotaExceeded`] before anything beyond the limit is
    /// written; [`StoreError::DiskFull`]. The temporary file is gone at once.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        let mut content = self.content.take().ok_or(StoreError::Interrupted)?;
        content.size_bytes = content.size_bytes.saturating_add(chunk.len() as u64);
        let limits = &self.store.limits;
        if content.size_bytes > limits.file_bytes_max {
            return Err(StoreError::TooLarge { bytes_max: limits.file_bytes_max });
        }
        if self.bytes_used_before.saturating_add(content.size_bytes) > self.quota.bytes_max {
            return Err(StoreError::QuotaExceeded { bytes_max: self.quota.bytes_max });
        }
        self.content = Some(content.write(chunk).await?);
        Ok(())
    }

    /// Sets when the content goes; a client may say so after the content itself.
    pub fn expire_at(&mut self, expires_at: Option<crate::Timestamp>) {
        self.draft.expires_at = expires_at;
    }

    /// Makes the file durable and visible, and answers once it is both.
    ///
    /// If the future is dropped before it is done, the file may be there or not.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`] or [`StoreError::TooManyFiles`] when other uploads used up the quota meanwhile; [`StoreError::IdTaken`];
    /// [`StoreError::DiskFull`].
    pub async fn finish(mut self) -> Result<FileRecord, StoreError> {
        let content = self.content.take().ok_or(StoreError::Interrupted)?;
        let finished = content.finish().await?;
        let (draft, quota) = (self.draft, self.quota);
        self.store.writer.call(move |writer| writer.commit_file(draft, finished, quota)).await
    }
}

/// A container's files being written. Dropping it, or a failed call, leaves the container's former checkpoint as it was.
pub struct CheckpointWriter {
    store: Arc<Inner>,
    draft: CheckpointDraft,
    /// As in [`FileWriter`].
    content: Option<Unfinished>,
    bytes_max: u64,
}

impl CheckpointWriter {
    pub(crate) fn new(store: Arc<Inner>, draft: CheckpointDraft, staged: Staged, bytes_max: u64) -> Self {
        Self { store, draft, content: Some(Unfinished::new(staged)), bytes_max }
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] before anything beyond the limit is written; [`StoreError::DiskFull`].
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        let mut content = self.content.take().ok_or(StoreError::Interrupted)?;
        content.size_bytes = content.size_bytes.saturating_add(chunk.len() as u64);
        if content.size_bytes > self.bytes_max {
            return Err(StoreError::TooLarge { bytes_max: self.bytes_max });
        }
        self.content = Some(content.write(chunk).await?);
        Ok(())
    }

    /// Makes the checkpoint durable, and the container's only one, and answers once it is both.
    ///
    /// # Errors
    /// [`StoreError::NoContainer`] when the container was forgotten meanwhile; [`StoreError::DiskFull`].
    pub async fn finish(self) -> Result<CheckpointRecord, StoreError> {
        let (store, draft, finished) = self.durable().await?;
        let now = store.limits.clock.now();
        store.writer.call(move |writer| writer.commit_checkpoint(&draft, finished, now)).await
    }

    /// Makes the content durable; what refers to it is for the caller to commit.
    pub(crate) async fn durable(mut self) -> Result<(Arc<Inner>, CheckpointDraft, Finished), StoreError> {
        let content = self.content.take().ok_or(StoreError::Interrupted)?;
        let finished = content.finish().await?;
        Ok((self.store, self.draft, finished))
    }
}

/// Does `work` on one of tokio's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::broken("doing file work", error))?
}
