//! The host side: start the guest program in a jail.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

use crate::cgroup::{Cgroup, CgroupError};
use crate::channel::{self, Report};
use crate::identity::{IDS, Identity, root_is_the_machines};
use crate::plan::JailPlan;
use crate::realm::Realm;
use crate::step::SetupError;

/// When the host itself runs out of memory, containers end first (proc_pid_oom_score_adj(5)).
const OOM_SCORE_ADJ: &str = "1000";

/// Longest silence of the guest program during set-up. It takes milliseconds; this is for a machine that swaps.
const SETUP_WALL_S_MAX: u64 = 30;

/// What limits the container's memory, processor time and processes.
#[derive(Debug, Clone, Copy)]
pub enum Attachment<'a> {
    /// This cgroup, joined before anything untrusted runs.
    Cgroup(&'a Cgroup),
    /// Nothing: the operator has accepted a host without usable cgroups.
    Unlimited,
}

/// A container's process 1, a child of the calling process.
///
/// The orderly end is [`Jailed::kill`], waiting until [`Jailed::pidfd`] is readable, [`Jailed::wait`]. Dropped before
/// that, it is killed and reaped on the spot, which blocks for as long as the kernel takes to end its processes.
#[derive(Debug)]
pub struct Jailed {
    pid: Pid,
    pidfd: OwnedFd,
    ended: Mutex<Option<ExitStatus>>,
}

impl Jailed {
    fn of(pid: Pid) -> Result<Self, Errno> {
        Ok(Self {
            pid,
            // It cannot be somebody else's: only this process can reap it, and has not.
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            ended: Mutex::new(None),
        })
    }

    /// Process id in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when process 1 has ended; for the caller's event loop.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
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

    /// The container's namespaces, for a zygote's child to join.
    ///
    /// # Errors
    /// What `open(2)` answers; `ESRCH` when process 1 has been reaped.
    pub fn namespaces(&self) -> io::Result<Namespaces> {
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", self.pid.as_raw_nonzero());
            fs::File::open(path).map(OwnedFd::from)
        };
        let [user, mnt, pid, net, ipc, uts, cgroup] = Namespaces::KINDS.map(open);
        Ok(Namespaces([user?, mnt?, pid?, net?, ipc?, uts?, cgroup?]))
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

    /// In the order user, mount, pid, network, ipc, uts, cgroup.
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 7] {
        self.0.each_ref().map(AsFd::as_fd)
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

/// Starts `program` (a sealed memfd) as process 1 of a jail. Blocks for the whole set-up, up to and including
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
    let _entered_when_complete = realm.namespace();
    let (channel, theirs) = channel::pair().map_err(talk)?;
    let launcher = Launcher::spawn(program, theirs, control, Stdio::null())?;
    guide(&channel, launcher, plan, attachment)
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
    inner: OwnedFd,
) -> Result<Jailed, LaunchError> {
    let _entered_when_complete = realm.namespace();
    let (channel, theirs) = channel::pair().map_err(talk)?;
    let launcher = Launcher::spawn(program, theirs, control, inner.into())?;
    guide(&channel, launcher, plan, attachment)
}

/// The host's part of the set-up, from a program that waits for its plan to a sealed process 1.
pub(crate) fn guide(
    channel: &OwnedFd,
    launcher: Launcher,
    plan: &JailPlan,
    attachment: Attachment<'_>,
) -> Result<Jailed, LaunchError> {
    let silence_max = Some(Duration::from_secs(SETUP_WALL_S_MAX));
    set_socket_timeout(channel, Timeout::Recv, silence_max).map_err(talk)?;
    set_socket_timeout(channel, Timeout::Send, silence_max).map_err(talk)?;
    if let Attachment::Cgroup(cgroup) = attachment {
        cgroup.attach(launcher.pid)?;
    }
    // Inherited by all that runs inside. Set from here, with the host's rights, code inside cannot lower it again.
    std::fs::write(format!("/proc/{}/oom_score_adj", launcher.pid.as_raw_nonzero()), OOM_SCORE_ADJ)
        .map_err(LaunchError::OomScore)?;
    // The guest program does nothing before it has read its plan: by then it is in its cgroup.
    let bytes = plan.to_bytes().map_err(|error| LaunchError::Channel(error.into()))?;
    channel::send_packet(channel, &bytes).map_err(talk)?;
    match next_report(channel)? {
        Report::UserNamespace => {}
        other => return Err(unexpected(other)),
    }
    write_id_maps(launcher.pid, plan.identity)?;
    channel::send_go(channel).map_err(talk)?;
    let pid = match next_report(channel)? {
        Report::ProcessOne(pid) => Pid::from_raw(pid).ok_or(LaunchError::Disorder)?,
        other => return Err(unexpected(other)),
    };
    // From here on, dropping `jailed` ends it.
    let jailed = Jailed::of(pid).map_err(talk)?;
    launcher.finish()?;
    channel::send_go(channel).map_err(talk)?;
    match next_report(channel)? {
        Report::Sealed => Ok(jailed),
        other => Err(unexpected(other)),
    }
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
}

impl Launcher {
    fn spawn(program: BorrowedFd<'_>, channel: OwnedFd, control: OwnedFd, third: Stdio) -> Result<Self, LaunchError> {
        // Nothing here makes `Command` fork this large process: it uses posix_spawn(3).
        let child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("belljar-guest")
            .env_clear()
            .process_group(0)
            .stdin(channel)
            .stdout(control)
            .stderr(third)
            .spawn()
            .map_err(LaunchError::Spawn)?;
        Ok(Self::leading_its_group(Pid::from_child(&child)))
    }

    /// Takes over a child of this process that leads a process group and waits for its plan.
    pub(crate) fn leading_its_group(pid: Pid) -> Self {
        Self { pid, state: LauncherState::Running }
    }

    /// Reaps it when process 1 is known and has been taken over.
    fn finish(mut self) -> Result<(), LaunchError> {
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

fn write_id_maps(launcher: Pid, identity: Identity) -> Result<(), LaunchError> {
    let write = |file: &'static str, text: String| {
        let path = format!("/proc/{}/{file}", launcher.as_raw_nonzero());
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut opened| io::Write::write_all(&mut opened, text.as_bytes()))
            .map_err(|source| LaunchError::IdMap { file, source })
    };
    match identity {
        Identity::Mapped { base } => {
            write("uid_map", format!("0 {base} {IDS}"))?;
            write("gid_map", format!("0 {base} {IDS}"))
        }
        Identity::Caller { uid: 0, .. } if root_is_the_machines() => Err(LaunchError::HostRoot),
        Identity::Caller { uid, gid } => {
            write("setgroups", "deny".to_owned())?;
            write("uid_map", format!("0 {uid} 1"))?;
            write("gid_map", format!("0 {gid} 1"))
        }
    }
}

fn next_report(channel: &OwnedFd) -> Result<Report, LaunchError> {
    channel::receive_report(channel).map_err(talk)?.ok_or(LaunchError::Vanished)
}

fn unexpected(report: Report) -> LaunchError {
    match report {
        Report::Failed(error) => LaunchError::Setup(error),
        Report::UserNamespace | Report::ProcessOne(_) | Report::Sealed => LaunchError::Disorder,
    }
}

fn talk(errno: Errno) -> LaunchError {
    match errno {
        Errno::AGAIN => LaunchError::TimedOut { wall_s_max: SETUP_WALL_S_MAX },
        Errno::PIPE | Errno::CONNRESET => LaunchError::Vanished,
        errno => LaunchError::Channel(errno.into()),
    }
}
