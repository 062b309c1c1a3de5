//! What a test and its program inside the jail say to each other.

use super::{Deserialize, Serialize};

/// Longest packet either way.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// One argument of a system call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Argument {
    Number(i64),
    Text(String),
}

/// What the program inside is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Make a system call.
    Call { number: i64, arguments: Vec<Argument> },
    /// Read a file.
    Read { path: String },
    /// List a directory, sorted.
    List { path: String },
    /// Run a program to its end, with a search path and nothing else in its environment.
    Run { argv: Vec<String> },
    /// Read a symbolic link.
    Link { path: String },
    /// Make a file with so many bytes.
    Write { path: String, bytes: usize },
    /// Make idle children until the kernel refuses one, or there are enough; answers how many.
    ForkUntilRefused { most: u32 },
    /// The same, but of children that compute.
    ForkBomb { most: u32 },
    /// Have a child touch so much memory; answers how it ended.
    TouchMemory { bytes: usize },
    /// Compute for so long; answers the processor time got, in microseconds.
    Spin { wall_ms: u64 },
    /// As a zygote: fork a process that joins the container whose seven namespaces come with this, after them the socket
    /// on which that process answers, first with `Value(0)` or how it failed.
    Fork { birth: Birth },
    /// Have a child make a system call by the i386 convention; answers how it ended.
    I386,
}

/// Where a zygote's child is born.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Birth {
    /// In the container's pid namespace.
    Inside,
    /// In the zygote's own.
    Outside,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Value(i64),
    /// The error number.
    Failed(i32),
    Text(String),
    Names(Vec<String>),
    /// How a program ended, and what it wrote.
    Ran {
        code: Option<i32>,
        stdout: String,
        stderr: String,
    },
    /// The signal that ended a child.
    Signalled(i32),
    /// The step at which a join failed, and the error number.
    NotJoined(String, i32),
    /// The code with which a child ended.
    Exited(i32),
}
