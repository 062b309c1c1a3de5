//! The guest side: become process 1 of a jail.

use std::os::fd::OwnedFd;

use crate::step::{SetupError, Step};

/// The jail stands except for its last two walls, Landlock and seccomp.
///
/// The control socket is only handed out by [`Entered::seal`], so nothing from the host can be acted on before.
#[derive(Debug)]
pub struct Entered {
    control: OwnedFd,
}

/// Becomes process 1 of the jail that the host's `launch` described. To be called first thing by the guest program.
///
/// # Errors
/// The failed step; it has been reported to the host too. The caller must exit.
pub fn enter() -> Result<Entered, SetupError> {
    Err(SetupError {
        step: Step::ReadPlan,
        errno: libc::ENOSYS,
    })
}

impl Entered {
    /// Applies Landlock, then seccomp, tells the host that the jail is complete, and hands over the control socket.
    ///
    /// # Errors
    /// The failed step; it has been reported to the host too. The caller must exit.
    pub fn seal(self) -> Result<OwnedFd, SetupError> {
        Ok(self.control)
    }
}
