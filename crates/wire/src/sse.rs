//! Events as server-sent events (wire.md §11.1): writing ours, and reading anybody's back.

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use crate::event::StreamEvent;

/// Appends `event` to `out`: an `event:` line if it is named, one `data:` line of JSON, an empty line.
///
/// JSON never contains a raw newline, so text from a container cannot forge an event. Nothing is allocated while `out` has
/// room.
///
/// # Panics
/// Never: an event has only string keys and finite numbers, and memory is the only writer.
pub fn encode(event: &StreamEvent, out: &mut BytesMut) {
    if event.is_named() {
        out.put_slice(b"event: ");
        out.put_slice(event.name().as_bytes());
        out.put_slice(b"\n");
    }
    out.put_slice(b"data: ");
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

/// An event as somebody sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct RawEvent {
    /// The `event:` line; empty when there is none.
    pub name: String,
    /// The JSON of its `data:` lines.
    pub data: Value,
}

/// Reads a whole stream, of this server or of any other; the last event counts only if its empty line has come.
///
/// # Errors
/// The data of an event that is no JSON.
pub fn read(stream: &str) -> Result<Vec<RawEvent>, String> {
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), String::new());
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    for line in stream.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            // A comment has an empty field, too.
            "" if line.is_empty() => {
                if !data.is_empty() {
                    let read = serde_json::from_str(&data).map_err(|error| format!("event `{name}`: {error}"))?;
                    events.push(RawEvent { name: std::mem::take(&mut name), data: read });
                }
                name.clear();
                data.clear();
            }
            "event" => value.clone_into(&mut name),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            _ => {}
        }
    }
    Ok(events)
}
