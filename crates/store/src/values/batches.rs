//! What is kept about a batch of requests and each of them.

use crate::{KeyIsolation, Timestamp, WorkspaceId};
use belljar_ids::BatchId;
use bytes::Bytes;

/// A batch about to be kept.
#[derive(Debug, Clone)]
pub struct BatchDraft {
    /// Its id, minted by the caller.
    pub id: BatchId,
    /// Its owner.
    pub workspace: WorkspaceId,
    /// What its requests were sent with; opaque here.
    pub asked: String,
    /// What has to stand between its code and the host; `None` leaves it to the server.
    pub isolation: Option<KeyIsolation>,
    /// When what has not run by then expires.
    pub expires_at: Timestamp,
    /// Its requests; at least one.
    pub items: Vec<BatchItemDraft>,
}

/// One request of a batch about to be kept.
#[derive(Debug, Clone)]
pub struct BatchItemDraft {
    /// The client's name for it, unique within the batch.
    pub custom_id: String,
    /// Its body.
    pub params: Bytes,
}

/// A batch that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Its id.
    pub id: BatchId,
    /// Its owner.
    pub workspace: WorkspaceId,
    /// What its requests were sent with; opaque here.
    pub asked: String,
    /// What has to stand between its code and the host.
    pub isolation: Option<KeyIsolation>,
    /// How many requests it has.
    pub items: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When what has not run by then expires.
    pub expires_at: Timestamp,
    /// When its cancellation was asked for.
    pub cancel_initiated_at: Option<Timestamp>,
    /// When its last request came to something.
    pub ended_at: Option<Timestamp>,
    /// When its results were removed.
    pub archived_at: Option<Timestamp>,
    /// What its requests have come to so far.
    pub counts: BatchCounts,
}

/// How many requests of a batch came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// They have a message.
    pub succeeded: u32,
    /// They have an error.
    pub errored: u32,
    /// They were canceled before they ended.
    pub canceled: u32,
    /// Their batch expired before they ended.
    pub expired: u32,
}

/// One request of a batch that has not come to anything yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem {
    /// Its place within the batch.
    pub position: u32,
    /// Its body.
    pub params: Bytes,
}

/// What a request of a batch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// A message; its text as it is told.
    Succeeded(String),
    /// An error; its text as it is told.
    Errored(String),
    /// It was canceled.
    Canceled,
    /// It expired.
    Expired,
}

/// Why requests that have not run never will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchClosing {
    /// The client said so.
    Canceled,
    /// The time was up.
    Expired,
}

/// One request of an ended batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchResult {
    /// Its place within the batch.
    pub position: u32,
    /// The client's name for it.
    pub custom_id: String,
    /// What it came to.
    pub outcome: BatchOutcome,
}

/// Which batches to list. Every answer is newest first (wire.md §17.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchQuery {
    /// The newest.
    Newest,
    /// `after_id`: those next older than this one.
    OlderThan(BatchId),
    /// `before_id`: those next newer than this one.
    NewerThan(BatchId),
}
