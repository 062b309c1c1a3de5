//! Whose things they are.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// The most characters a workspace's name has.
pub const WORKSPACE_CHARS_MAX: usize = 128;

/// The most characters an end user's name has: those of the hosted API's `metadata.user_id`.
pub const USER_ID_CHARS_MAX: usize = 256;

/// Stands between the workspace and its end user, in no name.
const SCOPE_MARK: char = '.';
/// Hexadecimal digits of an end user's digest: all of SHA-256, because who names users may look for two that collide.
const SCOPE_DIGITS: usize = 64;

/// A workspace, or the part of one that is an end user's: the owner of files, containers and batches. Nothing of one is
/// visible in another.
///
/// A workspace is named by 1 to 128 of `[A-Za-z0-9_-]`. An end user's part, its *scope*, is named by the workspace, a
/// `.` and a digest, so that every look-up that tells workspaces apart tells end users apart
/// (docs/adr/2026-11-29-an-end-user-is-a-workspace-within-one.md). Cloning is cheap: clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceId(Arc<str>);

/// A text that cannot name a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workspace is named by 1 to {WORKSPACE_CHARS_MAX} of the characters A-Z a-z 0-9 _ -")]
pub struct WorkspaceIdError;

impl WorkspaceId {
    /// A whole workspace, as people name it.
    ///
    /// # Errors
    /// Anything else, the name of a scope too.
    pub fn named(text: &str) -> Result<Self, WorkspaceIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > WORKSPACE_CHARS_MAX || !text.bytes().all(allowed) {
            return Err(WorkspaceIdError);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The workspace that it is, or is a part of: what quotas and limits are counted for.
    #[must_use]
    pub fn whole(&self) -> Self {
        match self.0.split_once(SCOPE_MARK) {
            Some((name, _)) => Self(name.into()),
            None => self.clone(),
        }
    }

    /// The part of the workspace that is this end user's.
    #[must_use]
    pub fn scope_of(&self, user: &UserId) -> Self {
        let whole = self.whole();
        let mut hasher = Sha256::new();
        // No name has a NUL: two pairs never make one text.
        hasher.update(whole.0.as_bytes());
        hasher.update([0]);
        hasher.update(user.as_str().as_bytes());
        let mut text = String::with_capacity(whole.0.len() + 1 + SCOPE_DIGITS);
        text.push_str(&whole.0);
        text.push(SCOPE_MARK);
        for byte in hasher.finalize() {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text.into())
    }
}

impl std::str::FromStr for WorkspaceId {
    type Err = WorkspaceIdError;
    /// A workspace or a scope, as it is kept.
    fn from_str(text: &str) -> Result<Self, WorkspaceIdError> {
        let Some((name, digest)) = text.split_once(SCOPE_MARK) else { return Self::named(text) };
        Self::named(name)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digest.len() != SCOPE_DIGITS || !digest.bytes().all(is_digit) {
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

/// An end user of a workspace, as its operator's program names it: opaque, 1 to 256 characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// A text that cannot name an end user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Input should have 1 to {USER_ID_CHARS_MAX} characters, none of them a control character")]
pub struct UserIdError;

impl UserId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for UserId {
    type Err = UserIdError;
    fn from_str(text: &str) -> Result<Self, UserIdError> {
        if text.is_empty() || text.chars().count() > USER_ID_CHARS_MAX || text.chars().any(char::is_control) {
            return Err(UserIdError);
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        text.parse().expect("a user")
    }

    #[test]
    fn scopes_differ_by_workspace_and_by_user() {
        let [one, other] = ["acme", "acme-x"].map(|name| WorkspaceId::named(name).expect("a name"));
        let ann = one.scope_of(&user("ann"));
        assert_eq!(ann, one.scope_of(&user("ann")));
        assert_eq!(ann, ann.scope_of(&user("ann")), "a user of a scope is one of its workspace");
        for different in
            [one.clone(), one.scope_of(&user("Ann")), other.scope_of(&user("ann")), one.scope_of(&user("a nn"))]
        {
            assert_ne!(ann, different);
        }
        assert_eq!((ann.whole(), one.whole()), (one.clone(), one));
    }

    #[test]
    fn a_scope_is_read_back_and_named_by_nobody() {
        let scope = WorkspaceId::named("acme").expect("a name").scope_of(&user("ann"));
        assert_eq!(scope.as_str().parse(), Ok(scope.clone()));
        assert_eq!(WorkspaceId::named(scope.as_str()), Err(WorkspaceIdError));
        let digest = scope.as_str().trim_start_matches("acme.");
        for bad in ["acme.", "acme.ann", &format!(".{digest}"), &format!("acme.{digest}0"), &format!("a.b.{digest}")] {
            assert_eq!(bad.parse::<WorkspaceId>(), Err(WorkspaceIdError), "{bad}");
        }
    }

    #[test]
    fn users_are_any_short_text() {
        for good in ["a", "ann@example.com", "user_1 of acme", "Zoë", &"é".repeat(256)] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in ["", "a\0b", "a\nb", &"é".repeat(257)] {
            assert_eq!(bad.parse::<UserId>(), Err(UserIdError), "{bad}");
        }
    }
}
