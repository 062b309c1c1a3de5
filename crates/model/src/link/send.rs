//! One call over HTTP: sent again only while nothing of a reply has been seen, read within its limits.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use belljar_ids::RequestId;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use reqwest::Url;
use tokio::time::{sleep, timeout};

use super::gather::gathered;
use super::signer::{SignError, Signer};
use super::{Answer, Broken, Link, Network, Pieces, Refusal, Transport};
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::recording::{Asked, End, Endpoint, Replay, Replayed, Taping};

/// The first pause; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause. An upstream that asks for a longer one is not asked again: the client is told how long.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How much of a refusal's body is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What is called, and where that stands below an upstream's root.
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: Cow<'static, str>,
}

impl Place {
    /// Where the dialect has it.
    pub(crate) const fn of(endpoint: Endpoint) -> Self {
        Self { endpoint, path: Cow::Borrowed(endpoint.path()) }
    }

    /// Somewhere else, as in the clouds.
    pub(crate) fn at(endpoint: Endpoint, path: impl Into<Cow<'static, str>>) -> Self {
        Self { endpoint, path: path.into() }
    }
}

/// What is sent, and where to.
pub(crate) struct Call<'a> {
    pub(crate) place: Place,
    pub(crate) body: Bytes,
    /// `anthropic-beta`.
    pub(crate) betas: Option<&'a str>,
    /// What a refusal means in the upstream's dialect.
    pub(crate) refused: fn(&Refusal, &Link) -> UpstreamError,
}

impl Call<'_> {
    fn asked(&self) -> Asked<'_> {
        Asked { endpoint: self.place.endpoint, betas: self.betas, body: &self.body }
    }
}

/// Sends the call until it is accepted; returns the answer, whose body has not been touched.
pub(crate) async fn send(link: &Link, call: &Call<'_>, request_id: &RequestId) -> Result<Answer, UpstreamError> {
    let mut attempt = 0;
    loop {
        let sent = match &link.transport {
            Transport::Network(network) => send_once(link, network, call, request_id, attempt).await,
            Transport::Recording(replay) => play_once(link, replay, call).await,
            Transport::Nothing => Err(unanswered(link, &End::Unreachable("nothing is sent over it".to_owned()))),
        };
        let failure = match sent {
            Ok(answer) => return Ok(answer),
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
    again: Again,
}

/// Whether it is sent again.
enum Again {
    /// Asking again is no use.
    Never,
    /// It may help: after a pause of our own, or as long as the upstream asks for.
    Perhaps(Option<Duration>),
    /// A recording says that it was.
    AtOnce,
}

impl Failure {
    /// How long to wait before asking again; none when it is over.
    fn pause(&self, attempt: u32, retries_max: u32, request_id: &RequestId) -> Option<Duration> {
        match self.again {
            Again::Never => None,
            Again::AtOnce => Some(Duration::ZERO),
            Again::Perhaps(_) if attempt >= retries_max => None,
            Again::Perhaps(Some(asked)) => (asked <= PAUSE_MAX).then_some(asked),
            Again::Perhaps(None) => Some(backoff(attempt, request_id)),
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

async fn send_once(
    link: &Link,
    network: &Network,
    sent: &Call<'_>,
    request_id: &RequestId,
    attempt: u32,
) -> Result<Answer, Failure> {
    let url = network.url(&sent.place);
    let signature = match &network.signer {
        Some(signer) => Some(signature(link, signer, &url, &sent.body).await?),
        None => None,
    };
    let mut taping =
        network.tape.as_ref().and_then(|tape| Taping::begin(tape, &sent.asked(), request_id.as_str(), attempt));
    let mut ended = |end: End| {
        if let Some(taping) = &mut taping {
            taping.end(end);
        }
    };
    let mut call = network.client.post(url).headers(network.headers.clone());
    if let Some(betas) = sent.betas {
        call = call.header("anthropic-beta", betas);
    }
    if let Some(signature) = signature {
        call = call.headers(signature);
    }
    // The client's own limit on connecting runs inside this one.
    let limit = link.timeouts.connect_max + link.timeouts.first_byte_max;
    let response = match timeout(limit, call.body(sent.body.clone()).send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() && error.is_timeout() => {
            ended(End::ConnectTimedOut);
            return Err(unanswered(link, &End::ConnectTimedOut));
        }
        Ok(Err(error)) => {
            let how = link.scrub().clean(&causes(&error));
            // Past connecting, the upstream may have begun to work, and to count.
            let end = if error.is_connect() { End::Unreachable(how) } else { End::Unanswered(how) };
            ended(end.clone());
            return Err(unanswered(link, &end));
        }
        Err(_) => {
            ended(End::FirstByteTimedOut);
            return Err(unanswered(link, &End::FirstByteTimedOut));
        }
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    if let Some(taping) = &mut taping {
        taping.answered(status, &headers);
    }
    let pieces = response.bytes_stream().map(|piece| piece.map_err(|error| Broken::Cut(causes(&error))));
    let pieces = match taping {
        // A recording has the pieces as they came.
        Some(_) => Pieces::new(pieces, taping),
        None => Pieces::new(gathered(pieces), None),
    };
    accepted(link, sent, Answer { status, headers, pieces }).await
}

/// Says who asks. Where a token has to be fetched for that, it is a part of connecting.
async fn signature(link: &Link, signer: &Signer, url: &Url, body: &[u8]) -> Result<HeaderMap, Failure> {
    let (name, limit) = (&link.name, link.timeouts.connect_max);
    match timeout(limit, signer.headers(name, url, body)).await {
        Ok(Ok(headers)) => Ok(headers),
        // Fetching has been tried several times by now.
        Ok(Err(error)) => {
            let kind = match error {
                SignError::Signature(_) | SignError::Refused(_) => UpstreamErrorKind::Authentication,
                SignError::Unreachable(_) => UpstreamErrorKind::Unavailable,
            };
            let error = UpstreamError::new(kind, format!("upstream `{name}`: {error}"));
            Err(Failure { error, again: Again::Never })
        }
        Err(_) => Err(unanswered(link, &End::ConnectTimedOut)),
    }
}

/// What the recording has of the same call.
async fn play_once(link: &Link, replay: &std::sync::Arc<Replay>, sent: &Call<'_>) -> Result<Answer, Failure> {
    let replayed = replay
        .play(&sent.asked())
        .await
        .map_err(|missing| Failure { error: missing.into_error(&link.name), again: Again::Never })?;
    let Replayed { answer, asked_again } = replayed;
    let played = match answer {
        Ok(answer) => accepted(link, sent, answer).await,
        Err(end) => Err(unanswered(link, &end)),
    };
    let again = if asked_again { Again::AtOnce } else { Again::Never };
    played.map_err(|failure| Failure { again, ..failure })
}

/// The answer, unless it is a refusal.
async fn accepted(link: &Link, sent: &Call<'_>, answer: Answer) -> Result<Answer, Failure> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let mut refusal = Refusal::new(answer.status, &answer.headers);
    let mut pieces = answer.pieces;
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
    let again = if transient { Again::Perhaps(refusal.retry_after) } else { Again::Never };
    Err(Failure { error, again })
}

/// A call to which there was no answer at all.
fn unanswered(link: &Link, end: &End) -> Failure {
    let name = &link.name;
    let failed = |how: &str| UpstreamError::new(UpstreamErrorKind::Unavailable, format!("upstream `{name}`: {how}"));
    match end {
        End::ConnectTimedOut => {
            let error = UpstreamError::timed_out(name, Phase::Connect, link.timeouts.connect_max);
            Failure { error, again: Again::Perhaps(None) }
        }
        End::FirstByteTimedOut => {
            let error = UpstreamError::timed_out(name, Phase::FirstByte, link.timeouts.first_byte_max);
            Failure { error, again: Again::Never }
        }
        End::Unreachable(how) => Failure { error: failed(how), again: Again::Perhaps(None) },
        End::Unanswered(how) | End::Cut(how) => Failure { error: failed(how), again: Again::Never },
        End::Complete | End::Left | End::TimedOut => {
            Failure { error: failed("there was no answer"), again: Again::Never }
        }
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
