//! What a sandbox may use: every limit by name, and the root filesystem its containers start from.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use belljar_jail::LandlockNeed;
pub use belljar_jail::probe::LimitsNeed;

use crate::options::Isolation;

use crate::repl::Warmth;

/// The limits of every container and of the sandbox as a whole.
///
/// The defaults are the documented ones of the server's `[sandbox]` table.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Processor time per wall time, in cores; 1.0 is one whole core.
    pub cpus: f64,
    /// Memory of one container in bytes, files written inside it included, because its disk is a tmpfs.
    pub memory_bytes_max: u64,
    /// Disk of one container in bytes. Never more than seven eighths of `memory_bytes_max` can be used, so
    /// that a full disk answers ENOSPC before it becomes an out-of-memory kill.
    pub disk_bytes_max: u64,
    /// Processes and threads of one container, its process 1 included.
    pub processes_max: u32,
    /// Wall time of one cell in seconds; a longer time asked for in [`crate::CellOptions`] is cut to it.
    pub cell_wall_s_max: u64,
    /// How long in seconds a call of a client's tool may stay unanswered; then the code gets a `TimeoutError`
    /// (wire.md §10.7).
    pub tool_answer_wait_s_max: u64,
    /// Bytes kept of each of a cell's two streams, and of a viewed file; the rest is counted.
    pub output_bytes_max: u64,
    /// Live containers, those being started included.
    pub containers_max: usize,
    /// Complete containers kept ahead of need: so many for bash, and as many with a Python REPL. They do not count
    /// against `containers_max`; zero keeps none.
    pub pool_containers: usize,
    /// Interpreters kept warm from the start. The others start when they are first needed.
    pub zygotes: Vec<Warmth>,
    /// A container unused for this long is frozen: its processes do not run until somebody takes hold of it again.
    pub idle_freeze: Duration,
    /// A container unused for this long is removed by [`crate::Sandbox::sweep`].
    pub container_idle: Duration,
    /// A container this old is removed by [`crate::Sandbox::sweep`], used or not (wire.md §7.3).
    pub container_life: Duration,
    /// Size of one captured output file in bytes; a larger one is skipped, and that is said.
    pub output_file_bytes_max: u64,
    /// Captured output files per cell; the rest is skipped, and that is said.
    pub output_files_max: usize,
    /// Whether a container may start when this host cannot enforce every limit.
    pub limits_need: LimitsNeed,
    /// Whether a container may start when the kernel has no Landlock.
    pub landlock_need: LandlockNeed,
    /// What stands between the code and the host, where a container's own options do not say.
    pub isolation: Isolation,
    /// gVisor's program, for containers of [`Isolation::Gvisor`]; without one, there are none.
    pub runsc: Option<PathBuf>,
    /// The wall clock, read for `created_at` and `last_used_at` alone.
    pub clock: fn() -> SystemTime,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cpus: 1.0,
            memory_bytes_max: 5 * 1024 * 1024 * 1024,
            disk_bytes_max: 5 * 1024 * 1024 * 1024,
            processes_max: 256,
            cell_wall_s_max: 90,
            tool_answer_wait_s_max: 270,
            output_bytes_max: 1024 * 1024,
            containers_max: 256,
            pool_containers: 4,
            zygotes: vec![Warmth::Core],
            idle_freeze: Duration::from_secs(60),
            container_idle: Duration::from_secs(60 * 60),
            container_life: Duration::from_secs(30 * 24 * 60 * 60),
            output_file_bytes_max: 500 * 1000 * 1000,
            output_files_max: 1000,
            limits_need: LimitsNeed::Required,
            landlock_need: LandlockNeed::Required,
            isolation: Isolation::Namespaces,
            runsc: None,
            clock: SystemTime::now,
        }
    }
}

/// The root filesystem containers start from; mounted read-only as the lower layer of each.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// The mounted image, or a directory.
    pub path: PathBuf,
    /// The host's number of the container's user 0, which owns the files; `None` as an ordinary user, whose own
    /// number is used.
    pub owner_base: Option<u32>,
    /// The image's digest, for people and logs.
    pub digest: String,
}
