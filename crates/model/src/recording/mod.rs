//! Recordings: what upstreams were asked and answered, byte for byte, in a file that answers in their place.
//!
//! A recording is a file of JSON documents, one a line. A *head* says what the upstream spoke and how it wanted to be asked; every
//! other line is an *exchange*: one call, and all that came of it. Lines are only ever added, each by one write under a lock, so
//! several servers may add to one file. A line that is torn, because a machine stopped while it was written, is passed over.
//!
//! Credentials are in none of it: no header of a request is kept but `anthropic-beta`, of an answer only those that mean something
//! to us, and where the upstream repeats the key, asterisks stand in its place. What was said is all there, so the file is its
//! owner's alone.

mod asked;
mod canonical;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
mod line;
mod replay;
mod tape;
mod turn;

use std::path::PathBuf;

pub use index::Recording;
pub use line::Dialect;
pub(crate) use line::{End, Endpoint, Head};
pub(crate) use replay::{Replay, Replayed};
pub(crate) use tape::{Tape, Taping};
pub use turn::{Part, RecordedTurn, Reply, Said, Summary, Timing};

/// A file that is no recording, or cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// The file system refuses.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// There is no line that says what the upstream speaks.
    #[error("{}: not a recording: no line says what the upstream speaks", path.display())]
    NoHead {
        /// The file.
        path: PathBuf,
    },
    /// An upstream that speaks one thing must not add to a recording of another.
    #[error("{}: a recording of another dialect; record this upstream in a file of its own", path.display())]
    OtherDialect {
        /// The file.
        path: PathBuf,
    },
    /// There are not so many exchanges.
    #[error("{}: there is no exchange {number}; there are {count}", path.display())]
    NoSuchExchange {
        /// The file.
        path: PathBuf,
        /// Which was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

impl RecordingError {
    fn file(path: &std::path::Path, problem: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// A call, as far as it decides what is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) endpoint: Endpoint,
    /// `anthropic-beta`.
    pub(crate) betas: Option<&'a str>,
    /// JSON.
    pub(crate) body: &'a [u8],
}
