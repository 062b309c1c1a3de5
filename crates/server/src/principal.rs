//! Who asks, and how that is found out.

use belljar_ids::KeyId;
use belljar_sandbox::Isolation;
use belljar_store::{KeyIsolation, WorkspaceId};

use crate::tenants::permit::ModelPermit;

/// The owner of the key that a request carries.
#[derive(Clone, Debug)]
pub struct Principal {
    /// What the request may see: a workspace's things, or those of one of its end users.
    pub workspace: WorkspaceId,
    /// What has to stand between its code and the host; `None` leaves it to the configuration.
    pub isolation: Option<Isolation>,
    /// Which models it may name.
    pub models: ModelPermit,
    /// The key that it was opened with; a batch outlives its key, and a server without keys has none.
    pub key: Option<KeyId>,
}

/// A key's isolation, as the sandbox knows it.
pub fn isolation_of(key: KeyIsolation) -> Isolation {
    match key {
        KeyIsolation::Namespaces => Isolation::Namespaces,
        KeyIsolation::Gvisor => Isolation::Gvisor,
    }
}

/// The same, as the store keeps it.
pub fn key_isolation(isolation: Isolation) -> KeyIsolation {
    match isolation {
        Isolation::Namespaces => KeyIsolation::Namespaces,
        Isolation::Gvisor => KeyIsolation::Gvisor,
    }
}

/// How credentials are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No keys exist: any key is the workspace `local`, from this machine only.
    Open,
    /// Keys exist, and one of them is needed.
    Keys,
}

/// The workspace of a server without keys.
pub const LOCAL_WORKSPACE: &str = "local";
