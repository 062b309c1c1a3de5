//! What targets have in common: packets from a hostile end of a socket, and streams cut into pieces.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arbitrary::Arbitrary;
use belljar_sandbox::fuzzing::{FRAME_BYTES_MAX, FRAME_FDS_MAX, Packets};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// Any bytes, with any number of descriptors beside them.
#[derive(Arbitrary, Debug)]
pub struct Packet<'a> {
    descriptors: u8,
    /// Blanks behind the text, which JSON allows: how packets beyond the limit come about.
    blanks: u32,
    text: &'a [u8],
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// unix(7): SCM_MAX_FD.
const DESCRIPTORS_MAX: usize = 253;

/// What the host's end makes of a packet: the frame, or nothing. Asserts that no limit is passed, that exactly the
/// descriptors of the packet come beside a frame, and that none of them stays open.
pub fn received<T: DeserializeOwned + Debug>(packet: &Packet<'_>) -> Option<T> {
    RUNTIME.with(|runtime| runtime.block_on(exchange(packet)))
}

async fn exchange<T: DeserializeOwned + Debug>(packet: &Packet<'_>) -> Option<T> {
    let (mut ours, theirs) = Packets::pair().expect("a socket pair");
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
    let count = usize::from(packet.descriptors).min(DESCRIPTORS_MAX);
    let blanks = packet.blanks as usize % (FRAME_BYTES_MAX + 2);
    let sent = BUFFER.with_borrow_mut(|bytes| {
        bytes.clear();
        bytes.extend_from_slice(packet.text);
        bytes.resize(bytes.len() + blanks, b' ');
        send(&theirs, bytes, &vec![writer.as_fd(); count]).map(|()| bytes.len())
    });
    // The kernel itself refuses what is larger than a socket's buffer.
    let length = sent.ok()?;
    drop(writer);
    let frame = match ours.receive::<T>().await {
        Ok((frame, descriptors)) => {
            assert!(length <= FRAME_BYTES_MAX && count <= FRAME_FDS_MAX, "{length} bytes, {count} descriptors");
            assert_eq!(descriptors.len(), count, "beside {frame:?}");
            Some(frame)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    };
    assert_eq!(rustix::io::read(&reader, &mut [0_u8; 1]), Ok(0), "a descriptor of the guest's stayed open");
    frame
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || beside.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

/// The bytes in pieces of these lengths, and what is left.
pub fn pieces(cuts: Vec<u8>, bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}
