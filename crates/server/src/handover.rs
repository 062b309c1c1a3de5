//! What a server knows of its live containers, for the program that its process becomes when it restarts in place
//! (docs/adr/2026-11-29-a-server-restarts-in-place.md).
//!
//! Answers of continuations are not in it: a client that lost one in the restart is told that its code has gone on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use belljar_ids::{ContainerId, ServerToolUseId, ToolUseId};
use belljar_sandbox::handover::{HandedFd, Handover};
use belljar_sandbox::{Parked, SandboxError};
use belljar_store::{Timestamp, WorkspaceId};
use belljar_turn::PendingCall;
use belljar_wire::block::{ContentBlock, Place, ServerToolUseBlock};
use belljar_wire::read::Path;
use belljar_wire::result::ResultContent;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::clock;
use crate::config::environment::Environment;
use crate::driver::code::Form;
use crate::exit::Exit;
use crate::parked::{Kept, LetGo, Spot, StillCell, Waiting};
use crate::running::{RunningCell, RunningCells};

/// The environment variable that names the descriptor in which a handover is.
pub const VARIABLE: &str = "BELLJAR_HANDOVER";

/// Everything that one program leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct Estate {
    /// The listening socket: whoever connects meanwhile waits there.
    pub listener: HandedFd,
    /// Live containers; none when the next program cannot go on with them.
    pub living: Option<Living>,
}

/// Live containers, and what the server knows of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Living {
    sandbox: Handover,
    started_at_us: i64,
    owners: Vec<(ContainerId, String)>,
    waiting: Vec<HandedWaiting>,
    let_go: Vec<(HandedSpot, Duration)>,
    calling: Vec<HandedCalling>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedSpot {
    workspace: String,
    container: ContainerId,
    call: ServerToolUseId,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedWaiting {
    spot: HandedSpot,
    pending: Vec<(ToolUseId, u64)>,
    kept: HandedKept,
    left: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
enum HandedKept {
    /// The sandbox has the cell itself.
    Cell(Form),
    Outcome(ResultContent),
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedCalling {
    workspace: String,
    /// As on the wire.
    call: serde_json::Value,
    age: Duration,
}

/// What a server begins with that was another program before.
pub struct Inheritance {
    /// Live containers' sandbox.
    pub sandbox: Handover,
    /// When the first of the programs began.
    pub started_at: Timestamp,
    /// All else.
    pub rest: Rest,
}

/// See [`Inheritance`].
pub struct Rest {
    owners: Vec<(ContainerId, WorkspaceId)>,
    waiting: Vec<HandedWaiting>,
    let_go: Vec<(HandedSpot, Duration)>,
    calling: Vec<HandedCalling>,
}

impl HandedSpot {
    fn of(spot: Spot) -> Self {
        let Spot { workspace, container, call } = spot;
        Self { workspace: workspace.as_str().to_owned(), container, call }
    }

    fn spot(self) -> Result<Spot, Exit> {
        let Self { workspace, container, call } = self;
        Ok(Spot { workspace: named(&workspace)?, container, call })
    }
}

fn named(workspace: &str) -> Result<WorkspaceId, Exit> {
    workspace.parse().map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Exit {
    Exit::failed(format!("{VARIABLE}: what was handed over cannot be read: {error}"))
}

impl Living {
    /// Of a server whose turns have ended. The cells that wait come back as well: to be held until the next program is
    /// executed.
    ///
    /// # Errors
    /// [`SandboxError`] when this host does not do it.
    pub async fn of(app: &App) -> Result<(Self, Vec<RunningCell>, Vec<Parked>), SandboxError> {
        let now = clock::instant_now();
        let (taken, remembered) = app.parked.take_all();
        let (mut waiting, mut running, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (Waiting { spot, pending, kept }, until) in taken {
            let pending = pending.into_iter().map(|call| (call.tool_use_id, call.number)).collect();
            let kept = match kept {
                Kept::Outcome(outcome) => HandedKept::Outcome(outcome),
                Kept::Cell(StillCell { running: one, form, cell }) => {
                    running.push(one);
                    cells.push(cell);
                    HandedKept::Cell(form)
                }
            };
            let left = until.saturating_duration_since(now);
            waiting.push(HandedWaiting { spot: HandedSpot::of(spot), pending, kept, left });
        }
        let sandbox = app.sandbox.hand_over(&cells.iter().collect::<Vec<_>>()).await?;
        let age = |since: Instant| now.saturating_duration_since(since);
        let owner = |id: &ContainerId| Some((id.clone(), app.owners.of_one(id)?.as_str().to_owned()));
        let calling = app.calling.all().into_iter().filter_map(|(workspace, call, since)| {
            // Never fails: every key of a block is a string.
            let call = serde_json::to_value(ContentBlock::ServerToolUse(call)).ok()?;
            Some(HandedCalling { workspace: workspace.as_str().to_owned(), call, age: age(since) })
        });
        let living = Self {
            started_at_us: app.started_at.as_micros(),
            owners: sandbox.containers().filter_map(owner).collect(),
            waiting,
            let_go: remembered.into_iter().map(|LetGo { spot, since }| (HandedSpot::of(spot), age(since))).collect(),
            calling: calling.collect(),
            sandbox,
        };
        Ok((living, running, cells))
    }

    /// How many containers live on, and in how many of them code waits.
    pub fn counted(&self) -> (usize, usize) {
        (self.sandbox.containers().count(), self.waiting.len())
    }

    /// What the next program makes of it.
    ///
    /// # Errors
    /// A handover that is none.
    pub fn inheritance(self) -> Result<Inheritance, Exit> {
        let Self { sandbox, started_at_us, owners, waiting, let_go, calling } = self;
        let owners = owners.into_iter().map(|(id, workspace)| Ok((id, named(&workspace)?)));
        let owners = owners.collect::<Result<_, Exit>>()?;
        let started_at = Timestamp::from_micros(started_at_us).map_err(broken)?;
        Ok(Inheritance { sandbox, started_at, rest: Rest { owners, waiting, let_go, calling } })
    }
}

impl Rest {
    /// Puts everything where it was; `cells` are those that the sandbox has taken over, each with the mark of its running.
    ///
    /// # Errors
    /// A handover that is none.
    pub fn settle(self, app: &App, cells: Vec<(Parked, RunningCell)>) -> Result<(), Exit> {
        let Self { owners, waiting, let_go, calling } = self;
        let now = clock::instant_now();
        let ago = |age: Duration| now.checked_sub(age).unwrap_or(now);
        for (id, workspace) in owners {
            app.owners.enter(id, workspace);
        }
        let mut cells: HashMap<_, _> = cells.into_iter().map(|cell| (cell.0.container().clone(), cell)).collect();
        for HandedWaiting { spot, pending, kept, left } in waiting {
            let spot = spot.spot()?;
            let kept = match kept {
                HandedKept::Outcome(outcome) => Kept::Outcome(outcome),
                HandedKept::Cell(form) => match cells.remove(&spot.container) {
                    Some((cell, running)) => Kept::Cell(StillCell { running, form, cell }),
                    // It ended while it was handed over: its results come too late, as after any other long wait.
                    None => {
                        app.parked.remember(LetGo { spot, since: now });
                        continue;
                    }
                },
            };
            let pending = pending.into_iter().map(|(tool_use_id, number)| PendingCall { tool_use_id, number });
            app.parked.park(Waiting { spot, pending: pending.collect(), kept }, now + left);
        }
        for (spot, age) in let_go {
            app.parked.remember(LetGo { spot: spot.spot()?, since: ago(age) });
        }
        for HandedCalling { workspace, call, age } in calling {
            // It only helps clients that have lost the call: without it, all else goes on.
            match read_call(call) {
                Ok(call) => app.calling.enter(&named(&workspace)?, call, ago(age)),
                Err(exit) => tracing::error!("a call is forgotten: {}", exit.message()),
            }
        }
        Ok(())
    }
}

fn read_call(call: serde_json::Value) -> Result<ServerToolUseBlock, Exit> {
    match ContentBlock::read(call, Path::Root, Place::Assistant) {
        Ok(ContentBlock::ServerToolUse(call)) => Ok(call),
        Ok(_) => Err(broken("another block than a call")),
        Err(error) => Err(broken(error.message)),
    }
}

/// Takes over the cells' marks: each gets one, by which it can be interrupted.
pub fn enter_running(running: &RunningCells, marks: &mut HashMap<ContainerId, RunningCell>, id: &ContainerId) -> Token {
    let mark = running.enter(id.clone());
    let interrupt = mark.interrupt();
    marks.insert(id.clone(), mark);
    interrupt
}

type Token = tokio_util::sync::CancellationToken;

impl Estate {
    /// Writes it into memory that the next program finds by [`VARIABLE`]; to be held until then.
    ///
    /// # Errors
    /// What the host answers.
    pub fn write(&self) -> std::io::Result<(OwnedFd, HandedFd)> {
        let mut memory = File::from(memfd_create("belljar-handover", MemfdFlags::CLOEXEC)?);
        memory.write_all(&serde_json::to_vec(self)?)?;
        memory.rewind()?;
        let memory = OwnedFd::from(memory);
        let handed = HandedFd::hand_over(&memory)?;
        Ok((memory, handed))
    }

    /// What the program before this one has left, if there was one.
    ///
    /// # Errors
    /// Something else than a handover.
    pub fn received(environment: &Environment) -> Result<Option<Self>, Exit> {
        let Some(number) = environment.get(VARIABLE) else {
            return Ok(None);
        };
        let fd = HandedFd::numbered(number.parse().map_err(broken)?);
        let mut text = Vec::new();
        File::from(fd.take_over().map_err(broken)?).read_to_end(&mut text).map_err(broken)?;
        serde_json::from_slice(&text).map(Some).map_err(broken)
    }
}
