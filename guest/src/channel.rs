//! Frames over the control socket, with file descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, readlinkat};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::frame::{FRAME_BYTES_MAX, FRAME_FDS_MAX, FromGuest, ToGuest};

/// The guest's end of the control socket.
pub struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
    passing: Passing,
}

/// How a descriptor gets to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Descriptors,
    /// Its path goes instead.
    Paths,
}

impl Channel {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; FRAME_BYTES_MAX + 1], passing: Passing::Descriptors }
    }

    /// For gVisor, which passes no descriptors out.
    pub fn passing_paths(socket: OwnedFd) -> Self {
        Self { passing: Passing::Paths, ..Self::new(socket) }
    }

    /// The next frame; `None` when the host has gone.
    pub fn receive(&mut self) -> io::Result<Option<(ToGuest, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let message =
            rustix::io::retry_on_intr(|| recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
        let mut fds = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if message.bytes == 0 {
            return Ok(None);
        }
        let cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        if cut || message.bytes > FRAME_BYTES_MAX || fds.len() > FRAME_FDS_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Some((serde_json::from_slice(&self.buffer[..message.bytes])?, fds)))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &FromGuest, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match (self.passing, fds) {
            (Passing::Descriptors, _) | (Passing::Paths, []) => send(self.socket.as_fd(), frame, fds),
            (Passing::Paths, [fd]) => self.send_path(frame, *fd),
            (Passing::Paths, _) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    fn send_path(&self, frame: &FromGuest, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(frame)?;
        bytes.push(0);
        let path = readlinkat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
        bytes.extend_from_slice(path.as_bytes());
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, &bytes, SendFlags::NOSIGNAL))?;
        Ok(())
    }
}

/// Sends one frame with the descriptors themselves.
pub fn send(socket: BorrowedFd<'_>, frame: &FromGuest, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(frame)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
