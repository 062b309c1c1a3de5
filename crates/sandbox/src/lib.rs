//! Stateful containers: made, leased, given cells and files, expired. Knows nothing of the wire, HTTP or SQL.
//!
//! Signatures first: this commit shows the public surface; the bodies follow.

mod config;
pub mod edit;
mod error;
mod lease;
mod outcome;
mod sandbox;

pub use config::{LimitsNeed, Rootfs, SandboxConfig};
pub use edit::{EditCommand, EditFailure, EditOutcome, FileType};
pub use error::{DeathReason, LeaseError, PutError, ReadError, SandboxError};
pub use lease::{CellOptions, FileContent, Lease};
pub use outcome::{CellOutcome, KillReason, LiveChunk, Loss, Output, OutputFile, SkipReason, Skipped, Stream};
pub use sandbox::{ContainerState, ContainerStatus, Sandbox, SandboxCounts};
