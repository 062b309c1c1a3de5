//! What the host makes of a packet from a container's process 1: any bytes, any number of descriptors beside them.
#![no_main]

use std::cell::RefCell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use arbitrary::Arbitrary;
use belljar_sandbox::fuzzing::{Channel, FRAME_BYTES_MAX, FRAME_FDS_MAX};
use libfuzzer_sys::fuzz_target;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::runtime::{Builder, Runtime};

#[derive(Arbitrary, Debug)]
struct Packet<'a> {
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

fuzz_target!(|packet: Packet<'_>| {
    RUNTIME.with(|runtime| runtime.block_on(exchange(&packet)));
});

async fn exchange(packet: &Packet<'_>) {
    let (mut ours, theirs) = Channel::pair().expect("a socket pair");
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
    let Ok(length) = sent else { return };
    drop(writer);
    match ours.receive().await {
        Ok((frame, descriptors)) => {
            assert!(length <= FRAME_BYTES_MAX && count <= FRAME_FDS_MAX, "{length} bytes, {count} descriptors");
            assert_eq!(descriptors.len(), count, "beside {frame:?}");
            let again = serde_json::to_vec(&frame).expect("a frame can be written");
            assert_eq!(serde_json::from_slice::<belljar_sandbox::fuzzing::FromGuest>(&again).ok(), Some(frame));
        }
        Err(death) => assert!(!death.to_string().is_empty()),
    }
    // Whatever was passed along is closed: nobody holds the pipe's writing end any more.
    assert_eq!(rustix::io::read(&reader, &mut [0_u8; 1]), Ok(0), "a descriptor of the guest's stayed open");
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || beside.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}
