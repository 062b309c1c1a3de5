//! What a jail will be, as data: no system call happens here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What the caller wants of one container's jail; everything else is policy and stands in this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Root filesystem on the host: the read-only lower layer. Absolute. A mount without submounts,
    /// whose files belong to [`Identity`]'s first id.
    pub rootfs: PathBuf,
    /// Who the container's root is outside.
    pub identity: Identity,
    /// Host name seen inside.
    pub hostname: String,
    /// Cap on everything written in the container's filesystem.
    pub disk_bytes_max: u64,
    /// Cap on the number of files written.
    pub inodes_max: u64,
    /// Cap on `/dev/shm`.
    pub shm_bytes_max: u64,
    /// Directories to make in the new root, in order.
    pub directories: Vec<Directory>,
    /// Symbolic links to make after the directories.
    pub symlinks: Vec<Symlink>,
    /// Where process 1 stands when it has entered.
    pub working_directory: PathBuf,
    /// What to do when the kernel has no Landlock.
    pub landlock: LandlockNeed,
}

/// The user and group ids of a container, seen from outside (`user_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Container ids `0..=65535` are host ids `base..=base+65535`. Needs root on the host.
    Mapped {
        /// First host id.
        base: u32,
    },
    /// Only container id 0 exists; it is the caller's own user and group.
    Caller {
        /// The caller's effective user id.
        uid: u32,
        /// The caller's effective group id.
        gid: u32,
    },
}

impl Identity {
    /// The strongest identity this process may give: [`Identity::Mapped`] as root, else [`Identity::Caller`].
    pub fn strongest(base: u32) -> Self {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            Self::Mapped { base }
        } else {
            Self::Caller {
                uid: uid.as_raw(),
                gid: rustix::process::getegid().as_raw(),
            }
        }
    }
}

/// A directory made in the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute path inside the container; its parents are made too (0755).
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
}

/// A symbolic link made in the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symlink {
    /// Absolute path of the link inside the container.
    pub path: PathBuf,
    /// Text of the link.
    pub target: PathBuf,
}

/// Whether a kernel without Landlock is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LandlockNeed {
    /// No Landlock, no container.
    Required,
    /// Applied where the kernel has it; the operator has accepted its absence.
    IfAvailable,
}

/// One compiled seccomp filter: `struct sock_filter` entries, packed as `u64`s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BpfProgram(pub Vec<u64>);

/// The Landlock rules to restrict process 1 with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockPlan {
    /// What to do when the kernel has no Landlock.
    pub need: LandlockNeed,
}

/// A resource with a limit (`setrlimit(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// `RLIMIT_CORE`, bytes.
    CoreBytes,
    /// `RLIMIT_NOFILE`, open files per process.
    OpenFiles,
    /// `RLIMIT_MEMLOCK`, bytes.
    LockedMemoryBytes,
    /// `RLIMIT_MSGQUEUE`, bytes.
    MessageQueueBytes,
    /// `RLIMIT_SIGPENDING`, signals.
    PendingSignals,
}

/// One limit, soft and hard alike; never raised above what the host already imposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit, in the resource's unit.
    pub max: u64,
}

/// Everything [`crate::enter`] does, as data. Made on the host, read by the guest program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailPlan {
    pub(crate) rootfs: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) hostname: String,
    pub(crate) landlock: LandlockPlan,
    pub(crate) seccomp: Vec<BpfProgram>,
}

/// Why a [`ContainerSpec`] cannot become a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A path that must be absolute and free of `.` and `..` is not.
    #[error("{} is not an absolute path without . and ..", .0.display())]
    Path(PathBuf),
    /// The host name is empty, longer than 64 bytes, or not letters, digits, `-` and `.`.
    #[error("{0:?} is not a host name")]
    Hostname(String),
    /// A size or a count is zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The id range does not fit, or contains host root.
    #[error("host ids {0}..+65536 are not usable for a container")]
    Identity(u32),
    /// The embedded seccomp policy does not compile for this machine.
    #[error("seccomp policy: {0}")]
    Seccomp(String),
}

impl JailPlan {
    /// Resolves a container's wishes into the full plan.
    ///
    /// # Errors
    /// [`PlanError`] for a wish that no jail can satisfy.
    pub fn for_container(spec: &ContainerSpec) -> Result<Self, PlanError> {
        Ok(Self {
            rootfs: spec.rootfs.clone(),
            identity: spec.identity,
            hostname: spec.hostname.clone(),
            landlock: LandlockPlan {
                need: spec.landlock,
            },
            seccomp: Vec::new(),
        })
    }

    /// The lower layer's place on the host.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }
}
