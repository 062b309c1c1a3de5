//! Process 1 of a ward: starts runsc, gives up every power, and ends when runsc or the host does, which ends all that
//! runsc has started.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, ExitCode, Stdio};

use belljar_jail::{Entered, Ward};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::channel;
use crate::frame::FromGuest;
use crate::supervise::EXIT_NO_JAIL;

/// Starts runsc and waits.
pub fn main(entered: Entered) -> ExitCode {
    let Some(started) = entered.ward().map(|ward| start(&ward)) else {
        return ExitCode::from(EXIT_NO_JAIL);
    };
    let (runsc, signals) = match started {
        Ok(started) => started,
        Err(error) => {
            entered.refuse(&error);
            return ExitCode::from(EXIT_NO_JAIL);
        }
    };
    match entered.seal() {
        Ok(control) => wait(runsc, &signals, control.as_fd()),
        Err(_reported) => ExitCode::from(EXIT_NO_JAIL),
    }
}

fn start(ward: &Ward<'_>) -> io::Result<(Pid, SignalFd)> {
    let [root, words] = ward.held()?;
    channel::send(ward.control(), &FromGuest::Ward {}, &[root.as_fd(), words.as_fd()])?;
    ward.pass_control_on()?;
    let runsc = Command::new(ward.program())
        .args(ward.arguments())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(words.try_clone()?)
        .stderr(words)
        .spawn()?;
    // Only now: runsc would inherit the mask. A child that has ended meanwhile is found by the first look.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    Ok((Pid::from_raw(i32::try_from(runsc.id()).unwrap_or(i32::MAX)), signals))
}

/// Until runsc has ended, or the host has closed its end of the control socket.
fn wait(runsc: Pid, signals: &SignalFd, control: BorrowedFd<'_>) -> ExitCode {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == runsc => {
                    return ExitCode::SUCCESS;
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let mut waits = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(control, PollFlags::empty())];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ExitCode::from(EXIT_NO_JAIL),
        }
        if waits[1].any().unwrap_or(true) {
            return ExitCode::SUCCESS;
        }
        while matches!(signals.read_signal(), Ok(Some(_))) {}
    }
}
