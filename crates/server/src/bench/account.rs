//! What many containers cost in memory: what they say themselves, and what the whole machine says.

use std::fs;

use belljar_ids::ContainerId;

use super::cgroups::Parents;
use super::figure::Series;
use super::machine::meminfo_kib;

const MIB: f64 = 1024.0 * 1024.0;

/// What so many containers cost each, in MiB. SPECIFICATION.md says what "all told" is.
pub fn of_each(own: &Own, grown: Memory, containers: usize) -> Vec<Series> {
    let each = |bytes: f64| bytes / containers as f64 / MIB;
    let (pss, kernel) = (own.pss / own.containers / MIB, own.kernel / own.containers / MIB);
    vec![
        Series::single("all told", "MiB", pss + each(grown.kernel).max(kernel) + each(grown.shared + grown.host)),
        Series::single("proportional set size", "MiB", pss),
        Series::single("kernel, by cgroup", "MiB", kernel),
        Series::single("kernel, by meminfo", "MiB", each(grown.kernel)),
        Series::single("tmpfs, by meminfo", "MiB", each(grown.shared)),
        Series::single("this process", "MiB", each(grown.host)),
        Series::single("available memory lost", "MiB", each(grown.unavailable)),
        Series::single("containers", "count", containers as f64),
    ]
}

/// What the own processes and cgroups of so many containers say, in bytes together.
pub struct Own {
    containers: f64,
    pss: f64,
    kernel: f64,
}

impl Own {
    /// Looks at each of them; takes a while, and blocks.
    pub fn of(containers: &[ContainerId]) -> Self {
        let parents = Parents::find();
        let mut own = Self { containers: containers.len() as f64, pss: 0.0, kernel: 0.0 };
        for id in containers {
            let cgroups = parents.of_container(id.as_str());
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
pub struct Memory {
    unavailable: f64,
    /// Slabs that cannot be given back, stacks, page tables, per-processor areas.
    kernel: f64,
    shared: f64,
    host: f64,
}

impl Memory {
    /// As it is.
    pub fn now() -> Self {
        let sum = |keys: &[&str]| keys.iter().map(|key| meminfo_kib(key)).sum::<u64>() as f64 * 1024.0;
        Self {
            unavailable: -sum(&["MemAvailable"]),
            kernel: sum(&["SUnreclaim", "KernelStack", "PageTables", "SecPageTables", "Percpu"]),
            shared: sum(&["Shmem"]),
            host: pss_bytes(std::process::id()),
        }
    }

    /// By how much it has grown.
    pub fn less(self, before: Self) -> Self {
        Self {
            unavailable: self.unavailable - before.unavailable,
            kernel: self.kernel - before.kernel,
            shared: self.shared - before.shared,
            host: self.host - before.host,
        }
    }
}
