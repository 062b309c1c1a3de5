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
use reqwest::{Response, Url};

use self::decode::Decoder;
use self::failure::of_fault;
use crate::config::{ConfigError, Secret};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::sse::{SseError, SseParser};
use crate::link::{self, Address, Body, Call, Link, Patience};
use crate::upstream::{CountFuture, SamplingHints, SamplingStream, Upstream};

const API_VERSION: &str = "2023-06-01";
/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One upstream that speaks the Messages API.
pub(crate) struct Anthropic {
    shared: Arc<Shared>,
    models: Vec<String>,
}

/// What every call needs.
struct Shared {
    link: Link,
    url: Url,
    count_url: Url,
}

impl Anthropic {
    /// Checks the address and the key, and makes the HTTP client. Connects to nothing.
    pub(crate) fn new(
        name: String,
        address: &Address<'_>,
        key: &Secret,
        patience: Patience,
        models: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let url = messages_url(&name, address.base_url)?;
        let mut count_url = url.clone();
        count_url.set_path(&format!("{}/count_tokens", url.path()));
        let headers = headers(&name, key)?;
        let link = Link::new(name, address, Some(key), headers, patience)?;
        Ok(Self { shared: Arc::new(Shared { link, url, count_url }), models })
    }
}

impl Upstream for Anthropic {
    fn name(&self) -> &str {
        &self.shared.link.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let shared = Arc::clone(&self.shared);
        Box::pin(try_stream! {
            let link = &shared.link;
            let body = body::write(&request, &hints.files)
                .map_err(|error| unwritable(&link.name, &error))?;
            let betas = body::betas(&request.betas);
            drop(request);
            let call = call(&shared.url, body, betas.as_deref());
            let response = link::send(link, &call, &hints.request_id).await?;
            let mut reply = Reply::new(link, response)?;
            while let Some(events) = reply.next().await? {
                for event in events {
                    yield event;
                }
            }
        })
    }

    fn count_tokens(&self, request: SamplingRequest, hints: SamplingHints) -> CountFuture {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { count::count(&shared, &request, &hints).await })
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
fn call<'a>(url: &'a Url, body: Vec<u8>, betas: Option<&'a str>) -> Call<'a> {
    let header = betas.map(|betas| ("anthropic-beta", betas));
    Call { url, body: Bytes::from(body), header, refused: failure::refused }
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
    fn new(link: &'a Link, response: Response) -> Result<Self, UpstreamError> {
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = Body::of(link, response);
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

/// `/v1/messages` below the base; a base that ends in `/v1` is taken as meant.
fn messages_url(upstream: &str, base_url: &str) -> Result<Url, ConfigError> {
    let mut url = link::checked_url(upstream, base_url)?;
    let base = url.path().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let path = format!("{base}/v1/messages");
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
