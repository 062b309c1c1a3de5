//! What a container's process 1 makes of a packet from the host: the guest's own reader, built from its sources.
#![no_main]

#[path = "../../guest/src/channel.rs"]
#[allow(dead_code, reason = "the target reads; sending is the other side's target")]
mod channel;
#[path = "../../guest/src/frame.rs"]
#[allow(dead_code, reason = "the target needs a part of the frames")]
mod frame;

use std::io::ErrorKind;

use channel::Channel;
use frame::{FRAME_BYTES_MAX, ToGuest};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

fuzz_target!(|bytes: &[u8]| {
    let (host, guest) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket pair");
    if send(&host, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_err() {
        return;
    }
    match Channel::new(guest).receive() {
        Ok(Some((frame, descriptors))) => {
            assert!(bytes.len() <= FRAME_BYTES_MAX && descriptors.is_empty());
            let again = serde_json::to_vec(&frame).expect("a frame can be written");
            let back: ToGuest = serde_json::from_slice(&again).expect("what was written can be read");
            assert_eq!(format!("{back:?}"), format!("{frame:?}"));
        }
        // An empty packet is what the end of the socket looks like.
        Ok(None) => assert!(bytes.is_empty()),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof), "{error:?}"),
    }
});
