//! The stream of chat completions: however the bytes are cut into pieces, the same events come out, or the same refusal.
#![no_main]

use belljar_model::fuzzing::chat_events;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    let whole = chat_events([bytes]);
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(chat_events(pieces), whole);
});
