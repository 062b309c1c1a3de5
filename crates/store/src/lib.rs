//! Everything that must survive: files and their contents, which workspace owns which container, batches of requests, keys.
//!
//! # What lies on disk
//! ```text
//! <data_dir>/                 mode 0700
//!   lock                      flock held by the one process that serves from here; holds its pid
//!   scope.secret              with what scopes are signed, once one is
//!   blobs.owner               the id of the database that the blobs belong to
//!   belljar.sqlite            metadata: SQLite, WAL, synchronous=FULL
//!   blobs/tmp/                uploads in progress
//!   blobs/ab/cdef...          contents, named by their SHA-256; identical contents are kept once
//! ```
//!
//! By configuration the metadata are in a PostgreSQL instead ([`Database`]), the contents in a bucket of an S3-compatible
//! store ([`BlobPlace`]), or both. What follows holds there too; `db/sql` and `blobs/objects` tell how.
//!
//! # The promise
//! A file that [`FileWriter::finish`] returned is there, whole, after `kill -9` or a power cut at any later
//! instant. The order makes it so: content is written to `blobs/tmp`, synced, renamed to its digest, the
//! directory synced, and only then the row committed. Whatever a cut leaves behind before the commit is a
//! file without a row, and [`Store::open`] removes those. Deleting goes the other way: row first, blob next.
//!
//! # Threads
//! The database blocks, so it runs on two threads of its own, one connection each, fed through bounded channels.
//! One **writer** carries out every change in turn; this is what makes it safe to drop a blob with its last
//! reference while the same content is being uploaded again, and SQLite takes one writer at a time anyway.
//! One **reader** answers look-ups, so that they never wait for the writer's disk syncs. Contents are
//! written and hashed on tokio's blocking threads, chunk by chunk; no file is ever whole in memory.
//!
//! Nothing here knows HTTP. Every look-up takes a workspace and sees nothing of others.

mod admin;
mod blobs;
mod data_dir;
mod database;
mod db;
mod error;
mod key_ring;
mod random;
mod store;
mod values;
mod worker;
mod writer;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! What the fuzz targets see of what reads strangers' bytes.
    pub use crate::admin::read_manifest;
}

pub use admin::{
    AdminError, BackupDraft, BackupReport, Collected, Collecting, DayUse, HeldContainer, HeldFile, ManifestFlaw,
    Records, Tally, Usage, backup, collect, restore, verify,
};
pub use blobs::{BlobPlace, ContentReader, ObjectCredentials, ObjectPlace};
pub use database::{Database, PostgresPlace};
pub use error::StoreError;
pub use key_ring::KeyRing;
pub use store::{
    BATCH_ITEMS_WAITING_MAX, BATCH_RESULTS_KEPT, Content, DISK_FREE_BYTES_MIN, FILE_BYTES_MAX,
    RECORD_KEPT_AFTER_EXPIRY, Store, StoreOptions, WORKSPACE_BYTES_MAX,
};
pub use values::{
    BatchClosing, BatchCounts, BatchDraft, BatchItem, BatchItemDraft, BatchOutcome, BatchQuery, BatchRecord,
    BatchResult, CheckpointDraft, CheckpointRecord, Clock, ContainerRecord, ContentDigest, CursorError, Day,
    FILENAME_CHARS_MAX, FileDraft, FilePage, FileQuery, FileQuota, FileRecord, Filename, FilenameError, Holding,
    KeyDraft, KeyEnd, KeyHash, KeyIsolation, KeyRecord, KeyScope, NamedCheckpoint, NoIsolation, NoScope, Origin,
    PageCursor, Paged, Principal, ShownKey, Spending, SweepReport, SystemClock, Timestamp, TimestampError,
    USER_ID_CHARS_MAX, UserId, UserIdError, WORKSPACE_CHARS_MAX, WorkspaceId, WorkspaceIdError,
};
pub use writer::{CheckpointWriter, FileWriter};
