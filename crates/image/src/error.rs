//! What can go wrong with images, sorted by who can do something about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::event::Phase;

/// Who can put a failure right; the command line turns it into its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The one who asked: an unknown name, a damaged archive, a wrong argument.
    Request,
    /// This machine lacks a program or a right. The error's text says how to get it.
    Machine,
    /// Stopped on request; what was done so far is kept and taken up by the next try.
    Interrupted,
    /// Everything else: the network, the disk, a program that failed.
    Host,
}

/// A failure of building, importing, checking or mounting an image. No client of the API ever sees one: the texts are
/// for operators and may name paths.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Programs or files that have to be there are not.
    #[error("{}", missing_text(.0))]
    Missing(Vec<Requirement>),
    /// The kernel or its configuration forbids what is needed.
    #[error("{what}; {remedy}")]
    MachineCannot {
        /// What was tried and refused.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A program that we started ended badly. Its output is in `log`.
    #[error("{program} failed in phase \"{phase}\" ({status}); the whole output is in {}, its end is:\n{tail}", log.display())]
    ProgramFailed {
        /// Name of the program.
        program: String,
        /// Phase of the build or import.
        phase: Phase,
        /// How it ended.
        status: std::process::ExitStatus,
        /// File with everything it said.
        log: PathBuf,
        /// The last lines of that.
        tail: String,
    },
    /// Cancelled through [`crate::Monitor`].
    #[error("interrupted; the next run goes on from the last finished phase")]
    Interrupted,
    /// Neither an image name nor the digest of a stored image.
    #[error(
        "no image is called {0:?}; `belljar image list` shows what there is, `belljar image build` makes `default`"
    )]
    UnknownImage(String),
    /// A short digest that fits more than one stored image.
    #[error("more than one stored image begins with {0:?}")]
    AmbiguousDigest(String),
    /// Not a valid image name.
    #[error(
        "{0:?} is not an image name: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, not 64 hex digits"
    )]
    BadName(String),
    /// The file's bytes are not those that its name promises.
    #[error("image {expected} is damaged: its file {} now has {found}; build or import it again", path.display())]
    Damaged {
        /// The digest it is stored under.
        expected: Digest,
        /// The digest of the bytes found.
        found: Digest,
        /// The file.
        path: PathBuf,
    },
    /// An archive that is malformed, hostile, or of an unsupported kind.
    #[error("{}: {entry}: {problem}", source_path.display())]
    BadArchive {
        /// The archive.
        source_path: PathBuf,
        /// The entry in question, escaped.
        entry: String,
        /// What is wrong with it.
        problem: ArchiveProblem,
    },
    /// What was to be imported is neither a directory, a tar, nor an OCI layout.
    #[error("{}: not a directory, a tar (plain, gzip, zstd) or an OCI layout", .0.display())]
    UnknownSource(PathBuf),
    /// The cache directory could be changed by another user.
    #[error("{} belongs to user {owner} with mode {mode:o}: it must be this user's and writable by nobody else", path.display())]
    CacheNotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of ours in the cache cannot be understood.
    #[error("{}: {problem}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as "reading".
        doing: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What an archive was refused for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveProblem {
    /// The name begins with a slash.
    #[error("absolute names are refused")]
    AbsolutePath,
    /// The name has a `..` component.
    #[error("names with `..` are refused")]
    ParentPath,
    /// The name has a NUL byte, or is empty where a name is needed.
    #[error("not a file name")]
    BadName,
    /// More bytes or components than [`crate::UnpackLimits`] allows.
    #[error("the name is too long or too deep")]
    PathTooLong,
    /// The archive would unpack to more than this many bytes.
    #[error("unpacks to more than {0} bytes")]
    TooManyBytes(u64),
    /// The archive has more than this many entries.
    #[error("more than {0} entries")]
    TooManyEntries(u64),
    /// A hard link to something that is not in the root, or to a directory.
    #[error("hard link to {0}, which is not a file in the archive")]
    BadHardLink(String),
    /// A kind of entry that this program does not read.
    #[error("unsupported kind of entry: {0}")]
    UnsupportedEntry(String),
    /// The archive ends early or its headers make no sense.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A blob's bytes do not have the digest that refers to them.
    #[error("digest mismatch: expected {expected}, found {found}")]
    DigestMismatch {
        /// The digest that refers to the blob.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// An OCI layout with no image, or several, for this machine.
    #[error("{0} images for linux/amd64 in the layout, exactly one is needed")]
    NotOneImage(usize),
}

/// A program or file that is missing on this machine, and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// The program or file.
    pub what: &'static str,
    /// The Debian or Ubuntu package.
    pub package: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
}

fn missing_text(missing: &[Requirement]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|m| m.package).collect();
    packages.dedup();
    let list: Vec<String> = missing.iter().map(|m| format!("{} ({})", m.what, m.purpose)).collect();
    format!(
        "missing on this machine: {}; get it with: apt-get install --no-install-recommends {}",
        list.join(", "),
        packages.join(" ")
    )
}

impl ImageError {
    /// Who can put this right.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Missing(_) | Self::MachineCannot { .. } => FailureClass::Machine,
            Self::Interrupted => FailureClass::Interrupted,
            Self::UnknownImage(_)
            | Self::AmbiguousDigest(_)
            | Self::BadName(_)
            | Self::BadArchive { .. }
            | Self::UnknownSource(_) => FailureClass::Request,
            Self::ProgramFailed { .. }
            | Self::Damaged { .. }
            | Self::CacheNotOurs { .. }
            | Self::BadRecord { .. }
            | Self::Io { .. } => FailureClass::Host,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }
}

/// Adds what was being done, and to what, to a system error.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::io(doing, path, source))
    }
}
