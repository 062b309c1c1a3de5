//! Who ends first when memory runs out: the code, then process 1 of its container, long before the host
//! (`proc_pid_oom_score_adj(5)`).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, pwrite};
use rustix::process::Pid;

/// Process 1 of a container: without it, everything inside is lost.
pub(crate) const PROCESS_ONE: &str = "500";

/// What runs the code.
const CODE: &str = "1000";

/// Makes a process, and what it will fork, the first to be killed for want of memory. For a REPL, which is forked from a
/// zygote that is not.
///
/// # Errors
/// What the kernel answers, `NotFound` when the process is gone.
pub fn prefer(pid: Pid) -> io::Result<()> {
    set(pid, CODE)
}

pub(crate) fn set(pid: Pid, score: &str) -> io::Result<()> {
    let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, score.as_bytes()))
}

/// Process 1's means to have its children killed before itself; see [`crate::Entered::oom_adjuster`].
///
/// A file of its own, opened by a `/proc` that can be written, unlike the container's. Closed by exec, and process 1 is
/// closed to others.
#[derive(Debug)]
pub struct OomAdjuster {
    own_score: OwnedFd,
}

impl OomAdjuster {
    pub(crate) fn new(own_score: OwnedFd) -> Self {
        Self { own_score }
    }

    /// Runs `spawn`, whose children are born as those that are killed first, and die before their parent.
    ///
    /// A child takes its score from its parent, so the parent raises its own for that long. It needs no privilege to go
    /// back to where the host had put it. For a process with one thread.
    ///
    /// # Errors
    /// What the kernel answers to the change; when it is refused, `spawn` has not been run.
    pub fn expendable<T>(&self, spawn: impl FnOnce() -> T) -> io::Result<T> {
        self.write(CODE)?;
        let spawned = spawn();
        self.write(PROCESS_ONE)?;
        Ok(spawned)
    }

    fn write(&self, score: &str) -> Result<(), Errno> {
        rustix::io::retry_on_intr(|| pwrite(&self.own_score, score.as_bytes(), 0)).map(drop)
    }
}
