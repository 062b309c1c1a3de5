//! The system calls that no safe wrapper offers.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// The last error number of the calling thread.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Leaves namespaces shared with the host (`unshare(2)`).
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: no caller passes CLONE_FILES, the only flag that could take descriptors away from other threads.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Which side of [`clone_process_one`] or [`fork`] this is.
pub(crate) enum Side {
    /// The calling process; the new process has this id.
    Caller(Pid),
    /// The new process.
    New,
}

/// The namespaces that process 1 is born in: a user namespace, and a pid namespace in it, which no process can enter
/// itself.
const BIRTH_NAMESPACES: i32 = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;

/// The namespaces of a container that are not made before its process 1 is. Made together with those of
/// [`BIRTH_NAMESPACES`], they are made in the new user namespace.
pub(crate) const OWN_NAMESPACES: UnshareFlags = UnshareFlags::NEWNS.union(UnshareFlags::NEWCGROUP);

/// The others of a container, made in the realm.
pub(crate) const REALM_NAMESPACES: UnshareFlags =
    UnshareFlags::NEWNET.union(UnshareFlags::NEWIPC).union(UnshareFlags::NEWUTS);

/// Makes a copy of this process that is process 1 of a user and a pid namespace of its own, and of these, and whose parent
/// is this process's parent (`clone(2)` with `CLONE_PARENT`).
///
/// Only for a process with one thread.
pub(crate) fn clone_process_one(others: UnshareFlags) -> Result<Side, Errno> {
    let others = i32::try_from(others.bits()).map_err(|_| Errno::OVERFLOW)?;
    clone_sibling(BIRTH_NAMESPACES | others, std::ptr::null_mut())
}

/// As [`clone_process_one`], but with user and pid namespaces alone. Beside the id comes a pidfd, which is the caller's and
/// not the new process's.
pub(crate) fn bear_process_one() -> Result<(Side, Option<OwnedFd>), Errno> {
    let mut pidfd: libc::c_int = -1;
    let side = clone_sibling(BIRTH_NAMESPACES | libc::CLONE_PIDFD, &raw mut pidfd)?;
    let pidfd = match side {
        // SAFETY: the kernel has just made this descriptor for the caller (`clone(2)`, CLONE_PIDFD); nobody else has it.
        Side::Caller(_) => Some(unsafe { OwnedFd::from_raw_fd(pidfd) }),
        Side::New => None,
    };
    Ok((side, pidfd))
}

/// `pidfd` is null, or where the kernel is to put one (`CLONE_PIDFD`).
fn clone_sibling(flags: i32, pidfd: *mut libc::c_int) -> Result<Side, Errno> {
    let flags = libc::c_long::from(flags | libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork(2) but for the parent and the namespaces; the callers'
    // process has one thread, so the copy finds no lock held by a thread that it does not have. The third argument is
    // null, or a place for one integer that outlives the call, on every architecture.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, pidfd, 0_usize, 0_usize) };
    match pid {
        0 => Ok(Side::New),
        pid if pid > 0 => i32::try_from(pid).ok().and_then(Pid::from_raw).map(Side::Caller).ok_or(Errno::OVERFLOW),
        _ => Err(last_errno()),
    }
}

/// What a process does with its parent's memory, until it ends or executes a program.
pub(crate) trait Borrowed {
    /// Makes system calls and nothing else: it takes no lock, allocates nothing, does not panic. Returns an exit status.
    fn run(&mut self) -> i32;
}

/// The stack of such a process. It calls a few functions, one in the other.
const BORROWED_STACK_BYTES: usize = 32 * 1024;

/// Makes a process that runs `what` with this one's memory, while this one waits (`clone(2)`, `CLONE_VM` with `CLONE_VFORK`):
/// until it has ended or executed a program. Its signal handlers are the default ones, and all signals are blocked.
pub(crate) fn clone_borrowing<T: Borrowed>(what: &mut T) -> Result<Pid, Errno> {
    extern "C" fn run<T: Borrowed>(what: *mut libc::c_void) -> libc::c_int {
        // A copy of the table of handlers, not the parent's own. One of them would find another stack than its own.
        for signal in 1..32 {
            // SAFETY: the default action runs no code; where it may not be set, it was.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: it is what the caller below passes, which waits, and whose exclusive borrow lasts longer than that.
        let what = unsafe { &mut *what.cast::<T>() };
        // SAFETY: `_exit` has no preconditions. Returning would do the same, by way of the C library.
        unsafe { libc::_exit(what.run()) }
    }
    let mut stack = vec![0_u128; BORROWED_STACK_BYTES / size_of::<u128>()];
    // SAFETY: signal sets are plain structures of which all-zero is a value.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both sets outlive the calls.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end, which is aligned, and is used by nobody else; it and `what` outlive the new
    // process's use of them, for the call returns after that. No other thread touches `what`, which is borrowed exclusively.
    let pid =
        unsafe { libc::clone(run::<T>, stack.as_mut_ptr_range().end.cast(), flags, std::ptr::from_mut(what).cast()) };
    let made = if pid < 0 { Err(last_errno()) } else { Pid::from_raw(pid).ok_or(Errno::OVERFLOW) };
    // SAFETY: the set outlives the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    made
}

/// Makes a copy of this process (`fork(2)`); the copy has one thread.
pub(crate) fn fork() -> Result<Side, Errno> {
    // SAFETY: the copy finds locks as other threads held them, but the C library makes its allocator usable again,
    // and the one caller's copy uses nothing else that locks, and leaves by `exit_now`.
    match unsafe { libc::fork() } {
        0 => Ok(Side::New),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Side::Caller).ok_or_else(last_errno),
    }
}

/// Has the kernel put a stretch of another process's memory into large pages (`process_madvise(2)`, `MADV_COLLAPSE`).
pub(crate) fn collapse(process: BorrowedFd<'_>, place: usize, bytes: usize) -> Result<(), Errno> {
    let stretch = libc::iovec { iov_base: std::ptr::without_provenance_mut(place), iov_len: bytes };
    // SAFETY: the call reads one structure, which outlives it. The address in it is another process's, and what is done there
    // changes nothing that a program can see.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            &raw const stretch,
            1_usize,
            MADV_COLLAPSE,
            0_usize,
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// `madvise(2)`, which the `libc` crate does not have for every C library.
const MADV_COLLAPSE: libc::c_int = 25;

/// Bytes that were sent into a Unix socket and not yet received at its other end, as the kernel accounts for them
/// (`SIOCOUTQ`, unix(7)); zero when all was.
///
/// # Errors
/// What `ioctl(2)` answers.
pub fn not_received(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, at a pointer to one that outlives it, and keeps nothing.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(last_errno()),
    }
}

/// The newest Landlock interface of this kernel (`landlock_create_ruleset(2)`).
pub(crate) fn landlock_version() -> Result<u32, Errno> {
    const CREATE_RULESET_VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes a null pointer and touches no memory.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, CREATE_RULESET_VERSION)
    };
    u32::try_from(version).map_err(|_| last_errno())
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

/// Closes an inherited descriptor that [`take_inherited`] has made a copy of.
pub(crate) fn close_one(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: called once, for a number that the program was started with and that no Rust value owns.
    if unsafe { libc::close(fd) } == 0 { Ok(()) } else { Err(last_errno()) }
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

/// Makes an inherited descriptor this program's own, and to be closed by exec as all others are (`fcntl(2)`).
pub(crate) fn own_inherited(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_GETFD touches no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 || fd <= libc::STDERR_FILENO || flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: as above, with an integer argument.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: every descriptor that this program makes is closed by exec from the first, but for those it hands over, and
    // the one caller asks for none once it has done that. So one that is not closed by exec is inherited; and it is taken
    // here alone, once, for it is such a one no more.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Passes over SIGHUP from here on, in the program that this process executes, too (`signal(7)`).
pub(crate) fn ignore_hangup() -> Result<(), Errno> {
    // SAFETY: ignoring a signal runs no code of this process.
    if unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) } == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

/// Gives every ignored signal its default action again. A server started in the background by a shell ignores SIGINT,
/// and an ignored signal stays ignored through exec: no cell could be interrupted. The `kept` stay as they are.
pub(crate) fn default_signals(kept: &[i32]) -> Result<(), Errno> {
    // 32 and 33 are the C library's own, which it does not let anyone touch.
    for signal in (1..32).chain(34..65) {
        // SIGKILL and SIGSTOP have one action.
        if [libc::SIGKILL, libc::SIGSTOP].contains(&signal) || kept.contains(&signal) {
            continue;
        }
        // SAFETY: `sigaction` is a plain structure of which all-zero is a value; it is written by the call.
        let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null new action asks only; `present` outlives the call.
        if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut present) } != 0 {
            return Err(last_errno());
        }
        if present.sa_sigaction != libc::SIG_IGN {
            continue;
        }
        present.sa_sigaction = libc::SIG_DFL;
        // SAFETY: the default action runs no code of this process.
        if unsafe { libc::sigaction(signal, &raw const present, std::ptr::null_mut()) } != 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// Puts descriptors at fixed numbers, not to be closed by exec (`dup2(2)`). The targets must all be below `floor`.
pub(crate) fn place(fds: &[(BorrowedFd<'_>, RawFd)], floor: RawFd) -> Result<(), Errno> {
    // First out of the way of each other: no target may be another's source.
    let aside = fds
        .iter()
        .map(|&(fd, target)| Ok((rustix::io::fcntl_dupfd_cloexec(fd, floor)?, target)))
        .collect::<Result<Vec<_>, Errno>>()?;
    for (fd, target) in aside {
        // SAFETY: what `target` was is replaced; the caller, about to execute a program, uses nothing below `floor`.
        if unsafe { libc::dup2(fd.as_raw_fd(), target) } != target {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// Has the kernel kill this process when the other end of `socket`, on which nothing is ever sent, closes.
///
/// A signal on the death of the parent (`PR_SET_PDEATHSIG`) would come when the thread ends that started this process.
pub(crate) fn die_with(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd = socket.as_raw_fd();
    // SAFETY: these three take integers; the kernel sends the signal to this process alone (fcntl(2), F_SETSIG).
    let done = unsafe {
        libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, F_SETSIG, libc::SIGKILL) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::O_RDWR | libc::O_ASYNC) == 0
    };
    if !done {
        return Err(last_errno());
    }
    // What happened before is not signalled.
    let mut wait = [PollFd::new(&socket, PollFlags::IN)];
    match poll(&mut wait, Some(&Timespec::default()))? {
        0 => Ok(()),
        _ => Err(Errno::PIPE),
    }
}

/// `F_SETSIG` (`fcntl(2)`), which the `libc` crate does not have for every C library.
const F_SETSIG: i32 = 10;
