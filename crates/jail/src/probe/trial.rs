//! One container, started for the sake of finding out, by the very code that starts the others.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{Pid, setpgid};

use super::Finding;
use super::facts::TRIAL_BASE;
use crate::channel;
use crate::enter::Kernel;
use crate::identity::Identity;
use crate::launch::{Attachment, LaunchError, Launcher, guide};
use crate::plan::{ContainerSpec, JailPlan, LandlockNeed};
use crate::raw::{Side, exit_now, fork};
use crate::step::{SetupError, Step};

/// What the steps of set-up need of the machine, in order; each stands for the steps up to the next one's first.
const STAGES: &[(&str, Step)] = &[
    ("user_namespaces", Step::OwnUserNamespace),
    ("namespaces", Step::OwnNamespaces),
    ("devices", Step::HoldDevices),
    ("overlay", Step::WritableLayer),
    ("proc_mount", Step::Proc),
    ("root_file_system", Step::PivotRoot),
    ("privileges_drop", Step::ResourceLimits),
    ("seccomp", Step::Landlock),
];

/// Starts and ends a container; a finding for each stage.
pub(super) fn container() -> Vec<Finding> {
    let begin = Instant::now();
    match start_and_end() {
        Ok(()) => {
            let mut findings = judge(None);
            let took = format!("one was started and ended in {} ms", begin.elapsed().as_millis());
            findings.push(Finding::ok("container", took));
            findings
        }
        Err(Trouble::Launch(error)) => judge(Some(&error)),
        Err(Trouble::Preparation(what)) => {
            vec![Finding::refused("container", what, "the trial needs a directory of its own in /tmp")]
        }
    }
}

enum Trouble {
    Preparation(String),
    Launch(LaunchError),
}

fn start_and_end() -> Result<(), Trouble> {
    let identity = Identity::strongest(TRIAL_BASE);
    let rootfs =
        Scratch::make(identity).map_err(|error| Trouble::Preparation(format!("a directory in /tmp: {error}")))?;
    let plan = JailPlan::for_container(&ContainerSpec {
        rootfs: rootfs.0.clone(),
        identity,
        hostname: "container".to_owned(),
        disk_bytes_max: 1 << 20,
        inodes_max: 256,
        shm_bytes_max: 1 << 20,
        directories: Vec::new(),
        symlinks: Vec::new(),
        working_directory: PathBuf::from("/"),
        // Its absence is a finding of its own.
        landlock: LandlockNeed::IfAvailable,
    })
    .map_err(|error| Trouble::Preparation(error.to_string()))?;
    let (ours, theirs) = channel::pair().map_err(|errno| Trouble::Preparation(errno.to_string()))?;
    let launcher = forked(theirs).map_err(|errno| Trouble::Preparation(errno.to_string()))?;
    let jailed = guide(&ours, launcher, &plan, Attachment::Unlimited).map_err(Trouble::Launch)?;
    jailed.kill().and_then(|()| jailed.wait()).map_err(|error| Trouble::Preparation(error.to_string()))?;
    Ok(())
}

/// A copy of this process in the guest program's place; it ends when it has sealed itself.
fn forked(channel: OwnedFd) -> Result<Launcher, Errno> {
    match fork()? {
        Side::New => {
            let group = setpgid(None, None).is_ok();
            let done = group && Kernel::set_up(channel).and_then(Kernel::seal).is_ok();
            exit_now(i32::from(!done))
        }
        Side::Caller(pid) => {
            lead_its_group(pid)?;
            Ok(Launcher::leading_its_group(pid))
        }
    }
}

/// Parent and child both say so, and whoever comes second changes nothing.
fn lead_its_group(pid: Pid) -> Result<(), Errno> {
    setpgid(Some(pid), Some(pid))
}

/// An empty directory, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make(identity: Identity) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new("/tmp").join(format!("belljar-probe-{}-{count}", std::process::id()));
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        let made = Self(path);
        match identity {
            Identity::Mapped { base } => chown(&made.0, Some(base), Some(base))?,
            Identity::Caller { .. } => {}
        }
        Ok(made)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _empty_and_ours = fs::remove_dir(&self.0);
    }
}

/// The stages before the failed one worked, those after it were not reached.
fn judge(error: Option<&LaunchError>) -> Vec<Finding> {
    let failed = error.map(|error| (stage_of(error), error));
    STAGES
        .iter()
        .enumerate()
        .map(|(index, &(name, _))| match failed {
            Some((stage, error)) if index == stage => Finding::refused(name, error.to_string(), advice(error)),
            Some((stage, _)) if index > stage => {
                let earlier = STAGES.get(stage).map_or("", |&(name, _)| name);
                Finding::warn(name, "not tried", format!("see {earlier}"))
            }
            Some(_) | None => Finding::ok(name, "works"),
        })
        .collect()
}

fn stage_of(error: &LaunchError) -> usize {
    let failed = match error {
        LaunchError::Setup(SetupError { step, .. }) => *step,
        LaunchError::Spawn(_)
        | LaunchError::Attach(_)
        | LaunchError::IdMap { .. }
        | LaunchError::OomScore(_)
        | LaunchError::HostRoot
        | LaunchError::Vanished
        | LaunchError::Disorder
        | LaunchError::TimedOut { .. }
        | LaunchError::Channel(_) => Step::OwnUserNamespace,
    };
    let order = || crate::step::all();
    let place = |wanted| order().position(|step| step == wanted);
    STAGES.iter().rposition(|&(_, first)| place(first) <= place(failed)).unwrap_or(0)
}

fn advice(error: &LaunchError) -> String {
    let LaunchError::Setup(SetupError { step, errno }) = error else {
        return user_namespace_advice().unwrap_or_else(|| {
            "the user namespace's id maps could not be written: is this already a container, or are ids restricted?"
                .to_owned()
        });
    };
    match (step, *errno) {
        (Step::OwnUserNamespace | Step::BecomeContainerRoot | Step::OwnNamespaces, _)
        | (Step::PrivateMounts, libc::EPERM | libc::EACCES) => {
            user_namespace_advice().unwrap_or_else(|| {
                "something around the server forbids namespaces: under Docker, run it with \
                 --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
                    .to_owned()
            })
        }
        (Step::Proc, libc::EPERM) => "/proc is partly masked here, as Docker does by default, so no fresh one may be \
             mounted: run the server with --security-opt systempaths=unconfined (Podman: unmask=ALL), or outside"
            .to_owned(),
        (Step::Overlay, libc::ENODEV) => "this kernel has no overlay file system: load the module `overlay`".to_owned(),
        (Step::Overlay, _) => "overlay mounts in user namespaces need Linux 5.11, and /tmp on an ordinary file system".to_owned(),
        (Step::HoldDevices, _) => "the host's /dev lacks one of null, zero, full, random, urandom".to_owned(),
        (Step::Seccomp, _) => "the kernel needs CONFIG_SECCOMP_FILTER".to_owned(),
        _ => "this step works on every kernel we know; please report it with the kernel's version".to_owned(),
    }
}

/// The switches that distributions put before user namespaces; the first that is set against them.
fn user_namespace_advice() -> Option<String> {
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "give the server an AppArmor profile with `userns,`, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ]
    .into_iter()
    .find_map(|(file, against, cure)| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(file)).ok()?;
        (value.trim() == against)
            .then(|| format!("/proc/sys/{file} is {against}: {cure}, or run the server as root"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn statuses(step: Step, errno: i32) -> Vec<(&'static str, Status)> {
        let error = LaunchError::Setup(SetupError { step, errno });
        judge(Some(&error)).into_iter().map(|finding| (finding.name, finding.status)).collect()
    }

    #[test]
    fn the_failed_stage_is_refused_and_what_follows_is_not_vouched_for() {
        assert_eq!(
            statuses(Step::Proc, libc::EPERM),
            [
                ("user_namespaces", Status::Ok),
                ("namespaces", Status::Ok),
                ("devices", Status::Ok),
                ("overlay", Status::Ok),
                ("proc_mount", Status::Refused),
                ("root_file_system", Status::Warn),
                ("privileges_drop", Status::Warn),
                ("seccomp", Status::Warn),
            ]
        );
        let refused = |step| {
            let all = statuses(step, libc::EPERM);
            all.into_iter().find(|(_, status)| *status == Status::Refused)
        };
        for (step, stage) in [
            (Step::ReadPlan, "user_namespaces"),
            (Step::BecomeContainerRoot, "user_namespaces"),
            (Step::BecomeProcessOne, "namespaces"),
            (Step::PrivateMounts, "namespaces"),
            (Step::HoldDevices, "devices"),
            (Step::Overlay, "overlay"),
            (Step::MaskProc, "root_file_system"),
            (Step::Undumpable, "privileges_drop"),
            (Step::Seccomp, "seccomp"),
            (Step::Report, "seccomp"),
        ] {
            assert_eq!(refused(step), Some((stage, Status::Refused)), "{step:?}");
        }
    }

    #[test]
    fn a_masked_proc_is_recognised() {
        let error = LaunchError::Setup(SetupError { step: Step::Proc, errno: libc::EPERM });
        assert!(advice(&error).starts_with("/proc is partly masked here"));
    }
}
