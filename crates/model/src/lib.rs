//! Models behind one trait: the Messages API, chat completions, or a script.
//!
//! The server asks a [`Router`] for the upstream that serves a model's name and hands it a
//! [`SamplingRequest`](belljar_wire::sampling::SamplingRequest); what comes back is a stream of
//! [`SamplingEvent`](belljar_wire::sampling::SamplingEvent)s. History arrives in the wire's own blocks, server tools included;
//! [`lower`] turns it into the plain dialect that upstreams know.
//!
//! Nothing here knows of sandboxes or of the HTTP server, and nothing here reads the environment: keys are passed in.

mod anthropic;
mod breaker;
mod capability;
mod chain;
mod config;
mod error;
mod estimate;
mod link;
pub mod lower;
mod minting;
mod openai;
mod overlong;
pub mod recording;
mod router;
mod scripted;
mod unsigned;
mod upstream;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! What the fuzz targets see of the readers.
    pub use crate::anthropic::fuzzing::{events, framed_events};
    pub use crate::openai::fuzzing::events as openai_events;
    pub use crate::recording::fuzzing::shown;
}
pub use config::{
    Api, AwsCredentials, Capabilities, ChatSettings, ConfigError, GoogleCredentials, Like, MaxTokensKey, Rescue,
    Resilience, Secret, Timeouts, UpstreamConfig, UpstreamKind,
};
pub use error::{Phase, UpstreamError, UpstreamErrorKind};
pub use estimate::estimate_of_body;
pub use recording::Dialect;
pub use router::{Router, Served};
pub use upstream::{CountFuture, KnownFiles, SamplingHints, SamplingStream, TokenCount, Upstream};
