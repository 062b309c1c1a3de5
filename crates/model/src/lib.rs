//! Models behind one trait: a hosted API, or a script.
//!
//! The server asks a [`Router`] for the upstream that serves a model's name and hands it a
//! [`SamplingRequest`](belljar_wire::sampling::SamplingRequest); what comes back is a stream of
//! [`SamplingEvent`](belljar_wire::sampling::SamplingEvent)s. History arrives in the wire's own blocks, server tools included;
//! [`lower`] turns it into the plain dialect that upstreams know.
//!
//! Nothing here knows of sandboxes or of the HTTP server, and nothing here reads the environment: keys are passed in.

mod anthropic;
mod config;
mod error;
mod estimate;
mod link;
pub mod lower;
mod router;
mod scripted;
mod upstream;

#[cfg(fuzzing)]
pub use anthropic::fuzzing;
pub use config::{ConfigError, Like, Secret, Timeouts, UpstreamConfig, UpstreamKind};
pub use error::{Phase, UpstreamError, UpstreamErrorKind};
pub use router::Router;
pub use upstream::{CountFuture, KnownFiles, SamplingHints, SamplingStream, TokenCount, Upstream};
