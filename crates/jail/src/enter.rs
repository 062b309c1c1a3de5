//! The guest side: become process 1 of a jail.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{chdir, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use crate::channel::{PLAN_BYTES_MAX, Report, receive_go, receive_packet, send_report};
use crate::plan::JailPlan;
use crate::raw::{Side, clone_sibling, close_from, default_signals, exit_now, take_inherited, unshare};
use crate::step::{INSIDE, OUTSIDE, SEAL, SetupError, Step, System, WARD, WARD_SEAL, apply};
use crate::ward::Ward;
use crate::{landlock, privileges, root, seccomp, ward};

/// The jail stands except for its last two walls, Landlock and seccomp.
///
/// The control socket is only handed out by [`Entered::seal`], so nothing from the host can be acted on before.
/// Dropped without sealing, the host takes it for a failed set-up and kills this process.
#[derive(Debug)]
pub struct Entered {
    kernel: Kernel,
    control: OwnedFd,
}

/// Becomes process 1 of the jail that the host's [`crate::launch`] described. To be called first thing by the guest
/// program, while it has one thread and no descriptor of its own.
///
/// # Errors
/// The failed step; it has been reported to the host too. The caller must exit.
pub fn enter() -> Result<Entered, SetupError> {
    close_from(3).map_err(at(Step::CloseInherited))?;
    let channel = take_inherited(CHANNEL_FD).map_err(at(Step::ReadPlan))?;
    let control = take_inherited(CONTROL_FD).map_err(at(Step::ReadPlan))?;
    let kernel = Kernel::set_up(channel)?;
    Ok(Entered { kernel, control })
}

impl Entered {
    /// Process 1's means to have its children killed before itself when memory runs out. To be taken before the seal.
    pub fn oom_adjuster(&mut self) -> Option<crate::oom::OomAdjuster> {
        Some(crate::oom::OomAdjuster::new())
    }

    /// What process 1 of a ward starts before it seals itself; `None` in a container's own jail.
    pub fn ward(&self) -> Option<Ward<'_>> {
        let (plan, program) = (self.kernel.plan.ward.as_ref()?, self.kernel.runsc.as_ref()?);
        Some(Ward { plan, program: program.as_fd(), control: self.control.as_fd() })
    }

    /// Applies Landlock, then seccomp, tells the host that the jail is complete, and hands over the control socket.
    ///
    /// # Errors
    /// The failed step; it has been reported to the host too. The caller must exit.
    pub fn seal(self) -> Result<OwnedFd, SetupError> {
        self.kernel.seal()?;
        Ok(self.control)
    }
}

/// Where `launch` puts the set-up channel: the standard streams are the only descriptors that a plain spawn passes on.
const CHANNEL_FD: i32 = 0;

/// Where `launch` puts the control socket.
const CONTROL_FD: i32 = 1;

/// Where `launch_ward` puts the program that the ward is for.
const PROGRAM_FD: i32 = 2;

fn at(step: Step) -> impl FnOnce(Errno) -> SetupError {
    move |errno| SetupError { step, errno: errno.raw_os_error() }
}

/// Tells the host of a failure. When even that fails the host is gone or will see the channel's end: either way it
/// knows, and the caller exits.
fn reported<T>(channel: &OwnedFd, result: Result<T, SetupError>) -> Result<T, SetupError> {
    if let Err(error) = &result {
        let _told_or_gone = send_report(channel, Report::Failed(*error));
    }
    result
}

fn read_plan(channel: &OwnedFd) -> Result<JailPlan, Errno> {
    let bytes = receive_packet(channel, PLAN_BYTES_MAX)?.ok_or(Errno::PIPE)?;
    JailPlan::from_bytes(&bytes).map_err(|_| Errno::BADMSG)
}

/// Carries the steps out by system calls.
#[derive(Debug)]
pub(crate) struct Kernel {
    plan: JailPlan,
    channel: OwnedFd,
    held: root::Held,
    /// The program that a ward is for.
    runsc: Option<OwnedFd>,
}

impl System for Kernel {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        let plan = &self.plan;
        match step {
            Step::OwnUserNamespace => self.own_user_namespace(),
            Step::BecomeContainerRoot => privileges::become_container_root(plan.identity),
            Step::OwnNamespaces => unshare(NAMESPACES),
            Step::BecomeProcessOne => self.become_process_one(),
            Step::OwnSession => setsid().map(drop),
            Step::DefaultSignals => default_signals(),
            Step::PrivateMounts => root::private_mounts(),
            Step::HoldDevices => root::hold_devices(plan, &mut self.held),
            Step::WritableLayer => root::writable_layer(plan),
            Step::Overlay => root::overlay(),
            Step::Proc => root::make_proc(&mut self.held),
            Step::PivotRoot => root::change_root(),
            Step::AttachProc => root::attach_proc(&mut self.held),
            Step::Dev => root::dev(plan, &mut self.held),
            Step::MaskProc => root::mask_proc(plan),
            Step::Directories => root::directories(&plan.directories),
            Step::Symlinks => root::symlinks(&plan.symlinks),
            Step::WardProc => root::make_writable_proc(&mut self.held),
            Step::WardRoot => root::change_root_to_layer(),
            Step::WardFiles => ward::files(plan.ward.as_ref().ok_or(Errno::INVAL)?),
            Step::Hostname => sethostname(plan.hostname.as_bytes()),
            Step::ResourceLimits => privileges::resource_limits(&plan.resource_limits),
            Step::WorkingDirectory => chdir(&plan.working_directory),
            Step::Streams => streams(),
            Step::NoFutureCapabilities => privileges::no_future_capabilities(),
            Step::NoNewPrivileges => privileges::no_new_privileges(),
            Step::NoCapabilities => privileges::no_capabilities(),
            Step::Undumpable => privileges::undumpable(),
            Step::Landlock => landlock::apply(&plan.landlock),
            Step::Seccomp => seccomp::install(&plan.seccomp),
            // Done before and after the lists; in one of them, they would be a mistake.
            Step::CloseInherited | Step::ReadPlan | Step::Report => Err(Errno::INVAL),
        }
    }
}

const NAMESPACES: UnshareFlags = UnshareFlags::NEWNS
    .union(UnshareFlags::NEWPID)
    .union(UnshareFlags::NEWNET)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS)
    .union(UnshareFlags::NEWCGROUP);

impl Kernel {
    /// All steps but the last two, as the host at the other end of the channel says.
    pub(crate) fn set_up(channel: OwnedFd) -> Result<Self, SetupError> {
        let plan = read_plan(&channel).map_err(at(Step::ReadPlan));
        let plan = reported(&channel, plan)?;
        let mut kernel = Self { plan, channel, held: root::Held::default(), runsc: None };
        umask(Mode::from_raw_mode(0o022));
        if kernel.plan.ward.is_some() {
            let program = take_inherited(PROGRAM_FD).map_err(at(Step::ReadPlan));
            kernel.runsc = Some(reported(&kernel.channel, program)?);
        }
        let inside = if kernel.plan.ward.is_some() { WARD } else { INSIDE };
        let done = apply(OUTSIDE, &mut kernel).and_then(|()| apply(inside, &mut kernel));
        reported(&kernel.channel, done)?;
        Ok(kernel)
    }

    /// The last two steps, and the last word.
    pub(crate) fn seal(mut self) -> Result<(), SetupError> {
        let seal = if self.plan.ward.is_some() { WARD_SEAL } else { SEAL };
        let sealed = apply(seal, &mut self);
        reported(&self.channel, sealed)?;
        send_report(&self.channel, Report::Sealed).map_err(at(Step::Report))
    }

    /// The maps are the host's to write: from inside, only one's own id could be mapped.
    fn own_user_namespace(&self) -> Result<(), Errno> {
        unshare(UnshareFlags::NEWUSER)?;
        send_report(&self.channel, Report::UserNamespace)?;
        receive_go(&self.channel)
    }

    /// Only a child enters the new pid namespace. It becomes the host's child; this process tells its id and ends.
    fn become_process_one(&self) -> Result<(), Errno> {
        match clone_sibling()? {
            Side::Caller(pid) => {
                let told = send_report(&self.channel, Report::ProcessOne(pid.as_raw_nonzero().get()));
                exit_now(i32::from(told.is_err()))
            }
            // Until the host knows this process's id, it can only be reached by its process group, which it must
            // therefore not leave yet.
            Side::New => receive_go(&self.channel),
        }
    }
}

fn streams() -> Result<(), Errno> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}
