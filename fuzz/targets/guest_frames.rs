//! What the host makes of a packet from a container's process 1: any bytes, any number of descriptors beside them.
#![no_main]

use belljar_fuzz::{Packet, received};
use belljar_sandbox::fuzzing::FromGuest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: Packet<'_>| {
    if let Some(frame) = received::<FromGuest>(&packet) {
        let again = serde_json::to_vec(&frame).expect("a frame can be written");
        assert_eq!(serde_json::from_slice::<FromGuest>(&again).ok(), Some(frame));
    }
});
