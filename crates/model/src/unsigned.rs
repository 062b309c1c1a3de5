//! Thinking that nobody signed.
//!
//! A thinking block has a signature (wire.md §11.3), and clients drop one that has none. Models of other makes sign nothing: their
//! thinking carries this text in its place. The vendor of the Messages API would refuse it as a forgery, so it never goes there.

/// Stands in place of a signature.
pub(crate) const SIGNATURE: &str = "belljar-unsigned";
