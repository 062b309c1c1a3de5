//! Names nobody else has.

use crate::StoreError;
use std::fmt::Write as _;

/// 128 random bits, as lowercase hexadecimal digits.
pub(crate) fn name() -> Result<String, StoreError> {
    let doing = "asking the system for random bytes";
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let more = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += more.map_err(|errno| StoreError::broken(doing, errno))?;
    }
    let mut text = String::with_capacity(32);
    for byte in bytes {
        write!(text, "{byte:02x}").map_err(|error| StoreError::broken(doing, error))?;
    }
    Ok(text)
}
