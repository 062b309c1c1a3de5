//! One container, started for the sake of finding out, by the very code that starts the others.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, setpgid, waitid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Finding;
use super::facts::TRIAL_BASE;
use crate::channel::{self, Report};
use crate::enter::{Kernel, become_realm_root, enter_realm};
use crate::identity::Identity;
use crate::join::join;
use crate::launch::{
    Attachment, Jailed, LaunchError, Launcher, Namespaces, guide, limit_silence, next_report, talk, unexpected,
};
use crate::plan::{ContainerSpec, JailPlan, LandlockNeed, SealPlan};
use crate::raw::{Side, exit_now, fork, unshare};
use crate::realm::Realm;
use crate::step::{SetupError, Step};

/// What the steps of set-up need of the machine, in order; each stands for the steps up to the next one's first.
const STAGES: &[(&str, Step)] = &[
    ("realm", Step::OwnUserNamespace),
    ("namespaces", Step::EnterRealm),
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
        Ok(joined) => {
            let mut findings = judge(None);
            let took = format!("one was started and ended in {} ms", begin.elapsed().as_millis());
            findings.push(Finding::ok("container", took));
            findings.push(judge_join(joined));
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

/// A container, and whether a process could join it.
fn start_and_end() -> Result<Result<(), LaunchError>, Trouble> {
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
    let (ours, launcher) = forked().map_err(Trouble::Launch)?;
    let realm = Realm::guide(&ours, launcher, identity).map_err(Trouble::Launch)?;
    let (ours, launcher) = forked().map_err(Trouble::Launch)?;
    let jailed = guide(&realm, &ours, launcher, &plan, Attachment::Unlimited, None).map_err(Trouble::Launch)?;
    let joined = join_from_outside(&realm, &jailed, &plan.seal_plan());
    jailed.kill().and_then(|()| jailed.wait()).map_err(|error| Trouble::Preparation(error.to_string()))?;
    Ok(joined)
}

/// A copy of this process in the guest program's place. As process 1 it stays, sealed, until it is killed: nobody can
/// join a container that has ended.
fn forked() -> Result<(OwnedFd, Launcher), LaunchError> {
    let (ours, theirs) = channel::pair().map_err(talk)?;
    match fork().map_err(talk)? {
        Side::New => {
            let stay = setpgid(None, None).and_then(|()| rustix::io::fcntl_dupfd_cloexec(&theirs, 0));
            let stayed = stay.map(|stay| {
                let sealed = Kernel::set_up(theirs, None).and_then(Kernel::seal);
                sealed.is_ok() && channel::receive_go(&stay).is_ok()
            });
            exit_now(i32::from(stayed != Ok(true)))
        }
        Side::Caller(pid) => Ok((ours, watched(pid)?)),
    }
}

fn watched(pid: Pid) -> Result<Launcher, LaunchError> {
    lead_its_group(pid).map_err(talk)?;
    Ok(Launcher::leading_its_group(pid))
}

/// What a zygote does: a copy of this process in the realm forks one into the container, which joins it.
fn join_from_outside(realm: &Realm, jailed: &Jailed, seal: &SealPlan) -> Result<(), LaunchError> {
    let namespaces = jailed.namespaces().map_err(LaunchError::Namespace)?;
    let (ours, theirs) = channel::pair().map_err(talk)?;
    let zygote = match fork().map_err(talk)? {
        Side::New => {
            let group = setpgid(None, None).map_err(SetupError::at(Step::ReadPlan));
            if let Err(error) = group.and_then(|()| fork_into(realm, namespaces, seal, &theirs)) {
                let _told_or_gone = channel::send_report(&theirs, Report::Failed(error));
            }
            exit_now(0)
        }
        Side::Caller(pid) => watched(pid)?,
    };
    drop(theirs);
    limit_silence(&ours)?;
    match next_report(&ours)? {
        Report::Sealed => zygote.finish(),
        other => Err(unexpected(other)),
    }
}

/// The forked process itself tells what became of it, through all the walls.
fn fork_into(realm: &Realm, namespaces: Namespaces, seal: &SealPlan, channel: &OwnedFd) -> Result<(), SetupError> {
    enter_realm(realm.namespace()).map_err(SetupError::at(Step::EnterRealm))?;
    become_realm_root(realm.identity()).map_err(SetupError::at(Step::BecomeRealmRoot))?;
    unshare(UnshareFlags::NEWNS).map_err(SetupError::at(Step::OwnZygoteNamespaces))?;
    let [_, _, pid_namespace, ..] = namespaces.as_fds();
    let entered = move_into_link_name_space(pid_namespace, Some(LinkNameSpaceType::ProcessID)).and_then(|()| fork());
    match entered.map_err(SetupError::at(Step::CheckPidNamespace))? {
        Side::New => {
            let report = join(namespaces.into_fds(), seal).map_or_else(Report::Failed, |()| Report::Sealed);
            exit_now(i32::from(channel::send_report(channel, report).is_err()))
        }
        Side::Caller(pid) => rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED))
            .map(drop)
            .map_err(SetupError::at(Step::CheckPidNamespace)),
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

/// Without it containers start all the same, and so does Python in them, only slower.
fn judge_join(joined: Result<(), LaunchError>) -> Finding {
    match joined {
        Ok(()) => Finding::ok("join", "a process of the realm joined it, sealed"),
        Err(error) => Finding::warn(
            "join",
            error.to_string(),
            "without zygotes every Python starts cold, about a hundred times slower; please report this with the \
             kernel's version",
        ),
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
        | LaunchError::OtherRealm
        | LaunchError::Plan(_)
        | LaunchError::Files(_)
        | LaunchError::Namespace(_)
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
        (
            Step::OwnUserNamespace
            | Step::EnterRealm
            | Step::BecomeRealmRoot
            | Step::RealmNamespaces
            | Step::BecomeProcessOne,
            _,
        )
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
        (Step::FirstSeccomp | Step::LastSeccomp, _) => "the kernel needs CONFIG_SECCOMP_FILTER".to_owned(),
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
                ("realm", Status::Ok),
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
            (Step::ReadPlan, "realm"),
            (Step::BecomeRealmRoot, "namespaces"),
            (Step::RealmNamespaces, "namespaces"),
            (Step::Hostname, "namespaces"),
            (Step::BecomeProcessOne, "namespaces"),
            (Step::PrivateMounts, "namespaces"),
            (Step::HoldDevices, "devices"),
            (Step::Overlay, "overlay"),
            (Step::MaskProc, "root_file_system"),
            (Step::Undumpable, "privileges_drop"),
            (Step::FirstSeccomp, "seccomp"),
            (Step::LastSeccomp, "seccomp"),
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
