//! Joining a container from outside: what a zygote's child does before it may run user code.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::io::Errno;
use rustix::process::{chdir, setsid, umask};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::landlock::{self, Beyond};
use crate::plan::SealPlan;
use crate::raw::default_signals;
use crate::step::{JOIN, SetupError, Step, System, apply};
use crate::{privileges, seccomp};

/// Where code starts, as in the guest program.
const WORKING_DIRECTORY: &str = "/work";

/// Makes the calling process one of a container's, with every wall the others have.
///
/// The caller has one thread, has been forked into the container's pid namespace, and has full capabilities in the
/// realm. `namespaces`: user, mount, pid, network, ipc, uts, cgroup; all are closed when this returns.
///
/// # Errors
/// The failed step. The caller must exit at once: it is neither outside nor inside.
pub fn join(namespaces: [OwnedFd; 7], seal: &SealPlan) -> Result<(), SetupError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let born_in = open("/", flags, Mode::empty()).map_err(SetupError::at(Step::EnterMountNamespace))?;
    let mut joining = Joining { namespaces, seal, born_in };
    apply(JOIN, &mut joining)
}

struct Joining<'a> {
    namespaces: [OwnedFd; 7],
    seal: &'a SealPlan,
    /// The zygote's root.
    born_in: OwnedFd,
}

impl System for Joining<'_> {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        let [user, mnt, pid, net, ipc, uts, cgroup] = self.namespaces.each_ref().map(AsFd::as_fd);
        match step {
            Step::CloseToOthers => privileges::undumpable(),
            Step::EnterUserNamespace => enter(user, LinkNameSpaceType::User),
            Step::EnterMountNamespace => enter(mnt, LinkNameSpaceType::Mount),
            Step::EnterNetworkNamespace => enter(net, LinkNameSpaceType::Network),
            Step::EnterIpcNamespace => enter(ipc, LinkNameSpaceType::InterProcessCommunication),
            Step::EnterUtsNamespace => enter(uts, LinkNameSpaceType::HostNameAndNISDomainName),
            Step::EnterCgroupNamespace => enter(cgroup, LinkNameSpaceType::ControlGroup),
            Step::CheckPidNamespace => born_in(pid),
            Step::BecomeContainerRoot => privileges::become_root(self.seal.identity),
            Step::OwnSession => setsid().map(drop),
            // Python ignores these two itself, and gives them back to the programs it starts.
            Step::DefaultSignals => default_signals(&[libc::SIGPIPE, libc::SIGXFSZ]),
            Step::ResourceLimits => privileges::resource_limits(&self.seal.resource_limits),
            Step::CodeLimits => privileges::limit_code(),
            Step::WorkingDirectory => working_directory(),
            Step::NoFutureCapabilities => privileges::no_future_capabilities(),
            Step::NoNewPrivileges => privileges::no_new_privileges(),
            Step::NoCapabilities => privileges::no_capabilities(),
            Step::Landlock => landlock::apply(&self.seal.landlock, Some(Beyond::Birthplace(self.born_in.as_fd()))),
            Step::LastSeccomp => seccomp::install(&self.seal.seccomp_last),
            Step::OpenToItself => privileges::dumpable(),
            // A container's or a zygote's; here, they would be a mistake.
            _ => Err(Errno::INVAL),
        }
    }
}

/// The kernel refuses a descriptor of another kind of namespace (`setns(2)`).
fn enter(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> Result<(), Errno> {
    move_into_link_name_space(namespace, Some(kind))
}

/// A process cannot change its own pid namespace: the host chose a wrong one, or a fork went wrong.
fn born_in(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let (own, wanted) = (stat("/proc/self/ns/pid")?, fstat(namespace)?);
    if (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino) { Ok(()) } else { Err(Errno::XDEV) }
}

/// Code may have removed the directory.
fn working_directory() -> Result<(), Errno> {
    umask(Mode::from_raw_mode(0o022));
    chdir(WORKING_DIRECTORY).or_else(|_gone| chdir("/"))
}
