//! One request, asked of several servers: what each said, how long it took, what it cost, and where the shapes differ.
//!
//! The shapes are compared as the conformance suite compares them ([`belljar_wire::normal`]), but for what a model said: two runs
//! never say the same. A recording may be asked again, too: what was recorded is the first answer.

pub mod answer;
pub mod ask;
pub mod prices;
pub mod questions;
pub mod report;
pub mod structure;
