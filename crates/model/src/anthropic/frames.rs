//! Amazon's event stream: binary frames with checksums, each with one event of the Messages API in it.
//!
//! A frame is read once it is there whole. Its length is checked before that, and so is the checksum over the length: a frame that
//! claims too much, or bytes that are none of a frame, are refused at once and not waited for.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;

use super::decode::DecodeFault;
use crate::link::sse::SseEvent;

/// Length, length of the headers, and the checksum of both.
const PRELUDE_BYTES: usize = 12;
/// A prelude and the checksum of the whole.
const FRAME_BYTES_MIN: usize = PRELUDE_BYTES + 4;

/// What ends the reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// A frame is longer than that many bytes.
    TooLong(usize),
    /// What came is no frame, or none of this API. The text is the operator's.
    Unreadable(String),
    /// An exception of the service.
    Exception(DecodeFault),
}

/// A parser, fed piece by piece.
#[derive(Debug)]
pub(super) struct FrameParser {
    frame_bytes_max: usize,
    held: BytesMut,
}

#[derive(Deserialize)]
struct Chunk {
    bytes: String,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default, alias = "Message")]
    message: String,
}

fn unreadable<T>(text: impl Into<String>) -> Result<T, FrameFault> {
    Err(FrameFault::Unreadable(text.into()))
}

impl FrameParser {
    /// A parser that refuses frames of more than `frame_bytes_max` bytes.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, held: BytesMut::new() }
    }

    /// Takes the next bytes, and adds the events that they complete; those before a fault count, wherever the bytes were cut.
    /// After a fault the parser is of no more use.
    pub(super) fn push(&mut self, bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), FrameFault> {
        self.held.extend_from_slice(bytes);
        while let Some(frame) = self.frame()? {
            events.extend(event(frame)?);
        }
        Ok(())
    }

    /// The next frame, once it is whole.
    fn frame(&mut self) -> Result<Option<Bytes>, FrameFault> {
        let Some(prelude) = self.held.get(..PRELUDE_BYTES) else {
            return Ok(None);
        };
        let mut checksum = &prelude[PRELUDE_BYTES - 4..];
        if crc32fast::hash(&prelude[..PRELUDE_BYTES - 4]) != checksum.get_u32() {
            return unreadable("the checksum of a frame's length is wrong");
        }
        let length = (&prelude[..4]).get_u32();
        match usize::try_from(length) {
            Ok(length) if length > self.frame_bytes_max => Err(FrameFault::TooLong(self.frame_bytes_max)),
            Err(_) => Err(FrameFault::TooLong(self.frame_bytes_max)),
            Ok(length) if length < FRAME_BYTES_MIN => unreadable(format!("a frame of {length} bytes")),
            Ok(length) if self.held.len() < length => Ok(None),
            Ok(length) => Ok(Some(self.held.split_to(length).freeze())),
        }
    }
}

/// What a frame says; none where it is of a kind that is not known yet.
fn event(frame: Bytes) -> Result<Option<SseEvent>, FrameFault> {
    let message = match read_message_from(frame) {
        Ok(message) => message,
        Err(error) => return unreadable(format!("a frame: {error}")),
    };
    match header(&message, ":message-type") {
        Some("event") if header(&message, ":event-type") == Some("chunk") => chunk(message.payload()).map(Some),
        Some("event") => Ok(None),
        Some("exception") => {
            let told: Option<Told> = serde_json::from_slice(message.payload()).ok();
            exception(header(&message, ":exception-type"), told.map(|told| told.message))
        }
        Some("error") => {
            exception(header(&message, ":error-code"), header(&message, ":error-message").map(str::to_owned))
        }
        other => unreadable(format!("a frame of type {other:?}")),
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let header = message.headers().iter().find(|header| header.name().as_str() == name)?;
    header.value().as_string().ok().map(|value| value.as_str())
}

fn chunk(payload: &[u8]) -> Result<SseEvent, FrameFault> {
    let chunk: Chunk = match serde_json::from_slice(payload) {
        Ok(chunk) => chunk,
        Err(error) => return unreadable(format!("a chunk: {error}")),
    };
    let Some(data) = STANDARD.decode(&chunk.bytes).ok().and_then(|data| String::from_utf8(data).ok()) else {
        return unreadable("a chunk whose bytes are no text in base64");
    };
    Ok(SseEvent { name: String::new(), data })
}

fn exception<T>(tag: Option<&str>, message: Option<String>) -> Result<T, FrameFault> {
    let tag = vendors_tag(tag.unwrap_or_default()).to_owned();
    Err(FrameFault::Exception(DecodeFault::Error { tag, message: message.unwrap_or_default() }))
}

/// What the vendor's own API would have called it. Exceptions come as `throttlingException` in a stream, and as
/// `ThrottlingException` in a header of a refusal.
pub(super) fn vendors_tag(exception: &str) -> &'static str {
    let is = |name: &str| exception.eq_ignore_ascii_case(name);
    let one_of = |names: &[&str]| names.iter().any(|name| is(name));
    if one_of(&["throttlingException", "serviceQuotaExceededException"]) {
        "rate_limit_error"
    } else if one_of(&["modelNotReadyException", "serviceUnavailableException"]) {
        "overloaded_error"
    } else if is("modelTimeoutException") {
        "timeout_error"
    } else if is("validationException") {
        "invalid_request_error"
    } else if is("resourceNotFoundException") {
        "not_found_error"
    } else if one_of(&[
        "accessDeniedException",
        "expiredTokenException",
        "incompleteSignatureException",
        "invalidSignatureException",
        "missingAuthenticationTokenException",
        "unrecognizedClientException",
    ]) {
        "authentication_error"
    } else {
        // `internalServerException`, `modelStreamErrorException`, `modelErrorException`, and what later years bring.
        "api_error"
    }
}
