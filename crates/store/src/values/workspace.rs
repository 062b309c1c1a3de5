//! Whose things they are.

use std::sync::Arc;

/// The most characters a workspace's name has.
pub const WORKSPACE_CHARS_MAX: usize = 128;

/// A workspace: the owner of files, containers and keys. Nothing of one is visible in another.
///
/// 1 to 128 of `[A-Za-z0-9_-]`. Cloning is cheap: clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceId(Arc<str>);

/// A text that cannot name a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workspace is named by 1 to {WORKSPACE_CHARS_MAX} of the characters A-Z a-z 0-9 _ -")]
pub struct WorkspaceIdError;

impl WorkspaceId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for WorkspaceId {
    type Err = WorkspaceIdError;
    fn from_str(text: &str) -> Result<Self, WorkspaceIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > WORKSPACE_CHARS_MAX || !text.bytes().all(allowed) {
            return Err(WorkspaceIdError);
        }
        Ok(Self(text.into()))
    }
}

impl std::fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}
