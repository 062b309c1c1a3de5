//! What the host makes of a packet from a REPL, which is as hostile as the cells it ran.
#![no_main]

use belljar_fuzz::{Packet, received};
use belljar_sandbox::fuzzing::FromRepl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: Packet<'_>| {
    let _frame = received::<FromRepl>(&packet);
});
