//! What the fuzz targets (`fuzz/`) see of this upstream's reader: bytes in, sampling events out.

use belljar_wire::sampling::SamplingEvent;

use super::EVENT_BYTES_MAX;
use super::decode::Decoder;
use super::parser::Parser;
use super::way::Way;

/// The events that come of these pieces of a reply's body, and what ended the reading, if something did.
pub fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<SamplingEvent>, Option<String>) {
    read(Way::Vendor, pieces)
}

/// The same for a body in Amazon's frames.
pub fn framed_events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<SamplingEvent>, Option<String>) {
    read(Way::Bedrock, pieces)
}

fn read<'a>(way: Way, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<SamplingEvent>, Option<String>) {
    let mut parser = Parser::new(way, EVENT_BYTES_MAX);
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        let mut parsed = Vec::new();
        let unparsed = parser.push(piece, &mut parsed).err();
        for event in &parsed {
            match decoder.take(event) {
                Ok(decoded) => events.extend(decoded),
                Err(fault) => return (events, Some(format!("{fault:?}"))),
            }
        }
        if let Some(error) = unparsed.filter(|_| !decoder.ended()) {
            return (events, Some(format!("{error:?}")));
        }
        if decoder.ended() {
            break;
        }
    }
    (events, None)
}
