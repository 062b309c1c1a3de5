//! `belljar_join`, for the Python of a zygote: everything a process gives up to become a container's is done by the code
//! of the jail, not by a second one in Python. And for the zygote itself, where its memory lies ([`memory`]).

mod memory;

use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd};

use belljar_jail::{SealPlan, join};

/// `EINVAL` (`errno(3)`), for what is no plan.
const NOT_A_PLAN: c_int = 22;

/// Namespaces of a container.
const NAMESPACES: usize = 7;

/// Makes the calling process, which has one thread, one of a container's ([`belljar_jail::join`]).
///
/// `fds`: seven descriptors, of its user, mount, pid, network, ipc, uts and cgroup namespaces; they are closed in any
/// case. `plan`: the bytes of a [`SealPlan`]. `failed_step`: gets the name of the step that failed, cut if need be,
/// terminated by a zero; empty when none did.
///
/// Returns 0, or the negative error number of that step: then the caller must leave by `_exit` at once.
///
/// # Safety
/// `fds` points to seven open descriptors that the caller gives away, `plan` to `plan_len` readable bytes, `failed_step`
/// to `failed_step_len` writable ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn belljar_join(
    fds: *const i32,
    plan: *const u8,
    plan_len: usize,
    failed_step: *mut u8,
    failed_step_len: usize,
) -> i32 {
    // SAFETY: the caller gives seven integers.
    let fds: [i32; NAMESPACES] = unsafe { *fds.cast() };
    // SAFETY: each is open and the caller's to give away.
    let namespaces = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: the caller gives so many readable bytes, and nothing changes them meanwhile: there is one thread.
    let plan = unsafe { std::slice::from_raw_parts(plan, plan_len) };
    // SAFETY: the caller gives so many writable bytes.
    let failed_step = unsafe { std::slice::from_raw_parts_mut(failed_step, failed_step_len) };
    let (name, errno) = match SealPlan::from_bytes(plan) {
        Err(_not_a_plan) => ("read the plan".to_owned(), NOT_A_PLAN),
        Ok(seal) => match join(namespaces, &seal) {
            Ok(()) => (String::new(), 0),
            Err(error) => (error.step.to_string(), error.errno),
        },
    };
    write_name(failed_step, &name);
    -errno
}

fn write_name(target: &mut [u8], name: &str) {
    let Some(room) = target.len().checked_sub(1) else {
        return;
    };
    let length = room.min(name.len());
    target[..length].copy_from_slice(&name.as_bytes()[..length]);
    target[length] = 0;
}
