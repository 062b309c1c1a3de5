//! Plain values: no IO, no clock but the one passed in.

mod batches;
mod clock;
mod digest;
mod filename;
mod keys;
mod page;
mod quota;
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
pub use keys::{KeyDraft, KeyEnd, KeyIsolation, KeyRecord, KeyScope, NoIsolation, NoScope, Principal, ShownKey};
pub use page::{CursorError, FilePage, FileQuery, PageCursor, Paged};
pub use quota::{Day, FileQuota, Holding, Spending};
pub use records::{
    CheckpointDraft, CheckpointRecord, ContainerRecord, FileDraft, FileRecord, NamedCheckpoint, Origin, SweepReport,
};
pub use timestamp::{Timestamp, TimestampError};
pub use workspace::{USER_ID_CHARS_MAX, UserId, UserIdError, WORKSPACE_CHARS_MAX, WorkspaceId, WorkspaceIdError};
