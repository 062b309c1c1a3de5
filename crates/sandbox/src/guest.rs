//! A live container as its keeper holds it: what talks and what runs.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_jail::HandedFd;
use belljar_jail::cgroup::{CgroupTree, Limits, Stats};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::channel::Channel;
use crate::command::DiskFree;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation, HandedConversation};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{FromGuest, PROTOCOL_VERSION};
use crate::gvisor::{self, Below, Words};
use crate::host::SharedHost;
use crate::image::Image;
use crate::options::Isolation;
use crate::outcome::InterpreterEnd;
use crate::process::{HandedProcess, Process, Reins};
use crate::repl::{HandedRepl, Repl};
use crate::zygote::Retired;

/// See the module's head.
pub struct Guest {
    pub talk: Conversation,
    /// From the first cell in Python on.
    pub repl: Option<Repl>,
    /// How the last REPL ended, where no cell has been told yet.
    pub lost: Option<InterpreterEnd>,
    pub process: Process,
    image: Arc<Image>,
    below: Option<Below>,
    limits: Limits,
}

/// A live container, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedGuest {
    talk: HandedConversation,
    repl: Option<HandedRepl>,
    lost: Option<InterpreterEnd>,
    process: HandedProcess,
    below: Option<HandedFd>,
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
        let talk = Conversation::new(channel, process.ended(), stop);
        let talk = talk.map_err(SandboxError::io("watch a container's process 1"))?;
        let mut guest = Self { talk, repl: None, lost: None, process, image, below: None, limits };
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

    /// What [`Guest::take_over`] needs. Nothing may be under way but a cell.
    pub fn hand_over(&self) -> io::Result<HandedGuest> {
        Ok(HandedGuest {
            talk: self.talk.hand_over()?,
            repl: self.repl.as_ref().map(Repl::hand_over).transpose()?,
            lost: self.lost.map(InterpreterEnd::handed),
            process: self.process.hand_over()?,
            below: self.below.as_ref().map(Below::hand_over).transpose()?,
            limits: self.limits,
        })
    }

    /// One that was handed over, of that image. Must be called in a runtime.
    ///
    /// # Errors
    /// What the host answers; nothing of it is left then, as far as it was known.
    pub fn take_over(
        handed: HandedGuest,
        image: Arc<Image>,
        cgroups: Option<&CgroupTree>,
        zygotes: &mut Retired,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let HandedGuest { talk, repl, lost, process, below, limits } = handed;
        let process = Process::take_over(process, cgroups)?;
        let below = below.map(Below::take_over).transpose()?;
        let talk = Conversation::take_over(talk, below.clone(), process.ended(), stop)?;
        let repl = repl.map(|repl| Repl::take_over(repl, below.clone(), zygotes)).transpose()?;
        Ok(Self { talk, repl, lost, process, image, below, limits })
    }

    /// What a ward says before it starts gVisor, and may be believed: no code has run.
    async fn hear_ward(&mut self) -> Result<Words, SandboxError> {
        let failed = |reason: DeathReason| SandboxError::Launch(reason.to_string());
        let (frame, fds) = self.talk.answer(ANSWER_WAIT_MAX).await.map_err(|reason| failed(self.explain(reason)))?;
        match (frame, <[OwnedFd; 2]>::try_from(fds)) {
            (FromGuest::Ward {}, Ok([root, words])) => {
                let below = Below::new(root);
                self.talk.take_paths(below.clone());
                self.below = Some(below);
                Ok(Words::new(words))
            }
            _ => Err(failed(DeathReason::Protocol("not a ward first"))),
        }
    }

    /// In gVisor, what the paths are below that come in place of descriptors.
    pub fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    /// What was used so far.
    pub fn stats(&self) -> Stats {
        let stats = self.process.stats();
        if self.below.is_some() { gvisor::inner_stats(stats) } else { stats }
    }

    /// What stands between it and the host.
    pub fn isolation(&self) -> Isolation {
        if self.below.is_some() { Isolation::Gvisor } else { Isolation::Namespaces }
    }

    /// What it was made from.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Waits until something happens that nobody asked for. Cancel-safe.
    ///
    /// # Errors
    /// The container's death; the answer is the end of its REPL.
    pub async fn disturbed(&mut self) -> Result<InterpreterEnd, DeathReason> {
        let Self { talk, repl, .. } = self;
        match repl {
            Some(repl) => repl.disturbed(talk).await,
            None => {
                let _frame = talk.frame().await?;
                Err(DeathReason::Protocol("unasked"))
            }
        }
    }

    /// The size of its disk.
    pub fn disk_max(&self) -> DiskFree {
        self.image.disk_max(&self.limits)
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
    pub fn ended(&self) -> Arc<OwnedFd> {
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
