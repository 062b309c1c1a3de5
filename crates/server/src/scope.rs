//! Signed scopes: a token by which somebody who holds no key acts as one end user, for a while.
//!
//! An operator's program asks for one with its key and hands it to a browser. What is signed is said in it, so nothing is kept of
//! it; it ends with its time or with its key, whichever ends first.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belljar_ids::KeyId;
use belljar_store::{Timestamp, UserId, WorkspaceId};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What every signed scope begins with.
pub const PREFIX: &str = "bjs_";
/// Longer than any that we sign: what is longer is not looked at.
const TOKEN_BYTES_MAX: usize = 4096;
/// What is signed besides: a signature for something else says nothing here.
const DOMAIN: &[u8] = b"belljar scope 1\0";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Whose key asked for it.
    pub key_id: KeyId,
    /// The key's workspace.
    pub workspace: WorkspaceId,
    /// As whom its holder acts.
    pub user: UserId,
    /// Until when.
    pub expires_at: Timestamp,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    key: String,
    workspace: String,
    user: String,
    until_us: i64,
}

impl Scope {
    /// The token that says this.
    pub fn sign(&self, secret: &[u8; 32]) -> String {
        let written = Written {
            key: self.key_id.as_str().to_owned(),
            workspace: self.workspace.as_str().to_owned(),
            user: self.user.as_str().to_owned(),
            until_us: self.expires_at.as_micros(),
        };
        // Never fails: strings and a number.
        let said = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap_or_default());
        let signature = URL_SAFE_NO_PAD.encode(mac(secret, &said).finalize().into_bytes());
        format!("{PREFIX}{said}.{signature}")
    }

    /// What a token says, if we signed it and its time is not over. The signature is compared in constant time, and nothing is read
    /// of what it does not cover.
    pub fn read(secret: &[u8; 32], token: &str, now: Timestamp) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (said, signature) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        mac(secret, said).verify_slice(&signature).ok()?;
        let written: Written = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(said).ok()?).ok()?;
        let scope = Self {
            key_id: written.key.parse().ok()?,
            workspace: WorkspaceId::named(&written.workspace).ok()?,
            user: written.user.parse().ok()?,
            expires_at: Timestamp::from_micros(written.until_us).ok()?,
        };
        (scope.expires_at > now).then_some(scope)
    }
}

fn mac(secret: &[u8; 32], said: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is good");
    mac.update(DOMAIN);
    mac.update(said.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(0).expect("an instant").saturating_add(Duration::from_secs(second))
    }

    fn scope() -> Scope {
        Scope {
            key_id: KeyId::mint(&mut crate::random::OsIds),
            workspace: WorkspaceId::named("acme").expect("a name"),
            user: "Zoë <z@example.com>".parse().expect("a user"),
            expires_at: at(100),
        }
    }

    #[test]
    fn a_token_says_what_was_signed_until_its_time_is_over() {
        let (secret, scope) = ([7; 32], scope());
        let token = scope.sign(&secret);
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "{token}");
        assert_eq!(Scope::read(&secret, &token, at(99)), Some(scope));
        assert_eq!(Scope::read(&secret, &token, at(100)), None);
        assert_eq!(Scope::read(&[8; 32], &token, at(0)), None);
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let (secret, token) = ([7; 32], scope().sign(&[7; 32]));
        for place in 0..token.len() {
            for other in ["A", "B", ".", "_"] {
                let mut changed = token.clone();
                changed.replace_range(place..=place, other);
                // The last letter of 32 bytes in base64 has bits that mean nothing, and must be zero.
                assert_eq!(Scope::read(&secret, &changed, at(0)).is_some(), changed == token, "{place} {other}");
            }
        }
        for cut in 0..token.len() {
            assert_eq!(Scope::read(&secret, &token[..cut], at(0)), None);
        }
        assert_eq!(Scope::read(&secret, &format!("{token}A"), at(0)), None);
    }

    #[test]
    fn the_longest_user_fits() {
        let scope = Scope { user: "𝄞".repeat(256).parse().expect("a user"), ..scope() };
        assert_eq!(Scope::read(&[7; 32], &scope.sign(&[7; 32]), at(0)), Some(scope));
    }
}
