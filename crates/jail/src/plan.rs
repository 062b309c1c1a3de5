//! What a jail will be, as data: no system call happens here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::channel::PLAN_BYTES_MAX;
use crate::identity::{IDS, Identity};
use crate::seccomp::{self, Filters};
use crate::ward::WardPlan;

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

/// The Landlock rules to restrict process 1 with (`landlock(7)`).
///
/// Every right the kernel knows is handled, so what is not granted is denied. Besides, TCP bind and connect are always
/// denied. Signals and abstract sockets are not scoped: process 1 and a REPL of one container are two domains, and must
/// be able to signal each other. That none of them leaves the container is the work of its pid and network namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockPlan {
    /// What to do when the kernel has no Landlock.
    pub need: LandlockNeed,
    /// What is allowed, and below which directories.
    pub grants: Vec<LandlockGrant>,
}

/// Rights on a directory and everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockGrant {
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// What may be done there.
    pub rights: Vec<FileRight>,
}

/// A right on files that Landlock can deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of landlock(7)")]
pub enum FileRight {
    Execute,
    WriteFile,
    ReadFile,
    ReadDir,
    RemoveDir,
    RemoveFile,
    MakeDir,
    MakeReg,
    MakeSock,
    MakeFifo,
    MakeSym,
    Refer,
    Truncate,
    ResolveUnix,
}

/// A resource with a limit (`setrlimit(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// `RLIMIT_CORE`, bytes.
    CoreBytes,
    /// `RLIMIT_FSIZE`, bytes of one file. A sparse file has no other bound.
    FileBytes,
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
#[serde(deny_unknown_fields)]
pub struct JailPlan {
    pub(crate) rootfs: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) hostname: String,
    pub(crate) disk_bytes_max: u64,
    pub(crate) inodes_max: u64,
    pub(crate) shm_bytes_max: u64,
    /// Nodes of the host's `/dev` that come in.
    pub(crate) devices: Vec<String>,
    /// What is covered in `/proc`, relative to it; what this kernel does not have is passed over.
    pub(crate) proc_masks: Vec<String>,
    pub(crate) directories: Vec<Directory>,
    pub(crate) symlinks: Vec<Symlink>,
    pub(crate) working_directory: PathBuf,
    pub(crate) resource_limits: Vec<ResourceLimit>,
    pub(crate) landlock: LandlockPlan,
    pub(crate) seccomp_first: BpfProgram,
    pub(crate) seccomp_last: BpfProgram,
    /// Only in a ward's plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ward: Option<WardPlan>,
}

/// What [`crate::join`] applies to a process that joins a container: the part of a [`JailPlan`] that concerns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealPlan {
    pub(crate) identity: Identity,
    pub(crate) resource_limits: Vec<ResourceLimit>,
    pub(crate) landlock: LandlockPlan,
    /// The first one is inherited.
    pub(crate) seccomp_last: BpfProgram,
}

impl SealPlan {
    /// The form in which a zygote gets it, as one of its files.
    ///
    /// # Errors
    /// [`PlanError::Form`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanError> {
        serde_json::to_vec(self).map_err(|error| PlanError::Form(error.to_string()))
    }

    /// Reads what [`SealPlan::to_bytes`] made.
    ///
    /// # Errors
    /// [`PlanError::Form`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlanError> {
        serde_json::from_slice(bytes).map_err(|error| PlanError::Form(error.to_string()))
    }
}

/// What differs between the containers of one [`crate::Nursery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// As in [`ContainerSpec`].
    pub disk_bytes_max: u64,
    /// As in [`ContainerSpec`].
    pub shm_bytes_max: u64,
}

impl Sizes {
    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let sizes = [("disk_bytes_max", self.disk_bytes_max), ("shm_bytes_max", self.shm_bytes_max)];
        // tmpfs reads 0 as "no limit".
        sizes.iter().try_for_each(|&(name, size)| if size == 0 { Err(PlanError::Zero(name)) } else { Ok(()) })
    }
}

/// Why a [`ContainerSpec`] cannot become a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// The id range does not fit, or contains the host's own users.
    #[error("host ids {0}..+65536 cannot be a container's: they must start at 65536 or above, and fit")]
    Identity(u32),
    /// The embedded seccomp policy does not compile for this machine.
    #[error("seccomp policy: {0}")]
    Seccomp(String),
    /// The plan cannot be written down.
    #[error("plan: {0}")]
    Form(String),
    /// The plan would not fit in one message to the guest program.
    #[error("the plan has {0} bytes, at most {PLAN_BYTES_MAX} can be handed over")]
    TooLarge(usize),
}

/// Device nodes every program expects; none of them reaches hardware.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

pub(crate) fn devices() -> Vec<String> {
    DEVICES.iter().map(ToString::to_string).collect()
}

/// Entries of `/proc` that tell of the host or reach into its kernel; the list of container runtimes, and a little more.
const PROC_MASKS: &[&str] = &[
    "acpi",
    "asound",
    "bus",
    "cmdline",
    "config.gz",
    "driver",
    "fs",
    "interrupts",
    "iomem",
    "ioports",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "modules",
    "mtrr",
    "pressure",
    "sched_debug",
    "scsi",
    "softirqs",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];

/// How much larger than the whole disk a file may seem: so much that a full disk says so itself (`ENOSPC`) before the
/// limit ends the program (`SIGXFSZ`), which is there for files with holes.
const FILE_BYTES_SPARE: u64 = 4096;

/// The limits of a jail whose files together have at most `disk_bytes_max` bytes.
pub(crate) fn resource_limits(disk_bytes_max: u64) -> Vec<ResourceLimit> {
    let fixed = RESOURCE_LIMITS.iter().map(|&(resource, max)| ResourceLimit { resource, max });
    let file_bytes_max = disk_bytes_max.saturating_add(FILE_BYTES_SPARE);
    fixed.chain([ResourceLimit { resource: Resource::FileBytes, max: file_bytes_max }]).collect()
}

const RESOURCE_LIMITS: &[(Resource, u64)] = &[
    // A core file would carry the container's memory out of its accounts.
    (Resource::CoreBytes, 0),
    // Process 1's own; it gives the code far less, so that descriptors in flight, which the kernel counts for all
    // containers together (unix(7), ETOOMANYREFS), never keep it from sending one. 1024^2 is what hosts grant.
    (Resource::OpenFiles, 1_048_576),
    (Resource::LockedMemoryBytes, 8 * 1024 * 1024),
    (Resource::MessageQueueBytes, 819_200),
    (Resource::PendingSignals, 4_096),
];

/// Everything but device nodes and their controls, which nothing in a container needs.
const RIGHTS: &[FileRight] = &[
    FileRight::Execute,
    FileRight::WriteFile,
    FileRight::ReadFile,
    FileRight::ReadDir,
    FileRight::RemoveDir,
    FileRight::RemoveFile,
    FileRight::MakeDir,
    FileRight::MakeReg,
    FileRight::MakeSock,
    FileRight::MakeFifo,
    FileRight::MakeSym,
    FileRight::Refer,
    FileRight::Truncate,
    FileRight::ResolveUnix,
];

impl JailPlan {
    /// Resolves a container's wishes into the full plan.
    ///
    /// # Errors
    /// [`PlanError`] for a wish that no jail can satisfy.
    pub fn for_container(spec: &ContainerSpec) -> Result<Self, PlanError> {
        check(spec)?;
        let filters = filters()?;
        let plan = Self {
            rootfs: spec.rootfs.clone(),
            identity: spec.identity,
            hostname: spec.hostname.clone(),
            disk_bytes_max: spec.disk_bytes_max,
            inodes_max: spec.inodes_max,
            shm_bytes_max: spec.shm_bytes_max,
            devices: devices(),
            proc_masks: PROC_MASKS.iter().map(ToString::to_string).collect(),
            directories: spec.directories.clone(),
            symlinks: spec.symlinks.clone(),
            working_directory: spec.working_directory.clone(),
            resource_limits: resource_limits(spec.disk_bytes_max),
            landlock: LandlockPlan {
                need: spec.landlock,
                grants: vec![LandlockGrant { path: PathBuf::from("/"), rights: RIGHTS.to_vec() }],
            },
            seccomp_first: filters.first.clone(),
            seccomp_last: filters.last.clone(),
            ward: None,
        };
        plan.fitting()
    }

    /// The same, as the ward around a container that another program makes. Its directories and links are left to
    /// whoever becomes process 1 of the container itself.
    ///
    /// # Errors
    /// [`PlanError`] for a wish that no jail can satisfy.
    pub fn for_ward(spec: &ContainerSpec, ward: WardPlan) -> Result<Self, PlanError> {
        let (directories, symlinks) = (Vec::new(), Vec::new());
        let mut plan = Self { ward: Some(ward), directories, symlinks, ..Self::for_container(spec)? };
        // The others are the code's: the sentry's memory, for one, is a file to the kernel, larger than any of the code's.
        plan.resource_limits.retain(|limit| limit.resource == Resource::CoreBytes);
        plan.fitting()
    }

    fn fitting(self) -> Result<Self, PlanError> {
        let bytes = self.to_order().map_err(|error| PlanError::Form(error.to_string()))?.len();
        if bytes > PLAN_BYTES_MAX { Err(PlanError::TooLarge(bytes)) } else { Ok(self) }
    }

    /// The same, for a container of these sizes.
    pub(crate) fn resize(&mut self, sizes: Sizes) {
        (self.disk_bytes_max, self.shm_bytes_max) = (sizes.disk_bytes_max, sizes.shm_bytes_max);
        self.resource_limits = resource_limits(sizes.disk_bytes_max);
    }

    /// What a nursery's containers may differ in.
    pub fn sizes(&self) -> Sizes {
        Sizes { disk_bytes_max: self.disk_bytes_max, shm_bytes_max: self.shm_bytes_max }
    }

    /// The lower layer's place on the host.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// What a process that joins such a container has to apply to itself.
    pub fn seal_plan(&self) -> SealPlan {
        SealPlan {
            identity: self.identity,
            resource_limits: self.resource_limits.clone(),
            landlock: self.landlock.clone(),
            seccomp_last: self.seccomp_last.clone(),
        }
    }

    /// The form in which the guest program gets it.
    pub(crate) fn to_order(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Order::Container(self))
    }

    /// The form in which a nursery gets it.
    pub(crate) fn to_nursery_order(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Order::Nursery(self))
    }
}

/// [`crate::channel::Order`] as it is written, without a copy of the plan.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Order<'a> {
    Container(&'a JailPlan),
    Nursery(&'a JailPlan),
}

/// The filters of whatever this crate starts.
pub(crate) fn filters() -> Result<&'static Filters, PlanError> {
    seccomp::compiled().map_err(|error| PlanError::Seccomp(error.to_string()))
}

fn check(spec: &ContainerSpec) -> Result<(), PlanError> {
    let paths = [&spec.rootfs, &spec.working_directory]
        .into_iter()
        .chain(spec.directories.iter().map(|directory| &directory.path))
        .chain(spec.symlinks.iter().map(|link| &link.path));
    for path in paths {
        check_path(path)?;
    }
    for link in &spec.symlinks {
        // The text may be relative or lead anywhere; it has to be a text, though.
        if link.target.to_str().is_none_or(|text| text.is_empty() || text.contains('\0')) {
            return Err(PlanError::Path(link.target.clone()));
        }
    }
    let characters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !(1..=64).contains(&spec.hostname.len()) || !spec.hostname.chars().all(characters) {
        return Err(PlanError::Hostname(spec.hostname.clone()));
    }
    Sizes { disk_bytes_max: spec.disk_bytes_max, shm_bytes_max: spec.shm_bytes_max }.check()?;
    if spec.inodes_max == 0 {
        return Err(PlanError::Zero("inodes_max"));
    }
    match spec.identity {
        // The last id, 4294967295, means "no change" to the kernel.
        Identity::Mapped { base } if base < IDS || base.checked_add(IDS).is_none() => Err(PlanError::Identity(base)),
        Identity::Mapped { .. } | Identity::Caller { .. } => Ok(()),
    }
}

pub(crate) fn check_path(path: &Path) -> Result<(), PlanError> {
    let plain = path.is_absolute()
        && path
            .to_str()
            .is_some_and(|text| !text.contains('\0') && !text.split('/').any(|part| part == "." || part == ".."));
    if plain { Ok(()) } else { Err(PlanError::Path(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            rootfs: "/images/one".into(),
            identity: Identity::Mapped { base: 1_879_048_192 },
            hostname: "container".to_owned(),
            disk_bytes_max: 5 << 30,
            inodes_max: 1 << 20,
            shm_bytes_max: 1 << 30,
            directories: vec![Directory { path: "/tmp".into(), mode: 0o1777 }],
            symlinks: vec![Symlink { path: "/mnt/user-data".into(), target: "/files/input".into() }],
            working_directory: "/work".into(),
            landlock: LandlockNeed::Required,
        }
    }

    #[test]
    fn a_containers_plan() {
        let mut plan = JailPlan::for_container(&spec()).expect("plan");
        match serde_json::from_slice(&plan.to_order().expect("bytes")).expect("back") {
            crate::channel::Order::Container(back) => assert_eq!(*back, plan),
            other => panic!("{other:?}"),
        }
        let seal = plan.seal_plan();
        assert_eq!(SealPlan::from_bytes(&seal.to_bytes().expect("bytes")).expect("back"), seal);
        let Filters { first, last } = filters().expect("filters");
        assert_eq!((&plan.seccomp_first, &plan.seccomp_last), (first, last));
        // They differ between architectures.
        plan.seccomp_first.0.clear();
        plan.seccomp_last.0.clear();
        insta::assert_json_snapshot!(plan);
    }

    #[test]
    fn wishes_no_jail_can_satisfy() {
        let path = |text: &str| PlanError::Path(text.into());
        type Change = fn(&mut ContainerSpec);
        let cases: &[(Change, PlanError)] = &[
            (|s| s.rootfs = "images".into(), path("images")),
            (|s| s.rootfs = "/a/../b".into(), path("/a/../b")),
            (|s| s.working_directory = "/./w".into(), path("/./w")),
            (|s| s.directories[0].path = "tmp".into(), path("tmp")),
            (|s| s.symlinks[0].path = "/a\0b".into(), path("/a\0b")),
            (|s| s.hostname = String::new(), PlanError::Hostname(String::new())),
            (|s| s.hostname = "a b".into(), PlanError::Hostname("a b".into())),
            (|s| s.hostname = "x".repeat(65), PlanError::Hostname("x".repeat(65))),
            (|s| s.disk_bytes_max = 0, PlanError::Zero("disk_bytes_max")),
            (|s| s.inodes_max = 0, PlanError::Zero("inodes_max")),
            (|s| s.shm_bytes_max = 0, PlanError::Zero("shm_bytes_max")),
            (|s| s.identity = Identity::Mapped { base: 0 }, PlanError::Identity(0)),
            (|s| s.identity = Identity::Mapped { base: 65_535 }, PlanError::Identity(65_535)),
            (|s| s.identity = Identity::Mapped { base: u32::MAX - 65_535 }, PlanError::Identity(u32::MAX - 65_535)),
        ];
        for (change, error) in cases {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(JailPlan::for_container(&spec).as_ref(), Err(error));
        }
    }

    #[test]
    fn a_plan_too_large_to_hand_over() {
        let mut spec = spec();
        spec.symlinks[0].target = "x".repeat(PLAN_BYTES_MAX).into();
        let error = JailPlan::for_container(&spec).expect_err("too large");
        assert!(matches!(error, PlanError::TooLarge(bytes) if bytes > PLAN_BYTES_MAX));
    }
}
