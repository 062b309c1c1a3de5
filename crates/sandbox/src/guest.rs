//! A live container as its keeper holds it: process, channel, and a limit on every wait for an answer.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use belljar_jail::cgroup::Stats;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Received};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{FromGuest, PROTOCOL_VERSION, ToGuest};
use crate::host::SharedHost;
use crate::process::Process;
use crate::watch::watch;

/// For an answer that takes the guest no more than a few system calls. Generous: it shares its processor quota with
/// the code inside.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// See the module's head.
pub struct Guest {
    pub channel: Channel,
    process: Process,
    ended: AsyncFd<OwnedFd>,
    stop: CancellationToken,
    requests: u64,
    oom_kills_at_start: u64,
}

impl Guest {
    /// Starts a container and hears its first word.
    pub async fn start(
        host: &SharedHost,
        name: String,
        stop: CancellationToken,
    ) -> Result<Self, SandboxError> {
        let (channel, theirs) =
            Channel::pair().map_err(SandboxError::io("make a control socket"))?;
        let starting = {
            let host = SharedHost::clone(host);
            tokio::task::spawn_blocking(move || host.start(&name, theirs))
        };
        let process = starting
            .await
            .map_err(|error| SandboxError::Launch(error.to_string()))??;
        let ended = process
            .ended()
            .and_then(|pidfd| watch(pidfd, Interest::READABLE))
            .map_err(SandboxError::io("watch a container's process 1"))?;
        let oom_kills_at_start = process.stats().oom_kills;
        let mut guest = Self {
            channel,
            process,
            ended,
            stop,
            requests: 0,
            oom_kills_at_start,
        };
        match guest.answer(ANSWER_WAIT_MAX).await {
            Ok((
                FromGuest::Ready {
                    version: PROTOCOL_VERSION,
                },
                fds,
            )) if fds.is_empty() => Ok(guest),
            Ok(_) => Err(SandboxError::Launch(
                DeathReason::Protocol("not ready first").to_string(),
            )),
            Err(reason) => Err(SandboxError::Launch(reason.to_string())),
        }
    }

    /// The number of the next request.
    pub fn next_id(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// What was used so far.
    pub fn stats(&self) -> Stats {
        self.process.stats()
    }

    /// Sends a request; the guest's socket being full for long is as bad as no answer.
    pub async fn send(&self, frame: &ToGuest, fds: &[BorrowedFd<'_>]) -> Result<(), DeathReason> {
        match tokio::time::timeout(ANSWER_WAIT_MAX, self.channel.send(frame, fds)).await {
            Ok(Err(_)) => Err(self.why_ended()),
            Ok(Ok(())) => Ok(()),
            Err(_elapsed) => Err(DeathReason::Unresponsive),
        }
    }

    /// The next frame, or why there is none: the container died, is to stop, or took longer than `wait_max`.
    pub async fn answer(&mut self, wait_max: Duration) -> Result<Received, DeathReason> {
        tokio::time::timeout(wait_max, self.frame())
            .await
            .unwrap_or(Err(DeathReason::Unresponsive))
    }

    /// As [`Guest::answer`] without a limit, for where a command's own limit is watched. Cancel-safe.
    pub async fn frame(&mut self) -> Result<Received, DeathReason> {
        let received = tokio::select! {
            // What a dying guest said last is heard first.
            biased;
            received = self.channel.receive() => received,
            _ = self.ended.readable() => Err(DeathReason::SupervisorEnded),
            () = self.stop.cancelled() => Err(DeathReason::Removed),
        };
        match received {
            Err(DeathReason::SupervisorEnded) => Err(self.why_ended()),
            other => other,
        }
    }

    fn why_ended(&self) -> DeathReason {
        if self.stats().oom_kills > self.oom_kills_at_start {
            DeathReason::OutOfMemory
        } else {
            DeathReason::SupervisorEnded
        }
    }
}
