//! Process 1 of a container with its cgroup: whoever drops it kills everything inside and waits for the end.

use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use belljar_jail::cgroup::{Cgroup, CgroupError, Meter, Stats};
use belljar_jail::{Jailed, Namespaces};
use rustix::process::Pid;

/// A running container, as the host's kernel sees it.
pub struct Process {
    jailed: Jailed,
    reins: Arc<Reins>,
    /// From the first [`Process::counters`] on.
    meter: OnceLock<Option<Meter>>,
}

impl Process {
    pub fn new(jailed: Jailed, cgroup: Option<Cgroup>) -> Self {
        Self { jailed, reins: Arc::new(Reins(Mutex::new(cgroup))), meter: OnceLock::new() }
    }

    /// What others may do to it while it lives.
    pub fn reins(&self) -> &Arc<Reins> {
        &self.reins
    }

    /// A descriptor of its own that is readable when process 1 has ended.
    pub fn ended(&self) -> std::io::Result<OwnedFd> {
        self.jailed.pidfd().try_clone_to_owned()
    }

    /// What was used so far; zeros where nothing is counted.
    pub fn stats(&self) -> Stats {
        match self.meter.get() {
            Some(Some(meter)) => told(meter.read()),
            Some(None) | None => self.reins.stats(),
        }
    }

    /// Of [`Process::stats`] only what grows, at a tenth of the price: the accounts are held open from now on.
    pub fn counters(&self) -> Stats {
        let meter = self.meter.get_or_init(|| {
            self.reins.with(Cgroup::meter).unwrap_or_else(|error| {
                tracing::warn!(%error, "could not keep a container's accounts open");
                None
            })
        });
        meter.as_ref().map_or_else(|| self.reins.stats(), |meter| told(meter.read_counters()))
    }

    /// Lifts the processor quota, so that dying is not throttled. A kill works without, only slower.
    pub fn lift(&self) {
        if let Err(error) = self.reins.with(Cgroup::lift_cpu) {
            tracing::warn!(%error, "could not lift a container's processor quota");
        }
    }

    /// Imposes the processor quota again.
    pub fn restore(&self) {
        if let Err(error) = self.reins.with(Cgroup::restore_cpu) {
            tracing::warn!(%error, "could not impose a container's processor quota again");
        }
    }

    /// Process id of process 1, as the host numbers it.
    pub fn pid(&self) -> Pid {
        self.jailed.pid()
    }

    /// Ends it, and tells how it ended, which may be by itself before. Blocks.
    pub fn end(self) -> std::io::Result<ExitStatus> {
        let ended = self.jailed.kill().and_then(|()| self.jailed.wait());
        drop(self);
        ended
    }

    /// The container's namespaces, for a REPL to join.
    pub fn namespaces(&self) -> std::io::Result<Namespaces> {
        self.jailed.namespaces()
    }
}

/// The container's cgroup, for as long as there is one, in the hands of whoever limits, freezes or counts it.
pub struct Reins(Mutex<Option<Cgroup>>);

impl Reins {
    fn lock(&self) -> MutexGuard<'_, Option<Cgroup>> {
        // The only change is taking it out at the end.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the cgroup while nobody else does; nothing where there is none (any more).
    pub fn with<T>(&self, act: impl FnOnce(&Cgroup) -> Result<T, CgroupError>) -> Result<Option<T>, CgroupError> {
        self.lock().as_ref().map(act).transpose()
    }

    /// What was used so far; zeros where nothing is counted.
    pub fn stats(&self) -> Stats {
        told(self.with(Cgroup::stats).map(Option::unwrap_or_default))
    }
}

fn told(stats: Result<Stats, CgroupError>) -> Stats {
    stats.unwrap_or_else(|error| {
        tracing::warn!(%error, "could not read what a container has used");
        Stats::default()
    })
}

impl Drop for Process {
    /// Blocks until the kernel has ended every process inside.
    fn drop(&mut self) {
        let cgroup = self.reins.lock().take();
        if let Some(cgroup) = &cgroup
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
        if let Some(cgroup) = cgroup
            && let Err(error) = cgroup.remove()
        {
            tracing::error!(%error, "could not remove a container's cgroup");
        }
    }
}
