//! What process 1 gives up: identity, capabilities, resources, visibility.

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Gid, Resource as Kernel, Rlimit, Uid, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::identity::Identity;
use crate::plan::{Resource, ResourceLimit};

/// Takes on id 0 of the present user namespace. The process has one thread, so the thread's ids are the process's.
pub(crate) fn become_root(identity: Identity) -> Result<(), Errno> {
    match identity {
        Identity::Mapped { .. } => set_thread_groups(&[])?,
        // The kernel forbids setgroups where an ordinary user wrote the map (user_namespaces(7)).
        Identity::Caller { .. } => {}
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

pub(crate) fn resource_limits(limits: &[ResourceLimit]) -> Result<(), Errno> {
    for limit in limits {
        let resource = match limit.resource {
            Resource::CoreBytes => Kernel::Core,
            Resource::FileBytes => Kernel::Fsize,
            Resource::OpenFiles => Kernel::Nofile,
            Resource::LockedMemoryBytes => Kernel::Memlock,
            Resource::MessageQueueBytes => Kernel::Msgqueue,
            Resource::PendingSignals => Kernel::Sigpending,
        };
        let host = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let max = Some(limit.max.min(host));
        setrlimit(resource, Rlimit { current: max, maximum: max })?;
    }
    Ok(())
}

/// After this, no exec, set-id bit or file capability can bring a capability back (`capabilities(7)`).
pub(crate) fn no_future_capabilities() -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The first number the kernel does not know: all are done.
            Err(Errno::INVAL) if number > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
}

pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    set_no_new_privs(true)
}

pub(crate) fn no_capabilities() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

pub(crate) fn undumpable() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// The kernel takes it away with every change of identity, and with it the ownership of `/proc/<pid>` (`prctl(2)`,
/// `PR_SET_DUMPABLE`).
pub(crate) fn dumpable() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::Dumpable)
}

/// Open files of one process of the code. Enough for every program of an image, and far below process 1's own limit.
///
/// unix(7), ETOOMANYREFS: descriptors under way in sockets are counted for a user, all containers are one user to the
/// kernel, and each sender is measured by its own limit. What the code of all containers can pile up must leave every
/// process 1, and a server that runs as the same user, room to send.
const CODE_OPEN_FILES_MAX: u64 = 16_384;

/// The code's part of its parent's limit, where the host grants that one little.
const CODE_OPEN_FILES_SHARE: u64 = 4;

/// Limits what a process of the code, and those it makes, may have open; soft and hard alike, so that it cannot raise it
/// again.
pub(crate) fn limit_code() -> Result<(), Errno> {
    let own = getrlimit(Kernel::Nofile).maximum.unwrap_or(u64::MAX);
    let max = Some(CODE_OPEN_FILES_MAX.min(own / CODE_OPEN_FILES_SHARE));
    setrlimit(Kernel::Nofile, Rlimit { current: max, maximum: max })
}
