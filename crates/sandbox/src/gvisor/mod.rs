//! Containers of gVisor: process 1 and all code run on a kernel that is an ordinary program, runsc's sentry, which is
//! itself in a jail (`crates/jail/src/ward.rs`).
//!
//! The same guest program serves the same frames. Descriptors reach it, but gVisor lets none out: instead, the guest
//! names a path, which `below.rs` opens. Files are on the ward's overlay, which the host can see as it sees that of
//! a container in namespaces, with the same caps.

mod below;
mod oci;
mod runsc;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use belljar_jail::cgroup::{Limits, Stats};
use belljar_jail::{Attachment, ContainerSpec, HandedFd, JailPlan, Jailed, Realm, launch_ward};
use serde::{Deserialize, Serialize};

pub use below::Below;
pub use runsc::find;

use crate::channel::{Channel, Received};
use crate::error::{DeathReason, SandboxError};
use crate::frame::ToGuest;

/// What is read of what runsc says.
const WORDS_BYTES_MAX: usize = 4096;
/// Host threads of a sentry and its gofer before any code runs, generously.
const THREADS_OF_RUNSC: u64 = 128;
/// Host threads that stand for one process or thread of the code: its stub, and one kept for its next.
const THREADS_PER_PROCESS: u64 = 2;
/// Those of a container that does nothing, which is what is subtracted to tell its code's processes from runsc's.
const THREADS_IDLE: u64 = 32;

/// runsc, ready to start containers.
#[derive(Debug)]
pub struct Gvisor {
    program: File,
}

impl Gvisor {
    /// Finds runsc and keeps it in memory, where nobody can change it. Blocks.
    ///
    /// # Errors
    /// [`SandboxError::Gvisor`] when there is none, or what was found does not run.
    pub fn prepare(path: Option<&Path>) -> Result<Self, SandboxError> {
        Ok(Self { program: runsc::load(path)? })
    }

    /// Starts process 1 of a ward; it starts the container. Blocks for the ward alone.
    pub fn start(
        &self,
        realm: &Realm,
        guest: &File,
        spec: &ContainerSpec,
        limits: &Limits,
        attachment: Attachment<'_>,
        control: OwnedFd,
    ) -> Result<Jailed, SandboxError> {
        let plan = JailPlan::for_ward(spec, oci::ward(spec, limits)?);
        let plan = plan.map_err(|error| SandboxError::Gvisor(error.to_string()))?;
        launch_ward(realm, guest.as_fd(), &plan, attachment, control, self.program.as_fd())
            .map_err(|error| SandboxError::Gvisor(error.to_string()))
    }
}

/// The number of the one request that a ward takes at a time.
pub const PACK_ID: u64 = 1;

/// The jail around a container of gVisor, as the host holds it.
pub struct Ward {
    below: Below,
    /// To process 1 of the ward.
    socket: OwnedFd,
}

/// A ward, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedWard {
    root: HandedFd,
    socket: HandedFd,
}

impl Ward {
    pub fn new(below: Below, socket: OwnedFd) -> Self {
        Self { below, socket }
    }

    /// Keeps what is held for the program that this process is about to become.
    pub fn hand_over(&self) -> std::io::Result<HandedWard> {
        Ok(HandedWard { root: self.below.hand_over()?, socket: HandedFd::hand_over(&self.socket)? })
    }

    /// One that was handed over.
    pub fn take_over(handed: HandedWard) -> std::io::Result<Self> {
        Ok(Self::new(Below::take_over(handed.root)?, handed.socket.take_over()?))
    }

    /// The container's root directory.
    pub fn below(&self) -> &Below {
        &self.below
    }

    /// Has process 1 of the ward write what stands in the writable layer into `sink`; its answer. Dropped, it may be
    /// answered later: nothing else can be asked of this container then.
    pub async fn pack(&self, sink: OwnedFd) -> Result<Received, DeathReason> {
        let broken = |error: std::io::Error| DeathReason::Channel(error.to_string());
        let mut channel = Channel::over(self.socket.try_clone().map_err(broken)?).map_err(broken)?;
        channel.send(&ToGuest::Pack { id: PACK_ID }, &[sink.as_fd()]).await?;
        // The writing end is the ward's alone now: the reader hears of its end.
        drop(sink);
        channel.receive().await
    }
}

/// What runsc wrote while it started a container.
#[derive(Debug)]
pub struct Words {
    file: File,
}

impl Words {
    pub fn new(file: OwnedFd) -> Self {
        Self { file: File::from(file) }
    }

    /// Why no container started, in runsc's words where it has any.
    pub fn explain(&self, reason: &DeathReason) -> SandboxError {
        let mut said = vec![0; WORDS_BYTES_MAX];
        let count = self.file.read_at(&mut said, 0).unwrap_or(0);
        let said = String::from_utf8_lossy(&said[..count]);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        SandboxError::Gvisor(last.map_or_else(|| reason.to_string(), |line| line.trim().escape_debug().to_string()))
    }
}

/// The cgroup's limits: those of the container, and room for runsc's own threads. How many processes the code may have
/// is gVisor's to enforce (`RLIMIT_NPROC` in `oci.rs`).
pub fn outer_limits(limits: &Limits) -> Limits {
    let processes_max = limits.processes_max.saturating_mul(2 * THREADS_PER_PROCESS).saturating_add(THREADS_OF_RUNSC);
    Limits { processes_max, ..*limits }
}

/// The cgroup's accounts, with an estimate of the code's processes in place of the host's threads.
pub fn inner_stats(stats: Stats) -> Stats {
    let processes = stats.processes.saturating_sub(THREADS_IDLE) / THREADS_PER_PROCESS;
    Stats { processes: processes.max(1), ..stats }
}
