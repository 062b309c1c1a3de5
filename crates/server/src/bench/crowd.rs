//! A thousand idle containers: what each costs, and what they cost the next start.

use belljar_sandbox::Sandbox;

use super::Failure;
use super::account::{Memory, Own, of_each};
use super::figure::Series;
use super::ours;
use super::stage::{Needs, Stage};
use super::task::Task;
use crate::cell::Language;

const CONTAINERS: usize = 1000;
const STARTS: usize = 40;

/// Starts at one container, then at all, then at one again: a machine that slows down by itself shows.
pub async fn run(stage: &Stage) -> Result<Vec<Series>, Failure> {
    let containers = stage.scale.of(CONTAINERS);
    let sandbox = stage.sandbox(Needs { containers: containers + 8, pooled: 0, language: Language::Python }).await?;
    let mut alone = Series::times("start at 1");
    let mut crowded = Series::times("start at 1000");
    starts(stage, &sandbox, &mut alone).await?;
    let before = Memory::now();
    let mut idle = Vec::with_capacity(containers);
    for _ in 0..containers {
        let (_, lease) = ours::time_start(&sandbox, Task::Number).await?;
        idle.push(lease.container().clone());
    }
    let full = Memory::now();
    starts(stage, &sandbox, &mut crowded).await?;
    let own = tokio::task::block_in_place(|| Own::of(&idle));
    for id in &idle {
        sandbox.remove(id).await;
    }
    starts(stage, &sandbox, &mut alone).await?;
    sandbox.close().await;
    let account = of_each(&own, full.less(before), containers);
    Ok([alone, crowded].into_iter().chain(account).collect())
}

async fn starts(stage: &Stage, sandbox: &Sandbox, series: &mut Series) -> Result<(), Failure> {
    for _ in 0..stage.scale.of(STARTS) {
        let (took, lease) = ours::time_start(sandbox, Task::Libraries).await?;
        series.samples.push(took);
        ours::end(sandbox, lease).await;
    }
    Ok(())
}
