//! Fifty containers asked for at once, while none is kept ready.

use super::Failure;
use super::figure::Series;
use super::ours;
use super::stage::{Needs, Stage};
use super::task::Task;
use crate::bench::stopwatch::Stopwatch;
use crate::cell::Language;

const AT_ONCE: usize = 50;
const ROUNDS: usize = 10;

/// One start alone, then fifty at once, and again.
pub async fn run(stage: &Stage) -> Result<Vec<Series>, Failure> {
    let sandbox = stage.sandbox(Needs { containers: AT_ONCE + 4, pooled: 0, language: Language::Python }).await?;
    let mut alone = Series::times("one start");
    let mut last = Series::times("last of 50");
    for _ in 0..stage.scale.of(ROUNDS).max(2) {
        let (took, lease) = ours::time_start(&sandbox, Task::Libraries).await?;
        alone.samples.push(took);
        ours::end(&sandbox, lease).await;
        let begun = Stopwatch::start();
        let starts: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let sandbox = sandbox.clone();
                tokio::spawn(async move {
                    let (_, lease) = ours::time_start(&sandbox, Task::Libraries).await?;
                    Ok::<_, Failure>((begun.micros(), lease))
                })
            })
            .collect();
        let mut latest = 0_f64;
        let mut leases = Vec::new();
        for start in starts {
            let (ready, lease) = start.await??;
            latest = latest.max(ready);
            leases.push(lease);
        }
        last.samples.push(latest);
        for lease in leases {
            ours::end(&sandbox, lease).await;
        }
    }
    sandbox.close().await;
    Ok(vec![alone, last])
}
