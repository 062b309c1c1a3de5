//! Standing still: all of a container's processes stopped where they are, and let run again.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::container::{Cgroup, PROCESSES, listed};
use super::place::Controller;
use super::{CgroupError, read, write};

/// Longest wait for one change of state.
const STAND_WAIT_MS: i64 = 200;

/// Changes of state to wait for; each may be about something else.
const STAND_WAITS_MAX: u32 = 10;

/// Looks at who is still outside; what forks faster than it is gathered is not idle.
const GATHER_ROUNDS_MAX: u32 = 20;

/// Version 1 tells no one of changes: how long to wait before looking again, and how often.
const LOOK_AGAIN_MS: i64 = 1;
const LOOKS_MAX: u32 = 2_000;

impl Cgroup {
    /// Stops every process in it, and waits until they stand still.
    ///
    /// # Errors
    /// [`CgroupError`]; `ENOSYS` where the host has neither the unified hierarchy nor the freezer controller;
    /// `ETIMEDOUT` when they do not come to a stand within two seconds (they are let run again).
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let stood = if let Some(unified) = self.unified() {
            self.gather().and_then(|()| stand_still(&unified))
        } else if let Some(home) = self.homes.get(&Controller::Freezer) {
            stand_still_v1(&home.directory.join("freezer.state"))
        } else {
            return Err(no_freezer());
        };
        if stood.is_err() {
            // The first error is the one that counts.
            let _nothing_to_add = self.thaw();
        }
        stood
    }

    /// Puts everything that is in it into the bare directory of version 2, where there is one. On the way there the kernel
    /// waits for a lock against all forks of the machine: not something to do at a container's start.
    fn gather(&self) -> Result<(), CgroupError> {
        let (Some(bare), Some(all)) = (self.bare(), self.processes()) else {
            return Ok(());
        };
        let there = bare.join(PROCESSES);
        for _ in 0..GATHER_ROUNDS_MAX {
            let inside: HashSet<_> = listed(&there)?.into_iter().collect();
            let outside: Vec<_> = listed(&all)?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            // What they fork from here on is born inside.
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match write(&there, &pid.as_raw_nonzero().to_string()) {
                    Err(error) if error.source.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Err(CgroupError::at(&there)(Errno::BUSY.into()))
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// As for [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        if let Some(unified) = self.unified() {
            write(&unified.join("cgroup.freeze"), "0")
        } else if let Some(home) = self.homes.get(&Controller::Freezer) {
            write(&home.directory.join("freezer.state"), "THAWED")
        } else {
            Err(no_freezer())
        }
    }
}

fn no_freezer() -> CgroupError {
    CgroupError::at(Path::new("cgroup.freeze"))(Errno::NOSYS.into())
}

fn wait(ms: i64) -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 }
}

/// The kernel announces changes of this file (`cgroups(7)`, `cgroup.events`).
fn stand_still(directory: &Path) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.events");
    let at = |error| CgroupError::at(&path)(error);
    // Before the change, so that none is missed.
    let mut events = File::open(&path).map_err(at)?;
    write(&directory.join("cgroup.freeze"), "1")?;
    for _ in 0..STAND_WAITS_MAX {
        let mut text = String::new();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).map_err(at)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let mut change = [PollFd::new(&events, PollFlags::PRI)];
        rustix::io::retry_on_intr(|| poll(&mut change, Some(&wait(STAND_WAIT_MS))))
            .map_err(|errno| at(errno.into()))?;
    }
    Err(at(Errno::TIMEDOUT.into()))
}

fn stand_still_v1(state: &Path) -> Result<(), CgroupError> {
    for _ in 0..LOOKS_MAX {
        // Said again for what was forked meanwhile.
        write(state, "FROZEN")?;
        if read(state)?.trim() == "FROZEN" {
            return Ok(());
        }
        let timer = wait(LOOK_AGAIN_MS);
        rustix::io::retry_on_intr(|| poll(&mut [], Some(&timer)))
            .map_err(|errno| CgroupError::at(state)(errno.into()))?;
    }
    Err(CgroupError::at(state)(Errno::TIMEDOUT.into()))
}
