//! What a process keeps when it becomes another program: its descriptors, as numbers, and through them its children.
//!
//! A process that executes a program (`execve(2)`) stays the parent of its children, and keeps every descriptor that is not
//! to be closed then. So nothing that lives in a jail notices. The program learns the numbers from whoever it was.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::launch::{Jailed, Namespaces};
use crate::raw::{ignore_hangup, own_inherited};
use crate::realm::Realm;

/// Whether this program has handed anything over: then what it owns itself cannot be told from what it has inherited.
static HANDED: AtomicBool = AtomicBool::new(false);

/// A descriptor that outlives the program, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedFd(RawFd);

impl HandedFd {
    /// Keeps a descriptor open when this process executes another program. Until then it is the caller's as before.
    ///
    /// # Errors
    /// What `fcntl(2)` answers.
    pub fn hand_over(fd: impl AsFd) -> Result<Self, Errno> {
        let fd: BorrowedFd<'_> = fd.as_fd();
        HANDED.store(true, Ordering::SeqCst);
        fcntl_setfd(fd, fcntl_getfd(fd)?.difference(FdFlags::CLOEXEC))?;
        Ok(Self(fd.as_raw_fd()))
    }

    /// Takes an inherited descriptor, once: from then on it is closed when another program is executed, like all that a
    /// program makes itself, and by that it is told from those.
    ///
    /// # Errors
    /// `EBADF` when it is not open, not inherited, a standard stream, or taken already; `EPERM` in a program that has handed
    /// something over itself; what `fcntl(2)` answers.
    pub fn take_over(self) -> Result<OwnedFd, Errno> {
        if HANDED.load(Ordering::SeqCst) {
            return Err(Errno::PERM);
        }
        own_inherited(self.0)
    }

    /// The number, for whoever is told it another way.
    #[must_use]
    pub fn number(self) -> RawFd {
        self.0
    }

    /// A descriptor of this number, if there is one.
    #[must_use]
    pub fn numbered(number: RawFd) -> Self {
        Self(number)
    }
}

/// Executes a program in this one's place. What comes back is why it was not.
///
/// Until that program asks for it, a hangup signal is passed over: its default action would end the program before it is
/// ready, and all that it was to take over.
pub fn become_program(mut program: Command) -> io::Error {
    match ignore_hangup() {
        Ok(()) => program.exec(),
        Err(errno) => errno.into(),
    }
}

/// A container's process 1, or a zygote, for the program that the host's process is about to become.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedJail {
    pid: i32,
    pidfd: HandedFd,
    namespaces: Option<[HandedFd; 7]>,
    lifeline: Option<HandedFd>,
}

impl Jailed {
    /// What [`Jailed::take_over`] needs. This value stays good, and must not be dropped before the other program is
    /// executed.
    ///
    /// # Errors
    /// What `fcntl(2)` answers.
    pub fn hand_over(&self) -> Result<HandedJail, Errno> {
        let namespaces = self.opened_namespaces().map(|namespaces| namespaces.as_fds().map(HandedFd::hand_over));
        let namespaces = match namespaces {
            None => None,
            Some([user, mnt, pid, net, ipc, uts, cgroup]) => Some([user?, mnt?, pid?, net?, ipc?, uts?, cgroup?]),
        };
        Ok(HandedJail {
            pid: self.pid().as_raw_nonzero().get(),
            pidfd: HandedFd::hand_over(self.pidfd())?,
            namespaces,
            lifeline: self.lifeline().map(HandedFd::hand_over).transpose()?,
        })
    }

    /// The same process 1, in the program that its parent has become.
    ///
    /// # Errors
    /// `ECHILD` when it is no child of this process; `EBADF` and whatever else its descriptors are refused with. What had
    /// been taken over by then is closed.
    pub fn take_over(handed: HandedJail) -> Result<Self, Errno> {
        let HandedJail { pid, pidfd, namespaces, lifeline } = handed;
        let pidfd = pidfd.take_over()?;
        // Asks only: its end, if that has come, is still to be waited for.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::PidFd(pidfd.as_fd()), options)?;
        let pid = Pid::from_raw(pid).filter(|_| pid > 1).ok_or(Errno::INVAL)?;
        let namespaces = match namespaces.map(|namespaces| namespaces.map(HandedFd::take_over)) {
            None => None,
            Some([user, mnt, pid, net, ipc, uts, cgroup]) => {
                Some(Namespaces::of_these([user?, mnt?, pid?, net?, ipc?, uts?, cgroup?]))
            }
        };
        let lifeline = lifeline.map(HandedFd::take_over).transpose()?;
        Ok(Self::inherited(pid, pidfd, namespaces, lifeline))
    }
}

/// A realm, for the program that the host's process is about to become.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedRealm {
    namespace: HandedFd,
    identity: Identity,
}

impl Realm {
    /// What [`Realm::take_over`] needs.
    ///
    /// # Errors
    /// What `fcntl(2)` answers.
    pub fn hand_over(&self) -> Result<HandedRealm, Errno> {
        Ok(HandedRealm { namespace: HandedFd::hand_over(self.namespace())?, identity: self.identity() })
    }

    /// The same realm, in the program that the process which made it has become.
    ///
    /// # Errors
    /// As [`HandedFd::take_over`].
    pub fn take_over(handed: HandedRealm) -> Result<Self, Errno> {
        Ok(Self::of(handed.namespace.take_over()?, handed.identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn flags(fd: impl AsFd) -> FdFlags {
        fcntl_getfd(fd).expect("open")
    }

    #[test]
    fn what_was_not_handed_over_cannot_be_taken() {
        let own = File::open("/dev/null").expect("there");
        let number = HandedFd::numbered(own.as_raw_fd());
        assert_eq!(number.take_over().err(), Some(Errno::BADF), "it is this program's own");
        assert_eq!(HandedFd::numbered(-1).take_over().err(), Some(Errno::BADF));
        assert_eq!(HandedFd::numbered(1).take_over().err(), Some(Errno::BADF), "a standard stream");
        assert_eq!(HandedFd::numbered(1 << 20).take_over().err(), Some(Errno::BADF));
    }

    #[test]
    fn it_is_taken_once() {
        // As a program finds it that was executed: not to be closed then, and nobody's.
        let inherited =
            std::mem::ManuallyDrop::new(rustix::io::dup(File::open("/dev/null").expect("there")).expect("room"));
        let handed = HandedFd::numbered(inherited.as_raw_fd());
        let taken = handed.take_over().expect("inherited");
        assert!(flags(&taken).contains(FdFlags::CLOEXEC));
        assert_eq!(handed.take_over().err(), Some(Errno::BADF));
    }

    #[test]
    fn who_hands_over_takes_nothing() {
        let own: OwnedFd = File::open("/dev/null").expect("there").into();
        let handed = HandedFd::hand_over(&own).expect("open");
        assert!(!flags(&own).contains(FdFlags::CLOEXEC));
        assert_eq!(handed.take_over().err(), Some(Errno::PERM), "it has an owner");
    }
}
