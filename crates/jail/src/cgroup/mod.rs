//! Limits and accounts of a container: cgroup v2, v1 and hybrid hosts behind one type.
//!
//! Each controller is used where the host has it (`place` finds that out), so a hybrid host is no special case.
//! A server owns one directory per hierarchy, `belljar/<instance>`, with one directory per container below it.

mod container;
mod freeze;
mod meter;
mod place;
mod total;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub use container::Cgroup;
pub(crate) use container::enter as enter_cgroups;
pub use meter::Meter;
pub use tree::CgroupTree;

/// What a container may use at most.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Memory and swap together.
    pub memory_bytes_max: u64,
    /// Processors' worth of time; at least 0.01.
    pub cpus: f64,
    /// Processes and threads.
    pub processes_max: u64,
}

/// What a container has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Highest memory use; on kernels that keep no peak (v2 before 5.19), the present use.
    pub memory_peak_bytes: u64,
    /// Present memory use.
    pub memory_bytes: u64,
    /// Processor time, user and system; zero where the host does not account for it.
    pub cpu_usage_us: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Processes and threads now.
    pub processes: u64,
    /// Forks refused because there were too many processes; zero where the host does not count them.
    pub pids_refused: u64,
}

/// This host's cgroups cannot limit a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cgroups are not usable: {reason}")]
pub struct CgroupUnavailable {
    /// What was found, and what would help.
    pub reason: String,
}

/// A cgroup file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {}: {source}", .path.display())]
pub struct CgroupError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel answered.
    pub source: io::Error,
}

impl CgroupError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }

    fn invalid(path: &Path) -> Self {
        Self { path: path.to_owned(), source: io::ErrorKind::InvalidData.into() }
    }
}

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// One hierarchy per controller or group of controllers (`cgroups(7)`, version 1).
    V1,
    /// The unified hierarchy.
    V2,
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(CgroupError::at(path))
}

fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(CgroupError::at(path))
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value behind `key` in a file of `key value` lines; zero where the kernel does not count it.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    values.next().map_or(Some(0), number)
}
