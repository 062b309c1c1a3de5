//! The host's side of the zygotes: warmed interpreters that fork REPLs into containers.
//!
//! [`Zygotes`] is what everybody else holds: of each kind, how it is, and where to ask for a fork. Behind each stands one
//! task (`attendant.rs`) that starts it, talks to it, and starts it again when it has ended. Without a zygote a REPL is
//! started cold; nobody waits for one to come up.

mod attendant;
mod frame;
mod ledger;
mod retired;
mod start;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_jail::PidNamespace;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::frame::Status;
use crate::repl::Warmth;

pub use attendant::{Attendance, attend};
pub use frame::ZYGOTE_VERSION;
pub use retired::{HandedZygote, Pensions, Retired};

/// Requests that wait for their turn; beyond that, whoever asks waits to ask.
const QUEUE_MAX: usize = 64;

/// How one zygote is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZygoteStatus {
    /// Nobody has needed it yet.
    Off,
    /// It imports its libraries.
    Starting,
    /// It forks.
    Warm {
        /// Version of its interpreter.
        python: String,
        /// What it could not do so that its children copy little; nothing, where starts are as fast as they can be.
        missing: Vec<String>,
    },
    /// It has ended and will be started again; until then REPLs are started cold.
    Down {
        /// Why it ended.
        reason: String,
    },
    /// This machine or image cannot have one: REPLs are started cold.
    Impossible {
        /// Why.
        reason: String,
    },
}

/// How REPLs can be had: each of the two zygotes of the present image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmthStatus {
    /// With numpy, pandas and matplotlib.
    pub core: ZygoteStatus,
    /// With all that the image has.
    pub all: ZygoteStatus,
}

/// What an attendant may be asked for.
pub(crate) enum Errand {
    Fork(ForkRequest),
    /// This process is about to become another program: the attendant tells what it has, and does nothing more.
    HandOver(oneshot::Sender<io::Result<HandedZygote>>),
}

/// Asks for a REPL's process.
pub(crate) struct ForkRequest {
    namespace: PidNamespace,
    /// The REPL's end of its socket.
    socket: OwnedFd,
    reply: oneshot::Sender<Result<Forked, ForkError>>,
}

/// No REPL came of it; one can be started cold.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error("no zygote is warm")]
    NotWarm,
    #[error("the zygote ended")]
    Ended,
    #[error("the zygote could not fork: {0}")]
    Refused(Errno),
    #[error("the zygote did not answer in time")]
    Silent,
}

/// A fork that was asked for. What comes of it is killed when this is dropped.
#[derive(Debug)]
pub struct Forking {
    answer: oneshot::Receiver<Result<Forked, ForkError>>,
}

impl Forking {
    /// Waits for it.
    ///
    /// # Errors
    /// [`ForkError`]; nothing was forked that lives.
    pub async fn done(self) -> Result<Forked, ForkError> {
        self.answer.await.unwrap_or(Err(ForkError::Ended))
    }
}

/// A zygote's child, which waits for `go`. Killed when dropped before it is somebody's.
#[derive(Debug)]
pub struct Forked {
    pid: Pid,
    living: Option<(Arc<OwnedFd>, oneshot::Receiver<Status>)>,
}

impl Forked {
    /// As the host numbers it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd, and how it will have ended.
    pub fn into_parts(mut self) -> Option<(Arc<OwnedFd>, oneshot::Receiver<Status>)> {
        self.living.take()
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if let Some((pidfd, _)) = &self.living
            && let Err(errno) = pidfd_send_signal(&**pidfd, Signal::KILL)
            && errno != Errno::SRCH
        {
            tracing::error!(%errno, "could not kill a REPL that nobody wants");
        }
    }
}

/// See the module's head.
pub struct Zygotes {
    core: Line,
    all: Line,
}

/// How one zygote is reached.
struct Line {
    status: watch::Receiver<ZygoteStatus>,
    errands: mpsc::Sender<Errand>,
    wanted: watch::Sender<Wanted>,
}

/// Whether there is to be a zygote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    NotYet,
    Now,
}

impl Zygotes {
    /// Both, and what their attendants need. Those in `from_the_start` are wanted at once.
    pub fn new(from_the_start: &[Warmth]) -> (Self, [Attendance; 2]) {
        let (core, attend_core) = line(Warmth::Core, from_the_start);
        let (all, attend_all) = line(Warmth::All, from_the_start);
        (Self { core, all }, [attend_core, attend_all])
    }

    fn line(&self, warmth: Warmth) -> &Line {
        match warmth {
            Warmth::Core => &self.core,
            Warmth::All => &self.all,
        }
    }

    /// How they are.
    pub fn status(&self) -> WarmthStatus {
        WarmthStatus { core: self.core.status.borrow().clone(), all: self.all.status.borrow().clone() }
    }

    /// How one is, for whoever waits for it to change.
    pub fn watch(&self, warmth: Warmth) -> watch::Receiver<ZygoteStatus> {
        self.line(warmth).status.clone()
    }

    /// Whether a fork would be tried.
    pub fn is_warm(&self, warmth: Warmth) -> bool {
        matches!(*self.line(warmth).status.borrow(), ZygoteStatus::Warm { .. })
    }

    /// Has a REPL forked into the namespace, from the zygote of that warmth or, while there is none, from a lesser one.
    /// What is not there yet is started for the next time.
    ///
    /// # Errors
    /// [`ForkError`]; nothing will be forked.
    pub async fn fork(&self, warmth: Warmth, namespace: PidNamespace, socket: OwnedFd) -> Result<Forking, ForkError> {
        self.line(warmth).wanted.send_replace(Wanted::Now);
        let from = if self.is_warm(warmth) { warmth } else { Warmth::Core };
        if !self.is_warm(from) {
            return Err(ForkError::NotWarm);
        }
        let (reply, answer) = oneshot::channel();
        let request = ForkRequest { namespace, socket, reply };
        self.line(from).errands.send(Errand::Fork(request)).await.map_err(|_ended| ForkError::Ended)?;
        Ok(Forking { answer })
    }

    /// Those that are warm, for the program that this process is about to become. The others, which have no children, are
    /// ended by `stop`, and their ends waited for.
    pub async fn hand_over(&self, stop: &CancellationToken) -> io::Result<Vec<HandedZygote>> {
        let (mut handed, mut ending) = (Vec::new(), Vec::new());
        for warmth in [Warmth::Core, Warmth::All] {
            let (reply, answer) = oneshot::channel();
            let asked = self.is_warm(warmth) && self.line(warmth).errands.send(Errand::HandOver(reply)).await.is_ok();
            // One that ends at this very moment is no more to be handed over.
            match if asked { answer.await.ok() } else { None } {
                Some(zygote) => handed.push(zygote?),
                None => ending.push(self.watch(warmth)),
            }
        }
        stop.cancel();
        for mut status in ending {
            // An attendant that is done says nothing more.
            while status.changed().await.is_ok() {}
        }
        Ok(handed)
    }
}

fn line(warmth: Warmth, from_the_start: &[Warmth]) -> (Line, Attendance) {
    let wanted = if from_the_start.contains(&warmth) { Wanted::Now } else { Wanted::NotYet };
    let (status, watched) = watch::channel(ZygoteStatus::Off);
    let (errands, requests) = mpsc::channel(QUEUE_MAX);
    let (wanting, wanted) = watch::channel(wanted);
    (Line { status: watched, errands, wanted: wanting }, Attendance { warmth, status, requests, wanted })
}
