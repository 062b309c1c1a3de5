//! One call over HTTP: sent again only while nothing of a reply has been seen, read within its limits.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use belljar_ids::RequestId;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use reqwest::{Response, Url};
use tokio::time::{sleep, timeout};

use super::signer::{SignError, Signer};
use super::{Link, Refusal};
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};

/// The first pause; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause. An upstream that asks for a longer one is not asked again: the client is told how long.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How much of a refusal's body is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What is sent, and where to.
pub(crate) struct Call<'a> {
    pub(crate) url: &'a Url,
    pub(crate) body: Bytes,
    /// One more header.
    pub(crate) header: Option<(&'static str, &'a str)>,
    /// What a refusal means in the upstream's dialect.
    pub(crate) refused: fn(&Refusal, &Link) -> UpstreamError,
}

/// Sends the call until it is accepted; returns the reply, whose body has not been touched.
pub(crate) async fn send(link: &Link, call: &Call<'_>, request_id: &RequestId) -> Result<Response, UpstreamError> {
    let mut attempt = 0;
    loop {
        let failure = match send_once(link, call).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        match failure.pause(attempt, link.retries_max, request_id) {
            Some(pause) => {
                tracing::info!(
                    upstream = link.name,
                    attempt,
                    ?pause,
                    error = failure.error.operator,
                    "asking the upstream again"
                );
                sleep(pause).await;
            }
            None => return Err(failure.error),
        }
        attempt += 1;
    }
}

/// A call that came to nothing.
struct Failure {
    error: UpstreamError,
    /// Asking again may help.
    transient: bool,
    retry_after: Option<Duration>,
}

impl Failure {
    /// How long to wait before asking again; none when it is over.
    fn pause(&self, attempt: u32, retries_max: u32, request_id: &RequestId) -> Option<Duration> {
        if !self.transient || attempt >= retries_max {
            return None;
        }
        match self.retry_after {
            Some(asked) => (asked <= PAUSE_MAX).then_some(asked),
            None => Some(backoff(attempt, request_id)),
        }
    }
}

/// Twice as long each time, less up to a quarter. Request ids are random, so calls that failed together do not come back
/// together.
fn backoff(attempt: u32, request_id: &RequestId) -> Duration {
    let mut hasher = DefaultHasher::new();
    (request_id, attempt).hash(&mut hasher);
    let full = PAUSE_MIN.saturating_mul(1 << attempt.min(8)).min(PAUSE_MAX);
    let permille_off = u32::try_from(hasher.finish() % 251).unwrap_or(0);
    full - full / 1000 * permille_off
}

async fn send_once(link: &Link, sent: &Call<'_>) -> Result<Response, Failure> {
    let lasting = |error| Failure { error, transient: false, retry_after: None };
    let mut call = link.client.post(sent.url.clone()).headers(link.headers.clone());
    if let Some((name, value)) = sent.header {
        call = call.header(name, value);
    }
    if let Some(signer) = &link.signer {
        call = call.headers(signature(link, signer, sent).await?);
    }
    // The client's own limit on connecting runs inside this one.
    let limit = link.timeouts.connect_max + link.timeouts.first_byte_max;
    let response = match timeout(limit, call.body(sent.body.clone()).send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(connection_failed(link, &error)),
        Err(_) => {
            let limit = link.timeouts.first_byte_max;
            return Err(lasting(UpstreamError::timed_out(&link.name, Phase::FirstByte, limit)));
        }
    };
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refused(link, sent, response).await)
}

/// Says who asks. Where a token has to be fetched for that, it is a part of connecting.
async fn signature(link: &Link, signer: &Signer, sent: &Call<'_>) -> Result<HeaderMap, Failure> {
    let (name, limit) = (&link.name, link.timeouts.connect_max);
    let (error, transient) = match timeout(limit, signer.headers(name, sent.url, &sent.body)).await {
        Ok(Ok(headers)) => return Ok(headers),
        // Fetching has been tried several times by now.
        Ok(Err(error)) => {
            let kind = match error {
                SignError::Signature(_) | SignError::Refused(_) => UpstreamErrorKind::Authentication,
                SignError::Unreachable(_) => UpstreamErrorKind::Unavailable,
            };
            (UpstreamError::new(kind, format!("upstream `{name}`: {error}")), false)
        }
        Err(_) => (UpstreamError::timed_out(name, Phase::Connect, limit), true),
    };
    Err(Failure { error, transient, retry_after: None })
}

async fn refused(link: &Link, sent: &Call<'_>, response: Response) -> Failure {
    let mut refusal = Refusal::new(response.status().as_u16(), response.headers());
    let mut pieces = response.bytes_stream();
    // A body that breaks off or stalls is worth no more than what came of it.
    while let Ok(Some(Ok(piece))) = timeout(link.timeouts.between_bytes_max, pieces.next()).await {
        let room = REFUSAL_BYTES_MAX - refusal.body.len();
        refusal.body.extend(piece.iter().take(room));
        if piece.len() >= room {
            break;
        }
    }
    let error = (sent.refused)(&refusal, link);
    // What the operator has to mend does not mend itself.
    let transient = refusal.is_transient() && error.kind != UpstreamErrorKind::Authentication;
    Failure { transient, retry_after: refusal.retry_after, error }
}

fn connection_failed(link: &Link, error: &reqwest::Error) -> Failure {
    let name = &link.name;
    if error.is_connect() && error.is_timeout() {
        return Failure {
            error: UpstreamError::timed_out(name, Phase::Connect, link.timeouts.connect_max),
            transient: true,
            retry_after: None,
        };
    }
    let operator = format!("upstream `{name}`: {}", link.scrub().clean(&causes(error)));
    Failure {
        error: UpstreamError::new(UpstreamErrorKind::Unavailable, operator),
        // Past connecting, the upstream may have begun to work, and to count.
        transient: error.is_connect(),
        retry_after: None,
    }
}

/// The error and what it came from, without the address.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut text = match (error.is_connect(), error.is_body() || error.is_decode()) {
        (true, _) => "cannot connect".to_owned(),
        (false, true) => "the reply broke off".to_owned(),
        (false, false) => "the call failed".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
