//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What stands for one descriptor from beginning to end.
pub trait Steady: AsRawFd {}

impl Steady for OwnedFd {}
impl Steady for Arc<OwnedFd> {}

/// Puts a descriptor under the runtime's watch. Must be called in a runtime. One that is shared can be watched once at a
/// time (epoll_ctl(2), `EEXIST`).
// Deprecated because a type may change its descriptor under the runtime's feet; these keep their own until they are
// dropped, which is when the watch ends. The replacement is an unsafe function, which this crate may not call.
#[allow(deprecated)]
pub fn watch<F: Steady>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    AsyncFd::with_interest(fd, interest)
}
