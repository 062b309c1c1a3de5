//! What the fuzz targets (`fuzz/`) see of this upstream's reader: bytes in, sampling events out.

use belljar_ids::{RequestId, SeededIds};
use belljar_wire::sampling::SamplingEvent;

use super::decode::{Asked, Decoder};
use super::rescue::Rescuer;
use crate::config::{Api, Rescue};
use crate::link::sse::SseParser;

/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The events that come of these pieces of a stream, with every rescue on, and what ended the reading, if something did.
pub fn events<'a>(api: Api, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<SamplingEvent>, Option<String>) {
    let offered = vec!["bash_code_execution".to_owned(), "look_up".to_owned()];
    let rescuer = Rescuer::offering(&Rescue::ALL.map(|(rescue, _)| rescue), &offered);
    let request_id = RequestId::mint(&mut SeededIds::new(7));
    let asked = Asked::fuzzed(request_id, offered, rescuer, api);
    let (mut parser, mut decoder) = (SseParser::new(EVENT_BYTES_MAX), Decoder::new(asked));
    let mut events = Vec::new();
    for piece in pieces {
        let mut parsed = Vec::new();
        let unparsed = parser.push(piece, &mut parsed).err();
        for event in &parsed {
            match decoder.take(&event.data) {
                Ok(decoded) => events.extend(decoded),
                Err(fault) => return (events, Some(format!("{fault:?}"))),
            }
        }
        if let Some(error) = unparsed.filter(|_| !decoder.ended()) {
            return (events, Some(error.to_string()));
        }
        if decoder.ended() {
            break;
        }
    }
    (events, None)
}
