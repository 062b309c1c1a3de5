//! Amazon's event stream: however the bytes are cut into pieces, the same events come out, or the same refusal. Bytes that are given
//! as payloads are put into good frames, so that what is in them is reached, too.
#![no_main]

use belljar_fuzz::pieces;
use belljar_model::fuzzing::framed_events;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, &[u8])| {
    let (cuts, frames, tail) = input;
    let mut bytes: Vec<u8> = frames.iter().flat_map(|(headers, payload)| framed(headers, payload)).collect();
    bytes.extend(tail);
    assert_eq!(framed_events(pieces(cuts, &bytes)), framed_events([&bytes[..]]));
});

/// A frame with right lengths and checksums.
fn framed(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = [size(16 + headers.len() + payload.len()), size(headers.len())].concat();
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend(headers);
    bytes.extend(payload);
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}
