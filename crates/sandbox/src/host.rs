//! What all containers of a sandbox share: the guest program, the cgroups, the limits, the image of the day.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use belljar_jail::cgroup::{Cgroup, CgroupTree, Limits};
use belljar_jail::{AtBirth, Attachment, Identity, Realm, ZygoteFile, ZygotePlan, launch, launch_zygote};

use crate::config::{LimitsNeed, Rootfs, SandboxConfig};
use crate::descriptors;
use crate::error::SandboxError;
use crate::gvisor::{self, Gvisor};
use crate::image::Image;
use crate::options::Isolation;
use crate::process::Process;
use crate::program;
use crate::zygote::Attendance;

/// See the module's head.
pub struct Host {
    pub config: SandboxConfig,
    program: File,
    cgroups: Option<CgroupTree>,
    /// Prepared when first asked for; a failure is not remembered.
    gvisor: Mutex<Option<Arc<Gvisor>>>,
    /// New containers are made from it; those that live keep theirs.
    image: RwLock<Arc<Image>>,
}

impl Host {
    /// Finds out what this machine offers; with what the attendants of the image's zygotes need. Blocks.
    pub fn prepare(
        config: SandboxConfig,
        rootfs: Rootfs,
        realm: Option<Realm>,
    ) -> Result<(Self, [Attendance; 2]), SandboxError> {
        descriptors::raise(&config);
        let program = program::sealed().map_err(SandboxError::io("keep the guest program in memory"))?;
        let identity = identity(&rootfs)?;
        let realm = match realm.filter(|realm| realm.identity() == identity) {
            Some(realm) => realm,
            None => Realm::create(program.as_fd(), identity).map_err(|error| SandboxError::Host(error.to_string()))?,
        };
        let (image, attendances) = Image::prepare(&config, rootfs, Arc::new(realm), &program)?;
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
        let gvisor = Mutex::default();
        Ok((Self { config, program, cgroups, gvisor, image: RwLock::new(Arc::new(image)) }, attendances))
    }

    /// What containers can be made from. Blocks.
    pub fn prepare_image(&self, rootfs: Rootfs) -> Result<(Image, [Attendance; 2]), SandboxError> {
        let identity = identity(&rootfs)?;
        let present = Arc::clone(self.image().realm());
        // The realm is one user namespace, with one map of ids.
        let realm = if present.identity() == identity {
            present
        } else {
            let made = Realm::create(self.program.as_fd(), identity);
            Arc::new(made.map_err(|error| SandboxError::Host(error.to_string()))?)
        };
        Image::prepare(&self.config, rootfs, realm, &self.program)
    }

    /// What new containers are made from.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Containers are made from another image from here on; returns the one before.
    pub fn change_image(&self, image: Arc<Image>) -> Arc<Image> {
        std::mem::replace(&mut *self.image.write().unwrap_or_else(PoisonError::into_inner), image)
    }

    /// Starts process 1 of a container, known to this host as `name`. `at_birth` gets its pid namespace before all else stands,
    /// where that can be. Blocks.
    pub fn start(
        &self,
        image: &Image,
        name: &str,
        isolation: Isolation,
        limits: &Limits,
        control: OwnedFd,
        at_birth: Option<AtBirth<'_>>,
    ) -> Result<Process, SandboxError> {
        let gvisor = match isolation {
            Isolation::Namespaces => None,
            Isolation::Gvisor => Some(self.gvisor()?),
        };
        let outer = gvisor.as_ref().map_or(*limits, |_| gvisor::outer_limits(limits));
        let cgroup = self.cgroup(name, &outer)?;
        let attachment = cgroup.as_ref().map_or(Attachment::Unlimited, Attachment::Cgroup);
        let jailed = match gvisor {
            None => match image.nurseries().launch(image, &self.program, limits, attachment, control.as_fd(), at_birth)
            {
                Some(borne) => borne.map_err(|error| SandboxError::Launch(error.to_string()))?,
                None => {
                    let plan = image.plan(limits)?;
                    launch(image.realm(), self.program.as_fd(), &plan, attachment, control)
                        .map_err(|error| SandboxError::Launch(error.to_string()))?
                }
            },
            Some(gvisor) => {
                let spec = image.spec(limits);
                gvisor.start(image.realm(), &self.program, &spec, limits, attachment, control)?
            }
        };
        Ok(Process::new(jailed, cgroup))
    }

    /// gVisor, as configured. Blocks the first time.
    fn gvisor(&self) -> Result<Arc<Gvisor>, SandboxError> {
        let mut held = self.gvisor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gvisor) = &*held {
            return Ok(Arc::clone(gvisor));
        }
        let gvisor = Arc::new(Gvisor::prepare(self.config.runsc.as_deref())?);
        Ok(Arc::clone(held.insert(gvisor)))
    }

    /// Starts a zygote, in a cgroup called `name`. Blocks.
    pub fn start_zygote(
        &self,
        image: &Image,
        name: &str,
        limits: &Limits,
        plan: &ZygotePlan,
        control: OwnedFd,
        files: &[ZygoteFile],
    ) -> Result<Process, SandboxError> {
        let cgroup = self.cgroup(name, limits)?;
        let attachment = cgroup.as_ref().map_or(Attachment::Unlimited, Attachment::Cgroup);
        let jailed = launch_zygote(image.realm(), self.program.as_fd(), plan, attachment, control, files)
            .map_err(|error| SandboxError::Launch(error.to_string()))?;
        Ok(Process::new(jailed, cgroup))
    }

    /// Where the cgroups of this server's containers are; none where there are no limits.
    pub fn cgroups(&self) -> Option<&CgroupTree> {
        self.cgroups.as_ref()
    }

    /// For an answer to a call that code has made.
    pub fn answer_wait_max(&self) -> Duration {
        Duration::from_secs(self.config.tool_answer_wait_s_max)
    }

    fn cgroup(&self, name: &str, limits: &Limits) -> Result<Option<Cgroup>, SandboxError> {
        let made = self.cgroups.as_ref().map(|tree| tree.create(name, limits)).transpose();
        made.map_err(|error| SandboxError::Launch(error.to_string()))
    }

    /// The limits of a container of which nothing else was said, and the highest of any.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes_max: self.config.memory_bytes_max,
            cpus: self.config.cpus,
            processes_max: u64::from(self.config.processes_max),
        }
    }
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

/// A name nobody can guess or reuse: 16 hexadecimal digits (wire.md §7.4).
pub fn random_name() -> Result<String, SandboxError> {
    let [name] = random_names()?;
    Ok(name)
}

/// As many names, unrelated to each other.
pub fn random_names<const N: usize>() -> Result<[String; N], SandboxError> {
    let mut bytes = [[0; 8]; N];
    let flat = bytes.as_flattened_mut();
    let mut filled = 0;
    while filled < flat.len() {
        filled += rustix::rand::getrandom(&mut flat[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| SandboxError::Io { what: "read random bytes", source: error.into() })?;
    }
    Ok(bytes.map(|bytes| format!("{:016x}", u64::from_ne_bytes(bytes))))
}

/// What a container is started from.
pub type SharedHost = Arc<Host>;
