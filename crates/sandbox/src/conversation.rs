//! Request and answer over a container's control socket, with a limit on every wait.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Received};
use crate::error::DeathReason;
use crate::frame::ToGuest;
use crate::gvisor::Below;
use crate::watch::watch;

/// For an answer that takes the guest no more than a few system calls. Generous: it shares its
/// processor quota with the code inside.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// The host's side of one container's talk. An error is the death of the container.
pub struct Conversation {
    channel: Channel,
    ended: AsyncFd<OwnedFd>,
    stop: CancellationToken,
    requests: u64,
}

impl Conversation {
    /// `ended` is readable when process 1 has ended. Must be called in a runtime.
    pub fn new(channel: Channel, ended: OwnedFd, stop: CancellationToken) -> io::Result<Self> {
        let ended = watch(ended, Interest::READABLE)?;
        Ok(Self { channel, ended, stop, requests: 0 })
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

    /// As [`Conversation::answer`] without a limit, for where a command's own limit is watched. Cancel-safe.
    pub async fn frame(&mut self) -> Result<Received, DeathReason> {
        tokio::select! {
            // What a dying guest said last is heard first.
            biased;
            received = self.channel.receive() => received,
            _ = self.ended.readable() => Err(DeathReason::SupervisorEnded),
            () = self.stop.cancelled() => Err(DeathReason::Removed),
        }
    }
}
