//! Process 1 of a container with its cgroup: whoever drops it kills everything inside and waits for the end.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belljar_jail::cgroup::{Cgroup, CgroupError, CgroupTree, Meter, Stats};
use belljar_jail::{HandedJail, Jailed, Namespaces, PidNamespace};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A running container, as the host's kernel sees it.
pub struct Process {
    jailed: Jailed,
    reins: Arc<Reins>,
}

impl Process {
    pub fn new(jailed: Jailed, cgroup: Option<Cgroup>) -> Self {
        Self { jailed, reins: Arc::new(Reins::of(cgroup)) }
    }

    /// What [`Process::take_over`] needs. This value must not be dropped before the other program is executed.
    pub fn hand_over(&self) -> io::Result<HandedProcess> {
        let cgroup = self.reins.with(Cgroup::made_as).map_err(io::Error::other)?;
        Ok(HandedProcess { jail: self.jailed.hand_over()?, cgroup })
    }

    /// A running container that was handed over. On an error it is killed and cleared away, as far as it was known by then.
    pub fn take_over(handed: HandedProcess, cgroups: Option<&CgroupTree>) -> io::Result<Self> {
        let HandedProcess { jail, cgroup } = handed;
        let jailed = Jailed::take_over(jail)?;
        let cgroup = match (cgroup, cgroups) {
            (Some((name, cpus)), Some(tree)) => Some(tree.inherited(&name, cpus).map_err(io::Error::other)?),
            (None, None) => None,
            // Its limits would be nobody's, or none.
            (Some(_), None) | (None, Some(_)) => return Err(io::Error::other("the host's cgroups have changed")),
        };
        Ok(Self::new(jailed, cgroup))
    }

    /// What others may do to it while it lives.
    pub fn reins(&self) -> &Arc<Reins> {
        &self.reins
    }

    /// Readable when process 1 has ended. One descriptor for all who want to know.
    pub fn ended(&self) -> Arc<OwnedFd> {
        self.jailed.shared_pidfd()
    }

    /// What was used so far; zeros where nothing is counted.
    pub fn stats(&self) -> Stats {
        self.reins.counted(Meter::read)
    }

    /// Of [`Process::stats`] only what grows.
    pub fn counters(&self) -> Stats {
        self.reins.counted(Meter::read_counters)
    }

    /// The processor time used so far, for whoever asks while the code stands still: that may be for long, so all other
    /// accounts are closed until somebody reads them.
    pub fn processor_while_still(&self) -> Duration {
        let micros = self.reins.counted(|meter| {
            meter.close_but_processor();
            meter.read_processor()
        });
        Duration::from_micros(micros)
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

    /// The container's pid namespace, for a REPL to be born in.
    pub fn pid_namespace(&self) -> std::io::Result<PidNamespace> {
        self.jailed.pid_namespace()
    }

    /// The container's namespaces, for a REPL to join.
    pub fn namespaces(&self) -> std::io::Result<Namespaces> {
        self.jailed.namespaces()
    }
}

/// A running container, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedProcess {
    jail: HandedJail,
    /// The name of its cgroup, and the processors that it may use.
    cgroup: Option<(String, f64)>,
}

/// The container's cgroup, for as long as there is one, in the hands of whoever limits, freezes or counts it.
pub struct Reins(Mutex<Option<Held>>);

struct Held {
    cgroup: Cgroup,
    /// Its accounts stay open from one cell to the next, but not while it stands still.
    meter: Meter,
}

impl Reins {
    fn of(cgroup: Option<Cgroup>) -> Self {
        Self(Mutex::new(cgroup.map(|cgroup| Held { meter: cgroup.meter(), cgroup })))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // The only change is taking it out at the end.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the cgroup while nobody else does; nothing where there is none (any more).
    pub fn with<T>(&self, act: impl FnOnce(&Cgroup) -> Result<T, CgroupError>) -> Result<Option<T>, CgroupError> {
        self.lock().as_ref().map(|held| act(&held.cgroup)).transpose()
    }

    /// Freezes what `wanted` then says may be frozen: asked with the reins in hand. A frozen container keeps no account open.
    pub fn freeze(&self, wanted: impl FnOnce() -> bool) -> Result<(), CgroupError> {
        match &mut *self.lock() {
            Some(held) if wanted() => {
                held.meter.close();
                held.cgroup.freeze()
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Keeps no account open until somebody reads one again.
    pub fn close_accounts(&self) {
        if let Some(held) = &mut *self.lock() {
            held.meter.close();
        }
    }

    /// What was used so far; zeros where nothing is counted.
    fn counted<T: Default>(&self, read: impl FnOnce(&mut Meter) -> Result<T, CgroupError>) -> T {
        let read = self.lock().as_mut().map(|held| read(&mut held.meter));
        read.transpose().map(Option::unwrap_or_default).unwrap_or_else(|error| {
            tracing::warn!(%error, "could not read what a container has used");
            T::default()
        })
    }
}

impl Drop for Process {
    /// Blocks until the kernel has ended every process inside.
    fn drop(&mut self) {
        let cgroup = self.reins.lock().take().map(|held| held.cgroup);
        // One signal, and the kernel ends all of its processes in one go, which no fork can outrun.
        if let Err(error) = self.jailed.kill_first() {
            tracing::error!(%error, "could not kill a container");
        }
        if let Some(cgroup) = &cgroup
            && let Err(error) = cgroup.let_die()
        {
            tracing::warn!(%error, "a container could not be made to die fast");
        }
        if let Err(error) = self.jailed.wait() {
            tracing::error!(%error, "could not wait for a container's end");
        }
        if let Some(cgroup) = cgroup {
            // Whatever is in it has got there by no way that is known.
            if !cgroup.is_empty()
                && let Err(error) = cgroup.kill()
            {
                tracing::warn!(%error, "could not kill a container by its cgroup");
            }
            if let Err(error) = cgroup.remove() {
                tracing::error!(%error, "could not remove a container's cgroup");
            }
        }
    }
}
