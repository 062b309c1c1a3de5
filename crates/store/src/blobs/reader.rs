//! Reading a content, wherever it is kept.

use super::objects::Objects;
use bytes::{Buf as _, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use std::future::Future;
use std::io::{Error, ErrorKind, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

/// A content, open at its beginning. It is read as a stream, from wherever it was set to.
#[derive(Debug)]
pub struct ContentReader {
    from: From,
}

#[derive(Debug)]
enum From {
    Disk(tokio::fs::File),
    Object(Box<ObjectReader>),
}

type Pieces = BoxStream<'static, object_store::Result<Bytes>>;
type Asking = Pin<Box<dyn Future<Output = object_store::Result<Pieces>> + Send>>;

struct ObjectReader {
    objects: Arc<Objects>,
    path: Path,
    size_bytes: u64,
    position: u64,
    state: State,
}

enum State {
    /// Nothing was asked for from this position on.
    Idle,
    Asking(Asking),
    Reading(Pieces, Bytes),
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectReader")
            .field("path", &self.path)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl ContentReader {
    pub(crate) fn disk(file: std::fs::File) -> Self {
        Self { from: From::Disk(tokio::fs::File::from_std(file)) }
    }

    pub(super) fn object(objects: Arc<Objects>, path: Path, size_bytes: u64, pieces: Pieces) -> Self {
        let state = State::Reading(pieces, Bytes::new());
        Self { from: From::Object(Box::new(ObjectReader { objects, path, size_bytes, position: 0, state })) }
    }
}

impl ObjectReader {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            match &mut self.state {
                _ if self.position >= self.size_bytes => return Poll::Ready(Ok(())),
                State::Idle => {
                    let asking = Arc::clone(&self.objects).stream(self.path.clone(), self.position);
                    self.state = State::Asking(Box::pin(asking));
                }
                State::Asking(asking) => match ready!(asking.poll_unpin(context)) {
                    Ok(pieces) => self.state = State::Reading(pieces, Bytes::new()),
                    Err(error) => return Poll::Ready(Err(Error::other(error))),
                },
                State::Reading(_, piece) if piece.has_remaining() => {
                    let count = piece.remaining().min(buffer.remaining());
                    buffer.put_slice(&piece.split_to(count));
                    self.position += count as u64;
                    return Poll::Ready(Ok(()));
                }
                State::Reading(pieces, piece) => match ready!(pieces.poll_next_unpin(context)) {
                    Some(Ok(next)) => *piece = next,
                    Some(Err(error)) => return Poll::Ready(Err(Error::other(error))),
                    None => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                },
            }
        }
    }

    fn seek(&mut self, to: SeekFrom) -> std::io::Result<()> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.size_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let position = position.ok_or(ErrorKind::InvalidInput)?;
        if position != self.position {
            self.position = position;
            self.state = State::Idle;
        }
        Ok(())
    }
}

impl AsyncRead for ContentReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.from {
            From::Disk(file) => Pin::new(file).poll_read(context, buffer),
            From::Object(object) => object.poll_read(context, buffer),
        }
    }
}

impl AsyncSeek for ContentReader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> std::io::Result<()> {
        match &mut self.from {
            From::Disk(file) => Pin::new(file).start_seek(to),
            From::Object(object) => object.seek(to),
        }
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<u64>> {
        match &mut self.from {
            From::Disk(file) => Pin::new(file).poll_complete(context),
            From::Object(object) => Poll::Ready(Ok(object.position)),
        }
    }
}
