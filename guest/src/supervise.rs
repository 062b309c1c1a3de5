//! The supervisor's loop: frames in, ended children out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use belljar_jail::oom::OomAdjuster;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::statvfs;

use crate::channel::Channel;
use crate::checkpoint::{self, Stillness};
use crate::clean;
use crate::command;
use crate::files;
use crate::frame::{Failure, FromGuest, PROTOCOL_VERSION, Status, ToGuest};
use crate::quiet::Quiet;
use crate::tools::{Caller, Offer, Said};
use crate::warden;

/// Exit codes of process 1; the host reads no more out of them than that the container is dead.
pub const EXIT_NO_JAIL: u8 = 70;
const EXIT_PROTOCOL: u8 = 71;

/// Stands the jail up and serves the host until it goes away. No untrusted code runs before the seal.
pub fn main() -> ExitCode {
    // The step and its error number have gone to the host; nobody else listens.
    let Ok(mut entered) = belljar_jail::enter() else {
        return ExitCode::from(EXIT_NO_JAIL);
    };
    if entered.ward().is_some() {
        return warden::main(entered);
    }
    let means = Means { layer: entered.writable_layer().ok(), oom: entered.oom_adjuster() };
    let Ok(control) = entered.seal() else {
        return ExitCode::from(EXIT_NO_JAIL);
    };
    serve_until_the_end(Channel::new(control), means)
}

/// What process 1 alone holds, taken before the seal; nothing where another wall stands around it.
#[derive(Default)]
pub struct Means {
    /// What the code has written, by itself.
    layer: Option<OwnedFd>,
    /// Has the code killed before process 1 when memory runs out.
    oom: Option<OomAdjuster>,
}

impl Means {
    /// Starts something of the code's.
    fn spawn<T>(&self, spawn: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        match &self.oom {
            Some(adjuster) => adjuster.expendable(spawn)?,
            None => spawn(),
        }
    }
}

/// Serves the host until it goes away.
pub fn serve_until_the_end(channel: Channel, means: Means) -> ExitCode {
    match serve(channel, means) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_host_gone_or_senseless) => ExitCode::from(EXIT_PROTOCOL),
    }
}

fn serve(channel: Channel, means: Means) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let (running, repl, offer, still, quiet) = (None, Repl::None, None, None, Quiet::default());
    let mut supervisor = Supervisor { channel, signals, means, running, repl, offer, still, quiet };
    supervisor.channel.send(&FromGuest::Ready { version: PROTOCOL_VERSION }, &[])?;
    while supervisor.step()? {}
    Ok(())
}

struct Running {
    id: u64,
    output: String,
    pid: Pid,
    /// Then the rest of its process group goes with it.
    interrupted: bool,
}

/// A cold REPL.
#[derive(Clone, Copy)]
enum Repl {
    None,
    Runs {
        pid: Pid,
        /// The number under which the host has asked for its status.
        asked: Option<u64>,
    },
    Ended(Status),
}

struct Supervisor {
    channel: Channel,
    signals: SignalFd,
    means: Means,
    running: Option<Running>,
    repl: Repl,
    /// For the next or the running command.
    offer: Option<Offer>,
    /// While the code is stopped by the host's order.
    still: Option<Stillness>,
    /// Since a call, or an answer to one, of the running command.
    quiet: Quiet,
}

impl Supervisor {
    /// Waits for one thing to happen and sees to it; false when the host has gone.
    fn step(&mut self) -> io::Result<bool> {
        let offer = self.running.as_ref().and(self.offer.as_ref());
        let callers = offer.map(Offer::waited_for).unwrap_or_default();
        let mut waits = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.channel.as_fd(), PollFlags::POLLIN),
        ];
        waits.extend(callers.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)));
        match poll(&mut waits, self.quiet.timeout()) {
            Err(Errno::EINTR) => return Ok(true),
            Ok(0) => return self.look().map(|()| true),
            answer => answer?,
        };
        let mut ready = waits.iter().map(|wait| wait.any().unwrap_or(true));
        let (child, frame) = (ready.next().unwrap_or(true), ready.next().unwrap_or(true));
        let calling: Vec<Caller> =
            callers.iter().zip(ready).filter(|(_, ready)| *ready).map(|((caller, _), _)| *caller).collect();
        // What a command said before its end is passed on before that is.
        self.pass_on(&calling)?;
        if child {
            while self.signals.read_signal()?.is_some() {}
            self.reap()?;
        }
        if frame {
            let Some((request, fds)) = self.channel.receive()? else {
                return Ok(false);
            };
            self.handle(request, fds)?;
        }
        Ok(true)
    }

    /// Tells the host what callers of tools have said.
    fn pass_on(&mut self, calling: &[Caller]) -> io::Result<()> {
        let (Some(offer), Some(Running { id, .. })) = (&mut self.offer, &self.running) else {
            return Ok(());
        };
        for caller in calling {
            if let Some(Said { call, function, text, piece }) = offer.hear(*caller) {
                self.channel.send(&FromGuest::Called { id: *id, call, function, text, piece }, &[])?;
                self.quiet.disturb();
            }
        }
        Ok(())
    }

    /// Tells the host when all of the command's code waits.
    fn look(&mut self) -> io::Result<()> {
        match &self.running {
            Some(Running { id, .. }) if self.quiet.look() => self.channel.send(&FromGuest::Quiet { id: *id }, &[]),
            Some(_) => Ok(()),
            None => {
                self.quiet.forget();
                Ok(())
            }
        }
    }

    fn handle(&mut self, request: ToGuest, fds: Vec<OwnedFd>) -> io::Result<()> {
        match request {
            ToGuest::Run { id, output, env } => self.run(id, output, &env, fds),
            ToGuest::Kill { id, output } => self.kill_all(id, &output),
            ToGuest::Clean { id, output } => {
                let whole = clean::remove(&output);
                self.channel.send(&FromGuest::Cleaned { id, whole }, &[])
            }
            ToGuest::Open { id, path } => match files::open(&path) {
                Ok(file) => self.channel.send(&FromGuest::Opened { id }, &[file.as_fd()]),
                Err(failure) => self.fail(id, failure),
            },
            ToGuest::Repl { id, env } => self.start_repl(id, &env, fds),
            ToGuest::ReplStatus { id } => self.repl_status(id),
            ToGuest::Interrupt { id, pid } => self.interrupt(id, pid),
            ToGuest::Disk { id } => match statvfs("/") {
                Ok(disk) => {
                    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
                    self.channel.send(&FromGuest::Disk { id, free_bytes, free_inodes: disk.f_ffree }, &[])
                }
                Err(error) => self.fail(id, error.into()),
            },
            ToGuest::Output { id, output } => {
                let directory = command::output_directory(&output);
                let fds: Vec<_> = directory.iter().map(AsFd::as_fd).collect();
                self.channel.send(&FromGuest::Output { id }, &fds)
            }
            ToGuest::Pack { id } => match checkpoint::pack(self.means.layer.as_ref(), only(fds)?) {
                Ok(entries) => self.channel.send(&FromGuest::Packed { id, entries }, &[]),
                Err(failure) => self.fail(id, failure),
            },
            ToGuest::Still { id, still } => {
                self.still = still.then(Stillness::now);
                self.channel.send(&FromGuest::Stilled { id }, &[])
            }
            ToGuest::Unpack { id } => match checkpoint::unpack(only(fds)?) {
                Ok(entries) => self.channel.send(&FromGuest::Unpacked { id, entries }, &[]),
                Err(failure) => self.fail(id, failure),
            },
            ToGuest::Tools { id } => self.offer_tools(id, only(fds)?),
            ToGuest::Replies { replies } => {
                let texts = only(fds)?;
                if let Some(offer) = &mut self.offer {
                    replies.into_iter().for_each(|reply| offer.reply(reply, &texts));
                    self.quiet.disturb();
                }
                Ok(())
            }
            ToGuest::Write { id, path, size } => match files::write(&path, only(fds)?, size) {
                Ok(existed) => self.channel.send(&FromGuest::Written { id, existed }, &[]),
                Err(failure) => self.fail(id, failure),
            },
        }
    }

    fn fail(&self, id: u64, failure: Failure) -> io::Result<()> {
        self.channel.send(&FromGuest::Failed { id, failure }, &[])
    }

    fn run(&mut self, id: u64, output: String, env: &[(String, String)], fds: Vec<OwnedFd>) -> io::Result<()> {
        let Ok([text, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        if self.running.is_some() {
            return self.fail(id, Failure::Busy);
        }
        match self.means.spawn(|| command::spawn(&output, env, text, stdout, stderr)) {
            Ok(pid) => {
                self.running = Some(Running { id, output, pid, interrupted: false });
                self.channel.send(&FromGuest::Started { id }, &[])
            }
            Err(failure) => {
                self.offer = None;
                self.fail(id, failure)
            }
        }
    }

    fn offer_tools(&mut self, id: u64, names: OwnedFd) -> io::Result<()> {
        let offered = match &mut self.offer {
            Some(offer) => offer.change(names),
            none => Offer::new(names).map(|offer| *none = Some(offer)),
        };
        match offered {
            Ok(()) => self.channel.send(&FromGuest::Offered { id }, &[]),
            Err(failure) => self.fail(id, failure),
        }
    }

    fn start_repl(&mut self, id: u64, env: &[(String, String)], fds: Vec<OwnedFd>) -> io::Result<()> {
        let Ok([driver, socket]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        if matches!(self.repl, Repl::Runs { .. }) {
            return self.fail(id, Failure::Busy);
        }
        match self.means.spawn(|| command::spawn_repl(env, driver, socket)) {
            Ok(pid) => {
                self.repl = Repl::Runs { pid, asked: None };
                let pid = u32::try_from(pid.as_raw()).unwrap_or(u32::MAX);
                self.channel.send(&FromGuest::ReplStarted { id, pid }, &[])
            }
            Err(failure) => self.fail(id, failure),
        }
    }

    fn repl_status(&mut self, id: u64) -> io::Result<()> {
        match self.repl {
            Repl::Runs { pid, .. } => {
                self.repl = Repl::Runs { pid, asked: Some(id) };
                Ok(())
            }
            Repl::Ended(status) => self.channel.send(&FromGuest::ReplStatus { id, status }, &[]),
            Repl::None => self.fail(id, Failure::Errno(Errno::ESRCH as i32)),
        }
    }

    /// What cannot be reached has ended, which is what was wanted.
    fn interrupt(&mut self, id: u64, group: Option<u32>) -> io::Result<()> {
        let group = match group {
            Some(group) => i32::try_from(group).ok().filter(|group| *group > 1).map(Pid::from_raw),
            None => self.running.as_mut().map(|running| {
                running.interrupted = true;
                running.pid
            }),
        };
        if let Some(group) = group
            && killpg(group, Signal::SIGINT).is_err()
        {
            // A command that has just been started is not yet the head of its group.
            let _sent_or_gone = kill(group, Signal::SIGINT);
        }
        self.channel.send(&FromGuest::Interrupted { id }, &[])
    }

    /// Sees to every child that has ended: the command's and the REPL's end are told, an orphan's is nobody's business.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(status) => {
                    if let Some((pid, status)) = ended(status) {
                        self.repl_ended(pid, status)?;
                        self.command_ended(pid, status)?;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn command_ended(&mut self, pid: Pid, status: Status) -> io::Result<()> {
        let Some(running) = self.running.take_if(|running| running.pid == pid) else {
            return Ok(());
        };
        if running.interrupted {
            // Its number is not another's while a member is left, and without members there is nobody to hit but a
            // process that took the number since: inside the container either way.
            let _killed_or_gone = killpg(pid, Signal::SIGKILL);
        }
        self.offer = None;
        let (output, directory) = command::take_output(&running.output);
        let fds: Vec<_> = directory.iter().map(AsFd::as_fd).collect();
        self.channel.send(&FromGuest::Exited { id: running.id, status, output }, &fds)
    }

    fn repl_ended(&mut self, pid: Pid, status: Status) -> io::Result<()> {
        match self.repl {
            Repl::Runs { pid: of, asked } if of == pid => {
                self.repl = Repl::Ended(status);
                asked.map_or(Ok(()), |id| self.channel.send(&FromGuest::ReplStatus { id, status }, &[]))
            }
            Repl::Runs { .. } | Repl::Ended(_) | Repl::None => Ok(()),
        }
    }

    /// kill(2): -1 means every process of this pid namespace but process 1, in one go, which no fork can outrun.
    fn kill_all(&mut self, id: u64, output: &str) -> io::Result<()> {
        loop {
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
            match waitpid(None, None) {
                Ok(status) => {
                    if let Some((pid, status)) = ended(status) {
                        self.repl_ended(pid, status)?;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.running = None;
        self.offer = None;
        let directory = command::output_directory(output);
        let fds: Vec<_> = directory.iter().map(AsFd::as_fd).collect();
        self.channel.send(&FromGuest::Killed { id }, &fds)
    }
}

/// The one descriptor that a request carries.
fn only(fds: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    <[OwnedFd; 1]>::try_from(fds).map(|[fd]| fd).map_err(|_more_or_none| io::ErrorKind::InvalidData.into())
}

/// The child that has ended, if that is what was waited for.
fn ended(status: WaitStatus) -> Option<(Pid, Status)> {
    match status {
        // wait(2) keeps the low eight bits.
        WaitStatus::Exited(pid, code) => Some((pid, Status::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))),
        WaitStatus::Signaled(pid, signal, _) => {
            Some((pid, Status::Signal(u8::try_from(signal as i32).unwrap_or(u8::MAX))))
        }
        _ => None,
    }
}
