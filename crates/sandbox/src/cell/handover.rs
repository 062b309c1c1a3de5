//! A cell that waits for its holder, for the program that this process is about to become.

use std::io;
use std::time::Duration;

use belljar_jail::cgroup::Stats;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::HoldersEnd;
use crate::clock::{Clock, HandedClock};
use crate::command::{self, Stage};
use crate::error::{DeathReason, SandboxError};
use crate::guest::Guest;
use crate::handover::HandedContainer;
use crate::keeper::Answer;
use crate::outcome::{Loss, Stream};
use crate::repl;
use crate::stream::{Drain, HandedDrain};

use super::{Asked, Trouble, UnderWay};

/// See the module's head.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedCell {
    asked: HandedAsked,
    wall_max: Duration,
    clock: HandedClock,
    output: String,
    stdout: HandedDrain,
    stderr: HandedDrain,
    before: Stats,
    losses: Vec<Loss>,
    elapsed: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
enum HandedAsked {
    Command { run: u64, calls: command::HandedCalls },
    Cell { cell: repl::Asked, calls: repl::HandedCalls },
}

/// Hands a waiting cell over, with its container, and does nothing more: another program goes on.
pub async fn stand_still<T>(
    guest: &mut Guest,
    under_way: UnderWay,
    reply: oneshot::Sender<Answer<HandedContainer>>,
) -> Result<T, Trouble> {
    let (cell, kept) = under_way.hand_over(guest);
    let handed = cell.and_then(|cell| Ok(HandedContainer { guest: guest.hand_over()?, cell: Some(cell) }));
    let whole = handed.is_ok();
    let _asked_for = reply.send(handed.map_err(SandboxError::io("hand a container over")));
    if whole {
        // What ends this is the end of the program. Until then everything stays open.
        let _kept = kept;
        std::future::pending().await
    } else {
        Err(DeathReason::Channel("it could not be handed over".to_owned()).into())
    }
}

impl UnderWay {
    /// With what must stay open until the other program is executed; the REPL, as between cells, is the guest's again.
    fn hand_over(self, guest: &mut Guest) -> (io::Result<HandedCell>, [Drain; 2]) {
        let Self { asked, wall_max, clock, output, stdout, stderr, before, losses, started } = self;
        let asked = match asked {
            Asked::Command { run, stage: _, calls } => {
                calls.map(|calls| HandedAsked::Command { run, calls: calls.hand_over() })
            }
            Asked::Cell { repl, cell, calls } => {
                guest.repl = Some(repl);
                calls.map(|calls| HandedAsked::Cell { cell, calls: calls.hand_over() })
            }
        };
        let handed = || {
            Ok(HandedCell {
                // Only a cell that has calls hears of a handover.
                asked: asked.ok_or(io::ErrorKind::InvalidInput)?,
                wall_max,
                clock: clock.hand_over(),
                output,
                stdout: stdout.hand_over()?,
                stderr: stderr.hand_over()?,
                before,
                losses: losses.into_iter().map(Loss::handed).collect(),
                elapsed: started.elapsed(),
            })
        };
        (handed(), [stdout, stderr])
    }

    /// A cell that was handed over, with the holder's end of its line; its REPL is the guest's.
    ///
    /// # Errors
    /// What the host answers, or what does not fit together.
    pub fn take_over(
        handed: HandedCell,
        guest: &mut Guest,
        answer_wait_max: Duration,
        kept_bytes_max: usize,
    ) -> io::Result<(Self, HoldersEnd)> {
        let HandedCell { asked, wall_max, clock, output, stdout, stderr, before, losses, elapsed } = handed;
        let (asked, holder) = match asked {
            HandedAsked::Command { run, calls } => {
                let taken = command::Calls::take_over(calls, answer_wait_max);
                let (calls, holder) = taken.map_err(io::Error::other)?;
                (Asked::Command { run, stage: Stage::Runs, calls: Some(calls) }, holder)
            }
            HandedAsked::Cell { cell, calls } => {
                let repl = guest.repl.take().ok_or(io::ErrorKind::InvalidData)?;
                let taken = repl::Calls::take_over(calls, answer_wait_max);
                let (calls, holder) = taken.map_err(io::Error::other)?;
                (Asked::Cell { repl, cell, calls: Some(calls) }, holder)
            }
        };
        let now = Instant::now();
        let under_way = Self {
            asked,
            wall_max,
            clock: Clock::take_over(clock),
            output,
            stdout: Drain::take_over(Stream::Stdout, stdout, kept_bytes_max)?,
            stderr: Drain::take_over(Stream::Stderr, stderr, kept_bytes_max)?,
            before,
            losses,
            // A machine that has been up for less than the cell has run does not exist.
            started: now.checked_sub(elapsed).unwrap_or(now),
        };
        Ok((under_way, holder))
    }
}
