//! What runsc is told: the bundle's `config.json` (Open Container Initiative runtime specification 1.0) and its flags.

use belljar_jail::cgroup::Limits;
use belljar_jail::{CONTROL_FD_INSIDE, ContainerSpec, GUEST, WardPlan};
use serde_json::{Value, json};

use crate::error::SandboxError;

/// Open files of the guest program; it gives the code a quarter (`guest/src/command.rs`).
const OPEN_FILES_MAX: u64 = 65_536;

/// A file that fills the disk ends with `ENOSPC`, not with a signal.
const FILE_BYTES_SPARE: u64 = 4096;
/// Where the guest program is in the container.
const GUEST_INSIDE: &str = "/run/belljar";

/// Flags of runsc. Its own seccomp filters, its user namespace and its empty root are not flags: they are always on.
const FLAGS: &[&str] = &[
    // Stated, so that a default that changes changes nothing here.
    "--platform=systrap",
    // A loopback without addresses elsewhere, in a network namespace that has none either.
    "--network=none",
    // The container is in its cgroup already; runsc has no power over cgroups in the ward.
    "--ignore-cgroups",
    // Files are written to the ward's overlay, which has the caps and which the host reads output from...
    "--overlay2=none",
    // ...so nothing may be kept back in the sentry's memory.
    "--file-access=shared",
    // Sockets and FIFOs of the host's: there are none in the ward, and none could be opened.
    "--host-uds=none",
    "--host-fifo=none",
    "--oci-seccomp=false",
];

/// The ward of one container.
pub fn ward(spec: &ContainerSpec, limits: &Limits) -> Result<WardPlan, SandboxError> {
    let config = serde_json::to_string(&config(spec, limits)?)
        .map_err(|error| SandboxError::Host(format!("runsc's configuration: {error}")))?;
    Ok(WardPlan { config, flags: FLAGS.iter().map(ToString::to_string).collect() })
}

fn config(spec: &ContainerSpec, limits: &Limits) -> Result<Value, SandboxError> {
    let order = json!({
        "directories": spec.directories,
        "symlinks": spec.symlinks,
        "remove": ["/tmp/.belljar"],
    });
    debug_assert_eq!(CONTROL_FD_INSIDE, 3);
    let limit = |name: &str, max: u64| json!({ "type": name, "hard": max, "soft": max });
    let shm_size = format!("size={}", spec.shm_bytes_max);
    Ok(json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [format!("{GUEST_INSIDE}/belljar-guest"), "gvisor", order.to_string()],
            "env": [],
            "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] },
            "noNewPrivileges": true,
            "rlimits": [
                limit("RLIMIT_NPROC", limits.processes_max),
                limit("RLIMIT_NOFILE", OPEN_FILES_MAX),
                limit("RLIMIT_FSIZE", spec.disk_bytes_max.saturating_add(FILE_BYTES_SPARE)),
                limit("RLIMIT_CORE", 0),
            ],
        },
        "root": { "path": "/root", "readonly": false },
        "hostname": spec.hostname,
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "nodev", "noexec", "mode=1777", shm_size] },
            { "destination": GUEST_INSIDE, "type": "bind", "source": GUEST,
              "options": ["bind", "ro", "nosuid", "nodev"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
        },
    }))
}
