//! A container's files as a layer: what was written over the image, as one tar stream.
//!
//! The form is that of an OCI image layer (OCI image specification, "Image Layer Filesystem Changeset"): `.wh.NAME`
//! says that the image's `NAME` was removed, `.wh..wh..opq` that a directory hides the image's. Both ends run inside a
//! container with the rights of its code; the host only carries bytes.

mod pack;
mod unpack;

pub use pack::pack;
pub use unpack::unpack;

use rustix::io::Errno;

use crate::frame::Failure;

/// Stands before the name of what was removed.
const WHITEOUT: &[u8] = b".wh.";
/// Says that a directory hides the image's directory of the same name.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How overlayfs marks such a directory (Documentation/filesystems/overlayfs.rst, `userxattr`).
const OPAQUE_XATTR: &str = "user.overlay.opaque";
/// Attributes that are overlayfs's own.
const OVERLAY_XATTRS: &str = "user.overlay.";
/// Before the name of an extended attribute in a PAX header whose value is in base64, as libarchive writes it: the other
/// form in use, `SCHILY.xattr.`, cannot be read where a value has a line end.
const PAX_XATTR: &str = "LIBARCHIVE.xattr.";
/// The longest path in a layer: what path_resolution(7) lets a program name in one call.
const PATH_BYTES_MAX: usize = 4095;
/// Blocks of zeros that are left out when a file is written again.
const BLOCK_BYTES: usize = 4096;

/// Where other file systems lie over a container's own: what is below them was never the code's.
pub const MOUNT_POINTS: &[&[u8]] = &[b"dev", b"proc"];
/// The same in gVisor.
pub const WARD_MOUNT_POINTS: &[&[u8]] = &[b"dev", b"proc", b"sys", b"run/belljar"];

/// How much a layer held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, directories, links and marks of removal.
    pub entries: u64,
}

/// A layer that cannot be: its text is not a tar stream, or says what no container writes.
fn malformed() -> Failure {
    Failure::Errno(Errno::BADMSG.raw_os_error())
}

#[cfg(test)]
mod tests;
