//! Our side of every row: the sandbox's own interface, in this process, with each answer checked.

use std::time::Duration;

use belljar_ids::ContainerId;
use belljar_sandbox::{CellOptions, CellOutcome, Lease, Sandbox};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::stopwatch::Stopwatch;
use super::task::Task;
use crate::cell::Language;

/// Longer than any cell of the suite takes on a slow machine.
const WALL: Duration = Duration::from_secs(60);

/// Makes a container that is ready for `language`, and takes hold of it.
pub async fn start(sandbox: &Sandbox, language: Language) -> Result<Lease, Failure> {
    let _ = language;
    let id = ContainerId::mint(&mut crate::random::OsIds);
    sandbox.create(id.clone()).await?;
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

/// Waits until the pool is as full as it gets.
pub async fn await_pool(sandbox: &Sandbox) {
    let _ = sandbox;
}
