//! The names of the set-up's steps, in order, and the error that names the one that failed.
//!
//! The lists are the whole of what makes a container, a zygote, and a process that joins a container; reading them is
//! reading the security story.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// One step of setting a jail up.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Step {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name),+];
        }

        impl std::fmt::Display for Step {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)+
                })
            }
        }
    };
}

steps! {
    /// Close every descriptor but the two from the host.
    CloseInherited = "close inherited descriptors",
    /// Into the control groups, so that all that follows is within its limits.
    EnterCgroups = "enter the control groups",
    /// Read from the host what to become.
    ReadPlan = "read the plan",
    /// The realm's user namespace; the host writes its id maps.
    OwnUserNamespace = "make a user namespace",
    /// From the host's user namespace into the realm.
    EnterRealm = "enter the realm",
    /// Root of the realm, without any of the host's groups.
    BecomeRealmRoot = "become the realm's root",
    /// A container's network, ipc and uts namespaces, made in the realm: power in a container is no power over them.
    RealmNamespaces = "make network, ipc and uts namespaces",
    /// User, pid, mount and cgroup namespaces, and process 1 in them, with its id maps; around a ward, the others too.
    BecomeProcessOne = "become process 1 of its own namespaces",
    /// Process 1, born in a nursery with user and pid namespaces, makes the other two.
    OwnNamespaces = "make mount and cgroup namespaces",
    /// The nursery has written the id maps of process 1.
    AwaitIdMaps = "wait for the id maps",
    /// A zygote's mount, network, ipc and uts namespaces; its pid namespace stays the host's.
    OwnZygoteNamespaces = "make mount, network, ipc and uts namespaces",
    /// A process that joins is closed to what runs in the container already, until the last wall stands.
    CloseToOthers = "close the joining process to ptrace",
    /// Out of the realm: power over this one container, none over any other.
    EnterUserNamespace = "enter the container's user namespace",
    /// The container's files; nothing of the zygote's is reachable by a path any more.
    EnterMountNamespace = "enter the container's mount namespace",
    /// The container's network.
    EnterNetworkNamespace = "enter the container's network namespace",
    /// The container's System V and POSIX IPC.
    EnterIpcNamespace = "enter the container's ipc namespace",
    /// The container's host name.
    EnterUtsNamespace = "enter the container's uts namespace",
    /// The container's view of cgroups.
    EnterCgroupNamespace = "enter the container's cgroup namespace",
    /// The process was born in the container's pid namespace, and has gone nowhere else.
    CheckPidNamespace = "check the pid namespace",
    /// Container root in that namespace, without any of the host's groups.
    BecomeContainerRoot = "become the container's root",
    /// A session without a terminal, which also leaves the process group of whoever started it.
    OwnSession = "start a session",
    /// Signals that the host ignores are not ignored here.
    DefaultSignals = "reset signals",
    /// No mount made here is seen outside, and none from outside here.
    PrivateMounts = "make mounts private",
    /// Handles of the few device nodes that come in from outside.
    HoldDevices = "open device nodes",
    /// A size-capped tmpfs for everything that is written.
    WritableLayer = "mount the writable layer",
    /// The root file system: image below, writable layer above.
    Overlay = "mount the root file system",
    /// A read-only `/proc` of the new pid namespace.
    Proc = "make /proc",
    /// The overlay becomes `/`; the host's root is detached.
    PivotRoot = "change to the new root",
    /// `/proc` at its place.
    AttachProc = "mount /proc",
    /// A minimal, read-only `/dev`.
    Dev = "mount /dev",
    /// What tells of the host in `/proc` is covered.
    MaskProc = "mask /proc",
    /// The plan's directories.
    Directories = "make directories",
    /// The plan's symbolic links.
    Symlinks = "make symbolic links",
    /// A zygote's own files, in a tmpfs that is read-only from then on.
    ZygoteFiles = "mount the zygote's files",
    /// A zygote's scratch directories.
    ZygoteScratch = "mount scratch directories",
    /// A zygote cannot change its image, not even its own copy.
    ReadOnlyRoot = "make the root read-only",
    /// A writable `/proc` of the new pid namespace, for runsc.
    WardProc = "make a writable /proc",
    /// The writable layer itself becomes `/`, the container's root being a directory of it.
    WardRoot = "change to the ward's root",
    /// What runsc reads and writes: its configuration, its state, its words.
    WardFiles = "make the files of runsc",
    /// The container's own host name.
    Hostname = "set the host name",
    /// The plan's resource limits.
    ResourceLimits = "set resource limits",
    /// What the code may have open, far below process 1's own limit.
    CodeLimits = "limit open files",
    /// The working directory, and the mode of new files.
    WorkingDirectory = "enter the working directory",
    /// Standard streams on `/dev/null`, nothing else left open.
    Streams = "redirect standard streams",
    /// No capability can ever be gained: bounding and ambient sets empty, securebits locked.
    NoFutureCapabilities = "empty the bounding set",
    /// No program run from here gains privileges.
    NoNewPrivileges = "set no_new_privs",
    /// Every capability held is dropped.
    NoCapabilities = "drop capabilities",
    /// Memory and descriptors of process 1 are closed to the container.
    Undumpable = "close process 1 to ptrace",
    /// Landlock.
    Landlock = "apply Landlock",
    /// The first seccomp filter: what nobody here may do, set-up included.
    FirstSeccomp = "apply the first seccomp filter",
    /// The last seccomp filter: what only set-up may do, and what depends on arguments.
    LastSeccomp = "apply the last seccomp filter",
    /// A process of the code again, open to itself: `/proc/self` works.
    OpenToItself = "open the joined process to itself",
    /// A zygote ends with the host: the kernel kills it when the host's end of a socket closes.
    Lifeline = "tie the zygote to the host",
    /// The last word to the host.
    Report = "report to the host",
    /// A zygote's program, or a ward's.
    Execute = "execute the program",
}

/// Done by the launched program for a realm, which is all it does.
pub(crate) const REALM: &[Step] = &[Step::OwnUserNamespace];

/// Done by the launched program for a container, which is still in the host's pid namespace.
pub(crate) const OUTSIDE: &[Step] = &[
    Step::EnterRealm,
    Step::BecomeRealmRoot,
    Step::DefaultSignals,
    Step::RealmNamespaces,
    Step::Hostname,
    Step::BecomeProcessOne,
];

/// Done by the launched program for a ward.
pub(crate) const WARD_OUTSIDE: &[Step] =
    &[Step::EnterRealm, Step::BecomeRealmRoot, Step::DefaultSignals, Step::BecomeProcessOne];

/// Done by a nursery, once.
pub(crate) const NURSERY: &[Step] =
    &[Step::EnterRealm, Step::BecomeRealmRoot, Step::DefaultSignals, Step::FirstSeccomp, Step::Streams];

/// Done by a nursery for the container that it bears next, if it can while nobody waits: the network namespace takes longer
/// than anything else that a start needs. The container inherits them, and the nursery makes itself others.
pub(crate) const NEXT: &[Step] = &[Step::RealmNamespaces, Step::Hostname];

/// Done by process 1 that a nursery has borne, before [`INSIDE`]. Within its limits first of all: what it makes from here on
/// is charged to it, and its cgroup namespace begins at its own cgroup.
pub(crate) const BORN: &[Step] = &[Step::EnterCgroups, Step::OwnNamespaces, Step::AwaitIdMaps];

/// Done by process 1, until only the last two walls are missing.
pub(crate) const INSIDE: &[Step] = &[
    Step::BecomeContainerRoot,
    Step::PrivateMounts,
    Step::HoldDevices,
    Step::WritableLayer,
    Step::Directories,
    Step::Symlinks,
    Step::Overlay,
    Step::Proc,
    Step::PivotRoot,
    Step::AttachProc,
    Step::Dev,
    Step::MaskProc,
    Step::ResourceLimits,
    Step::WorkingDirectory,
    Step::Streams,
    Step::NoFutureCapabilities,
    Step::NoNewPrivileges,
    Step::NoCapabilities,
    Step::OwnSession,
    Step::Undumpable,
];

/// Done last, when the guest program has opened what it needs.
pub(crate) const SEAL: &[Step] = &[Step::Landlock, Step::FirstSeccomp, Step::LastSeccomp];

/// The same by process 1 that a nursery has borne, which has inherited the first filter.
pub(crate) const BORN_SEAL: &[Step] = &[Step::Landlock, Step::LastSeccomp];

/// Done by process 1 of a ward instead of [`INSIDE`]: runsc starts with power over these namespaces.
pub(crate) const WARD: &[Step] = &[
    Step::BecomeContainerRoot,
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
    Step::OwnSession,
];

/// Done by process 1 of a ward instead of [`SEAL`], when runsc has been started: nothing is left that it has to be
/// able to do but wait, and to read what the code has written when it is asked for a checkpoint.
pub(crate) const WARD_SEAL: &[Step] = &[
    Step::NoFutureCapabilities,
    Step::NoNewPrivileges,
    Step::NoCapabilities,
    Step::Undumpable,
    Step::Landlock,
    Step::FirstSeccomp,
    Step::LastSeccomp,
];

/// Done by the launched program for a zygote. It keeps its capabilities in the realm: it has to enter containers.
pub(crate) const ZYGOTE: &[Step] = &[
    Step::EnterRealm,
    Step::BecomeRealmRoot,
    Step::OwnZygoteNamespaces,
    Step::DefaultSignals,
    Step::PrivateMounts,
    Step::HoldDevices,
    Step::WritableLayer,
    Step::Overlay,
    Step::PivotRoot,
    Step::Dev,
    Step::ZygoteFiles,
    Step::ZygoteScratch,
    Step::ReadOnlyRoot,
    Step::Hostname,
    Step::ResourceLimits,
    Step::WorkingDirectory,
    Step::NoNewPrivileges,
    Step::FirstSeccomp,
    Step::Lifeline,
    Step::Streams,
    Step::Report,
    Step::Execute,
];

/// Done by a zygote's child, born in the container's pid namespace and gone into its cgroups.
pub(crate) const JOIN: &[Step] = &[
    Step::CloseToOthers,
    // The realm's, to which it has to be of the realm.
    Step::EnterNetworkNamespace,
    Step::EnterIpcNamespace,
    Step::EnterUtsNamespace,
    Step::EnterUserNamespace,
    Step::EnterMountNamespace,
    Step::EnterCgroupNamespace,
    Step::CheckPidNamespace,
    Step::BecomeContainerRoot,
    Step::OwnSession,
    Step::DefaultSignals,
    Step::ResourceLimits,
    Step::CodeLimits,
    Step::WorkingDirectory,
    Step::NoFutureCapabilities,
    Step::NoNewPrivileges,
    Step::NoCapabilities,
    Step::Landlock,
    Step::LastSeccomp,
    Step::OpenToItself,
];

/// Every step of a container in order, with those that happen around the lists.
pub(crate) fn all() -> impl Iterator<Item = Step> {
    [Step::CloseInherited, Step::EnterCgroups, Step::ReadPlan]
        .into_iter()
        .chain(REALM.iter().copied())
        .chain(OUTSIDE.iter().copied())
        .chain(INSIDE.iter().copied())
        .chain(SEAL.iter().copied())
        .chain([Step::Report])
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

impl SetupError {
    pub(crate) fn at(step: Step) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { step, errno: errno.raw_os_error() }
    }
}

/// What carries steps out: the kernel, or in tests something that records and fails.
pub(crate) trait System {
    /// Carries out one step, wholly or with an error.
    fn perform(&mut self, step: Step) -> Result<(), Errno>;
}

/// Carries out a list of steps, each only if all before it succeeded.
pub(crate) fn apply(list: &[Step], system: &mut impl System) -> Result<(), SetupError> {
    list.iter().try_for_each(|&step| system.perform(step).map_err(SetupError::at(step)))
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

    const LISTS: &[&[Step]] =
        &[REALM, OUTSIDE, NURSERY, NEXT, BORN, INSIDE, SEAL, BORN_SEAL, WARD_OUTSIDE, WARD, WARD_SEAL, ZYGOTE, JOIN];

    #[test]
    fn nothing_runs_after_a_failed_step() {
        for list in LISTS {
            for (index, &failing) in list.iter().enumerate() {
                let mut system = FailingAt { failing, performed: Vec::new() };
                assert_eq!(apply(list, &mut system), Err(SetupError { step: failing, errno: libc::ENOMEM }));
                assert_eq!(system.performed, list[..=index]);
            }
        }
    }

    #[test]
    fn every_step_stands_once_in_what_uses_it() {
        let around = [Step::CloseInherited, Step::EnterCgroups, Step::ReadPlan];
        let container: Vec<Step> = all().collect();
        let used: Vec<Step> = around.iter().chain(LISTS.iter().copied().flatten()).copied().collect();
        let ward = [WARD_OUTSIDE, WARD, WARD_SEAL].concat();
        let born = [NEXT, BORN, INSIDE, BORN_SEAL].concat();
        for list in [&container[..], &born, &ward, NURSERY, ZYGOTE, JOIN] {
            let distinct: std::collections::HashSet<_> = list.iter().collect();
            assert_eq!(distinct.len(), list.len(), "{list:?}");
        }
        for step in Step::ALL {
            assert!(used.contains(step), "{step:?} is never done");
        }
    }

    #[test]
    fn every_way_in_has_both_filters() {
        let zygote = [ZYGOTE, JOIN].concat();
        for list in [[OUTSIDE, INSIDE, SEAL].concat(), [NURSERY, NEXT, BORN, INSIDE, BORN_SEAL].concat(), zygote] {
            for filter in [Step::FirstSeccomp, Step::LastSeccomp] {
                assert_eq!(list.iter().filter(|step| **step == filter).count(), 1, "{filter:?} in {list:?}");
            }
            assert!(
                list.iter().rposition(|step| *step == Step::LastSeccomp)
                    > list.iter().position(|step| *step == Step::FirstSeccomp)
            );
        }
    }

    /// Between giving up its capabilities and its last filter, a process is protected by neither.
    #[test]
    fn a_joining_process_is_closed_to_others_until_its_last_wall_stands() {
        assert_eq!(JOIN.first(), Some(&Step::CloseToOthers));
        assert_eq!(JOIN[JOIN.len() - 2..], [Step::LastSeccomp, Step::OpenToItself]);
    }
}
