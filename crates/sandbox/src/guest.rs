//! A live container as its keeper holds it: what talks and what runs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use belljar_jail::AtBirth;
use belljar_jail::cgroup::{CgroupTree, Limits, Stats};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cell::First;
use crate::channel::{Channel, Received};
use crate::command::DiskFree;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation, HandedConversation};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{Failure, FromGuest, PROTOCOL_VERSION, ToGuest};
use crate::gvisor::{self, Below, HandedWard, Ward, Words};
use crate::host::SharedHost;
use crate::image::Image;
use crate::options::Isolation;
use crate::outcome::InterpreterEnd;
use crate::process::{HandedProcess, Process, Reins};
use crate::repl::{Ahead, HandedRepl, Repl, Warmth};
use crate::zygote::Retired;

/// For a layer of the largest kind to be written or read.
pub const LAYER_WAIT_MAX: Duration = Duration::from_secs(600);

/// See the module's head.
pub struct Guest {
    pub talk: Conversation,
    /// From the first cell in Python on.
    pub repl: Option<Repl>,
    /// Until it is that.
    pub ahead: Option<Ahead>,
    /// Until anything is asked of it, if it was made ahead of need.
    pub first: Option<First>,
    /// How the last REPL ended, where no cell has been told yet.
    pub lost: Option<InterpreterEnd>,
    pub process: Process,
    image: Arc<Image>,
    ward: Option<Ward>,
    limits: Limits,
}

/// A live container, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedGuest {
    talk: HandedConversation,
    repl: Option<HandedRepl>,
    lost: Option<InterpreterEnd>,
    process: HandedProcess,
    ward: Option<HandedWard>,
    limits: Limits,
}

impl Guest {
    /// Starts a container and hears its first word. A REPL that it is to have is forked meanwhile, and waits for
    /// [`crate::repl::start`].
    pub async fn start(
        host: &SharedHost,
        image: Arc<Image>,
        name: String,
        isolation: Isolation,
        limits: Limits,
        stop: CancellationToken,
        ahead: Option<Warmth>,
    ) -> Result<Self, SandboxError> {
        let (channel, theirs) = Channel::pair().map_err(SandboxError::io("make a control socket"))?;
        let (born, birth) = oneshot::channel();
        let starting = {
            let (host, image) = (SharedHost::clone(host), Arc::clone(&image));
            let (forks, mut born) = (ahead.is_some(), Some(born));
            tokio::task::spawn_blocking(move || {
                let mut tell = |namespace| drop(born.take().map(|born| born.send(namespace)));
                let at_birth: Option<AtBirth<'_>> = if forks { Some(&mut tell) } else { None };
                host.start(&image, &name, isolation, &limits, theirs, at_birth)
            })
        };
        let forking = async {
            match (ahead, birth.await) {
                (Some(warmth), Ok(namespace)) => Ahead::fork(&image, warmth, namespace).await,
                (None, _) | (_, Err(_)) => Ok(None),
            }
        };
        let (process, ahead) = tokio::join!(starting, forking);
        let process = process.map_err(|error| SandboxError::Launch(error.to_string()))??;
        let talk = Conversation::new(channel, process.ended(), stop);
        let talk = talk.map_err(SandboxError::io("watch a container's process 1"))?;
        let mut guest =
            Self { talk, repl: None, ahead: ahead?, first: None, lost: None, process, image, ward: None, limits };
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
            ward: self.ward.as_ref().map(Ward::hand_over).transpose()?,
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
        let HandedGuest { talk, repl, lost, process, ward, limits } = handed;
        let process = Process::take_over(process, cgroups)?;
        let ward = ward.map(Ward::take_over).transpose()?;
        let below = ward.as_ref().map(Ward::below);
        let talk = Conversation::take_over(talk, below.cloned(), process.ended(), stop)?;
        let repl = repl.map(|repl| Repl::take_over(repl, below.cloned(), zygotes)).transpose()?;
        Ok(Self { talk, repl, ahead: None, first: None, lost, process, image, ward, limits })
    }

    /// What a ward says before it starts gVisor, and may be believed: no code has run.
    async fn hear_ward(&mut self) -> Result<Words, SandboxError> {
        let failed = |reason: DeathReason| SandboxError::Launch(reason.to_string());
        let (frame, fds) = self.talk.answer(ANSWER_WAIT_MAX).await.map_err(|reason| failed(self.explain(reason)))?;
        match (frame, <[OwnedFd; 3]>::try_from(fds)) {
            (FromGuest::Ward {}, Ok([root, words, socket])) => {
                let ward = Ward::new(Below::new(root), socket);
                self.talk.take_paths(ward.below().clone());
                self.ward = Some(ward);
                Ok(Words::new(words))
            }
            _ => Err(failed(DeathReason::Protocol("not a ward first"))),
        }
    }

    /// In gVisor, what the paths are below that come in place of descriptors.
    pub fn below(&self) -> Option<&Below> {
        self.ward.as_ref().map(Ward::below)
    }

    /// Has everything that the code has written put into `sink` as a layer, while the code is still.
    ///
    /// # Errors
    /// The container's death; the inner one is a layer that cannot be.
    pub async fn pack(&mut self, sink: OwnedFd) -> Result<Result<u64, Failure>, DeathReason> {
        match &self.ward {
            None => {
                let id = self.talk.next_id();
                self.talk.send(&ToGuest::Pack { id }, &[sink.as_fd()]).await?;
                // The writing end is the guest's alone now: the reader hears of its end.
                drop(sink);
                packed(self.talk.answer(LAYER_WAIT_MAX).await?, id)
            }
            Some(ward) => {
                still(&mut self.talk, true).await?;
                let answer = tokio::select! {
                    answer = tokio::time::timeout(LAYER_WAIT_MAX, ward.pack(sink)) => answer,
                    // The code is still, and the guest is asked nothing.
                    frame = self.talk.frame() => return Err(frame.err().unwrap_or(DeathReason::Protocol("unasked"))),
                };
                let packed = packed(answer.unwrap_or(Err(DeathReason::Unresponsive))?, gvisor::PACK_ID)?;
                still(&mut self.talk, false).await?;
                Ok(packed)
            }
        }
    }

    /// What was used so far.
    pub fn stats(&self) -> Stats {
        let stats = self.process.stats();
        if self.ward.is_some() { gvisor::inner_stats(stats) } else { stats }
    }

    /// What stands between it and the host.
    pub fn isolation(&self) -> Isolation {
        if self.ward.is_some() { Isolation::Gvisor } else { Isolation::Namespaces }
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

/// Stops the code, or lets it go on.
async fn still(talk: &mut Conversation, still: bool) -> Result<(), DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Still { id, still }, &[]).await?;
    match talk.answer(ANSWER_WAIT_MAX).await? {
        (FromGuest::Stilled { id: of }, fds) if of == id && fds.is_empty() => Ok(()),
        _ => Err(DeathReason::Protocol("out of turn while the code is stopped")),
    }
}

/// What whoever was asked under this number to pack has to say.
fn packed(answer: Received, id: u64) -> Result<Result<u64, Failure>, DeathReason> {
    match answer {
        (FromGuest::Packed { id: of, entries }, fds) if of == id && fds.is_empty() => Ok(Ok(entries)),
        (FromGuest::Failed { id: of, failure }, fds) if of == id && fds.is_empty() => Ok(Err(failure)),
        _ => Err(DeathReason::Protocol("out of turn while packing a layer")),
    }
}
