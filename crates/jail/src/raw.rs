//! The system calls that no safe wrapper offers.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// The last error number of the calling thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Leaves namespaces shared with the host (`unshare(2)`).
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: no caller passes CLONE_FILES, the only flag that could take descriptors away from other threads.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Which side of [`clone_sibling`] this is.
pub(crate) enum Side {
    /// The calling process; the new process has this id.
    Caller(Pid),
    /// The new process, a child of the caller's parent.
    Sibling,
}

/// Makes a copy of this process whose parent is this process's parent (`clone(2)` with `CLONE_PARENT`).
///
/// Only for a process with one thread.
pub(crate) fn clone_sibling() -> Result<Side, Errno> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork(2) but for the parent; the process has one
    // thread, so the copy finds no lock held by a thread that it does not have.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    match pid {
        0 => Ok(Side::Sibling),
        pid if pid > 0 => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Side::Caller)
            .ok_or(Errno::OVERFLOW),
        _ => Err(last_errno()),
    }
}

/// Ends this process without running exit handlers.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Closes every descriptor from `first` up (`close_range(2)`).
pub(crate) fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: called before this process has made any descriptor of its own, so none is owned by a Rust value.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Takes ownership of an inherited descriptor, if it is open.
pub(crate) fn take_inherited(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC with an integer argument touches no memory.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(last_errno());
    }
    // SAFETY: `copy` was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
