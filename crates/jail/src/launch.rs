//! The host side: start the guest program in a jail.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    setpriority_process, waitid,
};

use crate::cgroup::{Cgroup, CgroupError};
use crate::channel::{self, Report};
use crate::oom;
use crate::plan::{JailPlan, PlanError};
use crate::realm::Realm;
use crate::step::SetupError;

/// Longest silence of the guest program during set-up. It takes milliseconds; this is for a machine that swaps.
const SETUP_WALL_S_MAX: u64 = 30;

/// setpriority(2).
const HIGHEST_PRIORITY: i32 = -20;

/// What limits the container's memory, processor time and processes.
#[derive(Debug, Clone, Copy)]
pub enum Attachment<'a> {
    /// This cgroup, joined before anything untrusted runs.
    Cgroup(&'a Cgroup),
    /// Nothing: the operator has accepted a host without usable cgroups.
    Unlimited,
}

impl Attachment<'_> {
    /// Has the guest program enter, which it does before it reads its plan.
    pub(crate) fn offer(self, channel: &OwnedFd) -> Result<(), LaunchError> {
        let entrances = self.entrances()?;
        let entrances: Vec<_> = entrances.iter().map(AsFd::as_fd).collect();
        channel::send_entrances(channel, &entrances).map_err(talk)
    }

    pub(crate) fn entrances(self) -> Result<Vec<OwnedFd>, CgroupError> {
        match self {
            Self::Cgroup(cgroup) => cgroup.entrances(),
            Self::Unlimited => Ok(Vec::new()),
        }
    }
}

/// A container's process 1, a child of the calling process.
///
/// The orderly end is [`Jailed::kill`], waiting until [`Jailed::pidfd`] is readable, [`Jailed::wait`]. Dropped before
/// that, it is killed and reaped on the spot, which blocks for as long as the kernel takes to end its processes.
#[derive(Debug)]
pub struct Jailed {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    ended: Mutex<Option<ExitStatus>>,
    /// Opened while it could be; see [`Jailed::namespaces`].
    namespaces: Option<Namespaces>,
    /// A zygote's: closes with this process, however that ends.
    lifeline: Option<OwnedFd>,
}

impl Jailed {
    fn of(pid: Pid) -> Result<Self, Errno> {
        // It cannot be somebody else's: only this process can reap it, and has not.
        Ok(Self::held(pid, pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// A child of this process, by its pidfd.
    pub(crate) fn held(pid: Pid, pidfd: OwnedFd) -> Self {
        Self::inherited(pid, pidfd, None, None)
    }

    /// For an ordinary user, who has no right to them when it will be undumpable (ptrace(2)).
    pub(crate) fn hold_namespaces(&mut self, channel: &OwnedFd) -> Result<(), LaunchError> {
        let opened = Namespaces::of(self.pid).map_err(|source| gone_or_closed(channel, self, source))?;
        self.namespaces = Some(opened);
        Ok(())
    }

    /// One that this process has started as another program.
    pub(crate) fn inherited(
        pid: Pid,
        pidfd: OwnedFd,
        namespaces: Option<Namespaces>,
        lifeline: Option<OwnedFd>,
    ) -> Self {
        Self { pid, pidfd: Arc::new(pidfd), ended: Mutex::new(None), namespaces, lifeline }
    }

    pub(crate) fn opened_namespaces(&self) -> Option<&Namespaces> {
        self.namespaces.as_ref()
    }

    pub(crate) fn lifeline(&self) -> Option<&OwnedFd> {
        self.lifeline.as_ref()
    }

    /// Process id in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when process 1 has ended; for the caller's event loop.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The same one, for whoever watches it longer than this is at hand: a container is to cost its host one, not one for
    /// each who wants to hear of its end.
    pub fn shared_pidfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.pidfd)
    }

    /// Kills process 1, and with it, by the kernel's doing, every process of the container. Killing a dead one is fine.
    ///
    /// # Errors
    /// What `pidfd_send_signal(2)` answers, other than `ESRCH`.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// As [`Jailed::kill`], where many processes compete with it for their container's processor time: it is let go first,
    /// because the kernel ends the others only when process 1 itself gets to end.
    ///
    /// # Errors
    /// As [`Jailed::kill`].
    pub fn kill_first(&self) -> io::Result<()> {
        // Not reaped yet, so that the id is its own; an ordinary user may not raise it, and kills it all the same.
        let ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.is_none() {
            let _allowed_or_not = setpriority_process(Some(self.pid), HIGHEST_PRIORITY);
        }
        self.kill()
    }

    /// The container's namespaces, for a zygote's child to join.
    ///
    /// # Errors
    /// What `open(2)` answers; `ESRCH` when process 1 has been reaped.
    pub fn namespaces(&self) -> io::Result<Namespaces> {
        if let Some(namespaces) = &self.namespaces {
            return namespaces.try_clone();
        }
        self.unreaped(Namespaces::of)
    }

    /// The container's pid namespace, for a zygote's child to be born in.
    ///
    /// # Errors
    /// As [`Jailed::namespaces`].
    pub fn pid_namespace(&self) -> io::Result<PidNamespace> {
        if let Some(Namespaces([_, _, pid, ..])) = &self.namespaces {
            return pid.try_clone().map(PidNamespace);
        }
        self.unreaped(|pid| Namespaces::open(pid, "pid")).map(PidNamespace)
    }

    /// Looks something up by the id of process 1, which nobody reaps meanwhile, so that it stays its own.
    fn unreaped<T>(&self, look_up: impl FnOnce(Pid) -> io::Result<T>) -> io::Result<T> {
        let ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.is_some() { Err(Errno::SRCH.into()) } else { look_up(self.pid) }
    }

    /// Reaps process 1. Blocks until it has ended; answers the same when called again.
    ///
    /// # Errors
    /// What `waitid(2)` answers.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        let mut ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(status) = *ended {
            return Ok(status);
        }
        let waited = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED))?;
        let status = waited.ok_or(Errno::CHILD)?;
        let raw = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code << 8,
            (None, Some(signal)) => signal,
            (None, None) => return Err(Errno::INVAL.into()),
        };
        Ok(*ended.insert(ExitStatus::from_raw(raw)))
    }
}

/// Descriptors of a container's namespaces.
#[derive(Debug)]
pub struct Namespaces([OwnedFd; 7]);

impl Namespaces {
    const KINDS: [&'static str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

    /// Of a process that cannot be reaped meanwhile.
    fn of(pid: Pid) -> io::Result<Self> {
        Self::all(Self::KINDS.map(|kind| Self::open(pid, kind)))
    }

    fn open(pid: Pid, kind: &str) -> io::Result<OwnedFd> {
        fs::File::open(format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero())).map(OwnedFd::from)
    }

    fn all(opened: [io::Result<OwnedFd>; 7]) -> io::Result<Self> {
        let [user, mnt, pid, net, ipc, uts, cgroup] = opened;
        Ok(Self([user?, mnt?, pid?, net?, ipc?, uts?, cgroup?]))
    }

    /// In the order of [`Namespaces::KINDS`].
    pub(crate) fn of_these(namespaces: [OwnedFd; 7]) -> Self {
        Self(namespaces)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Self::all(self.0.each_ref().map(OwnedFd::try_clone))
    }

    /// In the order user, mount, pid, network, ipc, uts, cgroup; as [`crate::join`] takes them.
    pub fn into_fds(self) -> [OwnedFd; 7] {
        self.0
    }

    /// In the same order.
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 7] {
        self.0.each_ref().map(AsFd::as_fd)
    }
}

/// Descriptor of a container's pid namespace.
#[derive(Debug)]
pub struct PidNamespace(OwnedFd);

impl AsFd for PidNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        let ended = self.ended.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.is_none() && self.kill().is_ok() {
            let _nothing_more_to_do = self.wait();
        }
    }
}

/// Why no container started. Nothing that was started is left, and no user code ran.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The guest program could not be started.
    #[error("could not start the guest program: {0}")]
    Spawn(#[source] io::Error),
    /// The cgroup could not be joined.
    #[error(transparent)]
    Attach(#[from] CgroupError),
    /// The user and group id maps could not be written.
    #[error("could not write {file} of the new user namespace: {source}")]
    IdMap {
        /// File under `/proc/<pid>`.
        file: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The plan is for a container of another realm.
    #[error("the plan's identity is not that of the realm")]
    OtherRealm,
    /// A zygote cannot be as wished.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A zygote's files could not be handed over.
    #[error("could not hand files over to a zygote: {0}")]
    Files(#[source] io::Error),
    /// A namespace could not be opened.
    #[error("could not open a namespace: {0}")]
    Namespace(#[source] io::Error),
    /// The kernel was not told to end the container before the host's own programs.
    #[error("could not write oom_score_adj of the guest program: {0}")]
    OomScore(#[source] io::Error),
    /// The container's root would have been the machine's root.
    #[error("a container's root must not be the machine's root: give it ids of its own")]
    HostRoot,
    /// A step inside failed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The guest program ended without saying why.
    #[error("the guest program ended during set-up without a report")]
    Vanished,
    /// The guest program said something that does not belong where it was said.
    #[error("the guest program broke the order of set-up")]
    Disorder,
    /// The guest program did not finish its set-up in time.
    #[error("jail set-up was silent for more than {wall_s_max} s")]
    TimedOut {
        /// The limit.
        wall_s_max: u64,
    },
    /// Talking to the guest program failed.
    #[error("could not talk to the guest program: {0}")]
    Channel(#[source] io::Error),
}

/// Starts `program` (a sealed memfd) as process 1 of a jail in `realm`. Blocks for the whole set-up, up to and including
/// the guest's [`crate::Entered::seal`]; call it from a thread that may block.
///
/// # Errors
/// [`LaunchError`]; everything started has been killed and reaped by then.
pub fn launch(
    realm: &Realm,
    program: BorrowedFd<'_>,
    plan: &JailPlan,
    attachment: Attachment<'_>,
    control: OwnedFd,
) -> Result<Jailed, LaunchError> {
    let (channel, theirs) = channel::pair().map_err(talk)?;
    let launcher = Launcher::spawn(program, theirs, control.into())?;
    guide(realm, &channel, launcher, plan, attachment, None)
}

/// As [`launch`], for a plan made by [`JailPlan::for_ward`]: process 1 starts `inner`, an executable file, which makes
/// the container, and only waits from then on.
///
/// # Errors
/// [`LaunchError`]; everything started has been killed and reaped by then.
pub fn launch_ward(
    realm: &Realm,
    program: BorrowedFd<'_>,
    plan: &JailPlan,
    attachment: Attachment<'_>,
    control: OwnedFd,
    inner: BorrowedFd<'_>,
) -> Result<Jailed, LaunchError> {
    let (channel, theirs) = channel::pair().map_err(talk)?;
    let launcher = Launcher::spawn(program, theirs, control.into())?;
    guide(realm, &channel, launcher, plan, attachment, Some(inner))
}

/// The host's part of the set-up, from a program that waits for its order to a sealed process 1.
pub(crate) fn guide(
    realm: &Realm,
    channel: &OwnedFd,
    launcher: Launcher,
    plan: &JailPlan,
    attachment: Attachment<'_>,
    inner: Option<BorrowedFd<'_>>,
) -> Result<Jailed, LaunchError> {
    realm.require(plan.identity)?;
    limit_silence(channel)?;
    attachment.offer(channel)?;
    // Inherited by all that runs inside. Set from here, with the host's rights, code inside cannot lower it again.
    oom::set(launcher.pid, oom::PROCESS_ONE).map_err(LaunchError::OomScore)?;
    let order = plan.to_order().map_err(|error| LaunchError::Channel(error.into()))?;
    let fds: Vec<_> = [realm.namespace()].into_iter().chain(inner).collect();
    channel::send_order(channel, &order, &fds).map_err(talk)?;
    let pid = match next_report(channel)? {
        Report::ProcessOne(pid) => Pid::from_raw(pid).ok_or(LaunchError::Disorder)?,
        other => return Err(unexpected(other)),
    };
    // From here on, dropping `jailed` ends it.
    let mut jailed = Jailed::of(pid).map_err(talk)?;
    if plan.identity.hides_its_processes() {
        jailed.hold_namespaces(channel)?;
    }
    let jailed = sealed(channel, jailed)?;
    launcher.finish()?;
    Ok(jailed)
}

/// Lets process 1, now in the host's hands, go on, and waits until it is sealed.
pub(crate) fn sealed(channel: &OwnedFd, jailed: Jailed) -> Result<Jailed, LaunchError> {
    match channel::send_go(channel) {
        // It may have failed and gone by now; its last word says where.
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(errno) => return Err(talk(errno)),
    }
    match next_report(channel)? {
        Report::Sealed => Ok(jailed),
        other => Err(unexpected(other)),
    }
}

/// Process 1 may have failed and ended before its namespaces were opened; then its last word counts.
pub(crate) fn gone_or_closed(channel: &OwnedFd, jailed: &Jailed, source: io::Error) -> LaunchError {
    // So that a word comes, or the end, and at once.
    let heard = jailed.kill().map_err(LaunchError::Namespace).and_then(|()| next_report(channel));
    match heard {
        Ok(Report::Failed(error)) => LaunchError::Setup(error),
        Ok(_) | Err(_) => LaunchError::Namespace(source),
    }
}

/// A guest program that says nothing for too long has failed.
pub(crate) fn limit_silence(channel: &OwnedFd) -> Result<(), LaunchError> {
    let silence_max = Some(Duration::from_secs(SETUP_WALL_S_MAX));
    set_socket_timeout(channel, Timeout::Recv, silence_max).map_err(talk)?;
    set_socket_timeout(channel, Timeout::Send, silence_max).map_err(talk)
}

/// The process that makes process 1 and ends. Leads a process group that process 1 is born into, so that dropping
/// this reaches both.
pub(crate) struct Launcher {
    pid: Pid,
    state: LauncherState,
}

#[derive(PartialEq, Eq)]
enum LauncherState {
    Running,
    Reaped,
    TakenOver,
}

impl Launcher {
    pub(crate) fn spawn(program: BorrowedFd<'_>, channel: OwnedFd, control: Stdio) -> Result<Self, LaunchError> {
        // Nothing here makes `Command` fork this large process: it uses posix_spawn(3).
        let child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("belljar-guest")
            .env_clear()
            .process_group(0)
            .stdin(channel)
            .stdout(control)
            .stderr(Stdio::null())
            .spawn()
            .map_err(LaunchError::Spawn)?;
        Ok(Self::leading_its_group(Pid::from_child(&child)))
    }

    /// Takes over a child of this process that leads a process group and waits for its plan.
    pub(crate) fn leading_its_group(pid: Pid) -> Self {
        Self { pid, state: LauncherState::Running }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// It has become a zygote, which dropping this must not end any more.
    pub(crate) fn into_zygote(mut self, lifeline: OwnedFd) -> Result<Jailed, LaunchError> {
        let mut zygote = Jailed::of(self.pid).map_err(talk)?;
        zygote.lifeline = Some(lifeline);
        self.state = LauncherState::TakenOver;
        Ok(zygote)
    }

    /// Reaps it when its work is done.
    pub(crate) fn finish(mut self) -> Result<(), LaunchError> {
        rustix::io::retry_on_intr(|| waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED)).map_err(talk)?;
        self.state = LauncherState::Reaped;
        Ok(())
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if self.state == LauncherState::Running && kill_process_group(self.pid, Signal::KILL).is_ok() {
            // Until ECHILD: the launcher, and process 1 if it had been made.
            while rustix::io::retry_on_intr(|| waitid(WaitId::Pgid(Some(self.pid)), WaitIdOptions::EXITED)).is_ok() {}
        }
    }
}

pub(crate) fn next_report(channel: &OwnedFd) -> Result<Report, LaunchError> {
    let report = match channel::receive_report(channel) {
        // It ended without having read all. That is said before its last words, and once.
        Err(Errno::CONNRESET) => channel::receive_report(channel),
        report => report,
    };
    report.map_err(talk)?.ok_or(LaunchError::Vanished)
}

pub(crate) fn unexpected(report: Report) -> LaunchError {
    match report {
        Report::Failed(error) => LaunchError::Setup(error),
        Report::UserNamespace | Report::Nursery | Report::ProcessOne(_) | Report::Apart | Report::Sealed => {
            LaunchError::Disorder
        }
    }
}

pub(crate) fn talk(errno: Errno) -> LaunchError {
    match errno {
        Errno::AGAIN => LaunchError::TimedOut { wall_s_max: SETUP_WALL_S_MAX },
        Errno::PIPE | Errno::CONNRESET => LaunchError::Vanished,
        errno => LaunchError::Channel(errno.into()),
    }
}
