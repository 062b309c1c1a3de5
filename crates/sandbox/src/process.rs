//! Process 1 of a container with its cgroup: whoever drops it kills everything inside and waits for the end.

use std::os::fd::OwnedFd;

use belljar_jail::Jailed;
use belljar_jail::cgroup::{Cgroup, Stats};

/// A running container, as the host's kernel sees it.
pub struct Process {
    jailed: Jailed,
    cgroup: Option<Cgroup>,
}

impl Process {
    pub fn new(jailed: Jailed, cgroup: Option<Cgroup>) -> Self {
        Self { jailed, cgroup }
    }

    /// A descriptor of its own that is readable when process 1 has ended.
    pub fn ended(&self) -> std::io::Result<OwnedFd> {
        self.jailed.pidfd().try_clone_to_owned()
    }

    /// What was used so far; zeros where nothing is counted.
    pub fn stats(&self) -> Stats {
        let Some(cgroup) = &self.cgroup else {
            return Stats::default();
        };
        cgroup.stats().unwrap_or_else(|error| {
            tracing::warn!(%error, "could not read what a container has used");
            Stats::default()
        })
    }

    /// Lifts the processor quota, so that dying is not throttled. A kill works without, only slower.
    pub fn lift(&self) {
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.lift_cpu()
        {
            tracing::warn!(%error, "could not lift a container's processor quota");
        }
    }

    /// Imposes the processor quota again.
    pub fn restore(&self) {}
}

impl Drop for Process {
    /// Blocks until the kernel has ended every process inside.
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.kill()
        {
            tracing::warn!(%error, "could not kill a container by its cgroup");
        }
        if let Err(error) = self.jailed.kill() {
            tracing::error!(%error, "could not kill a container");
        }
        if let Err(error) = self.jailed.wait() {
            tracing::error!(%error, "could not wait for a container's end");
        }
        if let Some(cgroup) = self.cgroup.take()
            && let Err(error) = cgroup.remove()
        {
            tracing::error!(%error, "could not remove a container's cgroup");
        }
    }
}
