//! The hosted Messages API, or another server that speaks it, Amazon Bedrock and Vertex AI among them.
//!
//! Every call asks for a stream and offers no server tools. At the vendor's own, `anthropic-version` is always `2023-06-01`:
//! it takes everything that this server's own clients may send under either version, sampling parameters included, and what is
//! newer is switched by betas and model names, not by the version (wire.md §2.3).

mod access;
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
mod piece;
mod way;

use std::sync::Arc;

use async_stream::try_stream;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use bytes::Bytes;
use http::header;

pub(crate) use self::access::Access;
pub(crate) use self::betas::Betas;
use self::decode::Decoder;
use self::failure::of_fault;
use self::frames::FrameFault;
use self::parser::Parser;
pub(crate) use self::way::Way;
use crate::config::ConfigError;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::{self, Answer, Body, Call, Link, Patience, Place};
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
    /// At the vendor's own or in a cloud. Connects to nothing.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn new(
        name: String,
        access: Access<'_>,
        patience: Patience,
        betas: Betas,
        models: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let way = access.way;
        Ok(Self::over(access.into_link(name, patience)?, way, betas, models))
    }

    /// Over that link.
    pub(crate) fn over(link: Link, way: Way, betas: Betas, models: Vec<String>) -> Self {
        Self { shared: Arc::new(Shared { link, way, betas }), models }
    }
}

impl Upstream for Anthropic {
    fn name(&self) -> &str {
        &self.shared.link.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let shared = Arc::clone(&self.shared);
        Box::pin(try_stream! {
            let Shared { link, way, betas } = &*shared;
            let place = way.sampling(&link.name, &request.model)?;
            let betas = betas.passed(&request.betas);
            let body = body::write(&request, &hints.files, *way, &betas)
                .map_err(|error| unwritable(&link.name, &error))?;
            let betas = (!betas.is_empty() && !way.betas_in_body()).then(|| betas.join(","));
            drop(request);
            let call = call(place, body, betas.as_deref(), *way);
            let answer = Box::pin(link::send(link, &call, &hints.request_id)).await?;
            let mut reply = Reply::new(link, answer, *way)?;
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
fn call<'a>(place: Place, body: Vec<u8>, betas: Option<&'a str>, way: Way) -> Call<'a> {
    let refused = match way {
        Way::Vendor => failure::refused,
        Way::Bedrock => failure::refused_by_amazon,
        Way::Vertex => failure::refused_by_google,
    };
    Call { place, body: Bytes::from(body), betas, refused }
}

/// The events of an answer that was recorded, and what ended them, if something did. Clouds are not recorded.
pub(crate) async fn reread(link: &Link, answer: Answer) -> (Vec<SamplingEvent>, Option<UpstreamError>) {
    let mut reply = match Reply::new(link, answer, Way::Vendor) {
        Ok(reply) => reply,
        Err(error) => return (Vec::new(), Some(error)),
    };
    link::all_events(async || reply.next().await).await
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
    fn new(link: &'a Link, answer: Answer, way: Way) -> Result<Self, UpstreamError> {
        let parser = Parser::new(way, EVENT_BYTES_MAX);
        let content_type = answer.headers.get(header::CONTENT_TYPE).cloned();
        let body = Body::of(link, answer.pieces);
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
        if self.decoder.ended() {
            // Behind a complete reply, nothing counts, and whoever is handed its end asks for nothing more.
            self.body.read();
        } else if self.failed.is_none() {
            self.failed = unparsed.map(|fault| match fault {
                FrameFault::TooLong(max) => self.body.too_large(max),
                FrameFault::Unreadable(text) => self.body.unreadable(&text),
                FrameFault::Exception(fault) => of_fault(fault, &self.link.name, &self.link.scrub()),
            });
        }
        Ok(Some(events))
    }
}
