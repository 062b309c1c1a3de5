//! What containers of one image are started from: its jail plan, and the nursery that has read it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use belljar_jail::cgroup::Limits;
use belljar_jail::{ContainerSpec, Directory, Identity, JailPlan, Realm, Sizes, Symlink};
use tokio_util::sync::CancellationToken;

use crate::command::DiskFree;
use crate::config::{Rootfs, SandboxConfig};
use crate::environment::{HOME, INPUT_DIRECTORY, OUTPUT_ROOT, WORKING_DIRECTORY};
use crate::error::SandboxError;
use crate::nurseries::Nurseries;
use crate::zygote::{Attendance, Zygotes};

/// Files of one container, directories included.
const INODES_MAX: u64 = 262_144;
/// `/dev/shm` of one container.
const SHM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Seen from inside.
const HOSTNAME: &str = "container";

/// See the module's head.
pub struct Image {
    pub rootfs: Rootfs,
    realm: Arc<Realm>,
    zygotes: Zygotes,
    /// Ends its zygotes.
    pub stop: CancellationToken,
    spec: ContainerSpec,
    /// For the sandbox's own limits.
    plan: JailPlan,
    nurseries: Nurseries,
}

impl Image {
    /// With what the attendants of its zygotes need. Blocks.
    pub fn prepare(
        config: &SandboxConfig,
        rootfs: Rootfs,
        realm: Arc<Realm>,
        program: &File,
    ) -> Result<(Self, [Attendance; 2]), SandboxError> {
        let spec = spec(config, &rootfs, realm.identity());
        let plan = JailPlan::for_container(&spec).map_err(|error| SandboxError::Host(error.to_string()))?;
        let (zygotes, attendances) = Zygotes::new(&config.zygotes);
        let stop = CancellationToken::new();
        let nurseries = Nurseries::start(&realm, program, &plan);
        Ok((Self { rootfs, realm, zygotes, stop, spec, plan, nurseries }, attendances))
    }

    /// Where REPLs are forked from.
    pub fn zygotes(&self) -> &Zygotes {
        &self.zygotes
    }

    /// Where its containers and zygotes live.
    pub fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }

    /// What a zygote's child gives up to become a container's, for `belljar_join`.
    pub fn seal(&self) -> Result<Vec<u8>, SandboxError> {
        self.plan.seal_plan().to_bytes().map_err(|error| SandboxError::Launch(error.to_string()))
    }

    /// What a container with these limits differs in from the others.
    pub fn sizes(&self, limits: &Limits) -> Sizes {
        let ContainerSpec { disk_bytes_max, shm_bytes_max, .. } = self.sized(limits);
        Sizes { disk_bytes_max, shm_bytes_max }
    }

    /// Ends what waits to bear its containers: they are launched each by itself from here on, if any still are.
    pub async fn close_nurseries(self: &Arc<Self>) {
        let image = Arc::clone(self);
        let closing = tokio::task::spawn_blocking(move || image.nurseries.close());
        if let Err(error) = closing.await {
            tracing::error!(%error, "a nursery could not be ended");
        }
    }

    /// Where its containers are borne.
    pub fn nurseries(&self) -> &Nurseries {
        &self.nurseries
    }

    /// The plan of a container with the sandbox's own limits.
    pub fn own_plan(&self) -> &JailPlan {
        &self.plan
    }

    /// The plan of a container with these limits.
    pub fn plan(&self, limits: &Limits) -> Result<std::borrow::Cow<'_, JailPlan>, SandboxError> {
        use std::borrow::Cow;
        let spec = self.sized(limits);
        if spec == self.spec {
            return Ok(Cow::Borrowed(&self.plan));
        }
        let plan = JailPlan::for_container(&spec).map_err(|error| SandboxError::Launch(error.to_string()))?;
        Ok(Cow::Owned(plan))
    }

    /// The spec of a container with these limits.
    pub fn spec(&self, limits: &Limits) -> ContainerSpec {
        self.sized(limits)
    }

    /// Whether a container made for the sandbox's own limits can serve under these: its disk was sized when it was made,
    /// and a disk larger than the memory it lives in would end in a kill where `ENOSPC` is due.
    pub fn fits_pooled(&self, limits: &Limits) -> bool {
        self.sized(limits) == self.spec
    }

    /// The size of the disk of a container with these limits.
    pub fn disk_max(&self, limits: &Limits) -> DiskFree {
        let spec = self.sized(limits);
        DiskFree { bytes: spec.disk_bytes_max, inodes: spec.inodes_max }
    }

    fn sized(&self, limits: &Limits) -> ContainerSpec {
        let (disk, shm) = disk_in(limits.memory_bytes_max);
        ContainerSpec {
            disk_bytes_max: self.spec.disk_bytes_max.min(disk),
            shm_bytes_max: self.spec.shm_bytes_max.min(shm),
            ..self.spec.clone()
        }
    }
}

/// What of a container's memory its disk, and its `/dev/shm`, may take, so that a full one answers `ENOSPC` before it
/// becomes an out-of-memory kill.
fn disk_in(memory_bytes_max: u64) -> (u64, u64) {
    (memory_bytes_max / 8 * 7, SHM_BYTES_MAX.min(memory_bytes_max / 8))
}

fn spec(config: &SandboxConfig, rootfs: &Rootfs, identity: Identity) -> ContainerSpec {
    let directory = |path: &str, mode| Directory { path: PathBuf::from(path), mode };
    let (disk, shm_bytes_max) = disk_in(config.memory_bytes_max);
    ContainerSpec {
        rootfs: rootfs.path.clone(),
        identity,
        hostname: HOSTNAME.to_owned(),
        disk_bytes_max: config.disk_bytes_max.min(disk),
        inodes_max: INODES_MAX,
        shm_bytes_max,
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
    }
}
