//! What can go wrong in the store, sorted by who survives it.

use std::path::PathBuf;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure of the store. `Display` is the operator's text; [`StoreError::client_text`] is the client's.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    // The request is refused; everything else goes on.
    /// The content is larger than a file may be.
    #[error("the file is larger than {bytes_max} bytes")]
    TooLarge {
        /// The most bytes a file may have.
        bytes_max: u64,
    },
    /// The workspace's files would take more than it may keep.
    #[error("the workspace's files would exceed {bytes_max} bytes")]
    QuotaExceeded {
        /// The most bytes the files of one workspace may have together.
        bytes_max: u64,
    },
    /// The workspace would have more files than it may.
    #[error("the workspace would have more than {files_max} files")]
    TooManyFiles {
        /// The most that one workspace may have.
        files_max: u64,
    },
    /// A listing was to begin beside something that the workspace does not have.
    #[error("{what} {id} is not there to list from")]
    AnchorNotFound {
        /// What is listed, as the client calls it.
        what: &'static str,
        /// The id named.
        id: String,
    },
    /// More requests would wait in the workspace's batches than may.
    #[error("more than {items_max} requests would wait in the workspace's batches")]
    TooManyWaiting {
        /// The most that may.
        items_max: u64,
    },
    /// Something is already kept under this id.
    #[error("{id} is already taken")]
    IdTaken {
        /// The id.
        id: String,
    },
    /// The container was forgotten while its checkpoint was being written.
    #[error("container {id} is not known any more")]
    NoContainer {
        /// The id.
        id: String,
    },
    /// The writer already failed, or a write was abandoned half way; the file is gone without a trace.
    #[error("the file's writer was interrupted earlier")]
    Interrupted,

    // The machine is short of something; later the same call may succeed.
    /// No space left for the content or for the database.
    #[error("no space left in the data directory (while {doing})")]
    DiskFull {
        /// What was being done.
        doing: &'static str,
    },
    /// The data directory, or the disk under it, takes no changes. What was begun may turn out done.
    #[error("the data directory takes no changes (while {doing}): {why}")]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// What the system, or the database, said.
        why: String,
    },
    /// Another process held the database for too long.
    #[error("the database is held by another process")]
    Busy,

    /// The database or the object store cannot be reached, or left before it had answered: what was asked of it may be done or
    /// not.
    #[error("{what} cannot be reached: {why}")]
    Unreachable {
        /// Which one.
        what: &'static str,
        /// What it, or the network, said.
        why: String,
    },

    // What was kept is damaged; other files survive.
    /// What is on disk is not what was written.
    #[error("kept data is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },

    // The store cannot be opened; nothing was changed.
    /// Another process serves from this data directory.
    #[error(
        "{} is in use by another process ({}); stop it, or choose another data directory",
        .data_dir.display(),
        .pid.map_or_else(|| "its pid is not known".to_owned(), |pid| format!("pid {pid}"))
    )]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
        /// The process, when its note could be read.
        pid: Option<u32>,
    },
    /// Another process serves from this database.
    #[error("the database {place} is in use by another Belljar; stop it, or choose another database or schema")]
    Held {
        /// Which database.
        place: String,
    },
    /// Another process has served from this database since this one did.
    #[error(
        "another Belljar has served from the database {place} meanwhile; this one changes nothing any more: stop or restart it"
    )]
    Superseded {
        /// Which database.
        place: String,
    },
    /// Contents of another database lie in the place.
    #[error(
        "{place} holds the contents of {}, which this one would sweep; choose another place, or the database that belongs to it",
        .owner.as_ref().map_or_else(|| "a database that is not known".to_owned(), |owner| format!("the store {owner}"))
    )]
    Foreign {
        /// The place.
        place: String,
        /// Whose it is, when that is known.
        owner: Option<String>,
    },
    /// The store cannot be what the configuration asks for.
    #[error("{what}")]
    Misconfigured {
        /// What is wrong.
        what: String,
    },
    /// A later Belljar wrote the database.
    #[error(
        "the database has schema {found}, this program knows up to {known}; use the newer program, it has not \
         been changed"
    )]
    NewerSchema {
        /// The schema in the database.
        found: u32,
        /// The last schema this program knows.
        known: u32,
    },
    /// Others may enter the data directory, and it is not plainly ours to close.
    #[error(
        "{} has mode {mode:03o} and holds things that are not Belljar's; choose an empty directory, or run \
         `chmod 700` on it",
        .data_dir.display()
    )]
    Exposed {
        /// The data directory.
        data_dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    // The store is broken.
    /// The machine failed us; nothing is known to be lost.
    #[error("{doing}: {source}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Source,
    },
}

impl StoreError {
    /// What the client may read: no paths, no processes, no causes.
    pub fn client_text(&self) -> String {
        match self {
            Self::TooLarge { bytes_max } => {
                format!("File exceeds the maximum size of {bytes_max} bytes.")
            }
            Self::QuotaExceeded { bytes_max } => {
                format!("Storage quota of {bytes_max} bytes exceeded. Delete files to free space.")
            }
            Self::TooManyFiles { files_max } => {
                format!("Storage quota of {files_max} files exceeded. Delete files to make room.")
            }
            Self::AnchorNotFound { what, id } => format!("{what} `{id}` not found."),
            Self::TooManyWaiting { items_max } => {
                format!("More than {items_max} requests would wait in message batches. Wait until some have ended.")
            }
            Self::IdTaken { .. }
            | Self::NoContainer { .. }
            | Self::Interrupted
            | Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::NewerSchema { .. }
            | Self::Exposed { .. }
            | Self::Held { .. }
            | Self::Superseded { .. }
            | Self::Foreign { .. }
            | Self::Misconfigured { .. }
            | Self::Broken { .. } => "Internal server error".to_owned(),
            Self::DiskFull { .. } => "The server has no space left to store files.".to_owned(),
            Self::ReadOnly { .. } => "The server's storage takes no changes.".to_owned(),
            Self::Busy => "The server's storage is busy. Try again.".to_owned(),
            Self::Unreachable { .. } => "The server's storage cannot be reached. Try again.".to_owned(),
        }
    }

    pub(crate) fn broken(doing: &'static str, source: impl Into<Source>) -> Self {
        Self::Broken { doing, source: source.into() }
    }

    /// Sorts an IO failure: `ENOSPC` and `EDQUOT` are a full disk, `EROFS` is one that takes no changes, the rest is broken.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { doing },
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { doing, why: source.to_string() },
            _ => Self::broken(doing, source),
        }
    }
}
