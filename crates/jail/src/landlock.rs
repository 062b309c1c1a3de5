//! Landlock (`landlock(7)`): what may be done to files even by a process that has got hold of them.
//!
//! Landlock only grants, it cannot take back below a granted directory; that `/proc` and `/dev` are not writable
//! is the work of read-only mounts (`root`), not of these rules.
//!
//! No scopes: a container's processes are several domains (process 1 with what it starts, and each REPL), which must be
//! able to signal each other so that the supervisor's `kill(-1)` reaches a REPL. The pid namespace confines signals,
//! the network namespace abstract sockets.

use std::os::fd::BorrowedFd;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};
use rustix::io::Errno;

use crate::plan::{FileRight, LandlockNeed, LandlockPlan};

/// The newest interface whose rights have been looked at; an older kernel enforces what it knows of them.
const NEWEST: ABI = ABI::V9;

/// Restricts this process and all its future children.
///
/// `born_in`: the root of the zygote that this process was forked from. It is read-only and out of reach of any path, but
/// the process's own program lies there (`/proc/self/exe`).
pub(crate) fn apply(plan: &LandlockPlan, born_in: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let status = restrict(plan, born_in).map_err(|error| errno_of(error.as_ref()))?;
    match (status, plan.need) {
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _)
        | (RulesetStatus::NotEnforced, LandlockNeed::IfAvailable) => Ok(()),
        (RulesetStatus::NotEnforced, LandlockNeed::Required) => Err(Errno::OPNOTSUPP),
    }
}

fn restrict(plan: &LandlockPlan, born_in: Option<BorrowedFd<'_>>) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .create()?;
    for grant in &plan.grants {
        let rights: BitFlags<AccessFs> = grant.rights.iter().copied().map(access).collect();
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(&grant.path)?, rights))?;
    }
    if let Some(root) = born_in {
        ruleset = ruleset.add_rule(PathBeneath::new(root, AccessFs::Execute | AccessFs::ReadFile))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

fn access(right: FileRight) -> AccessFs {
    match right {
        FileRight::Execute => AccessFs::Execute,
        FileRight::WriteFile => AccessFs::WriteFile,
        FileRight::ReadFile => AccessFs::ReadFile,
        FileRight::ReadDir => AccessFs::ReadDir,
        FileRight::RemoveDir => AccessFs::RemoveDir,
        FileRight::RemoveFile => AccessFs::RemoveFile,
        FileRight::MakeDir => AccessFs::MakeDir,
        FileRight::MakeReg => AccessFs::MakeReg,
        FileRight::MakeSock => AccessFs::MakeSock,
        FileRight::MakeFifo => AccessFs::MakeFifo,
        FileRight::MakeSym => AccessFs::MakeSym,
        FileRight::Refer => AccessFs::Refer,
        FileRight::Truncate => AccessFs::Truncate,
        FileRight::ResolveUnix => AccessFs::ResolveUnix,
    }
}

/// The kernel's answer inside the library's error; `EINVAL` where the library itself refused.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Errno {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| Errno::from_io_error(error.downcast_ref::<std::io::Error>()?))
        .unwrap_or(Errno::INVAL)
}
