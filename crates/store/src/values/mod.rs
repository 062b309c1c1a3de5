//! Plain values: no IO, no clock but the one passed in.

mod batches;
mod clock;
mod digest;
mod filename;
mod page;
mod records;
mod timestamp;
mod workspace;

pub use batches::{
    BatchClosing, BatchCounts, BatchDraft, BatchItem, BatchItemDraft, BatchOutcome, BatchQuery, BatchRecord,
    BatchResult,
};
pub use clock::{Clock, SystemClock};
pub use digest::{ContentDigest, KeyHash};
pub use filename::{FILENAME_CHARS_MAX, Filename, FilenameError};
pub use page::{CursorError, FilePage, FileQuery, PageCursor, Paged};
pub use records::{
    CheckpointDraft, CheckpointRecord, ContainerRecord, FileDraft, FileRecord, KeyDraft, KeyIsolation, KeyRecord,
    NamedCheckpoint, NoIsolation, Origin, Principal, SweepReport,
};
pub use timestamp::{Timestamp, TimestampError};
pub use workspace::{WORKSPACE_CHARS_MAX, WorkspaceId, WorkspaceIdError};
