//! How a cell can end, and what is left of it.

use std::fs::File;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One stream of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes of a running cell, in the order in which they were written to their stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveChunk {
    /// Where they were written.
    pub stream: Stream,
    /// What was written; may end inside a character.
    pub bytes: bytes::Bytes,
}

/// How a cell ended. Whatever user code does is one of these, never an error.
#[derive(Debug)]
pub enum CellOutcome {
    /// The cell ended by itself, with any exit status.
    Ended(Output),
    /// The wall time ran out. A command of bash was killed with every process of the container; code in Python was
    /// interrupted, and killed likewise when that was not enough.
    TimedOut(Output),
    /// Something ended the cell before its time.
    Killed(KillReason, Output),
    /// What ran the cell ended under it: the Python interpreter, and then the container lives, or the whole container,
    /// and then its next use says why. [`Output::losses`] tells which.
    Crashed(Output),
}

impl CellOutcome {
    /// What is left of the cell, however it ended.
    #[must_use]
    pub fn output(&self) -> &Output {
        match self {
            Self::Ended(output) | Self::TimedOut(output) | Self::Killed(_, output) | Self::Crashed(output) => output,
        }
    }

    /// As [`CellOutcome::output`], owned.
    #[must_use]
    pub fn into_output(self) -> Output {
        match self {
            Self::Ended(output) | Self::TimedOut(output) | Self::Killed(_, output) | Self::Crashed(output) => output,
        }
    }

    /// Which limit or wish ended the cell or made it fail; none when it did so by itself.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::TimedOut(_) => Some(Reason::Time),
            Self::Killed(KillReason::Memory, _) => Some(Reason::Memory),
            Self::Killed(KillReason::Requested, _) => Some(Reason::Requested),
            Self::Ended(output) | Self::Crashed(output) => output.reason(),
        }
    }
}

/// Why a cell was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// The container's memory limit.
    Memory,
    /// Whoever started the cell asked for its end, or went away.
    Requested,
}

/// Which limit or wish ended a cell or made it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The limit of memory.
    Memory,
    /// The limit of processes and threads.
    Processes,
    /// The limit of bytes or files on the container's disk.
    Disk,
    /// The limit of wall time.
    Time,
    /// Whoever started the cell asked for its end, or went away.
    Requested,
}

/// How a Python interpreter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterpreterEnd {
    /// With this exit code, though nobody had asked it to.
    Exited(u8),
    /// By this signal.
    Signal(u8),
    /// By the memory limit of the container.
    Memory,
    /// It broke the protocol and was killed with every process of the container.
    #[serde(skip)]
    Breach(#[serde(skip)] &'static str),
    /// It was killed with every process of the container.
    Killed,
    /// The container was put away and brought back: its files were kept, its memory was not.
    NotKept,
    /// The container is a copy of another: its files were copied, its memory was not.
    NotCopied,
    /// Nobody can tell how.
    Unknown,
}

impl InterpreterEnd {
    /// What can be said of it by another program: which rule was broken is a text of this one.
    pub(crate) fn handed(self) -> Self {
        match self {
            Self::Breach(_) => Self::Killed,
            end => end,
        }
    }
}

impl Loss {
    /// As [`InterpreterEnd::handed`].
    pub(crate) fn handed(self) -> Self {
        match self {
            Self::InterpreterEnded(end) => Self::InterpreterEnded(end.handed()),
            Self::InterpreterRestarted(end) => Self::InterpreterRestarted(end.handed()),
            loss => loss,
        }
    }
}

impl From<crate::frame::Status> for InterpreterEnd {
    fn from(status: crate::frame::Status) -> Self {
        match status {
            crate::frame::Status::Code(code) => Self::Exited(code),
            crate::frame::Status::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl std::fmt::Display for InterpreterEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "{name} (signal {signal})"),
                None => write!(f, "signal {signal}"),
            },
            Self::Memory => f.write_str("the memory limit was reached"),
            Self::Breach(what) => write!(f, "it was killed because {what}"),
            Self::Killed => f.write_str("it was killed with all processes of the container"),
            Self::NotKept => f.write_str("the container was on disk in the meantime, which keeps its files only"),
            Self::NotCopied => f.write_str("the container is a copy of another, which has its files only"),
            Self::Unknown => f.write_str("for an unknown reason"),
        }
    }
}

/// signal(7): those that end an interpreter in practice, in words.
fn signal_name(signal: u8) -> Option<&'static str> {
    Some(match signal {
        2 => "interrupted",
        4 => "illegal instruction",
        6 => "aborted",
        7 => "bus error",
        8 => "floating-point exception",
        9 => "killed",
        11 => "segmentation fault",
        15 => "terminated",
        25 => "file size limit exceeded",
        31 => "a forbidden system call",
        _ => return None,
    })
}

/// What a cell leaves behind.
#[derive(Debug)]
pub struct Output {
    /// Exit status of the shell, or of the cell in Python; 128 + N when signal N ended it, as a shell reports it. Never
    /// zero when the outcome is not [`CellOutcome::Ended`].
    pub return_code: i32,
    /// The first `output_bytes_max` bytes of standard output.
    pub stdout: Vec<u8>,
    /// The first `output_bytes_max` bytes of standard error.
    pub stderr: Vec<u8>,
    /// Bytes that were read from standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes that were read from standard error, kept or not.
    pub stderr_bytes: u64,
    /// Regular files at the top level of `$OUTPUT_DIR`, sorted by name.
    pub files: Vec<OutputFile>,
    /// What else lay in `$OUTPUT_DIR`, sorted by name.
    pub skipped: Vec<Skipped>,
    /// From the start of the command to its end, without the time for which its code waited for tools.
    pub wall: Duration,
    /// Processor time of the whole container during the cell; zero where this host counts none.
    pub cpu: Duration,
    /// Highest memory of the container so far, in bytes; zero where this host counts none.
    pub memory_peak_bytes: u64,
    /// What happened that the streams do not show.
    pub losses: Vec<Loss>,
}

/// A captured file. It stays readable after its directory is removed and after the container is gone.
#[derive(Debug)]
pub struct OutputFile {
    /// Base name, valid by wire.md §9.2.
    pub name: String,
    /// Bytes when it was captured. Code left running may change the file afterwards: read at most this many.
    pub size: u64,
    /// Opened for reading, at offset 0.
    pub file: File,
}

/// An entry of `$OUTPUT_DIR` that was not captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name, with what cannot be shown escaped.
    pub name: String,
    /// Why.
    pub why: SkipReason,
}

/// Why an entry of `$OUTPUT_DIR` was not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// A symbolic link, whatever it points to.
    SymbolicLink,
    /// A directory; only the top level is captured (wire.md §7.4).
    Directory,
    /// A FIFO, socket or device.
    Special,
    /// Not UTF-8, too long, or with a character that wire.md §9.2 forbids.
    UnusableName,
    /// Larger than this many bytes.
    TooLarge(u64),
    /// More than this many files.
    TooMany(usize),
    /// With those before it, more than this many bytes.
    TooMuch(u64),
    /// It went away, or its permissions keep the host out.
    Unreadable,
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SymbolicLink => f.write_str("symbolic link"),
            Self::Directory => f.write_str("directory"),
            Self::Special => f.write_str("not a regular file"),
            Self::UnusableName => f.write_str("unusable file name"),
            Self::TooLarge(max) => write!(f, "larger than {max} bytes"),
            Self::TooMany(max) => write!(f, "more than {max} files"),
            Self::TooMuch(max) => write!(f, "more than {max} bytes in all"),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

/// Something a cell lost or met that its streams do not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Ended by the memory limit of this many bytes.
    KilledByMemory(u64),
    /// A process, but not the command itself, was ended by the memory limit of this many bytes.
    ProcessKilledByMemory(u64),
    /// A process could not be started because of the limit of this many.
    ProcessesRefused(u64),
    /// The container's disk, of this many bytes and so many files, is full.
    DiskFull {
        /// The limit of bytes.
        bytes_max: u64,
        /// The limit of files.
        inodes_max: u64,
    },
    /// Before the command, what earlier ones had left running was ended, for it took too much of this limit.
    LeftoversKilled(u64),
    /// Ended after this wall time.
    TimedOut(Duration),
    /// The cell in Python took longer than this wall time and was interrupted (wire.md §4.3).
    DetectionTimeout(Duration),
    /// Ended because it was asked for.
    Interrupted,
    /// The Python interpreter ended under the cell. The container lives.
    InterpreterEnded(InterpreterEnd),
    /// Before the cell, a new Python interpreter took the place of one that had ended.
    InterpreterRestarted(InterpreterEnd),
    /// The container died; everything in it is gone.
    ContainerDied(String),
    /// `$OUTPUT_DIR` held more than this many entries; the rest was not looked at.
    OutputNotExamined(usize),
    /// `$OUTPUT_DIR` itself was removed or replaced.
    OutputDirectoryGone,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KilledByMemory(max) => write!(f, "killed: memory limit of {max} bytes reached"),
            Self::ProcessKilledByMemory(max) => write!(f, "a process was killed: memory limit of {max} bytes reached"),
            Self::ProcessesRefused(max) => write!(f, "limit of {max} processes reached"),
            Self::LeftoversKilled(max) => {
                write!(f, "what earlier commands left running was killed: limit of {max} processes reached")
            }
            Self::TimedOut(wall) => {
                write!(f, "killed: time limit of {} s reached", wall.as_secs_f64())
            }
            Self::DiskFull { bytes_max, inodes_max } => {
                write!(f, "the container's disk is full: limit of {bytes_max} bytes and {inodes_max} files")
            }
            Self::DetectionTimeout(wall) => {
                write!(f, "detection_timeout: time limit of {} s reached", wall.as_secs_f64())
            }
            Self::Interrupted => f.write_str("killed: interrupted"),
            Self::InterpreterEnded(how) => write!(
                f,
                "the Python interpreter ended: {how}; variables are lost, files are intact, the next cell starts a new one"
            ),
            Self::InterpreterRestarted(how) => {
                write!(f, "the Python interpreter was restarted: {how}; variables are lost")
            }
            Self::ContainerDied(reason) => write!(f, "the container died: {reason}"),
            Self::OutputNotExamined(max) => {
                write!(f, "not captured from $OUTPUT_DIR: all after {max} entries")
            }
            Self::OutputDirectoryGone => f.write_str("nothing captured: $OUTPUT_DIR was removed or replaced"),
        }
    }
}

/// Skipped entries that are named one by one in [`Output::notices`].
const SKIPPED_NAMED_MAX: usize = 20;

impl Output {
    /// Of a cell that said nothing and did nothing.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self {
            return_code: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            files: Vec::new(),
            skipped: Vec::new(),
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            memory_peak_bytes: 0,
            losses: Vec::new(),
        }
    }

    /// The first limit among what was lost.
    fn reason(&self) -> Option<Reason> {
        self.losses.iter().find_map(|loss| match loss {
            Loss::KilledByMemory(_)
            | Loss::ProcessKilledByMemory(_)
            | Loss::InterpreterEnded(InterpreterEnd::Memory) => Some(Reason::Memory),
            Loss::ProcessesRefused(_) => Some(Reason::Processes),
            Loss::DiskFull { .. } => Some(Reason::Disk),
            Loss::TimedOut(_) | Loss::DetectionTimeout(_) => Some(Reason::Time),
            Loss::Interrupted => Some(Reason::Requested),
            Loss::LeftoversKilled(_)
            | Loss::InterpreterEnded(_)
            | Loss::InterpreterRestarted(_)
            | Loss::ContainerDied(_)
            | Loss::OutputNotExamined(_)
            | Loss::OutputDirectoryGone => None,
        })
    }

    /// One line each for what the streams do not show, without a line end; to be appended to standard error.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (stream, kept, total) in
            [("stdout", self.stdout.len(), self.stdout_bytes), ("stderr", self.stderr.len(), self.stderr_bytes)]
        {
            if total > kept as u64 {
                lines.push(format!("belljar: {stream} was cut: {kept} of {total} bytes shown"));
            }
        }
        lines.extend(self.losses.iter().map(|loss| format!("belljar: {loss}")));
        for skipped in self.skipped.iter().take(SKIPPED_NAMED_MAX) {
            lines.push(format!("belljar: not captured from $OUTPUT_DIR: {} ({})", skipped.name, skipped.why));
        }
        if self.skipped.len() > SKIPPED_NAMED_MAX {
            let more = self.skipped.len() - SKIPPED_NAMED_MAX;
            lines.push(format!("belljar: not captured from $OUTPUT_DIR: {more} more entries"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output { stdout: vec![b'x'; 10], stdout_bytes: 10, ..Output::empty() }
    }

    #[test]
    fn nothing_lost_is_nothing_said() {
        assert_eq!(output().notices(), Vec::<String>::new());
    }

    #[test]
    fn each_loss_is_one_line() {
        let mut lossy = output();
        lossy.stdout_bytes = 52_428_800;
        lossy.losses = vec![Loss::KilledByMemory(5_368_709_120), Loss::TimedOut(Duration::from_millis(1500))];
        lossy.skipped = vec![Skipped { name: "link.txt".into(), why: SkipReason::SymbolicLink }];
        assert_eq!(
            lossy.notices(),
            [
                "belljar: stdout was cut: 10 of 52428800 bytes shown",
                "belljar: killed: memory limit of 5368709120 bytes reached",
                "belljar: killed: time limit of 1.5 s reached",
                "belljar: not captured from $OUTPUT_DIR: link.txt (symbolic link)",
            ]
        );
    }

    #[test]
    fn a_million_skipped_entries_are_counted_not_listed() {
        let mut lossy = output();
        lossy.skipped = (0..25).map(|n| Skipped { name: format!("d{n}"), why: SkipReason::Directory }).collect();
        let notices = lossy.notices();
        assert_eq!(notices.len(), SKIPPED_NAMED_MAX + 1);
        assert_eq!(notices[SKIPPED_NAMED_MAX], "belljar: not captured from $OUTPUT_DIR: 5 more entries");
    }
}
