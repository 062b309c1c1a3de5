//! The upstream's event stream: however the bytes are cut into pieces, the same events come out, or the same refusal.
#![no_main]

use belljar_fuzz::pieces;
use belljar_model::fuzzing::events;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    assert_eq!(events(pieces(cuts, bytes)), events([bytes]));
});
