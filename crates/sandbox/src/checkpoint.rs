//! A container's files as a layer, out and back in. The guest makes and applies it (`guest/src/layer`); here bytes flow.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::command::said;
use crate::container::Container;
use crate::error::{PutError, SandboxError};
use crate::frame::Failure;
use crate::keeper::{Answer, Request};
use crate::lease::Lease;
use crate::outcome::InterpreterEnd;

/// Of the pipe between two guests: what an ordinary user may have (pipe(7)).
const COPY_PIPE_BYTES: usize = 1024 * 1024;

/// A layer being read. Ends without an error only when the guest has said that it is whole.
#[derive(Debug)]
pub struct LayerReader {
    pipe: Receiver,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Waiting(oneshot::Receiver<Answer<Result<u64, Failure>>>),
    Whole,
}

impl LayerReader {
    pub(crate) fn begin(container: &Arc<Container>) -> Result<Self, SandboxError> {
        let (ours, theirs) = pipe()?;
        rustix::io::ioctl_fionbio(&ours, true)
            .map_err(|error| SandboxError::Io { what: "set up a pipe", source: error.into() })?;
        let pipe = Receiver::from_owned_fd(ours).map_err(SandboxError::io("watch a pipe"))?;
        let (reply, answer) = oneshot::channel();
        // One request at a time: whoever holds the lease has the inbox to itself. A keeper that is gone is told by the answer.
        let _refused_by_the_dead = container.requests.try_send(Request::Pack { sink: theirs, reply });
        Ok(Self { pipe, asked: Asked::Waiting(answer) })
    }
}

impl AsyncRead for LayerReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Asked::Waiting(answer) = &mut self.asked else { return Poll::Ready(Ok(())) };
        let whole = match ready!(Pin::new(answer).poll(cx)) {
            Ok(Ok(Ok(_entries))) => Ok(()),
            Ok(Ok(Err(failure))) => Err(io::Error::other(said(failure))),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_dropped) => Err(io::Error::other("the container is dead")),
        };
        if whole.is_ok() {
            self.asked = Asked::Whole;
        }
        Poll::Ready(whole)
    }
}

/// Feeds a layer to the guest.
pub async fn restore(lease: &mut Lease, mut layer: impl AsyncRead + Send + Unpin) -> Result<(), PutError> {
    let (theirs, ours) = pipe()?;
    rustix::io::ioctl_fionbio(&ours, true)
        .map_err(|error| SandboxError::Io { what: "set up a pipe", source: error.into() })?;
    let mut sink = Sender::from_owned_fd(ours).map_err(SandboxError::io("watch a pipe"))?;
    let feeding = async move {
        let fed = tokio::io::copy(&mut layer, &mut sink).await;
        let _ended_by_its_drop = sink.shutdown().await;
        fed
    };
    let asking = lease.ask(|reply| Request::Unpack { source: theirs, lost: InterpreterEnd::NotKept, reply });
    let (fed, answer) = tokio::join!(feeding, asking);
    match (answer??, fed) {
        (Ok(_entries), Ok(_bytes)) => Ok(()),
        // A pipe that broke is the guest's doing, and its answer says why.
        (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(PutError::Source(error)),
        (Err(Failure::Errno(errno)), _) if Errno::from_raw_os_error(errno) == Errno::NOSPC => Err(PutError::DiskFull),
        (Err(failure), _) => Err(PutError::Refused(said(failure))),
        (Ok(_), Err(error)) => Err(PutError::Source(error)),
    }
}

/// Lets one guest feed another: the bytes go through one pipe that both hold, and never through this process.
pub async fn copy(from: &mut Lease, to: &mut Lease) -> Result<(), PutError> {
    let (source, sink) = pipe()?;
    // Less is slower, no more.
    let _as_it_was = rustix::pipe::fcntl_setpipe_size(&sink, COPY_PIPE_BYTES);
    let packing = from.ask(|reply| Request::Pack { sink, reply });
    let unpacking = to.ask(|reply| Request::Unpack { source, lost: InterpreterEnd::NotCopied, reply });
    let (packed, unpacked) = tokio::join!(packing, unpacking);
    match (packed??, unpacked??) {
        (Ok(_entries), Ok(_same)) => Ok(()),
        // Whoever fails first breaks the pipe of the other, and a writer's broken pipe says only that the reader has failed.
        (_, Err(Failure::Errno(errno))) if Errno::from_raw_os_error(errno) == Errno::NOSPC => Err(PutError::DiskFull),
        (Err(failure), _) if failure != Failure::Errno(Errno::PIPE.raw_os_error()) => {
            Err(PutError::Refused(said(failure)))
        }
        (_, Err(failure)) | (Err(failure), _) => Err(PutError::Refused(said(failure))),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| SandboxError::Io { what: "make a pipe", source: error.into() })
}
