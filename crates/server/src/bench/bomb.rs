//! The kill of a fork bomb: from the request to its last process gone.

use std::time::Duration;

use belljar_sandbox::{CellOptions, CellOutcome, KillReason, Lease, Sandbox};

use super::Failure;
use super::cgroups::Cgroups;
use super::figure::Series;
use super::ours;
use super::stage::Stage;
use super::stopwatch::Stopwatch;
use crate::cell::Language;

const ROUNDS: usize = 20;
const PROCESSES: u32 = 256;
/// A bomb that has not filled its quota by then will not.
const FILL_WAIT: Duration = Duration::from_secs(30);
/// A kill that takes this long has failed.
const KILL_WAIT: Duration = Duration::from_secs(10);

const WALL: Duration = Duration::from_secs(90);

/// The one that everybody knows. Most of its processes wait for a place.
const SHELL_BOMB: &str = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do wait; done";

/// Every process forks for as long as it lives, and each has a map of memory a dozen times as large as a shell's.
const PYTHON_BOMB: &str = "exec python3 -c '
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
'";

/// Fills the quota, kills, and looks at the cgroup until nothing of the bomb is in it: by turns with the container, and
/// with the cell alone, which is interrupted before it is killed.
pub async fn run(stage: &Stage) -> Result<Vec<Series>, Failure> {
    let sandbox = stage.sandbox_with(|config| config.processes_max = PROCESSES + 1).await?;
    let mut shell = Series::times("container killed, a shell's");
    let mut container = Series::times("container killed");
    let mut cell = Series::times("cell cancelled");
    for _ in 0..stage.scale.of(ROUNDS) {
        for (bomb, series) in [(SHELL_BOMB, &mut shell), (PYTHON_BOMB, &mut container)] {
            let mut lease = ours::start(&sandbox, Language::Bash).await?;
            series.samples.push(remove(&sandbox, &mut lease, bomb).await?);
        }
        let mut lease = ours::start(&sandbox, Language::Bash).await?;
        cell.samples.push(cancel(&mut lease).await?);
        ours::end(&sandbox, lease).await;
    }
    sandbox.close().await;
    Ok(vec![shell, container, cell, Series::single("processes", "count", f64::from(PROCESSES))])
}

/// Removes the container under the bomb.
async fn remove(sandbox: &Sandbox, lease: &mut Lease, bomb: &str) -> Result<f64, Failure> {
    let id = lease.container().clone();
    let cgroup = Cgroups::of_container(id.as_str());
    let options = CellOptions { wall: WALL, ..ours::options() };
    let killing = async {
        let (full, gone) = (cgroup.clone(), cgroup);
        tokio::task::spawn_blocking(move || reach(&full, FILL_WAIT, |processes| processes > u64::from(PROCESSES)))
            .await??;
        let begun = Stopwatch::start();
        let watcher = tokio::task::spawn_blocking(move || {
            reach(&gone, KILL_WAIT, |processes| processes == 0)?;
            Ok::<_, Failure>(begun.micros())
        });
        sandbox.remove(&id).await;
        watcher.await?
    };
    let (_, took) = tokio::join!(lease.bash(bomb, options), killing);
    took
}

/// Cancels the cell; the container lives on.
async fn cancel(lease: &mut Lease) -> Result<f64, Failure> {
    let cgroup = Cgroups::of_container(lease.container().as_str());
    let idle = cgroup.processes().ok_or("the container's cgroup does not count processes")?;
    let options = CellOptions { wall: WALL, ..ours::options() };
    let cancel = options.cancel.clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let full = reach(&cgroup, FILL_WAIT, |processes| processes > u64::from(PROCESSES));
        let begun = Stopwatch::start();
        cancel.cancel();
        full?;
        reach(&cgroup, KILL_WAIT, |processes| processes <= idle)?;
        Ok::<_, Failure>(begun.micros())
    });
    let outcome = lease.bash(PYTHON_BOMB, options).await?;
    let took = watcher.await??;
    match outcome {
        CellOutcome::Killed(KillReason::Requested, _) => Ok(took),
        other => Err(format!("a cancelled fork bomb ended as {other:?}").into()),
    }
}

/// Looks at the number of processes, again and again, until it is as wanted. A cgroup that is gone has none.
fn reach(cgroup: &Cgroups, wait: Duration, wanted: impl Fn(u64) -> bool) -> Result<(), Failure> {
    let begun = Stopwatch::start();
    while begun.elapsed() < wait {
        if wanted(cgroup.processes().unwrap_or(0)) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_micros(200));
    }
    Err(format!("{:?} processes after {wait:?}", cgroup.processes()).into())
}
