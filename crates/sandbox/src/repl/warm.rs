//! A REPL forked from a zygote, and the work that makes its pages its own.

use std::time::Duration;

use belljar_jail::cgroup::Cgroup;
use belljar_jail::{PidNamespace, oom};

use crate::channel::Packets;
use crate::environment;
use crate::error::{DeathReason, SandboxError};
use crate::guest::Guest;
use crate::image::Image;
use crate::zygote::{ForkError, Forking};

use super::{Event, FromRepl, Repl, ReplEnd, ReplError, ToRepl, Warmth, start};

/// For a few plots and tables, on a machine that does much else.
const TOUCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// A zygote's child in a container's pid namespace, as soon as it is forked; it waits for `go`. Killed when dropped.
pub struct Ahead {
    asked: Warmth,
    channel: Packets,
    forking: Forking,
}

impl Ahead {
    /// Asks for one; none when there is no zygote.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when this host has no socket for it.
    pub async fn fork(image: &Image, asked: Warmth, namespace: PidNamespace) -> Result<Option<Self>, SandboxError> {
        let (channel, theirs) = Packets::pair().map_err(SandboxError::io("make a REPL's socket"))?;
        match image.zygotes().fork(asked, namespace, theirs).await {
            Ok(forking) => Ok(Some(Self { asked, channel, forking })),
            Err(error) => {
                not_forked(&error);
                Ok(None)
            }
        }
    }
}

fn not_opened(error: &std::io::Error) {
    tracing::warn!(%error, "a container's namespaces could not be opened, its REPL is started cold");
}

fn not_forked(error: &ForkError) {
    match error {
        // Said once, where it was found out.
        ForkError::NotWarm => {}
        error => tracing::warn!(%error, "a REPL could not be forked, it is started cold"),
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
        None => match guest.process.pid_namespace() {
            Ok(namespace) => Ahead::fork(guest.image(), warmth, namespace).await?,
            Err(error) => {
                not_opened(&error);
                None
            }
        },
    };
    let Some(Ahead { mut channel, forking, .. }) = ahead else { return Ok(None) };
    let namespaces = match guest.process.namespaces() {
        Ok(namespaces) => namespaces,
        Err(error) => {
            not_opened(&error);
            return Ok(None);
        }
    };
    let entrances = guest.reins().with(Cgroup::entrances).map_err(|error| SandboxError::Launch(error.to_string()))?;
    let with_go: Vec<_> = namespaces.into_fds().into_iter().chain(entrances.into_iter().flatten()).collect();
    // What it is to do first lies there when it is born: then nobody waits for the host to wake up.
    let said = start::say_go(&channel, &environment::of_repl(), &with_go).await;
    // Killed when dropped before it has said that it has joined.
    let forked = match forking.done().await {
        Ok(forked) => forked,
        Err(error) => {
            not_forked(&error);
            return Ok(None);
        }
    };
    oom::prefer(forked.pid()).map_err(SandboxError::io("have a REPL end before the host"))?;
    let joined = match said {
        Ok(()) => start::hear_ready(&mut guest.talk, &mut channel).await,
        Err(error) => Err(error),
    };
    match joined {
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
