//! What is kept about a file, a container.

use crate::{ContentDigest, Filename, KeyIsolation, Timestamp, WorkspaceId};
use belljar_ids::{CheckpointId, ContainerId, FileId};

/// Where a file came from. Decides whether it may be downloaded (wire.md §9.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The client uploaded it.
    Uploaded,
    /// Code in a container made it.
    Generated {
        /// The container, which may be long gone.
        container: ContainerId,
    },
}

/// A file about to be written.
#[derive(Debug, Clone)]
pub struct FileDraft {
    /// Its id, minted by the caller.
    pub id: FileId,
    /// Its owner.
    pub workspace: WorkspaceId,
    /// Its name.
    pub filename: Filename,
    /// Its media type, as given or detected.
    pub mime_type: String,
    /// Where it came from.
    pub origin: Origin,
    /// When it was made; also its place in listings.
    pub created_at: Timestamp,
    /// When its content goes; `None` keeps it until it is deleted.
    pub expires_at: Option<Timestamp>,
}

/// A file that is kept. It never changes, except that its content goes when it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub id: FileId,
    /// Its owner.
    pub workspace: WorkspaceId,
    /// Its name.
    pub filename: Filename,
    /// Its media type.
    pub mime_type: String,
    /// The size of its content, kept when the content is gone.
    pub size_bytes: u64,
    /// Where it came from.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its content goes, or went.
    pub expires_at: Option<Timestamp>,
    /// The digest of its content; `None` once that has been released.
    pub content: Option<ContentDigest>,
}

impl FileRecord {
    /// Whether the client may download it: only what code made (wire.md §9.4).
    pub fn downloadable(&self) -> bool {
        match self.origin {
            Origin::Uploaded => false,
            Origin::Generated { .. } => true,
        }
    }

    /// Whether its content is gone, or due to go, at `now`.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.content.is_none() || self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A container and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its owner.
    pub workspace: WorkspaceId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it goes, unless it is used again (wire.md §7.2).
    pub expires_at: Timestamp,
}

/// A container's files, about to be kept.
#[derive(Debug, Clone)]
pub struct CheckpointDraft {
    /// Owner of the container.
    pub workspace: WorkspaceId,
    /// The container.
    pub container: ContainerId,
    /// Digest of the image that the files lie over.
    pub image: String,
    /// What stands between its code and the host.
    pub isolation: KeyIsolation,
}

/// A container's files as they were kept last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Digest of the image that the files lie over.
    pub image: String,
    /// What stood between its code and the host, and is to again.
    pub isolation: KeyIsolation,
    /// Bytes of the content.
    pub size_bytes: u64,
    /// When it was kept.
    pub made_at: Timestamp,
    /// Digest of the content.
    pub content: ContentDigest,
}

/// A checkpoint that can be named, and stays until it is deleted or its container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// What it holds.
    pub record: CheckpointRecord,
}

/// What one sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Files whose content was released because they expired.
    pub contents_released: u64,
    /// Files whose record was removed, 30 days after they expired.
    pub records_removed: u64,
}
