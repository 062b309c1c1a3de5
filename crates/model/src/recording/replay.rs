//! Answering calls from a recording.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::canonical::{Canonical, Digest};
use super::line::Exchange;
use super::{Asked, End, Endpoint, Recording, RecordingError};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::{Answer, Broken, Pieces};

/// A recording that answers.
#[derive(Debug)]
pub(crate) struct Replay {
    recording: Recording,
    by_digest: HashMap<Digest, Takes>,
}

/// The exchanges of one call, in the order in which they were recorded.
#[derive(Debug, Default)]
struct Takes {
    entries: Vec<usize>,
    played: AtomicUsize,
}

/// What was answered.
pub(crate) struct Replayed {
    /// None where there was no answer at all.
    pub(crate) answer: Result<Answer, End>,
    /// Whether the same call was then sent again on its own.
    pub(crate) asked_again: bool,
}

/// What keeps a call from being answered.
#[derive(Debug)]
pub(crate) enum Missing {
    /// No such call was recorded.
    Unknown { digest: Digest, endpoint: Endpoint, nearest: String },
    /// It was, and cannot be read.
    Unreadable(String),
}

impl Replay {
    /// Reads where everything stands.
    pub(crate) fn open(path: &Path) -> Result<Self, RecordingError> {
        Ok(Self::of(Recording::open(path)?))
    }

    fn of(recording: Recording) -> Self {
        let mut by_digest: HashMap<Digest, Takes> = HashMap::new();
        for (index, entry) in recording.entries().iter().enumerate() {
            by_digest.entry(entry.digest).or_default().entries.push(index);
        }
        Self { recording, by_digest }
    }

    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Answers as it was answered: the same call, asked often, in the recorded order, and with the last answer from then on.
    pub(crate) async fn play(self: &Arc<Self>, asked: &Asked<'_>) -> Result<Replayed, Missing> {
        let replay = Arc::clone(self);
        let (endpoint, betas, body) = (asked.endpoint, asked.betas.map(str::to_owned), asked.body.to_vec());
        // Reading, and reading JSON, may take a while.
        let played = tokio::task::spawn_blocking(move || replay.find(endpoint, betas.as_deref(), &body)).await;
        played.unwrap_or_else(|error| Err(Missing::Unreadable(error.to_string())))
    }

    fn find(&self, endpoint: Endpoint, betas: Option<&str>, body: &[u8]) -> Result<Replayed, Missing> {
        let body = serde_json::from_slice(body).map_err(|error| Missing::Unreadable(error.to_string()))?;
        let canonical = Canonical::of(endpoint, betas, &body);
        let digest = canonical.digest();
        let Some(takes) = self.by_digest.get(&digest) else {
            return Err(Missing::Unknown { digest, endpoint, nearest: self.nearest(&canonical) });
        };
        let last = takes.entries.len() - 1;
        let number =
            takes.played.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |played| Some((played + 1).min(last)));
        let number = number.unwrap_or(last);
        let unreadable = |error: RecordingError| Missing::Unreadable(error.to_string());
        let exchange = self.recording.exchange(takes.entries[number]).map_err(unreadable)?;
        let follows = (number < last).then(|| &self.recording.entries()[takes.entries[number + 1]]);
        let asked_again = follows.is_some_and(|next| next.attempt == exchange.attempt.saturating_add(1));
        Ok(Replayed { answer: answer(exchange), asked_again })
    }

    /// What the most similar call says otherwise.
    fn nearest(&self, asked: &Canonical) -> String {
        let sketch = asked.sketch();
        // Of several alike, the first.
        let entries = self.recording.entries().iter().enumerate().rev();
        let Some((index, _)) = entries.max_by_key(|(_, entry)| entry.likeness(&sketch)) else {
            return "the recording is empty".to_owned();
        };
        let Ok(exchange) = self.recording.exchange(index) else {
            return "nothing like it can be read".to_owned();
        };
        let recorded = Canonical::of(exchange.endpoint, exchange.betas.as_deref(), &exchange.request);
        match asked.differs_from(&recorded) {
            Some(difference) => format!("exchange {} is the most similar: {difference}", index + 1),
            None => format!("exchange {} asks the same of another endpoint", index + 1),
        }
    }
}

impl Missing {
    pub(crate) fn into_error(self, upstream: &str) -> UpstreamError {
        match self {
            // A count is made up for, as with upstreams that do not count.
            Self::Unknown { endpoint: Endpoint::CountTokens, digest, .. } => UpstreamError::new(
                UpstreamErrorKind::NoSuchEndpoint,
                format!("upstream `{upstream}`: the count {digest} was not recorded"),
            ),
            Self::Unknown { digest, nearest, .. } => {
                let operator = format!(
                    "upstream `{upstream}`: no exchange with the digest {digest} was recorded; {nearest}. To record it, ask an \
                     upstream that has `record` set"
                );
                let client = format!(
                    "The recording that serves this model has no reply to this request (digest {digest}). Record it first: the \
                     operator sets `record` on an upstream that answers."
                );
                UpstreamError::new(UpstreamErrorKind::NotRecorded, operator).telling(client)
            }
            Self::Unreadable(problem) => {
                UpstreamError::new(UpstreamErrorKind::Unavailable, format!("upstream `{upstream}`: {problem}"))
            }
        }
    }
}

/// The answer as it came.
pub(crate) fn answer(exchange: Exchange) -> Result<Answer, End> {
    let Some(status) = exchange.status else {
        return Err(exchange.end);
    };
    let headers: HeaderMap = exchange
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?)))
        .collect();
    let pieces = exchange.pieces.into_iter().map(|piece| match piece.1.bytes() {
        Some(bytes) => Ok(Bytes::from(bytes)),
        None => Err(Broken::Cut("a piece of the recording is no base64".to_owned())),
    });
    let end = match exchange.end {
        End::TimedOut => Some(Err(Broken::TimedOut)),
        End::Cut(how) | End::Unreachable(how) | End::Unanswered(how) => Some(Err(Broken::Cut(how))),
        End::Left => Some(Err(Broken::Cut("nobody read on when it was recorded".to_owned()))),
        End::Complete | End::ConnectTimedOut | End::FirstByteTimedOut => None,
    };
    let pieces = Pieces::new(futures_util::stream::iter(pieces.chain(end)), None);
    Ok(Answer { status, headers, pieces })
}
