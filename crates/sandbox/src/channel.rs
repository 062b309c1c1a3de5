//! Frames over a socket that keeps packets whole. What comes out of here has the right shape and size; nothing more is
//! believed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use belljar_jail::HandedFd;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::DeathReason;
use crate::frame::{FRAME_BYTES_MAX, FRAME_FDS_MAX, FromGuest, ToGuest};
use crate::gvisor::Below;
use crate::watch::watch;

/// The most descriptors that are sent with one frame: the `go` of a zygote's child has the most, for seven namespaces and
/// as many cgroups as there are controllers.
const SENT_FDS_MAX: usize = 15;

/// The host's end of a socket pair; the other end is hostile.
pub struct Packets {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
    /// What the paths are below that the other end names instead of sending descriptors; `None` if it sends them.
    below: Option<Below>,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Every holder of the other end has closed it.
    #[error("the socket ended")]
    Ended,
    /// The other end broke a rule.
    #[error("{0}")]
    Breach(&'static str),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Packets {
    /// Both ends: ours, and one that may block. Must be called in a runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::over(ours)?, theirs))
    }

    /// Over an end that somebody else has made. Must be called in a runtime.
    pub fn over(ours: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&ours, true)?;
        // Not for writing: each frame that the other end takes in would wake this one.
        let socket = watch(ours, Interest::READABLE)?;
        Ok(Self { socket, buffer: vec![0; FRAME_BYTES_MAX + 1], below: None })
    }

    /// Keeps the socket for the program that this process is about to become. What is in it stays there.
    pub fn hand_over(&self) -> io::Result<HandedFd> {
        Ok(HandedFd::hand_over(self.socket.get_ref())?)
    }

    /// One that was handed over. Must be called in a runtime.
    pub fn take_over(handed: HandedFd, below: Option<Below>) -> io::Result<Self> {
        let socket = watch(handed.take_over()?, Interest::READABLE)?;
        Ok(Self { socket, buffer: vec![0; FRAME_BYTES_MAX + 1], below })
    }

    /// From here on the other end names paths below a directory instead of sending descriptors.
    pub fn take_paths(&mut self, below: Below) {
        self.below = Some(below);
    }

    /// The next frame with what came beside it. Cancel-safe: a frame is either returned or still in the socket.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>), PacketError> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            match ready.try_io(|socket| read_packet(socket.get_ref(), buffer)) {
                Ok(packet) => {
                    let (length, mut fds) = packet??;
                    let mut bytes = &self.buffer[..length];
                    if let Some(below) = &self.below {
                        bytes = with_path(bytes, &mut fds, below)?;
                    }
                    let frame = serde_json::from_slice(bytes)
                        .map_err(|_untrusted_text| PacketError::Breach("a frame without meaning"))?;
                    return Ok((frame, fds));
                }
                Err(_would_block) => {}
            }
        }
    }

    /// Whether the other end has taken in everything that was sent.
    pub fn is_received(&self) -> bool {
        // A socket that cannot be asked holds nothing up.
        belljar_jail::not_received(self.socket.get_ref().as_fd()).map_or(true, |bytes| bytes == 0)
    }

    /// Sends one frame if there is room for it.
    pub fn send_now(&self, frame: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        write_packet(self.socket.get_ref(), &serde_json::to_vec(frame)?, fds)
    }

    /// Sends one frame. Not cancel-safe in the sense that a dropped send may have happened.
    pub async fn send(&self, frame: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.send_now(frame, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        let bytes = serde_json::to_vec(frame)?;
        let full = watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?;
        loop {
            let mut ready = full.writable().await?;
            match ready.try_io(|socket| write_packet(socket.get_ref(), &bytes, fds)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }
}

/// The host's end of a container's control socket.
pub struct Channel {
    packets: Packets,
}

/// A frame with what came beside it.
pub type Received = (FromGuest, Vec<OwnedFd>);

impl Channel {
    /// Both ends: ours, and the one for the guest, which may block. Must be called in a runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (packets, theirs) = Packets::pair()?;
        Ok((Self { packets }, theirs))
    }

    /// As [`Packets::hand_over`].
    pub fn hand_over(&self) -> io::Result<HandedFd> {
        self.packets.hand_over()
    }

    /// As [`Packets::take_over`].
    pub fn take_over(handed: HandedFd, below: Option<Below>) -> io::Result<Self> {
        Ok(Self { packets: Packets::take_over(handed, below)? })
    }

    /// As [`Packets::over`].
    pub fn over(ours: OwnedFd) -> io::Result<Self> {
        Ok(Self { packets: Packets::over(ours)? })
    }

    /// As [`Packets::take_paths`].
    pub fn take_paths(&mut self, below: Below) {
        self.packets.take_paths(below);
    }

    /// The next frame. Cancel-safe: a frame is either returned or still in the socket.
    pub async fn receive(&mut self) -> Result<Received, DeathReason> {
        self.packets.receive().await.map_err(|error| match error {
            PacketError::Ended => DeathReason::SupervisorEnded,
            PacketError::Breach(what) => DeathReason::Protocol(what),
            PacketError::Io(error) => DeathReason::Channel(error.to_string()),
        })
    }

    /// Sends one frame. Not cancel-safe in the sense that a dropped send may have happened.
    pub async fn send(&self, frame: &ToGuest, fds: &[BorrowedFd<'_>]) -> Result<(), DeathReason> {
        self.packets.send(frame, fds).await.map_err(|error| DeathReason::Channel(error.to_string()))
    }
}

/// The frame, with what the path behind it leads to as its descriptor. A JSON document holds no NUL byte.
fn with_path<'a>(packet: &'a [u8], fds: &mut Vec<OwnedFd>, below: &Below) -> Result<&'a [u8], PacketError> {
    if !fds.is_empty() {
        return Err(PacketError::Breach("a descriptor from gVisor"));
    }
    let Some(end) = packet.iter().position(|byte| *byte == 0) else {
        return Ok(packet);
    };
    let opened = below.open(&packet[end + 1..]).ok_or(PacketError::Breach("a path that is none"))?;
    fds.push(opened.map_err(io::Error::from)?);
    Ok(&packet[..end])
}

/// The outer error is the socket's, the inner one the other end's fault.
fn read_packet(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Result<(usize, Vec<OwnedFd>), PacketError>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    Ok(if message.bytes == 0 {
        Err(PacketError::Ended)
    } else if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        || message.bytes > FRAME_BYTES_MAX
        // The space for descriptors is rounded up and may hold one more.
        || fds.len() > FRAME_FDS_MAX
    {
        Err(PacketError::Breach("a frame too large"))
    } else {
        Ok((message.bytes, fds))
    })
}

fn write_packet(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        write_packet(socket, bytes, fds).expect("the guest's end takes anything");
    }

    #[tokio::test]
    async fn a_good_frame_comes_through_with_its_descriptor() {
        let (mut ours, theirs) = Channel::pair().expect("socketpair");
        hostile(&theirs, br#"{"opened":{"id":7}}"#, &[theirs.as_fd()]);
        let (frame, fds) = ours.receive().await.expect("good");
        assert_eq!(frame, FromGuest::Opened { id: 7 });
        assert_eq!(fds.len(), 1);
    }

    #[tokio::test]
    async fn a_bad_frame_is_a_death_with_its_reason() {
        let nonsense = DeathReason::Protocol("a frame without meaning");
        let large = DeathReason::Protocol("a frame too large");
        let cases: [(Vec<u8>, usize, DeathReason); 8] = [
            (b"{".to_vec(), 0, nonsense.clone()),
            (b"\xff\xfe".to_vec(), 0, nonsense.clone()),
            (br#"{"opened":{"id":-1}}"#.to_vec(), 0, nonsense.clone()),
            (br#"{"opened":{"id":1,"more":2}}"#.to_vec(), 0, nonsense.clone()),
            (b"[".repeat(60_000), 0, nonsense),
            (vec![b' '; FRAME_BYTES_MAX + 1], 0, large.clone()),
            (br#"{"opened":{"id":7}}"#.to_vec(), FRAME_FDS_MAX + 1, large.clone()),
            (br#"{"opened":{"id":7}}"#.to_vec(), FRAME_FDS_MAX + 9, large),
        ];
        for (bytes, count, reason) in cases {
            let (mut ours, theirs) = Channel::pair().expect("socketpair");
            let fds = vec![theirs.as_fd(); count];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX + 9))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(&theirs, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL).expect("sends anything");
            assert_eq!(ours.receive().await.err(), Some(reason), "{} bytes", bytes.len());
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_received_when_the_other_end_has_taken_it() {
        let (ours, theirs) = Packets::pair().expect("socketpair");
        assert!(ours.is_received());
        ours.send(&"one", &[]).await.expect("room");
        ours.send(&"two", &[]).await.expect("room");
        for received in [false, true] {
            rustix::net::recv(&theirs, &mut [0; 16], RecvFlags::empty()).expect("read");
            assert_eq!(ours.is_received(), received);
        }
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for() {
        let (ours, theirs) = Packets::pair().expect("socketpair");
        let frame = "x".repeat(60_000);
        let reading = std::thread::spawn(move || {
            let mut buffer = vec![0; FRAME_BYTES_MAX + 1];
            for _ in 0..50 {
                let (read, _) = rustix::net::recv(&theirs, &mut buffer[..], RecvFlags::empty()).expect("read");
                assert_eq!(read, 60_002);
            }
        });
        for _ in 0..50 {
            ours.send(&frame, &[]).await.expect("room again");
        }
        reading.join().expect("all came");
    }

    #[tokio::test]
    async fn the_end_of_the_socket_is_the_end_of_the_guest() {
        let (mut ours, theirs) = Channel::pair().expect("socketpair");
        drop(theirs);
        assert_eq!(ours.receive().await.err(), Some(DeathReason::SupervisorEnded));
    }
}
