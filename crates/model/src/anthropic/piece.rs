//! The deltas of which a reply mostly consists, read in one go. Whatever is not exactly as expected here is left to the decoder, which reads
//! everything and says what is wrong.

use std::borrow::Cow;

use belljar_wire::event::Delta;
use serde::Deserialize;

/// A piece that says something, of a block that takes such pieces.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) index: u64,
    pub(super) delta: Delta,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    tag: Cow<'a, str>,
    index: u64,
    #[serde(borrow)]
    delta: Inner<'a>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(rename = "type", borrow)]
    tag: Cow<'a, str>,
    text: Option<String>,
    thinking: Option<String>,
    partial_json: Option<String>,
}

/// The piece that an event is, if it is one of the three that are frequent.
pub(super) fn read(data: &str) -> Option<Piece> {
    // What is not one is not read twice.
    if !data.contains("content_block_delta") {
        return None;
    }
    let Event { tag, index, delta } = serde_json::from_str(data).ok()?;
    if tag != "content_block_delta" {
        return None;
    }
    let delta = match (&*delta.tag, delta.text, delta.thinking, delta.partial_json) {
        ("text_delta", Some(text), None, None) if !text.is_empty() => Delta::TextDelta { text },
        ("thinking_delta", None, Some(thinking), None) if !thinking.is_empty() => Delta::ThinkingDelta { thinking },
        ("input_json_delta", None, None, Some(partial_json)) if !partial_json.is_empty() => {
            Delta::InputJsonDelta { partial_json }
        }
        _ => return None,
    };
    Some(Piece { index, delta })
}
