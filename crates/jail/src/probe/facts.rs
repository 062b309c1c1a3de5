//! Facts that need no container.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2 as open_beneath};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

use super::{Finding, LimitsNeed, Status};
use crate::cgroup::{CgroupTree, Limits, Version};
use crate::identity::Identity;
use crate::raw;

/// First host id tried for containers; any range that this process may map would do.
pub(super) const TRIAL_BASE: u32 = 0x7000_0000;

pub(super) fn kernel() -> Finding {
    judge_kernel(rustix::system::uname().release().to_string_lossy().as_ref())
}

fn judge_kernel(release: &str) -> Finding {
    let name = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    let found = format!("Linux {release}");
    match next().zip(next()) {
        Some(version) if version >= (6, 6) => Finding::ok(name, found),
        Some(version) if version >= (5, 11) => Finding::warn(
            name,
            found,
            "Linux 6.6 brings extended attributes to tmpfs; before it, a directory of the image that is removed \
             in a container cannot be made again there",
        ),
        Some(_) => Finding::refused(name, found, "Linux 5.11 or newer is needed (overlay mounts in user namespaces)"),
        None => Finding::warn(name, found, "the version cannot be read from this; 5.11 is needed"),
    }
}

pub(super) fn architecture() -> Finding {
    let name = "architecture";
    match std::env::consts::ARCH {
        "x86_64" => Finding::ok(name, "x86_64"),
        "aarch64" => Finding::warn(name, "aarch64", "should work, but is not tested"),
        other => Finding::refused(name, other, "x86-64 is needed: there is no seccomp policy for this"),
    }
}

pub(super) fn privileges() -> Finding {
    let name = "privileges";
    match Identity::strongest(TRIAL_BASE) {
        Identity::Mapped { .. } => Finding::ok(name, "root: each container's ids are nobody's on this host"),
        Identity::Caller { uid, .. } => Finding::warn(
            name,
            format!("user {uid}: a container's root is this user on the host"),
            "run the server as root for ids of the containers' own, or as a user that owns nothing else",
        ),
    }
}

pub(super) fn openat2() -> Finding {
    let name = "openat2";
    match open_beneath(
        CWD,
        ".",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    ) {
        Ok(_) => Finding::ok(name, "works"),
        Err(errno) => Finding::refused(
            name,
            errno.to_string(),
            "Linux 5.6 or newer is needed, and a seccomp filter around the server must allow openat2",
        ),
    }
}

pub(super) fn landlock() -> Finding {
    let name = "landlock";
    match raw::landlock_version() {
        Ok(abi @ 6..) => Finding::ok(name, format!("ABI {abi}")),
        Ok(abi) => Finding::warn(
            name,
            format!("ABI {abi}"),
            "Linux 6.12 (ABI 6) also keeps signals and abstract sockets inside by Landlock; namespaces do in any case",
        ),
        Err(errno) => Finding::refused(
            name,
            errno.to_string(),
            "boot with `landlock` in the kernel's lsm= list (Linux 5.13 or newer), or accept its absence in the configuration",
        ),
    }
}

pub(super) fn cgroups(need: LimitsNeed) -> Vec<Finding> {
    let name = "cgroup_limits";
    let advice = "run the server as root, or in a systemd unit or scope with Delegate=yes \
                  (systemd-run --user --scope -p Delegate=yes ...)";
    let tree = match CgroupTree::detect() {
        Ok(tree) => tree,
        Err(error) => return vec![missing(need, name, error.reason, advice)],
    };
    let limits = Limits { memory_bytes_max: 64 << 20, cpus: 1.0, processes_max: 16 };
    let tried = tree
        .create("probe", &limits)
        .and_then(|cgroup| cgroup.stats().map(|_| cgroup))
        .and_then(|cgroup| cgroup.remove());
    let version = match tree.version() {
        Version::V1 => "version 1",
        Version::V2 => "version 2",
    };
    let first = match tried {
        Ok(()) => Finding::ok(name, format!("memory and processes, {version}")),
        Err(error) => missing(need, name, error.to_string(), advice),
    };
    let second = if tree.limits_cpu() {
        Finding::ok("cgroup_cpu", "processor time can be limited")
    } else {
        Finding::warn(
            "cgroup_cpu",
            "processor time cannot be limited",
            "enable the cpu controller for the server's cgroup (systemd: Delegate=cpu memory pids)",
        )
    };
    vec![first, second]
}

fn missing(need: LimitsNeed, name: &'static str, found: String, advice: &str) -> Finding {
    Finding {
        status: match need {
            LimitsNeed::Required => Status::Refused,
            LimitsNeed::BestEffort => Status::Warn,
        },
        ..Finding::warn(name, found, advice)
    }
}

/// Offers the kernel a file that is no erofs image: what it complains of tells how far it got.
pub(super) fn erofs() -> Finding {
    let name = "erofs";
    let slower =
        "images are unpacked into a directory instead: it works, takes more disk, and is not verified on each read";
    if !rustix::process::geteuid().is_root() {
        return Finding::warn(name, "only root can mount images", slower);
    }
    let offered = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_set_string(&context, "source", "/proc/self/exe")?;
        fsconfig_create(&context)
    });
    match offered {
        Err(Errno::INVAL) => Finding::ok(name, "image files mount as they are"),
        Err(Errno::NOTBLK) => {
            Finding::warn(name, "image files need a loop device", "Linux 6.12 mounts them straight from the file")
        }
        Err(Errno::NODEV) => Finding::warn(name, "not in this kernel", slower),
        Err(errno) => Finding::warn(name, errno.to_string(), slower),
        Ok(()) => Finding::warn(name, "took a program for an image", slower),
    }
}

pub(super) fn kvm() -> Finding {
    let found = match rustix::fs::access("/dev/kvm", rustix::fs::Access::READ_OK) {
        Ok(()) => "/dev/kvm is there and may be used (nothing uses it yet)".to_owned(),
        Err(errno) => format!("/dev/kvm: {errno} (nothing uses it yet)"),
    };
    Finding::ok("kvm", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for (release, status) in [
            ("6.18.44-vendor", Status::Ok),
            ("6.6.0", Status::Ok),
            ("6.1.0-28-amd64", Status::Warn),
            ("5.11.0", Status::Warn),
            ("5.10.200", Status::Refused),
            ("4.19.0", Status::Refused),
            ("unknown", Status::Warn),
        ] {
            assert_eq!(judge_kernel(release).status, status, "{release}");
        }
    }

    #[test]
    fn missing_limits_are_refused_unless_accepted() {
        for (need, status) in [(LimitsNeed::Required, Status::Refused), (LimitsNeed::BestEffort, Status::Warn)] {
            let finding = missing(need, "cgroup_limits", "nothing".to_owned(), "something");
            assert_eq!(finding.status, status);
        }
    }
}
