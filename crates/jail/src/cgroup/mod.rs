//! Limits and accounts of a container: cgroup v2, v1 and hybrid hosts behind one type.

use std::io;
use std::path::PathBuf;

use rustix::process::Pid;

/// What a container may use at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory and swap together.
    pub memory_bytes_max: u64,
    /// Processors' worth of time.
    pub cpus: f64,
    /// Processes and threads.
    pub processes_max: u64,
}

/// What a container has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Highest memory use.
    pub memory_peak_bytes: u64,
    /// Processor time, user and system.
    pub cpu_usage_us: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Processes and threads now.
    pub processes: u64,
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

/// The part of the host's cgroup hierarchies that this server owns.
#[derive(Debug)]
pub struct CgroupTree {}

impl CgroupTree {
    /// Finds what this host offers, makes this server's own subtree, and sweeps away those of dead servers.
    ///
    /// # Errors
    /// [`CgroupUnavailable`] when memory or processes cannot be limited here.
    pub fn detect() -> Result<Self, CgroupUnavailable> {
        Err(CgroupUnavailable {
            reason: "not detected".to_owned(),
        })
    }

    /// Makes one container's cgroup with its limits.
    ///
    /// # Errors
    /// [`CgroupError`] naming the file; what was made is removed.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let _ = limits;
        Err(CgroupError {
            path: PathBuf::from(name),
            source: io::Error::from_raw_os_error(libc::ENOSYS),
        })
    }
}

/// One container's cgroup. Removed when dropped, if empty by then.
#[derive(Debug)]
pub struct Cgroup {}

impl Cgroup {
    /// Moves a process in; its later children are born there.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn attach(&self, pid: Pid) -> Result<(), CgroupError> {
        let _ = pid;
        Ok(())
    }

    /// What has been used so far.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        Ok(Stats::default())
    }

    /// Lifts the processor quota, so that dying is not throttled.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn lift_cpu(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// Kills every process in it (after [`Cgroup::lift_cpu`], which it does itself).
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// Removes it. All its processes must have been reaped.
    ///
    /// # Errors
    /// [`CgroupError`], `EBUSY` while a process is left.
    pub fn remove(self) -> Result<(), CgroupError> {
        Ok(())
    }
}
