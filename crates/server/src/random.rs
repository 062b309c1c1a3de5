//! Identifiers from the operating system's randomness.

use belljar_ids::IdSource;

/// Unpredictable bytes: ids are capabilities within a workspace, so they may not be guessed.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsIds;

impl IdSource for OsIds {
    /// # Panics
    /// When the operating system has no randomness to give; nothing may be named then.
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system provides random bytes");
    }
}

/// A word that nobody can guess, beginning with `kind`.
///
/// # Panics
/// As [`OsIds::fill`].
pub fn secret(kind: &str) -> String {
    let mut bytes = [0; 16];
    OsIds.fill(&mut bytes);
    format!("{kind}-{:032x}", u128::from_ne_bytes(bytes))
}
