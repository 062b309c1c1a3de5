//! The hosted Messages API, or another server that speaks it, Amazon Bedrock and Vertex AI among them.
//!
//! Every call asks for a stream and offers no server tools. At the vendor's own, `anthropic-version` is always `2023-06-01`:
//! it takes everything that this server's own clients may send under either version, sampling parameters included, and what is
//! newer is switched by betas and model names, not by the version (wire.md §2.3).

mod betas;
mod body;
mod breakpoint;
mod count;
mod decode;
mod failure;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod parser;
mod way;

use std::sync::Arc;

use async_stream::try_stream;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use bytes::Bytes;
use http::header;
use reqwest::{Response, Url};

use self::betas::Betas;
use self::decode::Decoder;
use self::failure::of_fault;
use self::frames::FrameFault;
use self::parser::Parser;
use self::way::{Access, Form, Way};
use crate::config::{ConfigError, UpstreamConfig};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::{self, Address, Body, Call, Link, Patience};
use crate::upstream::{CountFuture, SamplingHints, SamplingStream, Upstream};

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
    way: Way,
    betas: Betas,
}

impl Anthropic {
    /// Checks the address and the key, and makes the HTTP client. Connects to nothing.
    ///
    /// # Errors
    /// What is wrong with them, and [`ConfigError::NotAvailable`] for a kind of another dialect.
    pub(crate) fn new(config: UpstreamConfig, patience: Patience, models: Vec<String>) -> Result<Self, ConfigError> {
        let name = config.name;
        let betas = Betas::new(&name, config.betas.as_deref())?;
        let Some(access) = Access::new(&name, config.kind)? else {
            return Err(ConfigError::NotAvailable { upstream: name, kind: "another" });
        };
        let Access { way, base_url, proxy, headers, key, signer } = access;
        let address = Address { base_url: &base_url, proxy: proxy.as_deref() };
        let link = Link::new(name, &address, key.as_ref(), headers, patience)?.signed(signer);
        Ok(Self { shared: Arc::new(Shared { link, way, betas }), models })
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
            let form = shared.way.form();
            let url = shared.way.sampling_url(&link.name, &request.model)?;
            let betas = shared.betas.passed(&request.betas);
            let body = body::write(&request, &hints.files, form, &betas)
                .map_err(|error| unwritable(&link.name, &error))?;
            let betas = (!betas.is_empty() && !form.betas_in_body()).then(|| betas.join(","));
            drop(request);
            let call = call(&url, body, betas.as_deref(), form);
            let response = link::send(link, &call, &hints.request_id).await?;
            let mut reply = Reply::new(link, response, Parser::new(form, EVENT_BYTES_MAX))?;
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
fn call<'a>(url: &'a Url, body: Vec<u8>, betas: Option<&'a str>, form: Form) -> Call<'a> {
    let header = betas.map(|betas| ("anthropic-beta", betas));
    let refused = match form {
        Form::Vendor => failure::refused,
        Form::Bedrock => failure::refused_by_amazon,
        Form::Vertex => failure::refused_by_google,
    };
    Call { url, body: Bytes::from(body), header, refused }
}

/// A reply being read.
struct Reply<'a> {
    link: &'a Link,
    body: Body<'a>,
    parser: Parser,
    decoder: Decoder,
    /// Met behind events that are still to be handed out.
    failed: Option<UpstreamError>,
}

impl<'a> Reply<'a> {
    fn new(link: &'a Link, response: Response, parser: Parser) -> Result<Self, UpstreamError> {
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = Body::of(link, response);
        let is_stream = content_type
            .as_ref()
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with(parser.content_type()));
        if !is_stream {
            return Err(body.unreadable(&format!("the reply is no event stream: {content_type:?}")));
        }
        Ok(Self { link, body, parser, decoder: Decoder::default(), failed: None })
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
            self.failed = unparsed.map(|fault| match fault {
                FrameFault::TooLong(max) => self.body.too_large(max),
                FrameFault::Unreadable(text) => self.body.unreadable(&text),
                FrameFault::Exception(fault) => of_fault(fault, &self.link.name, &self.link.scrub()),
            });
        }
        Ok(Some(events))
    }
}
