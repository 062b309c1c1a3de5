//! A zygote: a program of the image, in the realm, that forks processes into containers.

use std::borrow::Cow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::launch::{Attachment, Jailed, LaunchError};
use crate::realm::Realm;

/// Where the control socket is in the zygote.
pub const ZYGOTE_CONTROL_FD: i32 = 3;

/// Where the descriptor of the zygote's own pid namespace (the host's) is.
///
/// It cannot be entered from the realm, whose root has no power over it (`setns(2)`: `EPERM`). It need not be: a
/// `setns` into the next container's pid namespace starts from the zygote's own, not from the last one chosen.
pub const ZYGOTE_PID_NAMESPACE_FD: i32 = 4;

/// Where a zygote finds its files.
pub const ZYGOTE_FILES: &str = "/run/belljar";

/// What a zygote is.
#[derive(Debug)]
pub struct ZygotePlan {
    /// Root filesystem on the host, as in [`crate::ContainerSpec`]; the zygote sees it read-only.
    pub rootfs: PathBuf,
    /// Program and arguments; the program's path is absolute, in the image.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Writable directory for caches, empty at first; absolute.
    pub home: PathBuf,
    /// Cap on what is written below `/tmp`, and once more on what is written below `home`.
    pub scratch_bytes_max: u64,
    /// Standard error; `/dev/null` when there is none.
    pub stderr: Option<OwnedFd>,
}

/// A file for a zygote in [`ZYGOTE_FILES`].
#[derive(Debug, Clone)]
pub struct ZygoteFile {
    /// Name, without slashes.
    pub name: String,
    /// Content.
    pub bytes: Cow<'static, [u8]>,
}

/// Starts a zygote. Blocks until its program has been executed.
///
/// It has the realm's root and capabilities, mount, network, ipc and uts namespaces of its own, and the host's pid
/// namespace without any `/proc`. Descriptors: [`ZYGOTE_CONTROL_FD`], [`ZYGOTE_PID_NAMESPACE_FD`], and 5, which is to
/// be left open in the zygote and closed in what it forks: when the host is gone, the kernel kills the zygote by it.
///
/// # Errors
/// [`LaunchError`]; nothing that was started is left.
pub fn launch_zygote(
    realm: &Realm,
    program: BorrowedFd<'_>,
    plan: &ZygotePlan,
    attachment: Attachment<'_>,
    control: OwnedFd,
    files: &[ZygoteFile],
) -> Result<Jailed, LaunchError> {
    let _used_when_complete = (realm, program, plan, attachment, control, files);
    todo!()
}
