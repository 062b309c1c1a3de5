//! Request and answer over a container's control socket, with a limit on every wait.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use belljar_jail::HandedFd;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Received};
use crate::error::DeathReason;
use crate::frame::{FromGuest, Status, ToGuest};
use crate::gvisor::Below;
use crate::watch::watch;

/// For an answer that takes the guest no more than a few system calls. Generous: it shares its
/// processor quota with the code inside.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// The host's side of one container's talk. An error is the death of the container.
pub struct Conversation {
    channel: Channel,
    ended: AsyncFd<Arc<OwnedFd>>,
    stop: CancellationToken,
    requests: u64,
    cold_repl: ColdRepl,
}

/// What the supervisor has been asked and has said about a cold REPL's end, the one answer that comes out of turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum ColdRepl {
    None,
    /// Asked under this number.
    Runs(u64),
    Ended(Status),
}

/// A talk, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedConversation {
    channel: HandedFd,
    requests: u64,
    cold_repl: ColdRepl,
}

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// A frame that must be the answer to the request under way.
    Frame(Received),
    /// The cold REPL has ended.
    ReplEnded(Status),
}

impl Conversation {
    /// `ended` is readable when process 1 has ended. Must be called in a runtime.
    pub fn new(channel: Channel, ended: Arc<OwnedFd>, stop: CancellationToken) -> io::Result<Self> {
        let ended = watch(ended, Interest::READABLE)?;
        Ok(Self { channel, ended, stop, requests: 0, cold_repl: ColdRepl::None })
    }

    /// What [`Conversation::take_over`] needs. Nothing may be under way but a cell.
    pub fn hand_over(&self) -> io::Result<HandedConversation> {
        let Self { channel, requests, cold_repl, .. } = self;
        Ok(HandedConversation { channel: channel.hand_over()?, requests: *requests, cold_repl: *cold_repl })
    }

    /// One that was handed over. Must be called in a runtime.
    pub fn take_over(
        handed: HandedConversation,
        below: Option<Below>,
        ended: Arc<OwnedFd>,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let HandedConversation { channel, requests, cold_repl } = handed;
        let ended = watch(ended, Interest::READABLE)?;
        Ok(Self { channel: Channel::take_over(channel, below)?, ended, stop, requests, cold_repl })
    }

    /// As [`Channel::take_paths`].
    pub fn take_paths(&mut self, below: Below) {
        self.channel.take_paths(below);
    }

    /// The number of the next request.
    pub fn next_id(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Sends a request; the guest's socket being full for long is as bad as no answer.
    pub async fn send(&self, frame: &ToGuest, fds: &[BorrowedFd<'_>]) -> Result<(), DeathReason> {
        tokio::time::timeout(ANSWER_WAIT_MAX, self.channel.send(frame, fds))
            .await
            .unwrap_or(Err(DeathReason::Unresponsive))
    }

    /// The next frame, or why there is none: the container died, is to stop, or took longer than `wait_max`.
    pub async fn answer(&mut self, wait_max: Duration) -> Result<Received, DeathReason> {
        tokio::time::timeout(wait_max, self.frame()).await.unwrap_or(Err(DeathReason::Unresponsive))
    }

    /// As [`Conversation::answer`] without a limit, for where a command's own limit is watched. Cancel-safe. The end of
    /// a cold REPL is kept for [`Conversation::cold_repl_status`].
    pub async fn frame(&mut self) -> Result<Received, DeathReason> {
        loop {
            if let Heard::Frame(received) = self.heard().await? {
                return Ok(received);
            }
        }
    }

    /// As [`Conversation::frame`], telling of the end of a cold REPL too. Cancel-safe.
    pub async fn heard(&mut self) -> Result<Heard, DeathReason> {
        let (frame, fds) = tokio::select! {
            // What a dying guest said last is heard first.
            biased;
            received = self.channel.receive() => received?,
            _ = self.ended.readable() => return Err(DeathReason::SupervisorEnded),
            () = self.stop.cancelled() => return Err(DeathReason::Removed),
        };
        match (frame, self.cold_repl) {
            (FromGuest::ReplStatus { id, status }, ColdRepl::Runs(asked)) if id == asked && fds.is_empty() => {
                self.cold_repl = ColdRepl::Ended(status);
                Ok(Heard::ReplEnded(status))
            }
            (frame, _) => Ok(Heard::Frame((frame, fds))),
        }
    }

    /// Asks to be told of the end of the cold REPL that was just started.
    pub async fn watch_cold_repl(&mut self) -> Result<(), DeathReason> {
        let id = self.next_id();
        self.cold_repl = ColdRepl::Runs(id);
        self.send(&ToGuest::ReplStatus { id }, &[]).await
    }

    /// How the last cold REPL ended; none while it runs.
    pub fn cold_repl_status(&self) -> Option<Status> {
        match self.cold_repl {
            ColdRepl::Ended(status) => Some(status),
            ColdRepl::None | ColdRepl::Runs(_) => None,
        }
    }
}
