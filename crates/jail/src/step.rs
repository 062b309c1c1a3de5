//! The names of the set-up's steps, in order, and the error that names the one that failed.
//!
//! The three lists are the whole of what makes a jail; reading them is reading the security story.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// One step of setting a jail up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Close every descriptor but the two from the host.
    CloseInherited,
    /// Read the plan from the host.
    ReadPlan,
    /// A user namespace of its own; the host writes its id maps.
    OwnUserNamespace,
    /// Container root in that namespace, without any of the host's groups.
    BecomeContainerRoot,
    /// Mount, pid, network, ipc, uts and cgroup namespaces.
    OwnNamespaces,
    /// Process 1 of the pid namespace.
    BecomeProcessOne,
    /// A session without a terminal.
    OwnSession,
    /// Signals that the host ignores are not ignored here.
    DefaultSignals,
    /// No mount made here is seen outside, and none from outside here.
    PrivateMounts,
    /// Handles of the few device nodes that come in from outside.
    HoldDevices,
    /// A size-capped tmpfs for everything that is written.
    WritableLayer,
    /// The root file system: image below, writable layer above.
    Overlay,
    /// A read-only `/proc` of the new pid namespace.
    Proc,
    /// The overlay becomes `/`; the host's root is detached.
    PivotRoot,
    /// `/proc` at its place.
    AttachProc,
    /// A minimal, read-only `/dev`.
    Dev,
    /// What tells of the host in `/proc` is covered.
    MaskProc,
    /// The plan's directories.
    Directories,
    /// The plan's symbolic links.
    Symlinks,
    /// A writable `/proc` of the new pid namespace, for runsc.
    WardProc,
    /// The writable layer itself becomes `/`, the container's root being a directory of it.
    WardRoot,
    /// What runsc reads and writes: its configuration, its state, its words.
    WardFiles,
    /// The container's own host name.
    Hostname,
    /// The plan's resource limits.
    ResourceLimits,
    /// The working directory.
    WorkingDirectory,
    /// Standard streams on `/dev/null`, nothing else left open.
    Streams,
    /// No capability can ever be gained: bounding and ambient sets empty, securebits locked.
    NoFutureCapabilities,
    /// No program run from here gains privileges.
    NoNewPrivileges,
    /// Every capability held is dropped.
    NoCapabilities,
    /// Memory and descriptors of process 1 are closed to the container.
    Undumpable,
    /// Landlock.
    Landlock,
    /// The seccomp filters.
    Seccomp,
    /// The last word to the host.
    Report,
}

/// Done by the launched program, which is still in the host's pid namespace.
pub(crate) const OUTSIDE: &[Step] =
    &[Step::OwnUserNamespace, Step::BecomeContainerRoot, Step::OwnNamespaces, Step::BecomeProcessOne];

/// Done by process 1, until only the last two walls are missing.
pub(crate) const INSIDE: &[Step] = &[
    Step::OwnSession,
    Step::DefaultSignals,
    Step::PrivateMounts,
    Step::HoldDevices,
    Step::WritableLayer,
    Step::Overlay,
    Step::Proc,
    Step::PivotRoot,
    Step::AttachProc,
    Step::Dev,
    Step::MaskProc,
    Step::Directories,
    Step::Symlinks,
    Step::Hostname,
    Step::ResourceLimits,
    Step::WorkingDirectory,
    Step::Streams,
    Step::NoFutureCapabilities,
    Step::NoNewPrivileges,
    Step::NoCapabilities,
    Step::Undumpable,
];

/// Done last, when the guest program has opened what it needs.
pub(crate) const SEAL: &[Step] = &[Step::Landlock, Step::Seccomp];

/// Done by process 1 of a ward instead of [`INSIDE`]: runsc starts with power over these namespaces.
pub(crate) const WARD: &[Step] = &[
    Step::OwnSession,
    Step::DefaultSignals,
    Step::PrivateMounts,
    Step::HoldDevices,
    Step::WritableLayer,
    Step::Overlay,
    Step::WardProc,
    Step::WardRoot,
    Step::AttachProc,
    Step::Dev,
    Step::WardFiles,
    Step::Hostname,
    Step::ResourceLimits,
    Step::WorkingDirectory,
    Step::Streams,
];

/// Done by process 1 of a ward instead of [`SEAL`], when runsc has been started: nothing is left that it has to be
/// able to do but wait.
pub(crate) const WARD_SEAL: &[Step] = &[
    Step::NoFutureCapabilities,
    Step::NoNewPrivileges,
    Step::NoCapabilities,
    Step::Undumpable,
    Step::Landlock,
    Step::Seccomp,
];

/// Every step in order, with those that happen around the lists.
pub(crate) fn all() -> impl Iterator<Item = Step> {
    [Step::CloseInherited, Step::ReadPlan]
        .into_iter()
        .chain(OUTSIDE.iter().copied())
        .chain(INSIDE.iter().copied())
        .chain(SEAL.iter().copied())
        .chain([Step::Report])
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CloseInherited => "close inherited descriptors",
            Self::ReadPlan => "read the plan",
            Self::OwnUserNamespace => "make a user namespace",
            Self::BecomeContainerRoot => "become the container's root",
            Self::OwnNamespaces => "make mount, pid, network, ipc, uts and cgroup namespaces",
            Self::BecomeProcessOne => "become process 1",
            Self::OwnSession => "start a session",
            Self::DefaultSignals => "reset signals",
            Self::PrivateMounts => "make mounts private",
            Self::HoldDevices => "open device nodes",
            Self::WritableLayer => "mount the writable layer",
            Self::Overlay => "mount the root file system",
            Self::Proc => "make /proc",
            Self::PivotRoot => "change to the new root",
            Self::AttachProc => "mount /proc",
            Self::Dev => "mount /dev",
            Self::MaskProc => "mask /proc",
            Self::Directories => "make directories",
            Self::Symlinks => "make symbolic links",
            Self::WardProc => "make a writable /proc",
            Self::WardRoot => "change to the ward's root",
            Self::WardFiles => "make the files of runsc",
            Self::Hostname => "set the host name",
            Self::ResourceLimits => "set resource limits",
            Self::WorkingDirectory => "enter the working directory",
            Self::Streams => "redirect standard streams",
            Self::NoFutureCapabilities => "empty the bounding set",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::NoCapabilities => "drop capabilities",
            Self::Undumpable => "close process 1 to ptrace",
            Self::Landlock => "apply Landlock",
            Self::Seccomp => "apply seccomp",
            Self::Report => "report to the host",
        })
    }
}

/// A step that failed; nothing after it ran, and no user code did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("jail set-up failed at step \"{step}\": {}", std::io::Error::from_raw_os_error(*.errno))]
pub struct SetupError {
    /// The step.
    pub step: Step,
    /// The error number the kernel gave.
    pub errno: i32,
}

/// What carries steps out: the kernel, or in tests something that records and fails.
pub(crate) trait System {
    /// Carries out one step, wholly or with an error.
    fn perform(&mut self, step: Step) -> Result<(), Errno>;
}

/// Carries out a list of steps, each only if all before it succeeded.
pub(crate) fn apply(list: &[Step], system: &mut impl System) -> Result<(), SetupError> {
    list.iter()
        .try_for_each(|&step| system.perform(step).map_err(|errno| SetupError { step, errno: errno.raw_os_error() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FailingAt {
        failing: Step,
        performed: Vec<Step>,
    }

    impl System for FailingAt {
        fn perform(&mut self, step: Step) -> Result<(), Errno> {
            self.performed.push(step);
            if step == self.failing { Err(Errno::NOMEM) } else { Ok(()) }
        }
    }

    #[test]
    fn nothing_runs_after_a_failed_step() {
        for list in [OUTSIDE, INSIDE, SEAL] {
            for (index, &failing) in list.iter().enumerate() {
                let mut system = FailingAt { failing, performed: Vec::new() };
                assert_eq!(apply(list, &mut system), Err(SetupError { step: failing, errno: libc::ENOMEM }));
                assert_eq!(system.performed, list[..=index]);
            }
        }
    }

    #[test]
    fn every_step_stands_in_one_list_once() {
        let mut seen = std::collections::HashSet::new();
        for step in all() {
            assert!(seen.insert(step), "{step:?} stands twice");
        }
        assert_eq!(seen.len(), Step::Report as usize + 1);
    }
}
