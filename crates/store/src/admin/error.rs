//! Why an operator's command was not done. Nothing was changed, unless the text says so.

use super::ManifestFlaw;
use crate::StoreError;
use std::path::PathBuf;

/// A command of the operator that failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store's own failures.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no store.
    #[error("there is no store in {place}; is this the data directory that the server uses?")]
    NoStore {
        /// Where it was looked for.
        place: String,
    },
    /// An earlier program made the database, and this command does not bring it up to date.
    #[error(
        "the database has schema {found}, this program works with {known}: use the program that serves from it, or start \
         this one's server once, which brings it up to date for good (back up before)"
    )]
    OlderSchema {
        /// Its schema.
        found: u32,
        /// This program's.
        known: u32,
    },
    /// What is kept elsewhere is backed up there.
    #[error(
        "what is not in the data directory is backed up with its own tools ({places}); docs/operations.md says how"
    )]
    Elsewhere {
        /// Which places, and what with.
        places: String,
    },
    /// Only whoever holds the store can do this, and a server holds it.
    #[error(
        "{why}; the running server removes contents with their last reference by itself, and looks for the rest when it starts"
    )]
    ServerRuns {
        /// Who holds it.
        why: StoreError,
    },
    /// Something stands in the way that is not ours to remove.
    #[error("{}: {what}", .path.display())]
    InTheWay {
        /// What.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// The kept contents are not all there, so a copy would not be whole.
    #[error("content {digest} {what}{}; delete what refers to it, or put it back, and try again", of_files(.files))]
    ContentLost {
        /// Its digest.
        digest: String,
        /// What is wrong with it.
        what: &'static str,
        /// Some of the files that it is the content of; none where it is a checkpoint's.
        files: Vec<String>,
    },
    /// A directory is not a backup, or not a whole one.
    #[error("{} is not a whole backup: {what}", .backup.display())]
    Damaged {
        /// The directory.
        backup: PathBuf,
        /// What was found.
        what: String,
    },
    /// Its manifest is not one.
    #[error("{} is not a whole backup: its manifest, {flaw}", .backup.display())]
    Manifest {
        /// The directory.
        backup: PathBuf,
        /// What was found, and where.
        flaw: ManifestFlaw,
    },
    /// No space left.
    #[error("no space left for {} (while {doing})", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// The machine failed us.
    #[error("{}: {doing}: {source}", .path.display())]
    Io {
        /// With which file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn of_files(ids: &[String]) -> String {
    if ids.is_empty() { String::new() } else { format!(" (of {})", ids.join(", ")) }
}
