//! Our side of every row: the sandbox's own interface, in this process, with each answer checked.

use std::time::Duration;

use belljar_ids::ContainerId;
use belljar_sandbox::{CellOptions, CellOutcome, ContainerOptions, Lease, Sandbox, ZygoteStatus};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::stage::Needs;
use super::stopwatch::Stopwatch;
use super::task::Task;
use crate::cell::Language;

/// Longer than any cell of the suite takes on a slow machine.
const WALL: Duration = Duration::from_secs(60);

/// Makes a container that is ready for `language`, and takes hold of it.
pub async fn start(sandbox: &Sandbox, language: Language) -> Result<Lease, Failure> {
    let id = ContainerId::mint(&mut crate::random::OsIds);
    let ready_for = match language {
        Language::Bash => belljar_sandbox::Language::Bash,
        Language::Python => belljar_sandbox::Language::Python,
    };
    sandbox.create_with(id.clone(), ContainerOptions { ready_for, ..ContainerOptions::default() }).await?;
    Ok(sandbox.lease(&id, Duration::ZERO).await?)
}

/// Gives a container up, and waits until nothing of it is left.
pub async fn end(sandbox: &Sandbox, lease: Lease) {
    let id = lease.container().clone();
    drop(lease);
    sandbox.remove(&id).await;
}

/// Options of a cell that nobody listens to.
pub fn options() -> CellOptions {
    CellOptions { wall: WALL, cancel: CancellationToken::new(), live: None }
}

/// Runs source to its outcome.
pub async fn cell(
    lease: &mut Lease,
    language: Language,
    source: &str,
    options: CellOptions,
) -> Result<CellOutcome, Failure> {
    match language {
        Language::Bash => Ok(lease.bash(source, options).await?),
        Language::Python => Ok(lease.python(source, "/tmp/cell.py", options).await?),
    }
}

/// Runs a task to its outcome, which must be the right one.
pub async fn run(lease: &mut Lease, task: Task) -> Result<(), Failure> {
    let outcome = cell(lease, task.language(), task.source(), options()).await?;
    match &outcome {
        CellOutcome::Ended(output) if output.return_code == 0 && output.stdout == task.expected() => Ok(()),
        other => Err(format!("a container answered {task:?} with {other:?}").into()),
    }
}

/// From nothing to the outcome of a task, in microseconds, and the container.
pub async fn time_start(sandbox: &Sandbox, task: Task) -> Result<(f64, Lease), Failure> {
    let begun = Stopwatch::start();
    let mut lease = start(sandbox, task.language()).await?;
    run(&mut lease, task).await?;
    Ok((begun.micros(), lease))
}

/// A task in a container that is there already, in microseconds.
pub async fn time_cell(lease: &mut Lease, task: Task) -> Result<f64, Failure> {
    let begun = Stopwatch::start();
    run(lease, task).await?;
    Ok(begun.micros())
}

/// How long a zygote and a pool may take to come up.
const UP_WAIT: Duration = Duration::from_secs(120);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(1);

/// Waits until the zygote forks, if Python is wanted, and the pool is full.
pub async fn await_up(sandbox: &Sandbox, needs: Needs) -> Result<(), Failure> {
    let wants_zygote = needs.pooled > 0 || needs.language == Language::Python;
    let begun = Stopwatch::start();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let zygote = sandbox.warmth_status().core;
        if let (true, ZygoteStatus::Impossible { reason }) = (wants_zygote, &zygote) {
            return Err(format!("there can be no zygote: {reason}").into());
        }
        let warm = !wants_zygote || matches!(zygote, ZygoteStatus::Warm { .. });
        if warm && sandbox.counts().pooled >= 2 * needs.pooled {
            return Ok(());
        }
        if begun.elapsed() > UP_WAIT {
            return Err(format!("neither zygote nor pool came up: {zygote:?}, {:?}", sandbox.counts()).into());
        }
        looks.tick().await;
    }
}
