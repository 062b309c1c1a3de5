//! Reading one stream of a cell: the first bytes kept, the rest counted, never faster than the host can afford.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use belljar_jail::HandedFd;
use bytes::Bytes;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

use crate::outcome::{LiveChunk, Stream};

const READ_BYTES: usize = 64 * 1024;
/// After the kept bytes, one read per this time: a flood then costs the host next to nothing, and blocks its writer.
const OVERFLOW_PAUSE: Duration = Duration::from_millis(2);
/// How long a listener may take for the last chunks, after the command has ended.
const LISTENER_WAIT_MAX: Duration = Duration::from_secs(5);

/// The host's end of a cell's standard output or standard error.
pub struct Drain {
    stream: Stream,
    pipe: Pipe,
    buffer: Vec<u8>,
    kept: Vec<u8>,
    kept_bytes_max: usize,
    total_bytes: u64,
    live: Option<mpsc::Sender<LiveChunk>>,
    told_bytes: usize,
}

/// Watched from the first [`Drain::run`] on: most cells end before anybody needs to know what they write.
enum Pipe {
    Idle(OwnedFd),
    Watched(Receiver),
    /// Could not be watched, or broke.
    Lost,
}

impl Pipe {
    fn watched(&mut self) -> io::Result<&Receiver> {
        if let Self::Idle(_) = self
            && let Self::Idle(pipe) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Watched(Receiver::from_owned_fd_unchecked(pipe)?);
        }
        match self {
            Self::Watched(pipe) => Ok(pipe),
            Self::Idle(_) | Self::Lost => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Idle(pipe) => Some(pipe.as_fd()),
            Self::Watched(pipe) => Some(pipe.as_fd()),
            Self::Lost => None,
        }
    }
}

/// A drain, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedDrain {
    /// None when it was lost.
    pipe: Option<HandedFd>,
    kept: Vec<u8>,
    total_bytes: u64,
}

impl Drain {
    /// What [`Drain::take_over`] needs. What is in the pipe stays there; whoever listened hears no more.
    pub fn hand_over(&self) -> io::Result<HandedDrain> {
        let pipe = self.pipe.fd().map(HandedFd::hand_over).transpose()?;
        Ok(HandedDrain { pipe, kept: self.kept.clone(), total_bytes: self.total_bytes })
    }

    /// A drain that was handed over. Must be called in a runtime.
    pub fn take_over(stream: Stream, handed: HandedDrain, kept_bytes_max: usize) -> io::Result<Self> {
        let HandedDrain { pipe, kept, total_bytes } = handed;
        let pipe = match pipe {
            Some(pipe) => Pipe::Idle(pipe.take_over()?),
            None => Pipe::Lost,
        };
        let told_bytes = kept.len();
        Ok(Self { stream, pipe, buffer: Vec::new(), kept, kept_bytes_max, total_bytes, live: None, told_bytes })
    }

    /// A drain and the end for the writer. Must be called in a runtime.
    pub fn new(stream: Stream, kept_bytes_max: usize) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // Nobody but this host may make it wait: code inside can read from the pipe too, and leave nothing.
        rustix::io::ioctl_fionbio(&ours, true)?;
        let (pipe, buffer, kept) = (Pipe::Idle(ours), Vec::new(), Vec::new());
        let drain = Self { stream, pipe, buffer, kept, kept_bytes_max, total_bytes: 0, live: None, told_bytes: 0 };
        Ok((drain, theirs))
    }

    /// Has all that is kept told to `listener`, too.
    pub fn tell_to(&mut self, listener: Option<mpsc::Sender<LiveChunk>>) {
        self.live = listener;
    }

    /// Reads until every writer is gone. Cancel-safe: nothing read is lost.
    pub async fn run(&mut self) {
        self.buffer.resize(READ_BYTES, 0);
        loop {
            self.tell().await;
            let pipe = match self.pipe.watched() {
                Ok(pipe) => pipe,
                Err(error) => {
                    tracing::error!(%error, "a cell's output cannot be read");
                    return;
                }
            };
            if pipe.readable().await.is_err() {
                return;
            }
            match pipe.try_read(&mut self.buffer) {
                Ok(0) => return,
                Ok(count) => self.take(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_broken) => return,
            }
            if self.total_bytes > self.kept_bytes_max as u64 {
                tokio::time::sleep(OVERFLOW_PAUSE).await;
            }
        }
    }

    /// Reads what is there now and ends: what a writer left behind adds later belongs to nobody.
    pub async fn finish(mut self) -> (Vec<u8>, u64) {
        self.take_what_is_there();
        if self.live.is_none() {
            return (self.kept, self.total_bytes);
        }
        if tokio::time::timeout(LISTENER_WAIT_MAX, self.tell()).await.is_err() {
            tracing::debug!("a listener did not take the end of a cell's output in time");
        }
        (self.kept, self.total_bytes)
    }

    fn take_what_is_there(&mut self) {
        let Some(pipe) = self.pipe.fd() else { return };
        let mut left = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        if left > 0 && self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES)), 0);
        }
        while left > 0 {
            // Not through the runtime: it may not have heard yet that there is something to read.
            let read = self.pipe.fd().map(|pipe| rustix::io::read(pipe, &mut self.buffer));
            match read {
                None | Some(Ok(0) | Err(_)) => break,
                Some(Ok(count)) => {
                    self.take(count);
                    left = left.saturating_sub(count as u64);
                }
            }
        }
    }

    fn take(&mut self, count: usize) {
        self.total_bytes += count as u64;
        let room = self.kept_bytes_max.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&self.buffer[..count.min(room)]);
    }

    /// Passes on what was kept and not yet passed on.
    async fn tell(&mut self) {
        let Some(listener) = &self.live else { return };
        while self.told_bytes < self.kept.len() {
            let Ok(permit) = listener.reserve().await else {
                self.live = None;
                return;
            };
            let bytes = Bytes::copy_from_slice(&self.kept[self.told_bytes..]);
            permit.send(LiveChunk { stream: self.stream, bytes });
            self.told_bytes = self.kept.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[tokio::test]
    async fn the_first_bytes_are_kept_and_the_rest_is_counted() {
        let (mut drain, writer) = Drain::new(Stream::Stdout, 10).expect("pipe");
        let writing = std::thread::spawn(move || {
            File::from(writer).write_all(&[b'x'; 300_000]).expect("read to the end");
        });
        drain.run().await;
        writing.join().expect("the writer ends");
        assert_eq!(drain.finish().await, (vec![b'x'; 10], 300_000));
    }

    #[tokio::test]
    async fn finish_does_not_wait_for_writers_left_behind() {
        let (drain, writer) = Drain::new(Stream::Stdout, 10).expect("pipe");
        let mut writer = File::from(writer);
        writer.write_all(b"abc").expect("fits the pipe");
        assert_eq!(drain.finish().await, (b"abc".to_vec(), 3));
        assert_eq!(writer.write(b"d").expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_listener_gets_every_kept_byte_once_even_when_the_run_is_cut_short() {
        let (listener, mut heard) = mpsc::channel(1);
        let (mut drain, writer) = Drain::new(Stream::Stderr, 100).expect("pipe");
        drain.tell_to(Some(listener));
        let mut writer = File::from(writer);
        let mut all = Vec::new();
        for part in [b"one".as_slice(), b"two", b"three"] {
            writer.write_all(part).expect("fits the pipe");
            // Nobody listens yet: the second and third round stand waiting for room and are cut short there.
            let cut = tokio::time::timeout(Duration::from_millis(20), drain.run()).await;
            assert!(cut.is_err(), "a writer is left");
        }
        let hearing = tokio::spawn(async move {
            while let Some(chunk) = heard.recv().await {
                assert_eq!(chunk.stream, Stream::Stderr);
                all.extend_from_slice(&chunk.bytes);
            }
            all
        });
        assert_eq!(drain.finish().await, (b"onetwothree".to_vec(), 11));
        assert_eq!(hearing.await.expect("no panic"), b"onetwothree");
    }
}
