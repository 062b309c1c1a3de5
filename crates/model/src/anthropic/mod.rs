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
mod send;
mod sse;

use std::sync::Arc;

use async_stream::try_stream;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};
use reqwest::{Client, Response, Url};
use tokio::time::timeout;

use self::decode::Decoder;
use self::failure::{Scrub, of_fault};
use self::sse::{SseError, SseParser};
use crate::config::{ConfigError, Secret, Timeouts};
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::upstream::{CountFuture, SamplingHints, SamplingStream, Upstream};

const API_VERSION: &str = "2023-06-01";
/// Most bytes of one reply: far more than any model's output limit comes to.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Where the upstream is, as configured.
pub(crate) struct Address<'a> {
    pub(crate) base_url: &'a str,
    pub(crate) proxy: Option<&'a str>,
}

/// One upstream that speaks the Messages API.
pub(crate) struct Anthropic {
    shared: Arc<Shared>,
    model: Option<String>,
    models: Vec<String>,
}

/// What every call needs.
struct Shared {
    name: String,
    client: Client,
    url: Url,
    count_url: Url,
    base_url: String,
    key: Secret,
    headers: HeaderMap,
    timeouts: Timeouts,
}

impl Shared {
    fn scrub(&self) -> Scrub<'_> {
        Scrub { key: self.key.expose(), base_url: &self.base_url }
    }
}

impl Anthropic {
    /// Checks the address and the key, and makes the HTTP client. Connects to nothing.
    pub(crate) fn new(
        name: String,
        address: &Address<'_>,
        key: &Secret,
        model: Option<String>,
        timeouts: Timeouts,
        models: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let url = messages_url(&name, address.base_url)?;
        let mut count_url = url.clone();
        count_url.set_path(&format!("{}/count_tokens", url.path()));
        let headers = headers(&name, key)?;
        let client = client(&name, address.proxy, timeouts)?;
        let base_url = address.base_url.trim_end_matches('/').to_owned();
        Ok(Self {
            shared: Arc::new(Shared { name, client, url, count_url, base_url, key: key.clone(), headers, timeouts }),
            model,
            models,
        })
    }
}

impl Upstream for Anthropic {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let shared = Arc::clone(&self.shared);
        let model = self.model.clone();
        Box::pin(try_stream! {
            let model = model.as_deref().unwrap_or(&request.model);
            let body = body::write(&request, model, &hints.files)
                .map_err(|error| unwritable(&shared.name, &error))?;
            let betas = body::betas(&request.betas);
            drop(request);
            let call = send::Call { url: &shared.url, body: Bytes::from(body), betas: betas.as_deref() };
            let response = send::send(&shared, &call, &hints.request_id).await?;
            let mut reply = Reply::new(&shared, response)?;
            while let Some(events) = reply.next().await? {
                for event in events {
                    yield event;
                }
            }
        })
    }

    fn count_tokens(&self, request: SamplingRequest, hints: SamplingHints) -> CountFuture {
        let shared = Arc::clone(&self.shared);
        let model = self.model.clone();
        Box::pin(async move { count::count(&shared, model.as_deref(), &request, &hints).await })
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

/// A reply being read.
struct Reply<'a> {
    shared: &'a Shared,
    pieces: futures_util::stream::BoxStream<'static, reqwest::Result<Bytes>>,
    parser: SseParser,
    decoder: Decoder,
    bytes: usize,
    /// Met behind events that are still to be handed out.
    failed: Option<UpstreamError>,
}

impl<'a> Reply<'a> {
    fn new(shared: &'a Shared, response: Response) -> Result<Self, UpstreamError> {
        let name = &shared.name;
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let is_stream = content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with("text/event-stream"));
        if !is_stream {
            return Err(UpstreamError::new(
                UpstreamErrorKind::Protocol,
                format!("upstream `{name}`: the reply is no event stream: {content_type:?}"),
            ));
        }
        Ok(Self {
            shared,
            pieces: response.bytes_stream().boxed(),
            parser: SseParser::new(EVENT_BYTES_MAX),
            decoder: Decoder::default(),
            bytes: 0,
            failed: None,
        })
    }

    /// The events that the next bytes complete; none when the reply is complete.
    async fn next(&mut self) -> Result<Option<Vec<SamplingEvent>>, UpstreamError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.decoder.ended() {
            return Ok(None);
        }
        let name = &self.shared.name;
        let timeouts = self.shared.timeouts;
        let (phase, limit) = match self.bytes {
            0 => (Phase::FirstByte, timeouts.first_byte_max),
            _ => (Phase::BetweenBytes, timeouts.between_bytes_max),
        };
        let piece = match timeout(limit, self.pieces.next()).await {
            Err(_) => return Err(UpstreamError::timed_out(name, phase, limit)),
            Ok(None) => return Err(self.cut("it ended before `message_stop`")),
            Ok(Some(Err(error))) => return Err(self.cut(&send::causes(&error))),
            Ok(Some(Ok(piece))) => piece,
        };
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > REPLY_BYTES_MAX {
            return Err(self.too_large(REPLY_BYTES_MAX));
        }
        let scrub = self.shared.scrub();
        let mut parsed = Vec::new();
        let unparsed = self.parser.push(&piece, &mut parsed).err();
        let mut events = Vec::new();
        for event in &parsed {
            match self.decoder.take(event) {
                Ok(decoded) => events.extend(decoded),
                Err(fault) => {
                    self.failed = Some(of_fault(fault, name, &scrub));
                    break;
                }
            }
        }
        // Behind a complete reply, nothing counts.
        if self.failed.is_none() && !self.decoder.ended() {
            self.failed = unparsed.map(|error| match error {
                SseError::TooLong(max) => self.too_large(max),
                SseError::NotUtf8 => {
                    UpstreamError::new(UpstreamErrorKind::Protocol, format!("upstream `{name}`: {error}"))
                }
            });
        }
        Ok(Some(events))
    }

    fn cut(&self, how: &str) -> UpstreamError {
        let (name, bytes) = (&self.shared.name, self.bytes);
        let how = self.shared.scrub().clean(how);
        UpstreamError::new(
            UpstreamErrorKind::Cut,
            format!("upstream `{name}`: the reply was cut after {bytes} bytes: {how}"),
        )
    }

    fn too_large(&self, max: usize) -> UpstreamError {
        let name = &self.shared.name;
        UpstreamError::new(UpstreamErrorKind::TooLarge, format!("upstream `{name}`: more than {max} bytes"))
    }
}

/// `/v1/messages` below the base; a base that ends in `/v1` is taken as meant.
fn messages_url(upstream: &str, base_url: &str) -> Result<Url, ConfigError> {
    let wrong = |problem| ConfigError::Address { upstream: upstream.to_owned(), key: "base_url", problem };
    let url = Url::parse(base_url).map_err(|_| wrong("not a URL; expected one like `https://host/`"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials do not belong in a URL; use `api_key_env`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or a fragment"));
    }
    let base = url.path().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let mut messages = url.clone();
    messages.set_path(&format!("{base}/v1/messages"));
    Ok(messages)
}

fn headers(upstream: &str, key: &Secret) -> Result<HeaderMap, ConfigError> {
    let wrong = || ConfigError::Key { upstream: upstream.to_owned() };
    if key.expose().is_empty() {
        return Err(wrong());
    }
    let mut key = HeaderValue::from_str(key.expose()).map_err(|_| wrong())?;
    key.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCEPT, HeaderValue::from_static("text/event-stream")),
        (header::HeaderName::from_static("anthropic-version"), HeaderValue::from_static(API_VERSION)),
        (header::HeaderName::from_static("x-api-key"), key),
    ]))
}

fn client(upstream: &str, proxy: Option<&str>, timeouts: Timeouts) -> Result<Client, ConfigError> {
    // Fails when some provider is installed already, and then that one serves.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("belljar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(timeouts.connect_max)
        .no_proxy();
    if let Some(proxy) = proxy {
        let proxy = reqwest::Proxy::all(proxy).map_err(|_| ConfigError::Address {
            upstream: upstream.to_owned(),
            key: "proxy",
            problem: "not a proxy's URL; expected one like `http://host:3128`",
        })?;
        builder = builder.proxy(proxy);
    }
    builder
        .build()
        .map_err(|error| ConfigError::Client { upstream: upstream.to_owned(), problem: send::causes(&error) })
}
