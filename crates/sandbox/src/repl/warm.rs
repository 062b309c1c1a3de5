//! A REPL forked from a zygote, and the work that makes its pages its own.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use belljar_jail::cgroup::Cgroup;
use belljar_jail::{Namespaces, oom};

use crate::channel::Packets;
use crate::environment;
use crate::error::{DeathReason, SandboxError};
use crate::guest::Guest;
use crate::image::Image;
use crate::process::Reins;
use crate::zygote::{ForkError, Forked};

use super::start::greet;
use super::{Event, FromRepl, Repl, ReplEnd, ReplError, ToRepl, Warmth};

/// For a few plots and tables, on a machine that does much else.
const TOUCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// A zygote's child in a container's namespaces, which waits for `go`. Killed when dropped.
pub struct Ahead {
    asked: Warmth,
    channel: Packets,
    forked: Forked,
}

impl Ahead {
    /// Forks one; none when there is no zygote, or when it went wrong in a way that a cold start may not.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when this host has no socket for it.
    pub async fn fork(image: &Image, asked: Warmth, namespaces: Namespaces) -> Result<Option<Self>, SandboxError> {
        let (channel, theirs) = Packets::pair().map_err(SandboxError::io("make a REPL's socket"))?;
        match image.zygotes().fork(asked, namespaces, theirs).await {
            Ok(forked) => Ok(Some(Self { asked, channel, forked })),
            // Said once, where it was found out.
            Err(ForkError::NotWarm) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "a REPL could not be forked, it is started cold");
                Ok(None)
            }
        }
    }
}

/// Gets a REPL by forking; none when there is no zygote, or when it went wrong in a way that a cold start may not.
///
/// # Errors
/// [`ReplError`]; nothing of a REPL is left then.
pub async fn forked(guest: &mut Guest, warmth: Warmth) -> Result<Option<Repl>, ReplError> {
    // What a zygote's child would join is the ward: it would run beside gVisor, on the host's kernel.
    if guest.below().is_some() {
        return Ok(None);
    }
    let ahead = match guest.ahead.take().filter(|ahead| ahead.asked == warmth) {
        Some(ahead) => Some(ahead),
        None => match guest.process.namespaces() {
            Ok(namespaces) => Ahead::fork(guest.image(), warmth, namespaces).await?,
            Err(error) => {
                tracing::warn!(%error, "a container's namespaces could not be opened, its REPL is started cold");
                None
            }
        },
    };
    let Some(Ahead { mut channel, forked, .. }) = ahead else { return Ok(None) };
    let entrances = adopt(guest.reins(), &forked)?;
    let entrances: Vec<_> = entrances.iter().map(AsFd::as_fd).collect();
    // Killed when dropped before it has said that it has joined.
    match greet(&mut guest.talk, &mut channel, &environment::of_repl(), &entrances).await {
        Ok(pid) => {
            let host_pid = forked.pid();
            let Some((pidfd, status)) = forked.into_parts() else { return Ok(None) };
            let repl = Repl::over(channel, ReplEnd::Warm { pidfd, pid: host_pid, status }, pid);
            Ok(Some(repl.map_err(SandboxError::io("watch a REPL"))?))
        }
        Err(ReplError::NotStarted(reason)) => {
            tracing::warn!(%reason, "a forked REPL did not join its container, one is started cold");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a zygote's child, which does nothing before `go`, enters the container's cgroups by; and has it end before the host
/// when memory runs out.
///
/// Some ten system calls, none of which waits for anything: fewer than another thread would cost.
fn adopt(reins: &Reins, forked: &Forked) -> Result<Vec<OwnedFd>, SandboxError> {
    let entrances = reins.with(Cgroup::entrances).map_err(|error| SandboxError::Launch(error.to_string()))?;
    oom::prefer(forked.pid()).map_err(SandboxError::io("have a REPL end before the host"))?;
    Ok(entrances.unwrap_or_default())
}

impl Repl {
    /// Has it do representative work, so that its first cell need not wait for pages to be copied.
    ///
    /// # Errors
    /// [`ReplError::NotStarted`] when it did anything else: then it is the caller's to kill.
    pub async fn touch(&mut self, talk: &mut crate::conversation::Conversation) -> Result<(), ReplError> {
        let failed = |what: &str| ReplError::NotStarted(what.to_owned());
        self.channel.send(&ToRepl::Touch {}, &[]).await.map_err(|error| failed(&error.to_string()))?;
        match tokio::time::timeout(TOUCH_WAIT_MAX, self.event(talk, &mut None)).await {
            Ok(Ok(Some(Event::Said(FromRepl::Touched {}, fds)))) if fds.is_empty() => Ok(()),
            Ok(Ok(Some(Event::Said(..)) | None)) => Err(failed("it answered something else")),
            Ok(Ok(Some(Event::Breach(what)))) => Err(failed(what)),
            Ok(Ok(Some(Event::Ended(end)))) => Err(ReplError::NotStarted(end.to_string())),
            Ok(Err(reason)) => Err(ReplError::Dead(reason)),
            Err(_elapsed) => Err(ReplError::Dead(DeathReason::Unresponsive)),
        }
    }
}
