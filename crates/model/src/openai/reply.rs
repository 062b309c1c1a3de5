//! The body of a reply: a stream of events, or one document. Which of the two it is, the first byte tells; labels lie.

use std::time::Duration;

use belljar_wire::sampling::SamplingEvent;
use http::header;

use super::decode::{DecodeFault, Decoder};
use super::failure::of_fault;
use crate::error::UpstreamError;
use crate::link::sse::{SseError, SseParser};
use crate::link::{Answer, Body, Link};

/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a reply that comes whole.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// How long to wait for usage and the end of the stream when the model has finished. Some leave the connection open.
const AFTER_FINISH_MAX: Duration = Duration::from_secs(5);

/// A reply being read.
pub(super) struct Reply<'a> {
    link: &'a Link,
    body: Body<'a>,
    form: Form,
    decoder: Decoder,
    /// Met behind events that are still to be handed out.
    failed: Option<UpstreamError>,
}

enum Form {
    /// Nothing but white space so far.
    Unknown,
    Events(SseParser),
    Document(Vec<u8>),
}

impl<'a> Reply<'a> {
    pub(super) fn new(link: &'a Link, answer: Answer, decoder: Decoder) -> Result<Self, UpstreamError> {
        let encoding = answer.headers.get(header::CONTENT_ENCODING).cloned();
        let body = Body::of(link, answer.pieces);
        match encoding {
            Some(encoding) if encoding != "identity" => {
                Err(body.unreadable(&format!("the reply is compressed, and nobody asked for it: {encoding:?}")))
            }
            Some(_) | None => Ok(Self { link, body, form: Form::Unknown, decoder, failed: None }),
        }
    }

    /// The events that the next bytes complete; none when the reply is complete.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<SamplingEvent>>, UpstreamError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.decoder.ended() {
            return Ok(None);
        }
        let piece = if self.decoder.finished() {
            let limit = AFTER_FINISH_MAX.min(self.link.timeouts.between_bytes_max);
            match self.body.next_within(limit).await {
                Some(Ok(Some(piece))) => piece,
                // Everything has been said.
                Some(Ok(None) | Err(_)) | None => return self.end().map(Some),
            }
        } else {
            match self.body.next().await? {
                Some(piece) => piece,
                None => return self.body_ended().map(Some),
            }
        };
        let events = self.read(&piece)?;
        // Whoever is handed the end asks for nothing more.
        if self.decoder.ended() {
            self.body.read();
        }
        Ok(Some(events))
    }

    fn body_ended(&mut self) -> Result<Vec<SamplingEvent>, UpstreamError> {
        let Form::Document(document) = &self.form else {
            return Err(self.body.cut("it ended before the model had finished"));
        };
        let text = std::str::from_utf8(document).map_err(|error| self.body.unreadable(&error.to_string()))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.ends_with('}') {
            let mut events = self.decoder.take(text).map_err(|fault| self.fault(fault))?;
            if !self.decoder.ended() {
                events.extend(self.end()?);
            }
            return Ok(events);
        }
        Err(self.body.cut("it ended within a document"))
    }

    fn end(&mut self) -> Result<Vec<SamplingEvent>, UpstreamError> {
        self.decoder.end().map_err(|fault| self.fault(fault))
    }

    fn fault(&self, fault: DecodeFault) -> UpstreamError {
        of_fault(fault, &self.link.name, &self.link.scrub())
    }

    fn read(&mut self, piece: &[u8]) -> Result<Vec<SamplingEvent>, UpstreamError> {
        if matches!(self.form, Form::Unknown) {
            match first_of(piece) {
                None => return Ok(Vec::new()),
                Some(b'{') => self.form = Form::Document(Vec::new()),
                Some(b'<') => return Err(self.body.unreadable(&page(piece))),
                Some(_) => self.form = Form::Events(SseParser::new(EVENT_BYTES_MAX)),
            }
        }
        match &mut self.form {
            Form::Unknown => Ok(Vec::new()),
            Form::Document(document) => {
                if document.len() + piece.len() > DOCUMENT_BYTES_MAX {
                    return Err(self.body.too_large(DOCUMENT_BYTES_MAX));
                }
                document.extend_from_slice(piece);
                Ok(Vec::new())
            }
            Form::Events(parser) => {
                let mut parsed = Vec::new();
                let unparsed = parser.push(piece, &mut parsed).err();
                let mut events = Vec::new();
                for event in &parsed {
                    match self.decoder.take(&event.data) {
                        Ok(decoded) => events.extend(decoded),
                        Err(fault) => {
                            self.failed = Some(self.fault(fault));
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
                Ok(events)
            }
        }
    }
}

/// The first byte that says something.
fn first_of(piece: &[u8]) -> Option<u8> {
    let piece = piece.strip_prefix(b"\xef\xbb\xbf").unwrap_or(piece);
    piece.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn page(piece: &[u8]) -> String {
    let beginning: String = String::from_utf8_lossy(piece).chars().take(200).collect();
    format!("the reply is a page, not JSON: {beginning}")
}
