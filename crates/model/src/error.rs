//! Why a sampling failed: sorted for the server, worded for the client, detailed for the operator.

use std::time::Duration;

use belljar_wire::error::{ApiError, ErrorKind};

/// A sampling that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operator}")]
pub struct UpstreamError {
    /// What happened.
    pub kind: UpstreamErrorKind,
    /// For the client: never holds a key, an address or internals.
    pub client: ApiError,
    /// For the operator's log: never holds a key.
    pub operator: String,
}

/// What happened to a sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamErrorKind {
    /// The upstream has too much to do (529).
    Overloaded {
        /// How long it asked to be left alone, or is.
        retry_after: Option<Duration>,
    },
    /// The upstream limits this server's rate (429).
    RateLimited {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The upstream refuses the request itself.
    Rejected {
        /// The upstream's HTTP status.
        status: u16,
    },
    /// The upstream refuses this server's credentials: the operator's to mend.
    Authentication,
    /// The upstream does not have the model.
    ModelNotFound,
    /// The upstream does not have what was called: the address leads somewhere else, or to less than the whole API.
    NoSuchEndpoint,
    /// The upstream is a recording, and this was not recorded.
    NotRecorded,
    /// The upstream cannot be reached, or failed.
    Unavailable,
    /// The upstream took too long.
    TimedOut {
        /// Over what.
        phase: Phase,
    },
    /// The upstream answered something that is no reply of the Messages API.
    Protocol,
    /// The connection ended in the middle of the reply.
    Cut,
    /// The reply is larger than a reply may be.
    TooLarge,
}

/// The parts of a sampling that have a time limit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until the connection stands.
    Connect,
    /// Until the first byte of the reply.
    FirstByte,
    /// From one byte of the reply to the next.
    BetweenBytes,
    /// Inside the upstream, by its own account.
    Upstream,
    /// From the call to the end of the reply.
    Whole,
}

impl Phase {
    const fn what(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::FirstByte => "waiting for the first byte",
            Self::BetweenBytes => "waiting for the next byte",
            Self::Upstream => "inside the upstream",
            Self::Whole => "waiting for the end of the reply",
        }
    }
}

impl UpstreamErrorKind {
    /// What the client is told when the upstream's own words are not for it.
    fn client(self) -> ApiError {
        let (kind, text) = match self {
            Self::Overloaded { .. } => (ErrorKind::Overloaded, "Overloaded"),
            Self::RateLimited { .. } => (
                ErrorKind::RateLimit,
                "The model's upstream limits the rate of this server's requests. Please try again later.",
            ),
            Self::Rejected { status: 413 } => {
                (ErrorKind::RequestTooLarge, "The request is larger than the model's upstream takes.")
            }
            Self::Rejected { .. } => (ErrorKind::InvalidRequest, "The model's upstream refused the request."),
            Self::Authentication => (
                ErrorKind::Api,
                "The model's upstream refused this server's own credentials. Your key is not at fault; the operator of this \
                 server has to correct its configuration.",
            ),
            Self::ModelNotFound => (ErrorKind::NotFound, "The model's upstream does not have this model."),
            Self::NotRecorded => {
                (ErrorKind::NotFound, "The recording that serves this model has no reply to this request.")
            }
            Self::Unavailable | Self::NoSuchEndpoint => {
                (ErrorKind::Api, "The model's upstream failed or cannot be reached. Please try again later.")
            }
            Self::TimedOut { .. } => (ErrorKind::Timeout, "The model's upstream took too long to answer."),
            Self::Protocol => (ErrorKind::Api, "The model's upstream sent a reply that this server cannot read."),
            Self::Cut => {
                (ErrorKind::Api, "The connection to the model's upstream ended before its reply was complete.")
            }
            Self::TooLarge => (ErrorKind::Api, "The reply of the model's upstream is larger than this server takes."),
        };
        ApiError::new(kind, text)
    }

    /// How long the client is to wait before it asks again, where that is known.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } | Self::RateLimited { retry_after } => retry_after,
            Self::Rejected { .. }
            | Self::Authentication
            | Self::ModelNotFound
            | Self::NoSuchEndpoint
            | Self::NotRecorded
            | Self::Unavailable
            | Self::TimedOut { .. }
            | Self::Protocol
            | Self::Cut
            | Self::TooLarge => None,
        }
    }

    /// The kind that goes with an upstream's HTTP status of failure.
    pub(crate) const fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            401..=403 => Self::Authentication,
            404 => Self::ModelNotFound,
            405 | 501 => Self::NoSuchEndpoint,
            408 | 504 => Self::TimedOut { phase: Phase::Upstream },
            429 => Self::RateLimited { retry_after },
            529 => Self::Overloaded { retry_after },
            400..=499 => Self::Rejected { status },
            _ => Self::Unavailable,
        }
    }
}

impl UpstreamError {
    /// An error in this server's words.
    pub(crate) fn new(kind: UpstreamErrorKind, operator: impl Into<String>) -> Self {
        Self { kind, client: kind.client(), operator: operator.into() }
    }

    /// An error whose text the client is to read: the upstream's own words about the client's request.
    pub(crate) fn telling(mut self, message: impl Into<String>) -> Self {
        self.client.message = message.into();
        self
    }

    /// A time limit that was passed.
    pub(crate) fn timed_out(upstream: &str, phase: Phase, limit: Duration) -> Self {
        Self::new(
            UpstreamErrorKind::TimedOut { phase },
            format!("upstream `{upstream}`: timed out after {limit:?}, {}", phase.what()),
        )
    }
}
