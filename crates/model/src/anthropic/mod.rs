//! The hosted Messages API, or another server that speaks it.
//!
//! Every call is `POST /v1/messages` with `stream: true` and without server tools. `anthropic-version` is always `2023-06-01`:
//! it takes everything that this server's own clients may send under either version, sampling parameters included, and what is
//! newer is switched by betas and model names, not by the version (wire.md §2.3).

mod body;
mod breakpoint;
mod count;
mod decode;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;

use std::sync::Arc;

use async_stream::try_stream;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Url;

use self::decode::Decoder;
use self::failure::of_fault;
use crate::config::{ConfigError, Secret};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::sse::{SseError, SseParser};
use crate::link::{self, Address, Answer, Body, Call, Link, Patience};
use crate::recording::Endpoint;
use crate::upstream::{CountFuture, SamplingHints, SamplingStream, Upstream};

const API_VERSION: &str = "2023-06-01";
/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One upstream that speaks the Messages API.
pub(crate) struct Anthropic {
    link: Arc<Link>,
    models: Vec<String>,
}

impl Anthropic {
    /// Over that link.
    pub(crate) fn over(link: Link, models: Vec<String>) -> Self {
        Self { link: Arc::new(link), models }
    }
}

/// Checks the address and the key, and makes the HTTP client. Connects to nothing.
pub(crate) fn link(name: String, address: &Address<'_>, key: &Secret, patience: Patience) -> Result<Link, ConfigError> {
    let root = root(&name, address.base_url)?;
    let headers = headers(&name, key)?;
    Link::new(name, address, root, Some(key), headers, patience)
}

impl Upstream for Anthropic {
    fn name(&self) -> &str {
        &self.link.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let link = Arc::clone(&self.link);
        Box::pin(try_stream! {
            let link = &*link;
            let body = body::write(&request, &hints.files)
                .map_err(|error| unwritable(&link.name, &error))?;
            let betas = body::betas(&request.betas);
            drop(request);
            let call = call(Endpoint::Messages, body, betas.as_deref());
            let answer = link::send(link, &call, &hints.request_id).await?;
            let mut reply = Reply::new(link, answer)?;
            while let Some(events) = reply.next().await? {
                for event in events {
                    yield event;
                }
            }
        })
    }

    fn count_tokens(&self, request: SamplingRequest, hints: SamplingHints) -> CountFuture {
        let link = Arc::clone(&self.link);
        Box::pin(async move { count::count(&link, &request, &hints).await })
    }

    fn models(&self) -> Vec<String> {
        self.models.clone()
    }
}

fn unwritable(name: &str, error: &serde_json::Error) -> UpstreamError {
    UpstreamError::new(
        UpstreamErrorKind::Rejected { status: 400 },
        format!("upstream `{name}`: the request cannot be written: {error}"),
    )
}

/// One call of the Messages API.
fn call(endpoint: Endpoint, body: Vec<u8>, betas: Option<&str>) -> Call<'_> {
    Call { endpoint, body: Bytes::from(body), betas, refused: failure::refused }
}

/// The events of an answer that was recorded, and what ended them, if something did.
pub(crate) async fn reread(link: &Link, answer: Answer) -> (Vec<SamplingEvent>, Option<UpstreamError>) {
    let mut all = Vec::new();
    let mut reply = match Reply::new(link, answer) {
        Ok(reply) => reply,
        Err(error) => return (all, Some(error)),
    };
    loop {
        match reply.next().await {
            Ok(Some(events)) => all.extend(events),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

/// A reply being read.
struct Reply<'a> {
    link: &'a Link,
    body: Body<'a>,
    parser: SseParser,
    decoder: Decoder,
    /// Met behind events that are still to be handed out.
    failed: Option<UpstreamError>,
}

impl<'a> Reply<'a> {
    fn new(link: &'a Link, answer: Answer) -> Result<Self, UpstreamError> {
        let content_type = answer.headers.get(header::CONTENT_TYPE).cloned();
        let body = Body::of(link, answer.pieces);
        let is_stream = content_type
            .as_ref()
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with("text/event-stream"));
        if !is_stream {
            return Err(body.unreadable(&format!("the reply is no event stream: {content_type:?}")));
        }
        Ok(Self { link, body, parser: SseParser::new(EVENT_BYTES_MAX), decoder: Decoder::default(), failed: None })
    }

    /// The events that the next bytes complete; none when the reply is complete.
    async fn next(&mut self) -> Result<Option<Vec<SamplingEvent>>, UpstreamError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.decoder.ended() {
            self.body.read();
            return Ok(None);
        }
        let Some(piece) = self.body.next().await? else {
            return Err(self.body.cut("it ended before `message_stop`"));
        };
        let mut parsed = Vec::new();
        let unparsed = self.parser.push(&piece, &mut parsed).err();
        let mut events = Vec::new();
        for event in &parsed {
            match self.decoder.take(event) {
                Ok(decoded) => events.extend(decoded),
                Err(fault) => {
                    self.failed = Some(of_fault(fault, &self.link.name, &self.link.scrub()));
                    break;
                }
            }
        }
        // Behind a complete reply, nothing counts.
        if self.failed.is_none() && !self.decoder.ended() {
            self.failed = unparsed.map(|error| match error {
                SseError::TooLong(max) => self.body.too_large(max),
                SseError::NotUtf8 => self.body.unreadable(&error.to_string()),
            });
        }
        Ok(Some(events))
    }
}

/// `/v1/` below the base; a base that ends in `/v1` is taken as meant.
fn root(upstream: &str, base_url: &str) -> Result<Url, ConfigError> {
    let mut url = link::checked_url(upstream, base_url)?;
    let base = url.path().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let path = format!("{base}/v1/");
    url.set_path(&path);
    Ok(url)
}

fn headers(upstream: &str, key: &Secret) -> Result<HeaderMap, ConfigError> {
    Ok(HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCEPT, HeaderValue::from_static("text/event-stream")),
        (header::HeaderName::from_static("anthropic-version"), HeaderValue::from_static(API_VERSION)),
        (header::HeaderName::from_static("x-api-key"), link::key_header(upstream, "", key)?),
    ]))
}
