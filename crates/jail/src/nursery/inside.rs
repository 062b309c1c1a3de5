//! The nursery itself, and the moment in which process 1 is made.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::system::sethostname;

use crate::channel::{Ordered, Report, receive_birth, send_held, send_report};
use crate::enter::{Born, Kernel, become_realm_root, enter_realm, reported, say_mapped, streams, write_id_maps};
use crate::plan::JailPlan;
use crate::raw::{REALM_NAMESPACES, Side, bear_process_one, default_signals, exit_now, unshare};
use crate::seccomp;
use crate::step::{NEXT, NURSERY, SetupError, Step, System, apply};

/// Bears what the host orders, until it is gone. In each process 1 this returns; in the nursery only with an error.
pub(crate) fn serve(plan: JailPlan, line: OwnedFd, realm: OwnedFd) -> Result<Kernel, SetupError> {
    let read = if plan.ward.is_some() { Err(Errno::INVAL) } else { Ok(()) };
    reported(&line, read.map_err(SetupError::at(Step::ReadPlan)))?;
    let mut nursery = Nursery { plan, realm: Some(realm) };
    reported(&line, apply(NURSERY, &mut nursery).and_then(|()| apply(NEXT, &mut nursery)))?;
    send_report(&line, Report::Nursery).map_err(SetupError::at(Step::Report))?;
    // Whether what the next one inherits is there: it must not be another container's.
    let mut is_ready = true;
    loop {
        if !is_ready && is_quiet(&line).map_err(SetupError::at(Step::ReadPlan))? {
            // A failure is told when the next one is ordered, if it has not passed by then.
            is_ready = apply(NEXT, &mut nursery).is_ok();
        }
        // What makes no sense ends it, and the host starts another.
        let Some(ordered) = receive_birth(&line).map_err(SetupError::at(Step::ReadPlan))? else { exit_now(0) };
        let Ordered { sizes, channel, control, entrances } = ordered;
        let next = if is_ready { Ok(()) } else { apply(NEXT, &mut nursery) };
        is_ready = next.is_ok();
        let bear = || pipe_with(PipeFlags::CLOEXEC).and_then(|ends| Ok((ends, bear_process_one()?)));
        match next.and_then(|()| bear().map_err(SetupError::at(Step::BecomeProcessOne))) {
            Err(error) => send_report(&line, Report::Failed(error)).map_err(SetupError::at(Step::Report))?,
            Ok(((wait, mapped), (Side::New, _))) => {
                drop((line, mapped));
                nursery.plan.resize(sizes);
                let born = Born { entrances, mapped: wait };
                return Kernel::born(nursery.plan, channel, control, born);
            }
            Ok(((wait, mapped), (Side::Caller(pid), pidfd))) => {
                drop((wait, control, entrances));
                let handed = pidfd.ok_or(Errno::BADF).and_then(|pidfd| hand_over(&line, pid, &pidfd).map(|()| pidfd));
                let pidfd = handed.map_err(SetupError::at(Step::Report))?;
                let mapped = write_id_maps(pid, nursery.plan.identity).and_then(|()| say_mapped(mapped.as_fd()));
                if let Err(errno) = mapped {
                    // The host waits for a word from it.
                    let _told_or_gone =
                        send_report(&channel, Report::Failed(SetupError::at(Step::BecomeProcessOne)(errno)));
                    let _killed_or_gone = pidfd_send_signal(&pidfd, Signal::KILL);
                }
                is_ready = false;
            }
        }
    }
}

/// Between a birth and what is made for the next one: the host is about to have something run, and the cores are few.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Whether nothing is ordered for as long as that.
fn is_quiet(line: &OwnedFd) -> Result<bool, Errno> {
    let polled = retry_on_intr(|| poll(&mut [PollFd::new(line, PollFlags::IN)], Some(&PAUSE)))?;
    Ok(polled == 0)
}

/// Before anything else, so that the host can end it whatever happens here.
fn hand_over(line: &OwnedFd, pid: Pid, pidfd: &OwnedFd) -> Result<(), Errno> {
    send_held(line, Report::ProcessOne(pid.as_raw_nonzero().get()), pidfd.as_fd())
}

struct Nursery {
    plan: JailPlan,
    realm: Option<OwnedFd>,
}

impl System for Nursery {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        match step {
            // Not kept: nothing is entered by it again.
            Step::EnterRealm => enter_realm(self.realm.take().ok_or(Errno::BADF)?.as_fd()),
            Step::BecomeRealmRoot => become_realm_root(self.plan.identity),
            // The host's own ignored ones, which whatever is borne would inherit.
            Step::DefaultSignals => default_signals(&[libc::SIGPIPE]),
            Step::RealmNamespaces => unshare(REALM_NAMESPACES),
            Step::Hostname => sethostname(self.plan.hostname.as_bytes()),
            Step::FirstSeccomp => seccomp::install(&self.plan.seccomp_first),
            // The host's own `/dev/null`, until each process 1 has its own.
            Step::Streams => streams(),
            // A container's; here, they would be a mistake.
            _ => Err(Errno::INVAL),
        }
    }
}
