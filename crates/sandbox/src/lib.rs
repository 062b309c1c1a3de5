//! Stateful containers: made, leased, given cells and files, expired. Knows nothing of the wire, HTTP
//! or SQL.
//!
//! Reading order: [`Sandbox`] is the registry. Each container has a keeper (`keeper.rs`), a task that
//! alone talks to the guest (`guest.rs`, `conversation.rs`, `channel.rs`, and the frames of
//! `guest/src/frame.rs`); a [`Lease`] talks to the keeper. A cell is `cell.rs`, what it asks of the
//! guest `command/` and `repl/`, what its end is called `verdict.rs`, its streams `stream.rs`, its files
//! `harvest.rs`. The text editor is `edit/`.
//!
//! A cell whose code calls the client's tools: the tools are `tools.rs`, what its holder has in hand
//! `parked.rs`, the account of its calls `calls.rs`, its time `clock.rs`. How calls come in and answers
//! go out differs: `repl/calls.rs` and `command/calls.rs`.
//!
//! Whatever comes out of a container is hostile: frames, descriptors, file names and contents. A
//! container that breaks a rule is dead; the host and the other containers do not notice.

mod calls;
mod cell;
mod channel;
mod checkpoint;
mod clock;
mod command;
mod config;
mod container;
mod conversation;
pub mod descriptors;
mod edit;
mod environment;
mod error;
mod files;
#[path = "../../../guest/src/frame.rs"]
mod frame;
mod guest;
mod gvisor;
pub mod handover;
mod harvest;
mod host;
mod image;
mod keeper;
mod kill;
mod lease;
mod maker;
mod names;
mod nurseries;
mod options;
mod outcome;
mod parked;
mod pool;
mod process;
mod program;
mod registry;
mod rehearsal;
mod repl;
mod sandbox;
mod state;
mod stream;
mod tools;
mod verdict;
mod watch;
mod zygote;

/// What this machine allows, for whoever wants to know before opening a sandbox.
pub use belljar_jail::probe;
pub use checkpoint::LayerReader;
pub use config::{LandlockNeed, LimitsNeed, Rootfs, SandboxConfig};
pub use edit::{EditCommand, EditFailure, EditOutcome, FileType};
pub use error::{DeathReason, LeaseError, PutError, ReadError, SandboxError};
pub use files::FileContent;
pub use gvisor::find as find_runsc;
pub use lease::{CellOptions, Lease};
pub use options::{ContainerLimits, ContainerOptions, Isolation, Language};
pub use outcome::{
    CellOutcome, InterpreterEnd, KillReason, LiveChunk, Loss, Output, OutputFile, Reason, SkipReason, Skipped, Stream,
};
pub use parked::{AnswersError, NoOutcome, Parked, Progress, ResumeError};
pub use repl::Warmth;
pub use sandbox::{ContainerState, ContainerStatus, Sandbox, SandboxCounts};
pub use tools::{CodeTool, CodeTools, ToolAnswer, ToolCall, ToolsError};
pub use zygote::{WarmthStatus, ZygoteStatus};

/// What the fuzz targets (`fuzz/`) reach into; built for them alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::calls::{CALLS_WAITING_MAX, Ledger, Resumption, Word, line};
    pub use crate::channel::Packets;
    pub use crate::frame::{FRAME_BYTES_MAX, FRAME_FDS_MAX, FromGuest};
    pub use crate::harvest::{Harvest, HarvestLimits, harvest};
    pub use crate::names::usable;
    pub use crate::repl::Warmth;
    pub use crate::repl::frame::{CallsPart, FromRepl};
    pub use crate::repl::{Calls, Piece};
}
