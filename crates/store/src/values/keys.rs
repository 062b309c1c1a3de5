//! What is kept about a key, and what one opens.

use crate::{KeyHash, Timestamp, WorkspaceId};
use belljar_ids::KeyId;

/// A key about to be kept.
#[derive(Debug, Clone)]
pub struct KeyDraft {
    /// Its public name, minted by the caller.
    pub id: KeyId,
    /// Whose key it is.
    pub workspace: WorkspaceId,
    /// A person's word for it.
    pub label: String,
    /// The hash of its text. The text itself is never kept.
    pub hash: KeyHash,
    /// What has to stand between its code and the host; `None` leaves it to the server.
    pub isolation: Option<KeyIsolation>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Globs of the models that it may name; `None` is all of them.
    pub models: Option<Vec<String>>,
    /// What it opens.
    pub scope: KeyScope,
}

/// What a key asks to have between its code and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyIsolation {
    /// The host's kernel, behind namespaces, seccomp and Landlock.
    Namespaces,
    /// gVisor's kernel.
    Gvisor,
}

impl KeyIsolation {
    /// As it is stored, and as people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Gvisor => "gvisor",
        }
    }
}

/// Not the name of an isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"namespaces\" or \"gvisor\"")]
pub struct NoIsolation;

impl std::str::FromStr for KeyIsolation {
    type Err = NoIsolation;

    fn from_str(text: &str) -> Result<Self, NoIsolation> {
        match text {
            "namespaces" => Ok(Self::Namespaces),
            "gvisor" => Ok(Self::Gvisor),
            _ => Err(NoIsolation),
        }
    }
}

/// What a key opens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum KeyScope {
    /// The things of its workspace that belong to no end user.
    #[default]
    Workspace,
    /// In each request the things of one end user, who has to be named.
    PerUser,
}

impl KeyScope {
    /// As it is stored, and as people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::PerUser => "per-user",
        }
    }
}

/// Not the name of a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"workspace\" or \"per-user\"")]
pub struct NoScope;

impl std::str::FromStr for KeyScope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        match text {
            "workspace" => Ok(Self::Workspace),
            "per-user" => Ok(Self::PerUser),
            _ => Err(NoScope),
        }
    }
}

/// A key as it is listed: without its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its public name.
    pub id: KeyId,
    /// Whose key it is.
    pub workspace: WorkspaceId,
    /// A person's word for it.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it opens nothing.
    pub revoked_at: Option<Timestamp>,
    /// What has to stand between its code and the host; `None` leaves it to the server.
    pub isolation: Option<KeyIsolation>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Globs of the models that it may name; `None` is all of them.
    pub models: Option<Vec<String>>,
    /// What it opens.
    pub scope: KeyScope,
}

/// Who a key speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The workspace it may use.
    pub workspace: WorkspaceId,
    /// The key it showed.
    pub key_id: KeyId,
    /// What the key asks to have between its code and the host.
    pub isolation: Option<KeyIsolation>,
    /// When the key ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Globs of the models that it may name; `None` is all of them.
    pub models: Option<Vec<String>>,
    /// What it opens.
    pub scope: KeyScope,
}

/// What was shown as a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownKey {
    /// A key that opens something.
    Opens(Principal),
    /// A key that has ended: it opens nothing, and the client is not told why.
    Ended {
        /// Which.
        key_id: KeyId,
        /// Why, for the operator.
        end: KeyEnd,
    },
    /// No key of ours.
    Unknown,
}

/// Why a key opens nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEnd {
    /// Somebody ended it.
    Revoked(Timestamp),
    /// Its time was over.
    Expired(Timestamp),
}
