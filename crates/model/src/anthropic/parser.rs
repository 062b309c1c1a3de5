//! From a body's bytes to events, in whichever frames they come.

use crate::link::sse::{SseError, SseEvent, SseParser};

use super::frames::{FrameFault, FrameParser};
use super::way::Way;

/// A parser, fed piece by piece.
pub(super) enum Parser {
    /// Server-sent events.
    Sse(SseParser),
    /// Amazon's frames.
    Frames(FrameParser),
}

impl Parser {
    /// A parser that refuses events of more than `event_bytes_max` bytes.
    pub(super) fn new(way: Way, event_bytes_max: usize) -> Self {
        match way {
            Way::Vendor | Way::Vertex => Self::Sse(SseParser::new(event_bytes_max)),
            Way::Bedrock => Self::Frames(FrameParser::new(event_bytes_max)),
        }
    }

    /// What a reply that it can read is called.
    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Self::Sse(_) => "text/event-stream",
            Self::Frames(_) => "application/vnd.amazon.eventstream",
        }
    }

    /// Takes the next bytes, and adds the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), FrameFault> {
        match self {
            Self::Sse(parser) => parser.push(bytes, events).map_err(|error| match error {
                SseError::TooLong(max) => FrameFault::TooLong(max),
                SseError::NotUtf8 => FrameFault::Unreadable(error.to_string()),
            }),
            Self::Frames(parser) => parser.push(bytes, events),
        }
    }
}
