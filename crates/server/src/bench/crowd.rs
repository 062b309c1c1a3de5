//! A thousand idle containers: what each costs, and what they cost the next start.

use std::fs;

use belljar_ids::ContainerId;
use belljar_sandbox::Sandbox;

use super::Failure;
use super::cgroups::Cgroups;
use super::figure::Series;
use super::machine::meminfo_kib;
use super::ours;
use super::stage::{Needs, Stage};
use super::task::Task;
use crate::cell::Language;

const CONTAINERS: usize = 1000;
const STARTS: usize = 40;
const MIB: f64 = 1024.0 * 1024.0;

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
    let each = |bytes: f64| bytes / containers as f64 / MIB;
    let grown = full.less(before);
    Ok(vec![
        alone,
        crowded,
        Series::single("all told", "MiB", each(own.pss + grown.kernel.max(own.kernel) + grown.shared + grown.host)),
        Series::single("proportional set size", "MiB", each(own.pss)),
        Series::single("kernel, by cgroup", "MiB", each(own.kernel)),
        Series::single("kernel, by meminfo", "MiB", each(grown.kernel)),
        Series::single("tmpfs, by meminfo", "MiB", each(grown.shared)),
        Series::single("this process", "MiB", each(grown.host)),
        Series::single("available memory lost", "MiB", each(grown.unavailable)),
        Series::single("containers", "count", containers as f64),
    ])
}

async fn starts(stage: &Stage, sandbox: &Sandbox, series: &mut Series) -> Result<(), Failure> {
    for _ in 0..stage.scale.of(STARTS) {
        let (took, lease) = ours::time_start(sandbox, Task::Libraries).await?;
        series.samples.push(took);
        ours::end(sandbox, lease).await;
    }
    Ok(())
}

/// What the containers' own processes and cgroups say, in bytes.
struct Own {
    pss: f64,
    kernel: f64,
}

impl Own {
    fn of(containers: &[ContainerId]) -> Self {
        let mut own = Self { pss: 0.0, kernel: 0.0 };
        for id in containers {
            let cgroups = Cgroups::of_container(id.as_str());
            own.kernel += cgroups.kernel_bytes() as f64;
            own.pss += cgroups.members().into_iter().map(pss_bytes).sum::<f64>();
        }
        own
    }
}

/// proc_pid_smaps_rollup(5): memory, what is shared divided by how many share it.
fn pss_bytes(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

/// What the whole machine says, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    unavailable: f64,
    /// Slabs that cannot be given back, stacks, page tables, per-processor areas.
    kernel: f64,
    shared: f64,
    host: f64,
}

impl Memory {
    fn now() -> Self {
        let sum = |keys: &[&str]| keys.iter().map(|key| meminfo_kib(key)).sum::<u64>() as f64 * 1024.0;
        Self {
            unavailable: -sum(&["MemAvailable"]),
            kernel: sum(&["SUnreclaim", "KernelStack", "PageTables", "SecPageTables", "Percpu"]),
            shared: sum(&["Shmem"]),
            host: pss_bytes(std::process::id()),
        }
    }

    fn less(self, before: Self) -> Self {
        Self {
            unavailable: self.unavailable - before.unavailable,
            kernel: self.kernel - before.kernel,
            shared: self.shared - before.shared,
            host: self.host - before.host,
        }
    }
}
