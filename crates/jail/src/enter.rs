//! The guest side: become process 1 of a jail, or whatever else the host orders.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, chdir, kill_process, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::system::sethostname;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::cgroup::enter_cgroups;
use crate::channel::{Order, Report, receive_entrances, receive_go, receive_order, send_report};
use crate::identity::{IDS, Identity};
use crate::landlock::{self, Beyond};
use crate::oom::OomAdjuster;
use crate::plan::JailPlan;
use crate::raw::{
    OWN_NAMESPACES, REALM_NAMESPACES, Side, clone_process_one, close_from, default_signals, exit_now, take_inherited,
    unshare,
};
use crate::step::{
    BORN, BORN_SEAL, INSIDE, OUTSIDE, REALM, SEAL, SetupError, Step, System, WARD, WARD_OUTSIDE, WARD_SEAL, apply,
};
use crate::ward::Ward;
use crate::{nursery, privileges, root, seccomp, ward, zygote};

/// The jail stands except for its last two walls, Landlock and seccomp.
///
/// The control socket is only handed out by [`Entered::seal`], so nothing from the host can be acted on before.
/// Dropped without sealing, the host takes it for a failed set-up and kills this process.
#[derive(Debug)]
pub struct Entered {
    kernel: Kernel,
}

/// Becomes process 1 of the jail that the host's [`crate::launch`] described. To be called first thing by the guest
/// program, while it has one thread and no descriptor of its own.
///
/// The same program makes the namespace of a [`crate::Realm`] and starts zygotes; in these cases this does not return,
/// unless with an error.
///
/// # Errors
/// The failed step; it has been reported to the host too. The caller must exit.
pub fn enter() -> Result<Entered, SetupError> {
    close_from(3).map_err(SetupError::at(Step::CloseInherited))?;
    let channel = take_inherited(CHANNEL_FD).map_err(SetupError::at(Step::ReadPlan))?;
    let control = take_inherited(CONTROL_FD).map_err(SetupError::at(Step::ReadPlan))?;
    Ok(Entered { kernel: Kernel::set_up(channel, Some(control))? })
}

impl Entered {
    /// Process 1's means to have its children killed before itself when memory runs out. To be taken before the seal.
    ///
    /// `None` when it has been taken.
    pub fn oom_adjuster(&mut self) -> Option<OomAdjuster> {
        self.kernel.held.own_score.take().map(OomAdjuster::new)
    }

    /// The directory of everything that is written in the container, without the image below it. Process 1 alone has
    /// it: no path leads there.
    ///
    /// # Errors
    /// What `fcntl(2)` answers; `EBADF` when there is none.
    pub fn writable_layer(&self) -> std::io::Result<OwnedFd> {
        let upper = self.kernel.held.upper.as_ref().ok_or(Errno::BADF)?;
        upper.try_clone()
    }

    /// What process 1 of a ward starts before it seals itself; `None` in a container's own jail.
    pub fn ward(&self) -> Option<Ward<'_>> {
        let Kernel { plan, inner, control, .. } = &self.kernel;
        Some(Ward { plan: plan.ward.as_ref()?, program: inner.as_ref()?.as_fd(), control: control.as_ref()?.as_fd() })
    }

    /// Tells the host that a ward's program could not be started. The caller must exit.
    pub fn refuse(self, error: &std::io::Error) {
        let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        let _told_or_gone = reported::<()>(&self.kernel.channel, Err(SetupError { step: Step::Execute, errno }));
    }

    /// Applies Landlock, then seccomp, tells the host that the jail is complete, and hands over the control socket.
    ///
    /// # Errors
    /// The failed step; it has been reported to the host too. The caller must exit.
    pub fn seal(mut self) -> Result<OwnedFd, SetupError> {
        let control = self.kernel.control.take().ok_or(Errno::BADF).map_err(SetupError::at(Step::ReadPlan))?;
        self.kernel.seal()?;
        Ok(control)
    }
}

/// Where `launch` puts the set-up channel: the standard streams are the only descriptors that a plain spawn passes on.
const CHANNEL_FD: i32 = 0;

/// Where `launch` puts the control socket.
const CONTROL_FD: i32 = 1;

/// Tells the host of a failure. When even that fails the host is gone or will see the channel's end: either way it
/// knows, and the caller exits.
pub(crate) fn reported<T>(channel: &OwnedFd, result: Result<T, SetupError>) -> Result<T, SetupError> {
    if let Err(error) = &result {
        let _told_or_gone = send_report(channel, Report::Failed(*error));
    }
    result
}

/// Carries the steps out by system calls.
#[derive(Debug)]
pub(crate) struct Kernel {
    plan: JailPlan,
    channel: OwnedFd,
    realm: Option<OwnedFd>,
    control: Option<OwnedFd>,
    held: root::Held,
    /// The program that a ward is for.
    inner: Option<OwnedFd>,
    /// Of one that a nursery has borne.
    born: Option<Born>,
    /// The last steps.
    seal: &'static [Step],
}

/// What process 1 gets from its nursery, and uses up.
#[derive(Debug)]
pub(crate) struct Born {
    pub(crate) entrances: Vec<OwnedFd>,
    /// Where the nursery says that the id maps stand.
    pub(crate) mapped: OwnedFd,
}

impl System for Kernel {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        let plan = &self.plan;
        match step {
            // Not kept: nothing is entered by it again.
            Step::EnterRealm => enter_realm(self.realm.take().ok_or(Errno::BADF)?.as_fd()),
            Step::BecomeRealmRoot => become_realm_root(plan.identity),
            Step::BecomeProcessOne => self.become_process_one(),
            Step::EnterCgroups => enter_cgroups(&std::mem::take(&mut self.born.as_mut().ok_or(Errno::BADF)?.entrances)),
            Step::RealmNamespaces => unshare(REALM_NAMESPACES),
            Step::OwnNamespaces => self.own_namespaces(),
            Step::AwaitIdMaps => await_id_maps(self.born.take().ok_or(Errno::BADF)?.mapped.as_fd()),
            Step::BecomeContainerRoot => privileges::become_root(plan.identity),
            Step::DefaultSignals => default_signals(&[libc::SIGPIPE]),
            Step::PrivateMounts => root::private_mounts(),
            Step::HoldDevices => root::hold_devices(&plan.devices, &mut self.held),
            Step::WritableLayer => {
                let upper = root::writable_layer(&plan.rootfs, plan.disk_bytes_max, plan.inodes_max)?;
                self.held.upper = Some(upper);
                Ok(())
            }
            Step::Overlay => root::overlay(),
            Step::Proc => root::make_proc(&mut self.held),
            Step::PivotRoot => root::change_root(),
            Step::AttachProc => root::attach_proc(&mut self.held),
            Step::Dev => root::dev(plan.shm_bytes_max, plan.inodes_max, &mut self.held),
            Step::MaskProc => root::mask_proc(&plan.proc_masks),
            Step::Directories => root::directories(&plan.directories, &self.held),
            Step::Symlinks => root::symlinks(&plan.symlinks, &self.held),
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
            Step::OwnSession => self.own_session(),
            Step::Undumpable => privileges::undumpable(),
            Step::Landlock => {
                let layer = self.held.upper.as_ref().map(|upper| Beyond::WritableLayer(upper.as_fd()));
                landlock::apply(&plan.landlock, layer)
            }
            Step::FirstSeccomp => seccomp::install(&plan.seccomp_first),
            Step::LastSeccomp => seccomp::install(&plan.seccomp_last),
            // Not a container's; in one of its lists, they would be a mistake.
            _ => Err(Errno::INVAL),
        }
    }
}

impl Kernel {
    /// All steps but the last two, as the host at the other end of the channel says. `control` is kept.
    pub(crate) fn set_up(channel: OwnedFd, control: Option<OwnedFd>) -> Result<Self, SetupError> {
        // First of all: nothing of what follows is to be charged to the host.
        let entered = receive_entrances(&channel).and_then(|entrances| enter_cgroups(&entrances));
        reported(&channel, entered.map_err(SetupError::at(Step::EnterCgroups)))?;
        let order = receive_order(&channel).map_err(SetupError::at(Step::ReadPlan));
        let (order, mut fds) = reported(&channel, order)?;
        umask(Mode::from_raw_mode(0o022));
        let plan = match order {
            Order::Container(plan) => *plan,
            Order::Realm => {
                let made = apply(REALM, &mut NewRealm { channel: &channel });
                exit_now(i32::from(reported(&channel, made).is_err()))
            }
            Order::Nursery(plan) => {
                drop(control);
                let realm = reported(&channel, only(fds).map_err(SetupError::at(Step::ReadPlan)))?;
                return nursery::serve(*plan, channel, realm);
            }
            Order::Zygote(order) => {
                // Its low numbers are the zygote's own.
                let aside = rustix::io::fcntl_dupfd_cloexec(&channel, zygote::ASIDE);
                let aside = reported(&channel, aside.map_err(SetupError::at(Step::ReadPlan)))?;
                drop(channel);
                let error = zygote::become_zygote(*order, aside.as_fd(), control, fds);
                return reported(&aside, Err(error));
            }
        };
        let inner = if plan.ward.is_some() { fds.pop() } else { None };
        let realm = reported(&channel, only(fds).map_err(SetupError::at(Step::ReadPlan)))?;
        let (outside, inside, seal) =
            if plan.ward.is_some() { (WARD_OUTSIDE, WARD, WARD_SEAL) } else { (OUTSIDE, INSIDE, SEAL) };
        let held = root::Held::default();
        let mut kernel = Self { plan, channel, realm: Some(realm), control, held, inner, born: None, seal };
        let done = apply(outside, &mut kernel).and_then(|()| apply(inside, &mut kernel));
        reported(&kernel.channel, done)?;
        Ok(kernel)
    }

    /// All steps but the last two, by a process that a nursery has just borne.
    pub(crate) fn born(plan: JailPlan, channel: OwnedFd, control: OwnedFd, born: Born) -> Result<Self, SetupError> {
        let (control, born, held) = (Some(control), Some(born), root::Held::default());
        let mut kernel = Self { plan, channel, realm: None, control, held, inner: None, born, seal: BORN_SEAL };
        let done = apply(BORN, &mut kernel).and_then(|()| apply(INSIDE, &mut kernel));
        reported(&kernel.channel, done)?;
        Ok(kernel)
    }

    /// The last two steps, and the last word.
    pub(crate) fn seal(mut self) -> Result<(), SetupError> {
        let sealed = apply(self.seal, &mut self);
        reported(&self.channel, sealed)?;
        send_report(&self.channel, Report::Sealed).map_err(SetupError::at(Step::Report))
    }

    /// The new process becomes the host's child; this one gives it its ids, tells the host of it, and ends.
    fn become_process_one(&self) -> Result<(), Errno> {
        let (wait, mapped) = pipe_with(PipeFlags::CLOEXEC)?;
        let all = OWN_NAMESPACES.union(REALM_NAMESPACES);
        match clone_process_one(if self.plan.ward.is_some() { all } else { OWN_NAMESPACES })? {
            Side::Caller(pid) => {
                if let Err(errno) = write_id_maps(pid, self.plan.identity) {
                    // It waits, in this process's group: the host, once told, reaches it by that too.
                    let _ends_with_the_group_too = kill_process(pid, Signal::KILL);
                    return Err(errno);
                }
                // The host hears of it before it can do or say anything itself.
                let told = send_report(&self.channel, Report::ProcessOne(pid.as_raw_nonzero().get()))
                    .and_then(|()| say_mapped(mapped.as_fd()));
                exit_now(i32::from(told.is_err()))
            }
            Side::New => {
                drop(mapped);
                await_id_maps(wait.as_fd())
            }
        }
    }

    /// The ones that process 1 was not born with.
    fn own_namespaces(&self) -> Result<(), Errno> {
        unshare(OWN_NAMESPACES)?;
        if self.plan.identity.hides_its_processes() {
            send_report(&self.channel, Report::Apart)?;
        }
        Ok(())
    }

    /// Until the host has got hold of this process, it can only be reached by its process group, which it must not leave
    /// earlier. To an ordinary user, its namespaces are open only until it is undumpable, which comes later.
    fn own_session(&self) -> Result<(), Errno> {
        receive_go(&self.channel)?;
        setsid().map(drop)
    }
}

/// What the process that writes the id maps says when they stand.
const GO: &[u8] = b"g";

pub(crate) fn say_mapped(mapped: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::write(mapped, GO).map(drop)
}

fn await_id_maps(mapped: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::io::retry_on_intr(|| rustix::io::read(mapped, &mut [0; GO.len()]))? {
        0 => Err(Errno::PIPE),
        _ => Ok(()),
    }
}

/// The one descriptor of an order.
fn only(fds: Vec<OwnedFd>) -> Result<OwnedFd, Errno> {
    <[OwnedFd; 1]>::try_from(fds).map(|[fd]| fd).map_err(|_more_or_none| Errno::BADMSG)
}

/// Full power in the realm, none outside (`user_namespaces(7)`).
pub(crate) fn enter_realm(realm: BorrowedFd<'_>) -> Result<(), Errno> {
    move_into_link_name_space(realm, Some(LinkNameSpaceType::User))
}

/// Dumpable again, or else its `/proc/<pid>`, and that of what it clones, would belong to a root that it is not.
pub(crate) fn become_realm_root(identity: Identity) -> Result<(), Errno> {
    privileges::become_root(identity)?;
    privileges::dumpable()
}

/// The container's ids are the realm's, one to one.
pub(crate) fn write_id_maps(pid: Pid, identity: Identity) -> Result<(), Errno> {
    let count = match identity {
        Identity::Mapped { .. } => IDS,
        Identity::Caller { .. } => 1,
    };
    let map = format!("0 0 {count}");
    ["uid_map", "gid_map"].iter().try_for_each(|file| {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        let opened = std::fs::OpenOptions::new().write(true).open(path);
        let written = opened.and_then(|mut opened| opened.write_all(map.as_bytes()));
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

/// A realm in the making.
struct NewRealm<'a> {
    channel: &'a OwnedFd,
}

impl System for NewRealm<'_> {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        match step {
            // The maps are the host's to write: from inside, only one's own id could be mapped.
            Step::OwnUserNamespace => {
                unshare(UnshareFlags::NEWUSER)?;
                send_report(self.channel, Report::UserNamespace)?;
                receive_go(self.channel)
            }
            _ => Err(Errno::INVAL),
        }
    }
}

pub(crate) fn streams() -> Result<(), Errno> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}
