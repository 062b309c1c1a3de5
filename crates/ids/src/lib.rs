//! The names of things: prefixed, validated, opaque identifiers.
//!
//! Every identifier that crosses the wire has its own type, so a file id can never be passed where a
//! container id is meant. Parsing accepts exactly the shape documented on each type and nothing else; in
//! particular no identifier can hold a path separator, a dot or a control character, and none is unbounded.
//! New identifiers are minted through an [`IdSource`] the caller passes in: this crate has no randomness of
//! its own, so tests are repeatable and the server decides where entropy comes from.

mod kinds;
mod mark;
mod mint;
mod shape;

pub use kinds::{
    BatchId, CheckpointId, ContainerId, FileId, KeyId, MessageId, PageToken, RequestId, ServerToolUseId, SkillId,
    SkillVersionId, ToolUseId,
};
pub use mark::CellMark;
pub use mint::{IdSource, MINTED_SUFFIX_CHARS, SeededIds};
pub use shape::{ParseIdError, Problem};
