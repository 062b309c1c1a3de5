//! The text of a tool's input, passed on piece by piece by the loop. Three readers must agree: the loop's scanner, the fold of
//! the stream that it makes, and `serde_json` on the whole text.
#![no_main]

use belljar_turn::fuzzing::pass_on;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|input: (Vec<u8>, &str)| {
    let (cuts, text) = input;
    let whole = pass_on([text]);
    let cut = pass_on(pieces(&cuts, text));
    assert_eq!(cut, whole, "it depends on where the text was cut");
    let (passed, read, verdict) = whole;
    // What was passed on is what clients parse.
    let shown: Value =
        if passed.is_empty() { Value::Object(Map::new()) } else { serde_json::from_str(&passed).expect("JSON") };
    assert_eq!(shown, read);
    assert!(read.is_object());
    let meant = serde_json::from_str::<Map<String, Value>>(text);
    match verdict {
        "whole" if text.trim_matches([' ', '\t', '\n', '\r']).is_empty() => assert_eq!(read, Value::Object(Map::new())),
        "whole" => assert_eq!(meant.ok().map(Value::Object), Some(read), "{text:?}"),
        "truncated" => assert!(meant.is_err(), "{text:?} is whole"),
        // Nesting beyond what replies may have is refused, although it is JSON.
        "malformed" => assert!(meant.is_err() || text.matches(['[', '{']).count() > 100, "{text:?} is JSON"),
        other => panic!("{other}"),
    }
});

/// The text, cut at character boundaries.
fn pieces<'a>(cuts: &[u8], text: &'a str) -> Vec<&'a str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    for &cut in cuts {
        let at = rest.char_indices().nth(usize::from(cut)).map_or(rest.len(), |(at, _)| at);
        let (piece, behind) = rest.split_at(at);
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}
