//! What the beginning of a JSON object says, for tool inputs that a limit cut off.
//!
//! A model that runs into `max_tokens` in the middle of a tool's input leaves an unfinished text. Stream clients show what
//! has come so far; the plain reply must say the same.

use serde_json::error::Category;
use serde_json::{Map, Value};

/// Text of a tool's input.
#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    /// A JSON object.
    Whole(Map<String, Value>),
    /// The beginning of one: the values that are complete, inside the containers that are open.
    CutOff(Map<String, Value>),
}

impl Input {
    /// Reads `text`; `None` when no JSON object begins like that.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match serde_json::from_str(text) {
            Ok(object) => Some(Self::Whole(object)),
            Err(error) if error.classify() == Category::Eof => {
                serde_json::from_str(&closed(text)).ok().map(Self::CutOff)
            }
            Err(_) => None,
        }
    }
}

/// An object or array that is open.
struct Frame {
    closer: char,
    /// A value may stand here now: always in an array, behind the colon in an object.
    wants_value: bool,
}

/// `text`, which begins a JSON document, cut behind its last complete value, with what is open closed.
fn closed(text: &str) -> String {
    let mut frames: Vec<Frame> = Vec::new();
    let mut whole_bytes = 0;
    let mut rest = text.char_indices().peekable();
    while let Some((start, first)) = rest.next() {
        let end = match first {
            '{' | '[' => {
                frames.push(Frame { closer: if first == '{' { '}' } else { ']' }, wants_value: first == '[' });
                whole_bytes = start + 1;
                continue;
            }
            ':' => {
                frames.last_mut().into_iter().for_each(|frame| frame.wants_value = true);
                continue;
            }
            ',' | ' ' | '\t' | '\n' | '\r' => continue,
            '}' | ']' => {
                frames.pop();
                Some(start + 1)
            }
            '"' => string_end(&mut rest),
            _ => {
                while rest.next_if(|(_, c)| !matches!(c, ',' | '}' | ']' | ' ' | '\t' | '\n' | '\r')).is_some() {}
                rest.peek().map(|(end, _)| *end)
            }
        };
        if let (Some(end), Some(frame)) = (end, frames.last_mut())
            && frame.wants_value
        {
            whole_bytes = end;
            frame.wants_value = frame.closer == ']';
        }
    }
    let mut text = text[..whole_bytes].to_owned();
    text.extend(frames.iter().rev().map(|frame| frame.closer));
    text
}

/// Reads on to the end of a string; `None` when the text ends first.
fn string_end(rest: &mut impl Iterator<Item = (usize, char)>) -> Option<usize> {
    while let Some((at, c)) = rest.next() {
        match c {
            '\\' => _ = rest.next(),
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Input, Map, Value};
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn cut_off_inputs_keep_what_is_complete() {
        let cases = [
            ("{", json!({})),
            (r#"{"a"#, json!({})),
            (r#"{"a""#, json!({})),
            (r#"{"a":"#, json!({})),
            (r#"{"a":1"#, json!({})),
            (r#"{"a":1,"#, json!({"a": 1})),
            (r#"{"a":1 ,"b":tru"#, json!({"a": 1})),
            (r#"{"a":"x\"#, json!({})),
            (r#"{"a":"x\"}"#, json!({})),
            (r#"{"a":"x","b":{"c":[1,{"d":null},"e"#, json!({"a": "x", "b": {"c": [1, {"d": null}]}})),
            (r#"{"a":[[],{}"#, json!({"a": [[], {}]})),
            (r#"{"a":"\ud83d"#, json!({})),
            (r#"{"é":"ü","b":-"#, json!({"é": "ü"})),
        ];
        for (text, expected) in cases {
            assert_eq!(Input::read(text), Some(Input::CutOff(object(expected))), "{text}");
        }
    }

    #[test]
    fn what_begins_no_object_is_no_input() {
        for text in ["[", "[1]", "1", "null", "{]", "{\"a\" 1", "{\"a\":1}}", "{\"a\":01", "x", "{\"a\":\"\n"] {
            assert_eq!(Input::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_beginning_of_an_object_is_cut_off_or_whole(
            texts in prop::collection::vec(".{0,6}", 0..4),
            numbers in prop::collection::vec(any::<f64>().prop_filter("finite", |n| n.is_finite()), 0..4),
            part in 0.0..1.0_f64,
        ) {
            let whole = json!({"texts": texts, "deep": [{"numbers": numbers}, {"none": null}], "last": true});
            let text = whole.to_string();
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let cut = boundaries[(part * boundaries.len() as f64) as usize];
            prop_assert!(matches!(Input::read(&text[..cut]), Some(Input::CutOff(_))), "{}", &text[..cut]);
            prop_assert_eq!(Input::read(&text), Some(Input::Whole(object(whole))));
        }
    }
}
