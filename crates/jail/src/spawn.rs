//! Starting a program of the code's from process 1 of a container: one clone, one exec.
//!
//! What has to be set in the new process alone, between the two, the standard library sets only after a copy of the whole
//! process, or by executing a program that sets it and executes the next. This borrows the parent's memory instead, as
//! `posix_spawn(3)` does, and like that runs nothing but system calls in it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::privileges::limit_code;
use crate::raw::{Borrowed, clone_borrowing, last_errno};

/// Copies of descriptors are put out of each other's way here before they go to their places.
const ASIDE: RawFd = 64;

/// Of the code, whatever that of process 1 is.
const UMASK: libc::mode_t = 0o022;

/// As a shell says that it cannot execute something.
const EXIT_NOT_EXECUTED: i32 = 127;

/// A program to be started as the code: with a session of its own, the code's limit of open files, nothing blocked and
/// nothing ignored.
#[derive(Debug)]
pub struct Code<'a> {
    /// Files to execute, the first that can be.
    pub paths: Vec<CString>,
    /// Its arguments, its own name first.
    pub arguments: Vec<CString>,
    /// Its whole environment, each `NAME=value`.
    pub environment: Vec<CString>,
    /// Where it starts; `/` where that cannot be.
    pub directory: &'a CStr,
    /// Said on its standard error then.
    pub gone: &'a [u8],
    /// What it gets as descriptors 0, 1, 2, and so on. Of the others it gets those that exec does not close.
    pub descriptors: Vec<BorrowedFd<'a>>,
}

/// A child of the calling process, and what went wrong in it before it was the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spawned {
    /// Its process id.
    pub pid: Pid,
    /// Otherwise it ends with the exit status 127.
    pub executed: Result<(), Errno>,
}

impl Code<'_> {
    /// Starts it; returns when it has been executed, or has failed.
    ///
    /// # Errors
    /// What `clone(2)` answers; nothing was started.
    pub fn spawn(&self) -> Result<Spawned, Errno> {
        let terminated = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let mut child = Child {
            code: self,
            arguments: terminated(&self.arguments),
            environment: terminated(&self.environment),
            aside: vec![-1; self.descriptors.len()],
            executed: Ok(()),
        };
        let pid = clone_borrowing(&mut child)?;
        Ok(Spawned { pid, executed: child.executed })
    }
}

/// What the child works with, and says.
struct Child<'a> {
    code: &'a Code<'a>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    /// Room for the copies, made by the parent: the child allocates nothing.
    aside: Vec<RawFd>,
    executed: Result<(), Errno>,
}

impl Borrowed for Child<'_> {
    fn run(&mut self) -> i32 {
        self.executed = Err(match self.become_code() {
            Ok(never) => match never {},
            Err(errno) => errno,
        });
        EXIT_NOT_EXECUTED
    }
}

impl Child<'_> {
    fn become_code(&mut self) -> Result<std::convert::Infallible, Errno> {
        limit_code()?;
        // A child leads no process group yet, so this cannot fail.
        rustix::process::setsid()?;
        let gone = rustix::process::chdir(self.code.directory).is_err();
        for (copy, fd) in self.aside.iter_mut().zip(&self.code.descriptors) {
            // SAFETY: F_DUPFD_CLOEXEC with an integer argument touches no memory.
            *copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ASIDE) };
            if *copy < 0 {
                return Err(last_errno());
            }
        }
        for (&copy, target) in self.aside.iter().zip(0..) {
            // SAFETY: the table of descriptors is the child's own, and nothing in it is used any more but these.
            if unsafe { libc::dup2(copy, target) } != target {
                return Err(last_errno());
            }
        }
        if gone {
            rustix::process::chdir(c"/")?;
            // SAFETY: the text outlives the call, which reads no more than that. Whoever does not listen does not want to know.
            let _said_or_not = unsafe { libc::write(2, self.code.gone.as_ptr().cast(), self.code.gone.len()) };
        }
        // SAFETY: an integer in, an integer out.
        unsafe { libc::umask(UMASK) };
        nothing_blocked()?;
        let mut failed = Errno::NOENT;
        for path in &self.code.paths {
            // SAFETY: each is a string that ends with a zero, each list ends with a null, and all outlive the call.
            unsafe { libc::execve(path.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr()) };
            failed = last_errno();
            if !matches!(failed, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) {
                break;
            }
        }
        Err(failed)
    }
}

/// What waits is delivered now; [`clone_borrowing`] has seen to it that no handler is left.
fn nothing_blocked() -> Result<(), Errno> {
    // SAFETY: a signal set is a plain structure of which all-zero is a value.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives both calls.
    let done = unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    /// What a child says on its standard output and error, and its exit status.
    fn said(paths: &[&CStr], script: &CStr, directory: &CStr) -> (String, Option<i32>, Spawned) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let null = File::open("/dev/null").expect("there");
        let code = Code {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            arguments: [c"sh", c"-c", script].map(CStr::to_owned).to_vec(),
            environment: vec![c"A=b".to_owned()],
            directory,
            gone: b"gone\n",
            descriptors: vec![null.as_fd(), write.as_fd(), write.as_fd()],
        };
        let spawned = code.spawn().expect("spawned");
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).expect("text");
        let ended = waitid(WaitId::Pid(spawned.pid), WaitIdOptions::EXITED).expect("a child").expect("ended");
        (text, ended.exit_status(), spawned)
    }

    #[test]
    fn it_has_what_it_was_given_and_a_session_of_its_own() {
        let script = c"echo $A; pwd; umask; cut -d' ' -f6 </proc/$$/stat; echo $$; \
                       grep -E '^Sig(Blk|Ign)' /proc/$$/status | tr -d '\t'; exit 3";
        let (text, status, spawned) = said(&[c"/nowhere/sh", c"/bin/sh"], script, c"/proc");
        let pid = spawned.pid.as_raw_nonzero();
        let (told, ignored) = text.split_once("SigIgn:").expect("told last");
        assert_eq!(told, format!("b\n/proc\n0022\n{pid}\n{pid}\nSigBlk:0000000000000000\n"));
        // The two behind the 31 standard ones are the C library's own.
        let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
        assert_eq!(ignored & ((1 << 31) - 1), 0);
        assert_eq!((status, spawned.executed), (Some(3), Ok(())));
    }

    #[test]
    fn what_is_missing_is_told() {
        let (text, status, spawned) = said(&[c"/nowhere/sh"], c"echo never", c"/");
        assert_eq!((text.as_str(), status, spawned.executed), ("", Some(127), Err(Errno::NOENT)));
        let (text, status, _) = said(&[c"/bin/sh"], c"pwd", c"/nowhere");
        assert_eq!((text.as_str(), status), ("gone\n/\n", Some(0)));
    }
}
