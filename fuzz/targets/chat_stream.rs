//! The streams of chat completions and of the Responses API: however the bytes are cut into pieces, the same events come out, or the same refusal.
#![no_main]

use belljar_fuzz::pieces;
use belljar_model::Api;
use belljar_model::fuzzing::openai_events;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    for (api, _) in Api::ALL {
        assert_eq!(openai_events(api, pieces(cuts.clone(), bytes)), openai_events(api, [bytes]));
    }
});
