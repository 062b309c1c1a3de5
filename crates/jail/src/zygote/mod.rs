//! A zygote: a program of the image, in the realm, that forks processes into containers.
//!
//! It is trusted: it runs no user code, ever. What it forks is not, and gives up everything in [`crate::join`].

mod inside;

use std::borrow::Cow;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::channel::{self, Order, PLAN_BYTES_MAX, Report};
use crate::identity::Identity;
use crate::launch::{Attachment, Jailed, LaunchError, Launcher, limit_silence, next_report, talk, unexpected};
use crate::plan::{BpfProgram, PlanError, ResourceLimit, check_path, devices, filters, resource_limits};
use crate::realm::Realm;

pub(crate) use inside::{ASIDE, become_zygote};

/// Where the control socket is in the zygote.
pub const ZYGOTE_CONTROL_FD: i32 = 3;

/// Where the descriptor of the zygote's own pid namespace (the host's) is.
///
/// It cannot be entered from the realm, whose root has no power over it (`setns(2)`: `EPERM`). It need not be: a
/// `setns` into the next container's pid namespace starts from the zygote's own, not from the last one chosen.
pub const ZYGOTE_PID_NAMESPACE_FD: i32 = 4;

/// What ends a zygote with the host: nothing is ever sent there, and when the host's end closes, the kernel kills the
/// zygote. To be left open in the zygote, and closed in what it forks.
pub const ZYGOTE_LIFELINE_FD: i32 = 5;

/// Where a zygote finds its files.
pub const ZYGOTE_FILES: &str = "/run/belljar";

/// What a zygote is.
#[derive(Debug)]
pub struct ZygotePlan {
    /// Root filesystem on the host, as in [`crate::ContainerSpec`]; the zygote sees it read-only.
    pub rootfs: PathBuf,
    /// Program and arguments; the program's path is absolute, in the image.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Writable directory for caches, empty at first; absolute.
    pub home: PathBuf,
    /// Cap on what is written below `/tmp`, and once more on what is written below `home`.
    pub scratch_bytes_max: u64,
    /// Standard error; `/dev/null` when there is none.
    pub stderr: Option<OwnedFd>,
}

/// A file for a zygote in [`ZYGOTE_FILES`].
#[derive(Debug, Clone)]
pub struct ZygoteFile {
    /// Name, without slashes.
    pub name: String,
    /// Content.
    pub bytes: Cow<'static, [u8]>,
}

/// What the guest program is told of a zygote.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ZygoteOrder {
    identity: Identity,
    rootfs: PathBuf,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    home: PathBuf,
    scratch_bytes_max: u64,
    devices: Vec<String>,
    resource_limits: Vec<ResourceLimit>,
    /// The last one is for what it forks, in [`crate::SealPlan`].
    seccomp_first: BpfProgram,
    files: Vec<FileEntry>,
}

/// A file, as far as it is not in the memfd that holds all of them one after another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    size: u64,
}

/// Starts a zygote. Blocks until its program has been executed.
///
/// It has the realm's root and capabilities, mount, network, ipc and uts namespaces of its own, and the host's pid
/// namespace without any `/proc`. Its descriptors are [`ZYGOTE_CONTROL_FD`], [`ZYGOTE_PID_NAMESPACE_FD`],
/// [`ZYGOTE_LIFELINE_FD`] and the standard streams.
///
/// # Errors
/// [`LaunchError`]; nothing that was started is left.
pub fn launch_zygote(
    realm: &Realm,
    program: BorrowedFd<'_>,
    plan: &ZygotePlan,
    attachment: Attachment<'_>,
    control: OwnedFd,
    files: &[ZygoteFile],
) -> Result<Jailed, LaunchError> {
    let order = order(realm.identity(), plan, files)?;
    let order =
        serde_json::to_vec(&Order::Zygote(Box::new(order))).map_err(|error| PlanError::Form(error.to_string()))?;
    if order.len() > PLAN_BYTES_MAX {
        return Err(PlanError::TooLarge(order.len()).into());
    }
    let files = together(files).map_err(LaunchError::Files)?;
    let pid_namespace = File::open("/proc/thread-self/ns/pid").map_err(LaunchError::Namespace)?;
    let (ours, lifeline) = channel::pair().map_err(talk)?;
    let (channel, theirs) = channel::pair().map_err(talk)?;
    let launcher = Launcher::spawn(program, theirs, control.into())?;
    limit_silence(&channel)?;
    attachment.offer(&channel)?;
    let mut fds = vec![realm.namespace(), pid_namespace.as_fd(), files.as_fd(), lifeline.as_fd()];
    fds.extend(plan.stderr.as_ref().map(AsFd::as_fd));
    channel::send_order(&channel, &order, &fds).map_err(talk)?;
    drop(lifeline);
    match next_report(&channel)? {
        Report::Sealed => {}
        other => return Err(unexpected(other)),
    }
    // Closed by the execution of its program, or else there is one more word.
    match channel::receive_report(&channel).map_err(talk)? {
        None => launcher.into_zygote(ours),
        Some(other) => Err(unexpected(other)),
    }
}

fn order(identity: Identity, plan: &ZygotePlan, files: &[ZygoteFile]) -> Result<ZygoteOrder, PlanError> {
    let program = plan.argv.first().map_or(Path::new(""), Path::new);
    for path in [plan.rootfs.as_path(), plan.home.as_path(), program] {
        check_path(path)?;
    }
    if plan.scratch_bytes_max == 0 {
        // tmpfs reads 0 as "no limit".
        return Err(PlanError::Zero("scratch_bytes_max"));
    }
    for file in files {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if file.name.is_empty() || file.name.starts_with('.') || !file.name.chars().all(plain) {
            return Err(PlanError::Path(file.name.clone().into()));
        }
    }
    Ok(ZygoteOrder {
        identity,
        rootfs: plan.rootfs.clone(),
        argv: plan.argv.clone(),
        env: plan.env.clone(),
        home: plan.home.clone(),
        scratch_bytes_max: plan.scratch_bytes_max,
        devices: devices(),
        resource_limits: resource_limits(plan.scratch_bytes_max),
        seccomp_first: filters()?.first.clone(),
        files: files.iter().map(|file| FileEntry { name: file.name.clone(), size: file.bytes.len() as u64 }).collect(),
    })
}

fn together(files: &[ZygoteFile]) -> std::io::Result<File> {
    let mut memory = File::from(memfd_create("belljar-zygote-files", MemfdFlags::CLOEXEC)?);
    files.iter().try_for_each(|file| memory.write_all(&file.bytes))?;
    memory.rewind()?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ZygotePlan {
        ZygotePlan {
            rootfs: "/images/one".into(),
            argv: vec!["/usr/bin/python3".to_owned()],
            env: Vec::new(),
            home: "/root".into(),
            scratch_bytes_max: 1,
            stderr: None,
        }
    }

    fn named(name: &str) -> ZygoteFile {
        ZygoteFile { name: name.to_owned(), bytes: Cow::Borrowed(b"x") }
    }

    #[test]
    fn wishes_no_zygote_can_satisfy() {
        let path = |text: &str| PlanError::Path(text.into());
        type Change = fn(&mut ZygotePlan);
        let cases: &[(Change, PlanError)] = &[
            (|p| p.rootfs = "images".into(), path("images")),
            (|p| p.home = "/root/..".into(), path("/root/..")),
            (|p| p.argv.clear(), path("")),
            (|p| p.argv[0] = "python3".to_owned(), path("python3")),
            (|p| p.scratch_bytes_max = 0, PlanError::Zero("scratch_bytes_max")),
        ];
        let identity = Identity::Mapped { base: 1 << 20 };
        for (change, error) in cases {
            let mut plan = plan();
            change(&mut plan);
            assert_eq!(order(identity, &plan, &[]).expect_err("refused"), *error);
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a\0b"] {
            assert_eq!(order(identity, &plan(), &[named(name)]).expect_err("refused"), path(name));
        }
        assert!(order(identity, &plan(), &[named("zygote.py"), named("join.so")]).is_ok());
    }
}
