//! The attack suite: every case against a sandbox opened in this process, with canaries on the host and in a neighbour.
//!
//! Reading order: a case is data ([`case`], `cases/*.json`) and tries items of the [`catalogue`]. [`runner`] runs one
//! after the other in a [`range`], and looks at the [`canary`]s after each; [`judge`] compares what was seen with what
//! must be. A case about starting runs this program anew, [`hinder`]ed by the kernel ([`start`]). [`report`] prints.

pub mod calling;
mod canary;
pub mod case;
pub mod catalogue;
pub mod hinder;
pub mod host;
pub mod judge;
pub mod mode;
pub mod range;
pub mod report;
pub mod runner;
pub mod start;
