//! Writing events as server-sent events (wire.md §11.1).

use bytes::{BufMut, BytesMut};

use crate::event::StreamEvent;

/// Appends `event` to `out`: an `event:` line, one `data:` line of JSON, an empty line.
///
/// JSON never contains a raw newline, so text from a container cannot forge an event. Nothing is allocated while `out` has
/// room.
///
/// # Panics
/// Never: an event has only string keys and finite numbers, and memory is the only writer.
pub fn encode(event: &StreamEvent, out: &mut BytesMut) {
    out.put_slice(b"event: ");
    out.put_slice(event.name().as_bytes());
    out.put_slice(b"\ndata: ");
    match event {
        // The one event that the hosted API spells with a space (wire.md §23).
        StreamEvent::Ping => out.put_slice(b"{\"type\": \"ping\"}"),
        event => {
            // Cutting an event short would corrupt the stream behind the client's back, so the impossible is loud.
            serde_json::to_writer(out.writer(), event)
                .expect("events serialize: their keys are strings and the writer is memory");
        }
    }
    out.put_slice(b"\n\n");
}
