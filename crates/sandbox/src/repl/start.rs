//! Getting a REPL for a container.

use std::os::fd::{AsFd, OwnedFd};

use crate::channel::{PacketError, Packets};
use crate::command::said;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation, Heard};
use crate::environment;
use crate::error::{DeathReason, SandboxError};
use crate::frame::{FromGuest, ToGuest};
use crate::guest::Guest;
use crate::kill;
use crate::program;

use super::warm;
use super::{FromRepl, REPL_VERSION, Repl, ReplEnd, ReplError, ToRepl, Warmth};

/// The largest process id there can be (proc_sys_kernel(5), pid_max), and so the largest that is believed.
const PID_MAX: u32 = 1 << 22;

/// Gets a REPL into a container that has none.
///
/// # Errors
/// [`ReplError`]; nothing of a REPL is left then.
pub async fn start(guest: &mut Guest, warmth: Warmth) -> Result<Repl, ReplError> {
    match warm::forked(guest, warmth).await? {
        Some(repl) => Ok(repl),
        None => cold(guest).await,
    }
}

/// By executing `python3` in the container.
async fn cold(guest: &mut Guest) -> Result<Repl, ReplError> {
    let env = environment::of_repl();
    let (mut channel, theirs) = Packets::pair().map_err(SandboxError::io("make a REPL's socket"))?;
    if let Some(below) = guest.below() {
        channel.take_paths(below.clone());
    }
    let driver = program::driver().map_err(SandboxError::io("keep the REPL's driver in memory"))?;
    let id = guest.talk.next_id();
    let frame = ToGuest::Repl { id, env: env.clone() };
    guest.talk.send(&frame, &[driver.as_fd(), theirs.as_fd()]).await?;
    // Only the REPL's copy is left, so that its end is heard.
    drop(theirs);
    match guest.talk.answer(ANSWER_WAIT_MAX).await? {
        (FromGuest::ReplStarted { id: of, .. }, fds) if of == id && fds.is_empty() => {}
        (FromGuest::Failed { id: of, failure }, fds) if of == id && fds.is_empty() => {
            return Err(ReplError::NotStarted(said(failure)));
        }
        _ => return Err(DeathReason::Protocol("out of turn while starting a REPL").into()),
    }
    guest.talk.watch_cold_repl().await?;
    // Born in its container's cgroups.
    let joined = match say_go(&channel, &env, &[]).await {
        Ok(()) => hear_ready(&mut guest.talk, &mut channel).await,
        Err(error) => Err(error),
    };
    match joined {
        Ok(pid) => Ok(Repl::over(channel, ReplEnd::Cold, pid).map_err(SandboxError::io("watch a REPL"))?),
        Err(error @ ReplError::Dead(_)) => Err(error),
        Err(error) => {
            kill::everything(guest).await?;
            Err(error)
        }
    }
}

/// Says `go`, with what is still to be joined.
///
/// # Errors
/// [`ReplError::NotStarted`] when nobody hears it any more.
pub async fn say_go(channel: &Packets, env: &[(String, String)], with: &[OwnedFd]) -> Result<(), ReplError> {
    let with: Vec<_> = with.iter().map(AsFd::as_fd).collect();
    channel.send(&ToRepl::Go { env }, &with).await.map_err(|error| ReplError::NotStarted(error.to_string()))
}

/// Waits for `ready`; the answer is the REPL's process id in its container.
///
/// # Errors
/// [`ReplError::NotStarted`] when it said anything else or nothing: then it is the caller's to kill.
pub async fn hear_ready(talk: &mut Conversation, channel: &mut Packets) -> Result<u32, ReplError> {
    let failed = |what: &str| ReplError::NotStarted(what.to_owned());
    let talking = async {
        tokio::select! {
            biased;
            received = channel.receive() => match received {
                Ok((FromRepl::Ready { version: REPL_VERSION, pid: pid @ 2..=PID_MAX }, fds)) if fds.is_empty() => Ok(pid),
                Ok((FromRepl::Failed { step, errno }, fds)) if fds.is_empty() => {
                    let errno = std::io::Error::from_raw_os_error(errno);
                    Err(ReplError::NotStarted(format!("{}: {errno}", step.escape_debug())))
                }
                Ok(_) => Err(failed("it was not ready first")),
                Err(PacketError::Ended) => Err(failed("it ended before it was ready")),
                Err(error) => Err(ReplError::NotStarted(error.to_string())),
            },
            heard = talk.heard() => match heard? {
                Heard::ReplEnded(_) => Err(failed("it ended before it was ready")),
                Heard::Frame(_) => Err(DeathReason::Protocol("unasked").into()),
            },
        }
    };
    tokio::time::timeout(ANSWER_WAIT_MAX, talking).await.unwrap_or_else(|_| Err(failed("it was not ready in time")))
}
