//! The body of one reply, piece by piece: never endless, and never waited for longer than its phase allows.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::alarm::Alarm;
use super::{Broken, Link, Pieces};
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};

/// Most bytes of one reply: far more than any model's output limit comes to.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A body being read.
pub(crate) struct Body<'a> {
    link: &'a Link,
    pieces: Pieces,
    bytes: usize,
    alarm: Alarm,
}

impl<'a> Body<'a> {
    pub(crate) fn of(link: &'a Link, pieces: Pieces) -> Self {
        Self { link, pieces, bytes: 0, alarm: Alarm::default() }
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let timeouts = self.link.timeouts;
        let (phase, limit) = match self.bytes {
            0 => (Phase::FirstByte, timeouts.first_byte_max),
            _ => (Phase::BetweenBytes, timeouts.between_bytes_max),
        };
        match self.next_within(limit).await {
            Some(read) => read,
            None => Err(UpstreamError::timed_out(&self.link.name, phase, limit)),
        }
    }

    /// The same; none when `limit` has passed.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Result<Option<Bytes>, UpstreamError>> {
        let Some(piece) = self.alarm.within(limit, self.pieces.next()).await else {
            self.pieces.given_up();
            return None;
        };
        let piece = match piece {
            None => return Some(Ok(None)),
            Some(Err(Broken::TimedOut)) => return None,
            Some(Err(Broken::Cut(how))) => return Some(Err(self.cut(&how))),
            Some(Ok(piece)) => piece,
        };
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > REPLY_BYTES_MAX {
            return Some(Err(self.too_large(REPLY_BYTES_MAX)));
        }
        Some(Ok(Some(piece)))
    }

    /// The reply in it is whole: what may still come is not read.
    pub(crate) fn read(&mut self) {
        self.pieces.read();
    }

    /// The error of a body that ended before its reply was complete.
    pub(crate) fn cut(&self, how: &str) -> UpstreamError {
        let (name, bytes) = (&self.link.name, self.bytes);
        let how = self.link.scrub().clean(how);
        UpstreamError::new(
            UpstreamErrorKind::Cut,
            format!("upstream `{name}`: the reply was cut after {bytes} bytes: {how}"),
        )
    }

    /// The error of a body of which some part is longer than `max` bytes.
    pub(crate) fn too_large(&self, max: usize) -> UpstreamError {
        let name = &self.link.name;
        UpstreamError::new(UpstreamErrorKind::TooLarge, format!("upstream `{name}`: more than {max} bytes"))
    }

    /// The error of a body that is no reply.
    pub(crate) fn unreadable(&self, what: &str) -> UpstreamError {
        let (name, what) = (&self.link.name, self.link.scrub().clean(what));
        UpstreamError::new(UpstreamErrorKind::Protocol, format!("upstream `{name}`: {what}"))
    }
}
