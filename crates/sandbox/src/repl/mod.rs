//! REPLs.

mod warmth;

pub use warmth::Warmth;
