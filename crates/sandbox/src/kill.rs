//! Ending everything that runs in a container but its process 1.

use crate::command;
use crate::error::DeathReason;
use crate::guest::Guest;
use crate::outcome::InterpreterEnd;
use crate::repl::Orphans;

/// Kills every process of the container but process 1, the REPL included, and waits for their ends.
///
/// # Errors
/// The container's death: what cannot be killed must go with it.
pub async fn everything(guest: &mut Guest) -> Result<(), DeathReason> {
    let id = guest.talk.next_id();
    under(guest, id, "").await
}

/// As [`everything`], while the command `id` runs.
///
/// # Errors
/// As [`everything`].
pub async fn under(guest: &mut Guest, id: u64, output: &str) -> Result<(), DeathReason> {
    // A fork bomb that is throttled takes a hundred times as long to die.
    guest.process.lift();
    let killed = unthrottled(guest, id, output).await;
    guest.process.restore();
    killed
}

async fn unthrottled(guest: &mut Guest, id: u64, output: &str) -> Result<(), DeathReason> {
    command::kill(&mut guest.talk, id, output).await?;
    let Some(repl) = guest.repl.take() else {
        return Ok(());
    };
    guest.lost = Some(InterpreterEnd::Killed);
    match repl.ended().await? {
        Orphans::Reaped => Ok(()),
        Orphans::Possible => {
            let id = guest.talk.next_id();
            command::kill(&mut guest.talk, id, output).await
        }
    }
}

/// Gives up a REPL that is not as it should be, between two cells. One that broke the rules takes with it whatever it
/// has started.
///
/// # Errors
/// As [`everything`].
pub async fn lose(guest: &mut Guest, end: InterpreterEnd) -> Result<(), DeathReason> {
    let killed = match end {
        InterpreterEnd::Breach(_) => everything(guest).await,
        _ => Ok(()),
    };
    guest.repl = None;
    guest.lost = Some(end);
    killed
}
