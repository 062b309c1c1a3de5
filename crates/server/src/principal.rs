//! Who asks, and how that is found out.

use belljar_store::WorkspaceId;

/// The owner of the key that a request carries.
#[derive(Clone, Debug)]
pub struct Principal {
    /// What the request may see.
    pub workspace: WorkspaceId,
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
