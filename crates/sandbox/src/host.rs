//! What all containers of a sandbox share: the guest program, the root filesystem, the cgroups, the limits.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use belljar_jail::cgroup::{Cgroup, CgroupTree, Limits};
use belljar_jail::{Attachment, ContainerSpec, Directory, Identity, JailPlan, Symlink, launch};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::DiskFree;
use crate::config::{LimitsNeed, Rootfs, SandboxConfig};
use crate::environment::{HOME, INPUT_DIRECTORY, OUTPUT_ROOT, WORKING_DIRECTORY};
use crate::error::SandboxError;
use crate::process::Process;
use crate::program;

/// Files of one container, directories included.
const INODES_MAX: u64 = 262_144;
/// `/dev/shm` of one container.
const SHM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Seen from inside.
const HOSTNAME: &str = "container";

/// See the module's head.
pub struct Host {
    pub config: SandboxConfig,
    program: File,
    plan: JailPlan,
    cgroups: Option<CgroupTree>,
}

impl Host {
    /// Finds out what this machine offers. Blocks.
    pub fn prepare(config: SandboxConfig, rootfs: &Rootfs) -> Result<Self, SandboxError> {
        raise_open_files();
        let program = program::sealed().map_err(SandboxError::io("keep the guest program in memory"))?;
        let cgroups = match CgroupTree::detect() {
            Ok(tree) => Some(tree),
            Err(unavailable) => match config.limits_need {
                LimitsNeed::Required => return Err(SandboxError::Host(unavailable.to_string())),
                LimitsNeed::BestEffort => {
                    tracing::warn!(%unavailable, "containers run without limits on memory, time and processes");
                    None
                }
            },
        };
        let plan = plan(&config, rootfs)?;
        Ok(Self { config, program, plan, cgroups })
    }

    /// Starts process 1 of a container, known to this host as `name`. Blocks.
    pub fn start(&self, name: &str, control: std::os::fd::OwnedFd) -> Result<Process, SandboxError> {
        let cgroup = self.cgroups.as_ref().map(|tree| tree.create(name, &self.limits())).transpose();
        let cgroup: Option<Cgroup> = cgroup.map_err(|error| SandboxError::Launch(error.to_string()))?;
        let attachment = cgroup.as_ref().map_or(Attachment::Unlimited, Attachment::Cgroup);
        let jailed = launch(self.program.as_fd(), &self.plan, attachment, control)
            .map_err(|error| SandboxError::Launch(error.to_string()))?;
        Ok(Process::new(jailed, cgroup))
    }

    /// The limits of each container's disk.
    pub fn disk_max(&self) -> DiskFree {
        DiskFree { bytes: disk_bytes_max(&self.config), inodes: INODES_MAX }
    }

    /// The limits of each container.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes_max: self.config.memory_bytes_max,
            cpus: self.config.cpus,
            processes_max: u64::from(self.config.processes_max),
        }
    }
}

/// A full disk must answer ENOSPC before it becomes an out-of-memory kill.
fn disk_bytes_max(config: &SandboxConfig) -> u64 {
    config.disk_bytes_max.min(config.memory_bytes_max / 8 * 7)
}

fn plan(config: &SandboxConfig, rootfs: &Rootfs) -> Result<JailPlan, SandboxError> {
    let directory = |path: &str, mode| Directory { path: PathBuf::from(path), mode };
    let spec = ContainerSpec {
        rootfs: rootfs.path.clone(),
        identity: identity(rootfs)?,
        hostname: HOSTNAME.to_owned(),
        disk_bytes_max: disk_bytes_max(config),
        inodes_max: INODES_MAX,
        shm_bytes_max: SHM_BYTES_MAX.min(config.memory_bytes_max / 8),
        directories: vec![
            directory(INPUT_DIRECTORY, 0o755),
            directory(OUTPUT_ROOT, 0o755),
            directory("/mnt", 0o755),
            directory(WORKING_DIRECTORY, 0o755),
            directory(HOME, 0o700),
            directory("/tmp", 0o1777),
            directory("/skills", 0o755),
        ],
        symlinks: vec![Symlink { path: PathBuf::from("/mnt/user-data"), target: PathBuf::from(INPUT_DIRECTORY) }],
        working_directory: PathBuf::from("/"),
        landlock: config.landlock_need,
    };
    JailPlan::for_container(&spec).map_err(|error| SandboxError::Host(error.to_string()))
}

fn identity(rootfs: &Rootfs) -> Result<Identity, SandboxError> {
    let uid = rustix::process::geteuid();
    match rootfs.owner_base {
        Some(base) if uid.is_root() => Ok(Identity::Mapped { base }),
        Some(_) => Err(SandboxError::Host("only root can use a root filesystem with shifted owners".to_owned())),
        None if uid.is_root() => Err(SandboxError::Host(
            "root needs a root filesystem with shifted owners: its own user must not be a container's".to_owned(),
        )),
        None => Ok(Identity::Caller { uid: uid.as_raw(), gid: rustix::process::getegid().as_raw() }),
    }
}

/// A container takes a handful of descriptors of the host, a harvest up to a thousand: the soft limit of old, 1024, is
/// too low. Failing is no error; whoever runs out later says so.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

/// A name nobody can guess or reuse: 16 hexadecimal digits (wire.md §7.4).
pub fn random_name() -> Result<String, SandboxError> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| SandboxError::Io { what: "read random bytes", source: error.into() })?;
    }
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// What a container is started from.
pub type SharedHost = Arc<Host>;
