//! The frames between host and guest. One file, compiled into both, so that there is one definition.
//!
//! Rules on top of the shapes:
//! - One frame is one packet of the control socket: one JSON document of at most [`FRAME_BYTES_MAX`] bytes, with
//!   exactly the file descriptors its shape names.
//! - The guest speaks first: [`FromGuest::Ready`]. After that each request of the host gets exactly one answer with
//!   the request's `id`, except [`ToGuest::Run`]: first [`FromGuest::Started`] (or [`FromGuest::Failed`], then nothing
//!   more), later [`FromGuest::Exited`] unless a [`FromGuest::Killed`] came first.
//! - [`ToGuest::ReplStatus`] is answered when the REPL has ended, which may be during another request or between two:
//!   the one answer that does not come in turn.
//! - A command that runs behind a [`ToGuest::Tools`] may have [`FromGuest::Called`] said for it, unasked, until it has
//!   ended; so may, after a call or a [`ToGuest::Replies`], [`FromGuest::Quiet`] be. [`ToGuest::Replies`] is not answered,
//!   and may cross with that end.
//! - A guest in gVisor cannot send descriptors. Instead of one, its frame is followed by a NUL byte and the absolute
//!   path of what the descriptor is of; the host opens it, below the container's root directory.
//! - Process 1 of a ward speaks first of all: [`FromGuest::Ward`]. From then on it has a socket of its own.
//! - The host believes no frame that breaks these rules: the container is dead then. The guest leaves when the
//!   socket ends or when a frame of the host makes no sense.

use serde::{Deserialize, Serialize};

/// The longest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The most file descriptors one frame carries.
pub const FRAME_FDS_MAX: usize = 3;

/// The longest command at all, in bytes.
pub const COMMAND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The version of this file; host and guest are built together, and say so.
pub const PROTOCOL_VERSION: u32 = 7;

/// From the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToGuest {
    /// Run a command of bash. Carries: the command's text, the writing ends of standard output and standard error.
    Run {
        /// Number of this request.
        id: u64,
        /// Name of the new directory in `/files/output`.
        output: String,
        /// The whole environment.
        env: Vec<(String, String)>,
    },
    /// Kill every process but process 1, and wait for their ends.
    Kill {
        /// Number of the `Run` this is about.
        id: u64,
        /// As in that `Run`.
        output: String,
    },
    /// Remove an output directory with all that is in it.
    Clean {
        /// Number of this request.
        id: u64,
        /// As in `Run`.
        output: String,
    },
    /// Open a regular file for reading.
    Open {
        /// Number of this request.
        id: u64,
        /// Absolute.
        path: String,
    },
    /// Write a file whole: parents are made, the file appears at once or not at all, its mode is kept.
    /// Carries: the reading end of a pipe that yields the content.
    Write {
        /// Number of this request.
        id: u64,
        /// Absolute.
        path: String,
        /// Bytes that the pipe will yield; fewer means that the sender gave up.
        size: u64,
    },
    /// Start a cold REPL: `python3` with the driver. Carries: the driver's source, the REPL's end of its socket.
    Repl {
        /// Number of this request.
        id: u64,
        /// The whole environment.
        env: Vec<(String, String)>,
    },
    /// Say how the cold REPL ended, once it has.
    ReplStatus {
        /// Number of this request.
        id: u64,
    },
    /// Send SIGINT to a process group, as Ctrl-C does.
    Interrupt {
        /// Number of this request.
        id: u64,
        /// The group's number in the container; without one, the running command's. The rest of a command's group is
        /// killed when the interrupted command has ended.
        pid: Option<u32>,
    },
    /// Say how much of the container's disk is free.
    Disk {
        /// Number of this request.
        id: u64,
    },
    /// Write everything that the container's code has written as a layer; its processes are stopped meanwhile.
    /// Carries: the writing end of a pipe. Of a container in gVisor, its ward is asked instead, and stops nothing.
    Pack {
        /// Number of this request.
        id: u64,
    },
    /// Stop every process of the code, or let them go on.
    Still {
        /// Number of this request.
        id: u64,
        /// Whether they are to be stopped.
        still: bool,
    },
    /// Put a layer's files in their places. Carries: the reading end of a pipe.
    Unpack {
        /// Number of this request.
        id: u64,
    },
    /// Open an output directory.
    Output {
        /// Number of this request.
        id: u64,
        /// As in `Run`.
        output: String,
    },
    /// Offer tools as commands, in place of those offered before, until the next or the running command has ended.
    /// Carries: to a line, the name of a tool, a space, and the schema of its argument.
    Tools {
        /// Number of this request.
        id: u64,
    },
    /// Calls are answered. Carries: the texts, one behind the other.
    Replies {
        /// One for each.
        replies: Vec<Reply>,
    },
}

/// An answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Number of the call.
    pub call: u64,
    /// What it does to the caller.
    pub kind: ReplyKind,
    /// Where its text begins.
    pub at: u64,
    /// How long it is.
    pub bytes: u64,
}

/// What an answer does to the code that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyKind {
    /// It gets the text.
    Text,
    /// The tool failed, and says so by the text.
    Error,
    /// Nobody answered; the text says so.
    TimedOut,
}

/// What follows on a piece of a call's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// Another.
    More,
    /// Nothing: the argument is whole.
    Last,
    /// Nothing: the caller has gone.
    Never,
}

/// From the guest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromGuest {
    /// Only from a ward, before anything else: what [`FromGuest::Ready`] will come from is about to be started.
    /// Carries: the container's root directory, the file in which the starting program says why it failed, and the host's
    /// end of a socket at which the ward itself takes [`ToGuest::Pack`].
    Ward {},
    /// The jail stands and the guest listens.
    Ready {
        /// [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// The command runs.
    Started {
        /// Number of the request.
        id: u64,
    },
    /// The command ended. Carries its output directory, if there is something in it.
    Exited {
        /// Number of the request.
        id: u64,
        /// How.
        status: Status,
        /// Never [`OutputState::Unsent`].
        output: OutputState,
    },
    /// Every process is dead. Carries the command's output directory, unless that is gone.
    Killed {
        /// Number of the request.
        id: u64,
    },
    /// The directory is gone.
    Cleaned {
        /// Number of the request.
        id: u64,
        /// False when it was so large, or changed so fast, that the guest gave up.
        whole: bool,
    },
    /// Carries the opened file.
    Opened {
        /// Number of the request.
        id: u64,
    },
    /// The file stands.
    Written {
        /// Number of the request.
        id: u64,
        /// There was one before.
        existed: bool,
    },
    /// The cold REPL runs.
    ReplStarted {
        /// Number of the request.
        id: u64,
        /// Its process id in the container, and its process group's.
        pid: u32,
    },
    /// The cold REPL has ended.
    ReplStatus {
        /// Number of the request.
        id: u64,
        /// How.
        status: Status,
    },
    /// The signal is sent, or there was nobody to send it to.
    Interrupted {
        /// Number of the request.
        id: u64,
    },
    /// What is free.
    Disk {
        /// Number of the request.
        id: u64,
        /// Bytes.
        free_bytes: u64,
        /// Files, directories and the like.
        free_inodes: u64,
    },
    /// The processes are stopped, or go on.
    Stilled {
        /// Number of the request.
        id: u64,
    },
    /// The layer is written, whole.
    Packed {
        /// Number of the request.
        id: u64,
        /// Files, directories and the like.
        entries: u64,
    },
    /// The layer's files stand.
    Unpacked {
        /// Number of the request.
        id: u64,
        /// Files, directories and the like.
        entries: u64,
    },
    /// Carries the output directory, unless there is none.
    Output {
        /// Number of the request.
        id: u64,
    },
    /// The tools are commands.
    Offered {
        /// Number of the request.
        id: u64,
    },
    /// A command calls a tool.
    Called {
        /// Number of the `Run`.
        id: u64,
        /// Number of the call within that; its pieces come in order, between those of others.
        call: u64,
        /// The name by which it was offered.
        function: String,
        /// A piece of the argument.
        text: String,
        /// Whether more of it follows.
        piece: Piece,
    },
    /// All of the container's code waits, since the last call or answer.
    Quiet {
        /// Number of the `Run`.
        id: u64,
    },
    /// The request was not carried out.
    Failed {
        /// Number of the request.
        id: u64,
        /// Why.
        failure: Failure,
    },
}

/// What a cell, or a command, left in `$OUTPUT_DIR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OutputState {
    /// Nothing; the directory is removed.
    None,
    /// Something.
    Files,
    /// Something, but its descriptor cannot be passed: too many are in flight, perhaps another container's (unix(7),
    /// `ETOOMANYREFS`). A REPL's word: the supervisor, whose limit is higher, can.
    Unsent,
    /// The directory itself was removed or replaced.
    Gone,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Status {
    /// By itself, with this exit code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Failure {
    /// The kernel said so.
    Errno(i32),
    /// The path is a directory.
    IsDirectory,
    /// The path is neither a file nor a directory.
    NotRegular,
    /// The pipe ended before the announced size.
    Incomplete,
    /// A command is running already.
    Busy,
}
