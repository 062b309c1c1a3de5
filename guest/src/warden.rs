//! Process 1 of a ward: starts runsc, gives up every power, and ends when runsc or the host does, which ends all that
//! runsc has started. Meanwhile it writes what the code has written as a layer when it is asked to: it alone sees that by
//! itself, without the image below.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

use belljar_jail::{Entered, Ward};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::channel::{self, Channel};
use crate::checkpoint;
use crate::frame::{FromGuest, ToGuest};
use crate::supervise::EXIT_NO_JAIL;

/// Starts runsc and waits.
pub fn main(entered: Entered) -> ExitCode {
    let Some(started) = entered.ward().map(|ward| start(&ward)) else {
        return ExitCode::from(EXIT_NO_JAIL);
    };
    let started = started.and_then(|started| Ok((started, entered.writable_layer()?)));
    let (started, layer) = match started {
        Ok(started) => started,
        Err(error) => {
            entered.refuse(&error);
            return ExitCode::from(EXIT_NO_JAIL);
        }
    };
    match entered.seal() {
        Ok(control) => wait(started, &layer, control.as_fd()),
        Err(_reported) => ExitCode::from(EXIT_NO_JAIL),
    }
}

/// What was started, and what is to be listened to.
struct Started {
    runsc: Pid,
    signals: SignalFd,
    host: Channel,
}

fn start(ward: &Ward<'_>) -> io::Result<Started> {
    let [root, words] = ward.held()?;
    let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    channel::send(ward.control(), &FromGuest::Ward {}, &[root.as_fd(), words.as_fd(), theirs.as_fd()])?;
    drop(theirs);
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
    let runsc = Pid::from_raw(i32::try_from(runsc.id()).unwrap_or(i32::MAX));
    Ok(Started { runsc, signals, host: Channel::new(ours) })
}

/// Until runsc has ended, or the host has closed its end of the control socket or of the ward's own.
fn wait(started: Started, layer: &OwnedFd, control: BorrowedFd<'_>) -> ExitCode {
    let Started { runsc, signals, mut host } = started;
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
        let mut waits = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(control, PollFlags::empty()),
            PollFd::new(host.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ExitCode::from(EXIT_NO_JAIL),
        }
        if waits[1].any().unwrap_or(true) {
            return ExitCode::SUCCESS;
        }
        if waits[2].any().unwrap_or(true) && !matches!(answer(&mut host, layer), Ok(true)) {
            return ExitCode::SUCCESS;
        }
        while matches!(signals.read_signal(), Ok(Some(_))) {}
    }
}

/// Does what the host asks; false when it has gone, or makes no sense.
fn answer(host: &mut Channel, layer: &OwnedFd) -> io::Result<bool> {
    let Some((ToGuest::Pack { id }, mut fds)) = host.receive()? else { return Ok(false) };
    let (Some(sink), true) = (fds.pop(), fds.is_empty()) else { return Ok(false) };
    match checkpoint::pack_ward(layer, sink) {
        Ok(entries) => host.send(&FromGuest::Packed { id, entries }, &[])?,
        Err(failure) => host.send(&FromGuest::Failed { id, failure }, &[])?,
    }
    Ok(true)
}
