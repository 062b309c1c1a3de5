//! Files in and out of a container, whole and streamed. Paths are resolved by the guest, inside.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, Take};
use tokio::net::unix::pipe::Sender;
use tokio::sync::oneshot;

use crate::command::said;
use crate::environment::WORKING_DIRECTORY;
use crate::error::{DeathReason, PutError, ReadError, SandboxError};
use crate::frame::Failure;
use crate::harvest::on_container_disk;
use crate::keeper::Request;
use crate::lease::Lease;

const COPY_BYTES: usize = 64 * 1024;
/// For the guest to make room in the pipe.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(20);
/// path_resolution(7): PATH_MAX with its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// A file of a container, open for reading: at most [`FileContent::size`] bytes, even if it grows meanwhile.
#[derive(Debug)]
pub struct FileContent {
    size: u64,
    file: Take<tokio::fs::File>,
}

impl FileContent {
    /// Bytes the file had when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl AsyncRead for FileContent {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

/// The path as the guest takes it; `None` when no file can have it.
fn absolute(path: &str) -> Option<String> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{WORKING_DIRECTORY}/{path}") };
    (path.len() <= PATH_BYTES_MAX && !path.contains('\0')).then_some(path)
}

pub async fn open(lease: &mut Lease, path: &str, bytes_max: u64) -> Result<FileContent, ReadError> {
    let path = absolute(path).ok_or(ReadError::NotFound)?;
    let file = lease.ask(|reply| Request::Open { path, reply }).await??.map_err(|failure| match failure {
        Failure::Errno(errno) if [Errno::NOENT, Errno::NOTDIR].contains(&Errno::from_raw_os_error(errno)) => {
            ReadError::NotFound
        }
        Failure::IsDirectory => ReadError::IsDirectory,
        Failure::NotRegular => ReadError::NotRegular,
        other => ReadError::Refused(said(other)),
    })?;
    // The guest is not believed: only a file on the container's own disk can be read without waiting or effects.
    let found = fstat(&file).map_err(|error| SandboxError::Io { what: "look at a file", source: error.into() })?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || !on_container_disk(file.as_fd()) {
        return Err(ReadError::NotRegular);
    }
    let size = u64::try_from(found.st_size).map_err(|_negative| ReadError::NotRegular)?;
    if size > bytes_max {
        return Err(ReadError::TooLarge { size, bytes_max });
    }
    Ok(FileContent { size, file: tokio::fs::File::from_std(File::from(file)).take(size) })
}

/// Writes a file; returns whether there was one before.
pub async fn put(
    lease: &mut Lease,
    path: &str,
    source: impl AsyncRead + Send + Unpin,
    size: u64,
) -> Result<bool, PutError> {
    let path = absolute(path).ok_or_else(|| PutError::Name(path.to_owned()))?;
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| SandboxError::Io { what: "make a pipe", source: error.into() })?;
    rustix::io::ioctl_fionbio(&ours, true)
        .map_err(|error| SandboxError::Io { what: "set up a pipe", source: error.into() })?;
    let pipe = Sender::from_owned_fd(ours).map_err(SandboxError::io("watch a pipe"))?;
    let (done, fed) = oneshot::channel();
    let feeding = async {
        let outcome = feed(source, pipe, size).await;
        // The keeper waits for this, or for the sender's end: the same to it.
        let _keeper_may_be_gone = done.send(());
        outcome
    };
    let asking = lease.ask(|reply| Request::Write { path, size, source: theirs, fed, reply });
    tokio::pin!(feeding, asking);
    let (sent, answer) = tokio::select! {
        // What a source has to say weighs more than that the guest heard of its end.
        biased;
        sent = &mut feeding => (sent, asking.await),
        // The guest gave up or died: a source that is silent would keep whoever waits for ever.
        answer = &mut asking => (Ok(()), answer),
    };
    match (answer??, sent) {
        (Ok(existed), Ok(())) => Ok(existed),
        // What the guest says explains a broken pipe; a source's own failure explains what the guest says.
        (_, Err(error @ (PutError::Source(_) | PutError::Size { .. }))) => Err(error),
        (Err(Failure::Errno(errno)), _) if Errno::from_raw_os_error(errno) == Errno::NOSPC => Err(PutError::DiskFull),
        (Err(failure), _) => Err(PutError::Refused(said(failure))),
        (Ok(_), Err(error)) => Err(error),
    }
}

/// Feeds exactly `size` bytes. A source that is longer is found out before its last byte is passed on, so that the
/// guest does not take the file for complete.
async fn feed(mut source: impl AsyncRead + Send + Unpin, mut pipe: Sender, size: u64) -> Result<(), PutError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut ahead = Vec::new();
    let mut found: u64 = 0;
    loop {
        let count = source.read(&mut buffer).await.map_err(PutError::Source)?;
        found += count as u64;
        if found > size {
            return Err(PutError::Size { expected: size, found: size + 1 });
        }
        if count == 0 && found < size {
            return Err(PutError::Size { expected: size, found });
        }
        match tokio::time::timeout(ROOM_WAIT_MAX, pipe.write_all(&ahead)).await {
            Ok(Ok(())) => {}
            // The guest gave up; its answer says why.
            Ok(Err(_broken_pipe)) => return Ok(()),
            Err(_elapsed) => return Err(SandboxError::Dead(DeathReason::Unresponsive).into()),
        }
        if count == 0 {
            return Ok(());
        }
        ahead.clear();
        ahead.extend_from_slice(&buffer[..count]);
    }
}
