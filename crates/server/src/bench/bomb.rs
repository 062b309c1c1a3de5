//! The kill of a fork bomb: from the request to its last process gone.

use std::time::Duration;

use belljar_sandbox::{CellOptions, CellOutcome, KillReason, Lease};

use super::Failure;
use super::cgroups::Cgroups;
use super::figure::Series;
use super::ours;
use super::stage::Stage;
use super::stopwatch::Stopwatch;

const ROUNDS: usize = 20;
const PROCESSES: u32 = 256;
/// A bomb that has not filled its quota by then will not.
const FILL_WAIT: Duration = Duration::from_secs(30);
/// A kill that takes this long has failed.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Every process forks for as long as it lives.
const BOMB: &str = "exec python3 -c '
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
'";

/// Fills the quota, kills, and looks at the cgroup until nothing of the bomb is in it.
pub async fn run(stage: &Stage) -> Result<Vec<Series>, Failure> {
    let sandbox = stage.sandbox_with(|config| config.processes_max = PROCESSES + 1).await?;
    let mut gone = Series::times("last process gone");
    let mut told = Series::times("outcome");
    for _ in 0..stage.scale.of(ROUNDS) {
        let mut lease = ours::start(&sandbox, crate::cell::Language::Bash).await?;
        let (to_gone, to_told) = kill_one(&mut lease).await?;
        gone.samples.push(to_gone);
        told.samples.push(to_told);
        ours::end(&sandbox, lease).await;
    }
    sandbox.close().await;
    Ok(vec![gone, told, Series::single("processes", "count", f64::from(PROCESSES))])
}

async fn kill_one(lease: &mut Lease) -> Result<(f64, f64), Failure> {
    let cgroup = Cgroups::of_container(lease.container().as_str());
    let idle = cgroup.processes().ok_or("the container's cgroup does not count processes")?;
    let options = CellOptions { wall: Duration::from_secs(90), ..ours::options() };
    let cancel = options.cancel.clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let full = reach(&cgroup, FILL_WAIT, |processes| processes > u64::from(PROCESSES));
        let begun = Stopwatch::start();
        cancel.cancel();
        full?;
        reach(&cgroup, KILL_WAIT, |processes| processes <= idle)?;
        Ok::<_, Failure>((begun, begun.micros()))
    });
    let outcome = lease.bash(BOMB, options).await?;
    let ended = Stopwatch::start();
    let (begun, gone) = watcher.await??;
    match outcome {
        CellOutcome::Killed(KillReason::Requested, _) => Ok((gone, begun.micros() - ended.micros())),
        other => Err(format!("a killed fork bomb ended as {other:?}").into()),
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
