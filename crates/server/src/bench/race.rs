//! Rows that are races: every contestant has its turn, then every contestant again.

use std::time::Duration;

use belljar_sandbox::{Lease, Sandbox};
use tokio::task::block_in_place;

use super::Failure;
use super::figure::Series;
use super::interpreter::Interpreter;
use super::jupyter::Jupyter;
use super::ours;
use super::peer::{self, Peer};
use super::rows::Turns;
use super::stage::{Needs, Stage};
use super::task::Task;

/// Who runs, and what; the name is that of its series.
#[derive(Debug, Clone, Copy)]
pub struct Entrant {
    /// Of the series.
    pub name: &'static str,
    /// What it does each round.
    pub does: Does,
}

/// What an entrant does each round.
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// A new container, made on demand, to the outcome of the task.
    Start(Task),
    /// A container from a full pool, to the outcome of the task.
    Claim(Task),
    /// The task in a container that is there already.
    Cell(Task),
    /// The task by a peer, from nothing; by a warm kernel of Jupyter, by a warm interpreter.
    Peer(Peer, Task),
}

/// Between two turns. A peer's blocks, and takes its thread out of the runtime for that; whoever is next is woken by the
/// runtime's clock, on one of its threads, as a server's tasks are by requests.
const PAUSE: Duration = Duration::from_millis(1);

/// Runs the race; peers that are not here are left out.
pub async fn run(stage: &Stage, entrants: &[Entrant], turns: Turns) -> Result<Vec<Series>, Failure> {
    let mut runners = Vec::new();
    for entrant in entrants {
        if let Some(runner) = Runner::prepare(stage, entrant.does).await? {
            runners.push((runner, Series::times(entrant.name)));
        }
    }
    // What the first time costs (reading files from the disk) is nobody's figure.
    for (runner, _) in &mut runners {
        runner.once(stage, 0).await?;
    }
    let each = turns.each as u64;
    for round in 1..=stage.scale.of(turns.rounds) as u64 {
        for (runner, series) in &mut runners {
            for time in 0..each {
                series.samples.push(runner.once(stage, round * each + time).await?);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    let mut measured = Vec::new();
    for (runner, series) in runners {
        runner.finish().await;
        measured.push(series);
    }
    Ok(measured)
}

enum Runner {
    /// From a pool, or on demand.
    Start(Sandbox, Task, Needs),
    Cell(Sandbox, Lease, Task),
    Program(Peer, Task),
    Jupyter(Box<Jupyter>, Task),
    Interpreter(Interpreter, Task),
}

/// Containers kept ready for rows that claim them.
const POOLED: usize = 4;

fn needs(task: Task, pooled: usize) -> Needs {
    Needs { containers: 4, pooled, language: task.language() }
}

impl Runner {
    /// `None` when the peer is not on this host.
    async fn prepare(stage: &Stage, does: Does) -> Result<Option<Self>, Failure> {
        Ok(Some(match does {
            Does::Start(task) => Self::start(stage, task, 0).await?,
            Does::Claim(task) => Self::start(stage, task, POOLED).await?,
            Does::Cell(task) => {
                let sandbox = stage.sandbox(needs(task, 0)).await?;
                let lease = ours::start(&sandbox, task.language()).await?;
                Self::Cell(sandbox, lease, task)
            }
            Does::Peer(peer, _) if !stage.has(peer) => return Ok(None),
            Does::Peer(Peer::Jupyter, task) => Self::Jupyter(Box::new(stage.jupyter()?), task),
            Does::Peer(Peer::Interpreter, task) => Self::Interpreter(Interpreter::start()?, task),
            Does::Peer(peer, task) => Self::Program(peer, task),
        }))
    }

    async fn start(stage: &Stage, task: Task, pooled: usize) -> Result<Self, Failure> {
        let needs = needs(task, pooled);
        Ok(Self::Start(stage.sandbox(needs).await?, task, needs))
    }

    async fn once(&mut self, stage: &Stage, run: u64) -> Result<f64, Failure> {
        match self {
            Self::Start(sandbox, task, needs) => {
                ours::await_up(sandbox, *needs).await?;
                let (took, lease) = ours::time_start(sandbox, *task).await?;
                ours::end(sandbox, lease).await;
                Ok(took)
            }
            Self::Cell(_, lease, task) => ours::time_cell(lease, *task).await,
            Self::Program(peer, task) => {
                let command = peer.command(*task, &stage.places, run);
                block_in_place(|| peer::time(command, *task))
            }
            Self::Jupyter(jupyter, task) => block_in_place(|| jupyter.time(*task)),
            Self::Interpreter(interpreter, task) => block_in_place(|| interpreter.time(*task)),
        }
    }

    async fn finish(self) {
        match self {
            Self::Start(sandbox, ..) => sandbox.close().await,
            Self::Cell(sandbox, lease, _) => {
                drop(lease);
                sandbox.close().await;
            }
            Self::Program(..) | Self::Interpreter(..) => {}
            Self::Jupyter(jupyter, _) => drop(tokio::task::spawn_blocking(move || drop(jupyter)).await),
        }
    }
}
