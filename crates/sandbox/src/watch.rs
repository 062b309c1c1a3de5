//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Puts a descriptor under the runtime's watch. Must be called in a runtime.
// Deprecated because a type may change its descriptor under the runtime's feet; an `OwnedFd` keeps its own until it is
// dropped, which is when the watch ends. The replacement is an unsafe function, which this crate may not call.
#[allow(deprecated)]
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
