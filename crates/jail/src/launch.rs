//! The host side: start the guest program in a jail.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::cgroup::{Cgroup, CgroupError};
use crate::plan::JailPlan;
use crate::step::SetupError;

/// What limits the container's memory, processor time and processes.
#[derive(Debug, Clone, Copy)]
pub enum Attachment<'a> {
    /// This cgroup, joined before anything untrusted runs.
    Cgroup(&'a Cgroup),
    /// Nothing: the operator has accepted a host without usable cgroups.
    Unlimited,
}

/// A container's process 1. It is a child of the calling process, which must wait for it with [`Jailed::wait`].
#[derive(Debug)]
pub struct Jailed {
    pid: rustix::process::Pid,
    pidfd: OwnedFd,
}

impl Jailed {
    /// Process id in the caller's pid namespace.
    pub fn pid(&self) -> rustix::process::Pid {
        self.pid
    }

    /// Readable when process 1 has ended; for the caller's event loop.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills process 1, and with it, by the kernel's doing, every process of the container. Killing a dead one is fine.
    ///
    /// # Errors
    /// What `pidfd_send_signal(2)` answers, other than `ESRCH`.
    pub fn kill(&self) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// Reaps process 1. Blocks until it has ended. Call once.
    ///
    /// # Errors
    /// What `waitid(2)` answers.
    pub fn wait(&self) -> io::Result<std::process::ExitStatus> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

/// Why no container started. Nothing that was started is left, and no user code ran.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The guest program could not be started.
    #[error("could not start the guest program: {0}")]
    Spawn(#[source] io::Error),
    /// The cgroup could not be joined.
    #[error(transparent)]
    Attach(#[from] CgroupError),
    /// The user and group id maps could not be written.
    #[error("could not write {file} of the new user namespace: {source}")]
    IdMap {
        /// File under `/proc/<pid>`.
        file: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A step inside failed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The guest program ended without saying why.
    #[error("the guest program ended during set-up without a report")]
    Vanished,
    /// The guest program did not finish its set-up in time.
    #[error("jail set-up took more than {wall_s_max} s")]
    TimedOut {
        /// The limit.
        wall_s_max: u64,
    },
    /// Talking to the guest program failed.
    #[error("could not talk to the guest program: {0}")]
    Channel(#[source] io::Error),
}

/// Starts `program` (a sealed memfd) as process 1 of a jail. Blocks for the whole set-up, up to and including
/// the guest's [`crate::Entered::seal`]; call it from a thread that may block.
///
/// # Errors
/// [`LaunchError`]; everything started has been killed and reaped by then.
pub fn launch(
    program: BorrowedFd<'_>,
    plan: &JailPlan,
    attachment: Attachment<'_>,
    control: OwnedFd,
) -> Result<Jailed, LaunchError> {
    let _ = (program, plan, attachment, control);
    Err(LaunchError::Vanished)
}
