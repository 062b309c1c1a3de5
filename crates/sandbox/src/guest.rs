//! A live container as its keeper holds it: what talks and what runs.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_jail::cgroup::{Limits, Stats};
use tokio_util::sync::CancellationToken;

use crate::channel::Channel;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{FromGuest, PROTOCOL_VERSION};
use crate::host::SharedHost;
use crate::gvisor::{self, Below, Words};
use crate::image::Image;
use crate::options::Isolation;
use crate::process::{Process, Reins};

/// See the module's head.
pub struct Guest {
    pub talk: Conversation,
    process: Process,
    image: Arc<Image>,
    isolation: Isolation,
    limits: Limits,
}

impl Guest {
    /// Starts a container and hears its first word.
    pub async fn start(
        host: &SharedHost,
        image: Arc<Image>,
        name: String,
        isolation: Isolation,
        limits: Limits,
        stop: CancellationToken,
    ) -> Result<Self, SandboxError> {
        let (channel, theirs) = Channel::pair().map_err(SandboxError::io("make a control socket"))?;
        let starting = {
            let (host, image) = (SharedHost::clone(host), Arc::clone(&image));
            tokio::task::spawn_blocking(move || host.start(&image, &name, isolation, &limits, theirs))
        };
        let process = starting.await.map_err(|error| SandboxError::Launch(error.to_string()))??;
        let talk = process.ended().and_then(|ended| Conversation::new(channel, ended, stop));
        let talk = talk.map_err(SandboxError::io("watch a container's process 1"))?;
        let mut guest = Self { talk, process, image, isolation, limits };
        let words = match isolation {
            Isolation::Namespaces => None,
            Isolation::Gvisor => Some(guest.hear_ward().await?),
        };
        match guest.talk.answer(ANSWER_WAIT_MAX).await {
            Ok((FromGuest::Ready { version: PROTOCOL_VERSION }, fds)) if fds.is_empty() => Ok(guest),
            Ok(_) => Err(SandboxError::Launch(DeathReason::Protocol("not ready first").to_string())),
            Err(reason) => {
                let reason = guest.explain(reason);
                Err(words.map_or_else(|| SandboxError::Launch(reason.to_string()), |words| words.explain(&reason)))
            }
        }
    }

    /// What a ward says before it starts gVisor, and may be believed: no code has run.
    async fn hear_ward(&mut self) -> Result<Words, SandboxError> {
        let failed = |reason: DeathReason| SandboxError::Launch(reason.to_string());
        let (frame, fds) = self.talk.answer(ANSWER_WAIT_MAX).await.map_err(|reason| failed(self.explain(reason)))?;
        match (frame, <[OwnedFd; 2]>::try_from(fds)) {
            (FromGuest::Ward {}, Ok([root, words])) => {
                self.talk.take_paths(Below::new(root));
                Ok(Words::new(words))
            }
            _ => Err(failed(DeathReason::Protocol("not a ward first"))),
        }
    }

    /// What was used so far.
    pub fn stats(&self) -> Stats {
        let stats = self.process.stats();
        match self.isolation {
            Isolation::Namespaces => stats,
            Isolation::Gvisor => gvisor::inner_stats(stats),
        }
    }

    /// What stands between it and the host.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// What it was made from.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Waits, with nothing asked of it, until it is no longer as it should be. Cancel-safe.
    pub async fn rest(&mut self) -> DeathReason {
        self.talk.frame().await.err().unwrap_or(DeathReason::Protocol("unasked"))
    }

    /// The container's own limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Its limits have been changed to these.
    pub fn limited_to(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What others may do to it while it lives.
    pub fn reins(&self) -> &Arc<Reins> {
        self.process.reins()
    }

    /// A descriptor that is readable when process 1 has ended.
    pub fn ended(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        self.process.ended()
    }

    /// Why the guest ended, if that is all that is known: the kernel may have had a reason.
    pub fn explain(&self, reason: DeathReason) -> DeathReason {
        match reason {
            // Its cgroup was new with it, so whatever is counted there is its own.
            DeathReason::SupervisorEnded | DeathReason::Channel(_) if self.stats().oom_kills > 0 => {
                DeathReason::OutOfMemory
            }
            reason => reason,
        }
    }
}
