//! What an upstream answers, before anybody has read it: the same from the network and from a recording.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, Stream};
use http::HeaderMap;

use crate::recording::{End, Taping};

/// An answer whose body has not been touched.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) pieces: Pieces,
}

/// Why no more pieces come, although the body is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection ended.
    Cut(String),
    /// It was waited for in vain, when it was recorded.
    TimedOut,
}

/// A body as it comes, and the tape on which it is kept.
pub(crate) struct Pieces {
    stream: BoxStream<'static, Result<Bytes, Broken>>,
    taping: Option<Taping>,
}

impl Pieces {
    pub(crate) fn new(
        stream: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static,
        taping: Option<Taping>,
    ) -> Self {
        Self { stream: stream.boxed(), taping }
    }

    /// The reply is whole, whatever the body still holds.
    pub(super) fn read(&mut self) {
        if let Some(taping) = &mut self.taping {
            taping.end(End::Complete);
        }
    }

    /// It was waited for in vain: the reader has given up.
    pub(super) fn given_up(&mut self) {
        if let Some(taping) = &mut self.taping {
            taping.end(End::TimedOut);
        }
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.poll_next_unpin(context);
        if let (Poll::Ready(piece), Some(taping)) = (&polled, &mut self.taping) {
            match piece {
                Some(Ok(bytes)) => taping.piece(bytes),
                Some(Err(Broken::Cut(how))) => taping.end(End::Cut(how.clone())),
                Some(Err(Broken::TimedOut)) => taping.end(End::TimedOut),
                None => taping.end(End::Complete),
            }
        }
        polled
    }
}
