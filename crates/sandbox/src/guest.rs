//! A live container as its keeper holds it: what talks and what runs.

use belljar_jail::cgroup::Stats;
use tokio_util::sync::CancellationToken;

use crate::channel::Channel;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{FromGuest, PROTOCOL_VERSION};
use crate::host::SharedHost;
use crate::outcome::InterpreterEnd;
use crate::process::Process;
use crate::repl::Repl;

/// See the module's head.
pub struct Guest {
    pub talk: Conversation,
    /// From the first cell in Python on.
    pub repl: Option<Repl>,
    /// How the last REPL ended, where no cell has been told yet.
    pub lost: Option<InterpreterEnd>,
    pub process: Process,
    oom_kills_at_start: u64,
}

impl Guest {
    /// Starts a container and hears its first word.
    pub async fn start(host: &SharedHost, name: String, stop: CancellationToken) -> Result<Self, SandboxError> {
        let (channel, theirs) = Channel::pair().map_err(SandboxError::io("make a control socket"))?;
        let starting = {
            let host = SharedHost::clone(host);
            tokio::task::spawn_blocking(move || host.start(&name, theirs))
        };
        let process = starting.await.map_err(|error| SandboxError::Launch(error.to_string()))??;
        let talk = process.ended().and_then(|ended| Conversation::new(channel, ended, stop));
        let talk = talk.map_err(SandboxError::io("watch a container's process 1"))?;
        let oom_kills_at_start = process.stats().oom_kills;
        let mut guest = Self { talk, repl: None, lost: None, process, oom_kills_at_start };
        match guest.talk.answer(ANSWER_WAIT_MAX).await {
            Ok((FromGuest::Ready { version: PROTOCOL_VERSION }, fds)) if fds.is_empty() => Ok(guest),
            Ok(_) => Err(SandboxError::Launch(DeathReason::Protocol("not ready first").to_string())),
            Err(reason) => Err(SandboxError::Launch(guest.explain(reason).to_string())),
        }
    }

    /// What was used so far.
    pub fn stats(&self) -> Stats {
        self.process.stats()
    }

    /// Why the guest ended, if that is all that is known: the kernel may have had a reason.
    pub fn explain(&self, reason: DeathReason) -> DeathReason {
        match reason {
            DeathReason::SupervisorEnded | DeathReason::Channel(_)
                if self.stats().oom_kills > self.oom_kills_at_start =>
            {
                DeathReason::OutOfMemory
            }
            reason => reason,
        }
    }
}
