//! The nursery itself, and the moment in which process 1 is made.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use crate::channel::{Ordered, Report, receive_birth, send_held, send_report};
use crate::enter::{Born, Kernel, become_realm_root, enter_realm, reported, say_mapped, streams, write_id_maps};
use crate::identity::Identity;
use crate::plan::JailPlan;
use crate::raw::{Side, bear_process_one, exit_now};
use crate::step::{NURSERY, SetupError, Step, System, apply};

/// Bears what the host orders, until it is gone. In each process 1 this returns; in the nursery only with an error.
pub(crate) fn serve(mut plan: JailPlan, line: OwnedFd, realm: OwnedFd) -> Result<Kernel, SetupError> {
    let read = if plan.ward.is_some() { Err(Errno::INVAL) } else { Ok(()) };
    reported(&line, read.map_err(SetupError::at(Step::ReadPlan)))?;
    let mut nursery = Nursery { identity: plan.identity, realm: Some(realm) };
    reported(&line, apply(NURSERY, &mut nursery))?;
    send_report(&line, Report::Nursery).map_err(SetupError::at(Step::Report))?;
    loop {
        // What makes no sense ends it, and the host starts another.
        let Some(ordered) = receive_birth(&line).map_err(SetupError::at(Step::ReadPlan))? else { exit_now(0) };
        let Ordered { sizes, channel, control, entrances } = ordered;
        let made = pipe_with(PipeFlags::CLOEXEC).and_then(|ends| Ok((ends, bear_process_one()?)));
        match made.map_err(SetupError::at(Step::BecomeProcessOne)) {
            Err(error) => send_report(&line, Report::Failed(error)).map_err(SetupError::at(Step::Report))?,
            Ok(((wait, mapped), (Side::New, _))) => {
                drop((line, mapped));
                plan.resize(sizes);
                let born = Born { entrances, mapped: wait };
                return Kernel::born(plan, channel, control, born);
            }
            Ok(((wait, mapped), (Side::Caller(pid), pidfd))) => {
                drop((wait, control, entrances));
                let handed = pidfd.ok_or(Errno::BADF).and_then(|pidfd| hand_over(&line, pid, &pidfd).map(|()| pidfd));
                let pidfd = handed.map_err(SetupError::at(Step::Report))?;
                if let Err(errno) = write_id_maps(pid, plan.identity).and_then(|()| say_mapped(mapped.as_fd())) {
                    // The host waits for a word from it.
                    let _told_or_gone =
                        send_report(&channel, Report::Failed(SetupError::at(Step::BecomeProcessOne)(errno)));
                    let _killed_or_gone = pidfd_send_signal(&pidfd, Signal::KILL);
                }
            }
        }
    }
}

/// Before anything else, so that the host can end it whatever happens here.
fn hand_over(line: &OwnedFd, pid: Pid, pidfd: &OwnedFd) -> Result<(), Errno> {
    send_held(line, Report::ProcessOne(pid.as_raw_nonzero().get()), pidfd.as_fd())
}

struct Nursery {
    identity: Identity,
    realm: Option<OwnedFd>,
}

impl System for Nursery {
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        match step {
            // Not kept: nothing is entered by it again.
            Step::EnterRealm => enter_realm(self.realm.take().ok_or(Errno::BADF)?.as_fd()),
            Step::BecomeRealmRoot => become_realm_root(self.identity),
            // The host's own `/dev/null`, until each process 1 has its own.
            Step::Streams => streams(),
            // A container's; here, they would be a mistake.
            _ => Err(Errno::INVAL),
        }
    }
}
