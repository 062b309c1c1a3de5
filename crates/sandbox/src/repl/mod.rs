//! The host's side of a container's REPL: its frames, how it is started, and one cell's talk with it.
//!
//! A REPL is trusted with nothing. It runs the code of its cells in its own process, so from the first cell on it may
//! say anything at any time: what breaks a rule of `frame.rs` ends it, and everything else in its container.

mod calls;
mod cell;
pub mod frame;
mod start;
mod warm;
mod warmth;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use belljar_jail::HandedFd;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::channel::{PacketError, Packets};
use crate::conversation::{ANSWER_WAIT_MAX, Conversation, Heard};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{FromGuest, Status};
use crate::gvisor::Below;
use crate::outcome::InterpreterEnd;
use crate::watch::watch;
use crate::zygote::Retired;

pub use calls::{Calls, HandedCalls, Piece};
pub use cell::{Asked, Handed, Source, Watch, wait};
use frame::{FromRepl, REPL_VERSION, ToRepl};
pub use start::start;
pub use warm::Ahead;
pub use warmth::Warmth;

/// For the zygote to say how a REPL ended whose end the kernel has told already.
const STATUS_WAIT_MAX: Duration = Duration::from_secs(1);

/// How the host learns of a REPL's end: its socket's is no proof, for what it forked may hold that open.
#[derive(Debug)]
pub enum ReplEnd {
    /// The supervisor's child: the supervisor tells.
    Cold,
    /// A zygote's child.
    Warm {
        /// Readable when it has ended.
        pidfd: Arc<OwnedFd>,
        /// As the host numbers it, and the zygote.
        pid: Pid,
        /// What the zygote says when it has reaped it.
        status: oneshot::Receiver<Status>,
    },
}

enum Watched {
    Cold,
    Warm { pidfd: AsyncFd<Arc<OwnedFd>>, pid: Pid, status: oneshot::Receiver<Status> },
}

/// A running REPL of a container.
pub struct Repl {
    channel: Packets,
    end: Watched,
    pid: u32,
    cells: u64,
}

/// A REPL, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedRepl {
    channel: HandedFd,
    /// Its pidfd, and its number on the host.
    zygotes_child: Option<(HandedFd, i32)>,
    pid: u32,
    cells: u64,
}

/// Something that a REPL did.
enum Event {
    Said(FromRepl, Vec<OwnedFd>),
    Ended(InterpreterEnd),
    Breach(&'static str),
}

/// A REPL could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReplError {
    /// The container lives, and nothing of the REPL is left.
    #[error("no Python interpreter: {0}")]
    NotStarted(String),
    /// The container is dead.
    #[error("the container is dead: {0}")]
    Dead(DeathReason),
    /// The host refused something.
    #[error(transparent)]
    Host(#[from] SandboxError),
}

impl From<ReplError> for SandboxError {
    fn from(error: ReplError) -> Self {
        match error {
            ReplError::NotStarted(reason) => Self::NotStarted(reason),
            ReplError::Dead(reason) => Self::Dead(reason),
            ReplError::Host(error) => error,
        }
    }
}

impl From<DeathReason> for ReplError {
    fn from(reason: DeathReason) -> Self {
        Self::Dead(reason)
    }
}

impl Repl {
    /// A REPL that has said `ready`; `pid` is the number it gave itself in its container. Must be called in a runtime.
    ///
    /// # Errors
    /// What epoll(7) answers.
    pub fn over(channel: Packets, end: ReplEnd, pid: u32) -> io::Result<Self> {
        let end = match end {
            ReplEnd::Cold => Watched::Cold,
            ReplEnd::Warm { pidfd, pid, status } => {
                Watched::Warm { pidfd: watch(pidfd, Interest::READABLE)?, pid, status }
            }
        };
        Ok(Self { channel, end, pid, cells: 0 })
    }

    /// What [`Repl::take_over`] needs.
    pub fn hand_over(&self) -> io::Result<HandedRepl> {
        let zygotes_child = match &self.end {
            Watched::Cold => None,
            Watched::Warm { pidfd, pid, .. } => {
                Some((HandedFd::hand_over(pidfd.get_ref())?, pid.as_raw_nonzero().get()))
            }
        };
        Ok(HandedRepl { channel: self.channel.hand_over()?, zygotes_child, pid: self.pid, cells: self.cells })
    }

    /// One that was handed over. A zygote's child is announced to whoever hears the zygotes. Must be called in a runtime.
    pub fn take_over(handed: HandedRepl, below: Option<Below>, zygotes: &mut Retired) -> io::Result<Self> {
        let HandedRepl { channel, zygotes_child, pid, cells } = handed;
        let channel = Packets::take_over(channel, below)?;
        let end = match zygotes_child {
            None => ReplEnd::Cold,
            Some((pidfd, host_pid)) => {
                let pidfd = Arc::new(pidfd.take_over()?);
                let status = zygotes.adopt(host_pid, Arc::clone(&pidfd));
                let host_pid = Pid::from_raw(host_pid).ok_or(io::ErrorKind::InvalidData)?;
                ReplEnd::Warm { pidfd, pid: host_pid, status }
            }
        };
        Ok(Self { cells, ..Self::over(channel, end, pid)? })
    }

    /// Waits for whatever comes next, from it or from the supervisor; nothing when that was the answer to `interrupt`,
    /// which is taken then. Cancel-safe. An error is the container's death.
    async fn event(
        &mut self,
        talk: &mut Conversation,
        interrupt: &mut Option<u64>,
    ) -> Result<Option<Event>, DeathReason> {
        let ended = match (&self.end, talk.cold_repl_status()) {
            (Watched::Cold, Some(status)) => Some(InterpreterEnd::from(status)),
            (Watched::Cold, None) | (Watched::Warm { .. }, _) => None,
        };
        if let Some(end) = ended {
            return Ok(Some(Event::Ended(end)));
        }
        let Self { channel, end, .. } = self;
        tokio::select! {
            // What it said last is heard before its end.
            biased;
            received = channel.receive() => match received {
                Ok((frame, fds)) => Ok(Some(Event::Said(frame, fds))),
                Err(PacketError::Breach(what)) => Ok(Some(Event::Breach(what))),
                // Closed by the code, or the end of it all: the kernel knows which, in a moment.
                Err(PacketError::Ended | PacketError::Io(_)) => self.after_silence(talk).await.map(Some),
            },
            heard = talk.heard() => match heard? {
                Heard::ReplEnded(status) => Ok(Some(Event::Ended(status.into()))),
                Heard::Frame((FromGuest::Interrupted { id }, fds)) if Some(id) == *interrupt && fds.is_empty() => {
                    *interrupt = None;
                    Ok(None)
                }
                Heard::Frame(_) => Err(DeathReason::Protocol("unasked")),
            },
            () = gone(end) => Ok(Some(Event::Ended(self.status().await))),
        }
    }

    /// The socket has ended: either the interpreter has too, or it can never be spoken to again.
    async fn after_silence(&mut self, talk: &mut Conversation) -> Result<Event, DeathReason> {
        let ended = async {
            match &self.end {
                Watched::Cold => match talk.heard().await? {
                    Heard::ReplEnded(status) => Ok(Some(InterpreterEnd::from(status))),
                    Heard::Frame(_) => Err(DeathReason::Protocol("unasked")),
                },
                warm @ Watched::Warm { .. } => {
                    gone(warm).await;
                    Ok(None)
                }
            }
        };
        match tokio::time::timeout(STATUS_WAIT_MAX, ended).await {
            Err(_it_lives_on) => Ok(Event::Breach("its channel was closed")),
            Ok(Err(reason)) => Err(reason),
            Ok(Ok(Some(end))) => Ok(Event::Ended(end)),
            Ok(Ok(None)) => Ok(Event::Ended(self.status().await)),
        }
    }

    /// How it ended, once its end is known.
    async fn status(&mut self) -> InterpreterEnd {
        let Watched::Warm { status, .. } = &mut self.end else {
            return InterpreterEnd::Unknown;
        };
        match tokio::time::timeout(STATUS_WAIT_MAX, status).await {
            Ok(Ok(status)) => status.into(),
            Ok(Err(_)) | Err(_) => InterpreterEnd::Unknown,
        }
    }

    /// Waits between cells until it is no longer as it should be. Cancel-safe.
    ///
    /// # Errors
    /// The container's death.
    pub async fn disturbed(&mut self, talk: &mut Conversation) -> Result<InterpreterEnd, DeathReason> {
        match self.event(talk, &mut None).await? {
            Some(Event::Said(..)) => Ok(InterpreterEnd::Breach("it spoke unasked")),
            Some(Event::Breach(what)) => Ok(InterpreterEnd::Breach(what)),
            Some(Event::Ended(end)) => Ok(end),
            None => Err(DeathReason::Protocol("unasked")),
        }
    }

    /// Waits, after everything in the container was killed, until the kernel has ended it too. Whether there is more to
    /// kill is for the caller to see: the children of a zygote's child become the supervisor's only by its end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(self) -> Result<Orphans, DeathReason> {
        let warm @ Watched::Warm { .. } = self.end else {
            return Ok(Orphans::Reaped);
        };
        match tokio::time::timeout(ANSWER_WAIT_MAX, gone(&warm)).await {
            Ok(()) => Ok(Orphans::Possible),
            Err(_elapsed) => Err(DeathReason::Unresponsive),
        }
    }
}

/// Whether a killed REPL may have had children that the supervisor did not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// The supervisor has waited for all there were.
    Reaped,
    /// It may not have known them yet.
    Possible,
}

async fn gone(end: &Watched) {
    match end {
        Watched::Cold => std::future::pending().await,
        Watched::Warm { pidfd, .. } => {
            // A descriptor that cannot be watched is as good as a process that cannot be trusted.
            let _readable_or_unwatchable = pidfd.readable().await;
        }
    }
}
