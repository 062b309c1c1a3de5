//! The guest program's part of a zygote: the steps, up to the execution of the zygote's own program.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags, fchmod, open, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mount::{MountAttrFlags, MountFlags, mount_remount};
use rustix::process::chdir;
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use super::{ZYGOTE_CONTROL_FD, ZYGOTE_FILES, ZYGOTE_LIFELINE_FD, ZYGOTE_PID_NAMESPACE_FD, ZygoteOrder};
use crate::channel::{Report, send_report};
use crate::enter::{become_realm_root, enter_realm};
use crate::raw::{REALM_NAMESPACES, default_signals, die_with, place, unshare};
use crate::step::{SetupError, Step, System, ZYGOTE, apply};
use crate::{privileges, root, seccomp};

/// Caps of the layer in which only mount points are made.
const LAYER_BYTES_MAX: u64 = 1 << 20;
const LAYER_INODES_MAX: u64 = 1024;
/// Files and directories of a scratch directory.
const SCRATCH_INODES_MAX: u64 = 4096;
/// Files handed over.
const FILES_INODES_MAX: u64 = 64;
/// Lowest number of a descriptor that is not at its place.
pub(crate) const ASIDE: i32 = 16;

/// Becomes a zygote; returns only when a step fails.
pub(crate) fn become_zygote(
    order: ZygoteOrder,
    channel: BorrowedFd<'_>,
    control: Option<OwnedFd>,
    fds: Vec<OwnedFd>,
) -> SetupError {
    // Low numbers are the zygote's own; nothing of what stays at one of them must be owned here.
    let aside = |fd: OwnedFd| fcntl_dupfd_cloexec(fd, ASIDE);
    let fds = match control.into_iter().chain(fds).map(aside).collect::<Result<Vec<_>, _>>() {
        Ok(fds) => fds,
        Err(errno) => return SetupError::at(Step::ReadPlan)(errno),
    };
    let mut fds = fds.into_iter();
    let (Some(control), Some(realm), Some(pid_namespace), Some(files), Some(lifeline)) =
        (fds.next(), fds.next(), fds.next(), fds.next(), fds.next())
    else {
        return SetupError { step: Step::ReadPlan, errno: libc::EBADMSG };
    };
    let stderr = fds.next();
    let held = root::Held::default();
    let mut zygote = Zygote { order, channel, control, realm, pid_namespace, files, lifeline, stderr, held };
    match apply(ZYGOTE, &mut zygote) {
        Err(error) => error,
        // The last step does not return.
        Ok(()) => SetupError { step: Step::Execute, errno: libc::EINVAL },
    }
}

struct Zygote<'a> {
    order: ZygoteOrder,
    channel: BorrowedFd<'a>,
    control: OwnedFd,
    realm: OwnedFd,
    pid_namespace: OwnedFd,
    files: OwnedFd,
    lifeline: OwnedFd,
    stderr: Option<OwnedFd>,
    held: root::Held,
}

impl System for Zygote<'_> {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        let order = &self.order;
        match step {
            Step::EnterRealm => enter_realm(self.realm.as_fd()),
            Step::BecomeRealmRoot => become_realm_root(order.identity),
            Step::OwnZygoteNamespaces => unshare(NAMESPACES),
            Step::DefaultSignals => default_signals(&[]),
            Step::PrivateMounts => root::private_mounts(),
            Step::HoldDevices => root::hold_devices(&order.devices, &mut self.held),
            Step::WritableLayer => root::writable_layer(&order.rootfs, LAYER_BYTES_MAX, LAYER_INODES_MAX).map(drop),
            Step::Overlay => root::overlay(),
            Step::PivotRoot => root::change_root(),
            Step::Dev => root::dev(order.scratch_bytes_max, SCRATCH_INODES_MAX, &mut self.held),
            Step::ZygoteFiles => self.place_files(),
            Step::ZygoteScratch => scratch(order),
            Step::ReadOnlyRoot => read_only_root(),
            // What is imported may remember it (`platform` does): as in the containers of what is forked.
            Step::Hostname => sethostname(b"container"),
            Step::ResourceLimits => privileges::resource_limits(&order.resource_limits),
            Step::WorkingDirectory => chdir("/"),
            Step::NoNewPrivileges => privileges::no_new_privileges(),
            Step::FirstSeccomp => seccomp::install(&order.seccomp_first),
            Step::Lifeline => die_with(self.lifeline.as_fd()),
            Step::Streams => self.streams(),
            Step::Report => send_report(self.channel, Report::Sealed),
            Step::Execute => Err(self.execute()),
            // A container's; here, they would be a mistake.
            _ => Err(Errno::INVAL),
        }
    }
}

const NAMESPACES: UnshareFlags = REALM_NAMESPACES.union(UnshareFlags::NEWNS);

/// A shared library among the files has to be mapped executable, so not `noexec`.
const FILES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

impl Zygote<'_> {
    fn place_files(&mut self) -> Result<(), Errno> {
        let place = root::make_directory(Path::new(ZYGOTE_FILES))?;
        let bytes: u64 = self.order.files.iter().map(|file| file.size.next_multiple_of(1 << 16)).sum();
        let mounted = root::tmpfs(&bytes.max(1 << 16).to_string(), FILES_INODES_MAX, "0755", FILES)?;
        let mut source = std::fs::File::from(self.files.try_clone().map_err(errno_of)?);
        for file in &self.order.files {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = openat(&mounted, &file.name, flags, Mode::from_raw_mode(0o600))?;
            let mut target = std::fs::File::from(made);
            let copied =
                std::io::copy(&mut Read::by_ref(&mut source).take(file.size), &mut target).map_err(errno_of)?;
            if copied != file.size {
                return Err(Errno::NODATA);
            }
            target.flush().map_err(errno_of)?;
            fchmod(&target, Mode::from_raw_mode(0o555))?;
        }
        root::attach(&mounted, &place)?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount_remount(ZYGOTE_FILES, flags, c"")
    }

    fn streams(&self) -> Result<(), Errno> {
        let null = fcntl_dupfd_cloexec(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?, ASIDE)?;
        let stderr = self.stderr.as_ref().unwrap_or(&null);
        place(
            &[
                (null.as_fd(), 0),
                (null.as_fd(), 1),
                (stderr.as_fd(), 2),
                (self.control.as_fd(), ZYGOTE_CONTROL_FD),
                (self.pid_namespace.as_fd(), ZYGOTE_PID_NAMESPACE_FD),
                (self.lifeline.as_fd(), ZYGOTE_LIFELINE_FD),
            ],
            ASIDE,
        )
    }

    fn execute(&self) -> Errno {
        let Some((program, arguments)) = self.order.argv.split_first() else {
            return Errno::INVAL;
        };
        let environment = self.order.env.iter().map(|(name, value)| (name, value));
        errno_of(Command::new(program).args(arguments).env_clear().envs(environment).exec())
    }
}

fn scratch(order: &ZygoteOrder) -> Result<(), Errno> {
    let size = order.scratch_bytes_max.to_string();
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    for (path, mode) in [(Path::new("/tmp"), "1777"), (&order.home, "0700")] {
        let place = root::make_directory(path)?;
        root::attach(&root::tmpfs(&size, SCRATCH_INODES_MAX, mode, flags)?, &place)?;
    }
    Ok(())
}

fn read_only_root() -> Result<(), Errno> {
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, c"")
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
