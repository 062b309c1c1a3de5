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
    Call {
        number: i64,
        arguments: Vec<Argument>,
    },
    /// Read a file.
    Read { path: String },
    /// List a directory, sorted.
    List { path: String },
    /// Run a program to its end.
    Run {
        argv: Vec<String>,
        environment: Vec<(String, String)>,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Value(i64),
    /// The error number.
    Failed(i32),
    Text(String),
    Names(Vec<String>),
    Ran {
        code: Option<i32>,
        stdout: String,
        stderr: String,
    },
}
