//! What is passed on, when, and how it is closed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn scan(pieces: &[&str]) -> (Vec<String>, ReadInput) {
    let mut text = InputText::new();
    let passed = pieces.iter().map(|piece| text.push(piece).to_owned()).collect();
    (passed, text.finish())
}

#[test]
fn passes_on_string_values_as_they_come_and_holds_back_the_rest() {
    let (passed, end) = scan(&[
        " {\"com",
        "mand\": \"l",
        "s -\\",
        "n",
        " \\ud83d",
        "\\ude00x\", \"n\": 1",
        "2, \"b\"",
        ": tru",
        "e } ",
    ]);
    assert_eq!(
        passed,
        ["{", "\"command\": \"l", "s -", "\\n", " ", "\\ud83d\\ude00x\"", ", \"n\": 12", "", ", \"b\": true }",]
    );
    assert_eq!(end.closing, "");
    assert_eq!(end.verdict, Verdict::Whole);
    assert_eq!(end.input, json!({"command": "ls -\n \u{1f600}x", "n": 12, "b": true}));
}

#[test]
fn closes_what_was_passed_on() {
    let deep_enough = format!("{{\"a\":{}", "[".repeat(DEPTH_MAX - 1));
    let too_deep = format!("{deep_enough}[");
    let cases: &[(&str, &str, Verdict)] = &[
        ("", "{}", Verdict::Whole),
        (" \n", "{}", Verdict::Whole),
        ("{}", "{}", Verdict::Whole),
        ("{} \n", "{}", Verdict::Whole),
        ("{", "{}", Verdict::Truncated),
        ("{\"a", "{}", Verdict::Truncated),
        ("{\"a\"", "{}", Verdict::Truncated),
        ("{\"a\":", "{}", Verdict::Truncated),
        ("{\"a\":1", "{}", Verdict::Truncated),
        ("{\"a\":1,", "{\"a\":1}", Verdict::Truncated),
        ("{\"a\":\"x", "{\"a\":\"x\"}", Verdict::Truncated),
        ("{\"a\":\"x\\", "{\"a\":\"x\"}", Verdict::Truncated),
        ("{\"a\":\"x\\u00", "{\"a\":\"x\"}", Verdict::Truncated),
        ("{\"a\":\"x\\ud83d\\u", "{\"a\":\"x\"}", Verdict::Truncated),
        ("{\"a\":[{\"b\":[1,2,", "{\"a\":[{\"b\":[1,2]}]}", Verdict::Truncated),
        (&deep_enough, &format!("{deep_enough}{}}}", "]".repeat(DEPTH_MAX - 1)), Verdict::Truncated),
        (&too_deep, &format!("{deep_enough}{}}}", "]".repeat(DEPTH_MAX - 1)), Verdict::Malformed),
        ("null", "{}", Verdict::Malformed),
        ("[1]", "{}", Verdict::Malformed),
        ("\"x\"", "{}", Verdict::Malformed),
        ("{}{", "{}", Verdict::Malformed),
        ("{'a': 1}", "{}", Verdict::Malformed),
        ("{\"a\":1,}", "{\"a\":1}", Verdict::Malformed),
        ("{\"a\":[1,]}", "{\"a\":[1]}", Verdict::Malformed),
        ("{\"a\":True}", "{}", Verdict::Malformed),
        ("{\"a\":nul}", "{}", Verdict::Malformed),
        ("{\"a\":01}", "{}", Verdict::Malformed),
        ("{\"a\":1e999}", "{}", Verdict::Malformed),
        ("{\"a\":1]", "{\"a\":1}", Verdict::Malformed),
        ("{\"a\" 1}", "{}", Verdict::Malformed),
        ("{\"a\":\"x\ny\"}", "{\"a\":\"x\"}", Verdict::Malformed),
        ("{\"a\":\"x\\qy\"}", "{\"a\":\"x\"}", Verdict::Malformed),
        ("{\"a\":\"x\\ud83dy-----\"}", "{\"a\":\"x\"}", Verdict::Malformed),
        ("{\"a\":\"x\\ude00\"}", "{\"a\":\"x\"}", Verdict::Malformed),
        ("{\"a\":\"x\\\u{e9}\"}", "{\"a\":\"x\"}", Verdict::Malformed),
        ("{\"\\q\":1}", "{}", Verdict::Malformed),
    ];
    for (text, closed, verdict) in cases {
        let (passed, end) = scan(&[text]);
        let whole = format!("{}{}", passed.concat(), end.closing);
        let whole = if whole.is_empty() { "{}" } else { &whole };
        assert_eq!((whole, end.verdict), (*closed, *verdict), "{text:?}");
        assert_eq!(end.input, serde_json::from_str::<Value>(closed).unwrap());
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300_f64..1e300).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[\\x00-\\x7f]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("\\PC{0,6}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// `text` in pieces of at most `bytes` bytes.
fn pieces(text: &str, bytes: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = bytes.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, tail) = rest.split_at(end);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

proptest! {
    #[test]
    fn an_object_comes_through_unchanged(
        value in any_value(), pretty in any::<bool>(), bytes in 1_usize..9,
    ) {
        let value = json!({ "v": value });
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let (passed, end) = scan(&pieces(&text, bytes));
        prop_assert_eq!(end.verdict, Verdict::Whole);
        prop_assert_eq!(end.input, serde_json::from_str::<Value>(&text).unwrap());
        prop_assert_eq!(passed.concat() + &end.closing, text);
    }

    #[test]
    fn a_cut_object_closes_to_a_prefix(value in any_value(), cut in any::<prop::sample::Index>()) {
        let text = json!({ "v": value }).to_string();
        let mut at = cut.index(text.len());
        while !text.is_char_boundary(at) { at -= 1; }
        let (passed, end) = scan(&[&text[..at]]);
        let passed = passed.concat();
        prop_assert!(text.starts_with(&passed));
        prop_assert_eq!(end.verdict, if at == 0 { Verdict::Whole } else { Verdict::Truncated });
        if at > 0 {
            prop_assert_eq!(serde_json::from_str::<Value>(&(passed + &end.closing)).unwrap(), end.input);
        }
    }

    /// The scan agrees with the parser about what an object is, and closes whatever comes.
    #[test]
    fn any_text_gets_the_parsers_verdict(
        text in "(\\PC|[{}\\[\\]\",:\\\\0-9eE+. ntu-]){0,24}", bytes in 1_usize..5, object in any::<bool>(),
    ) {
        let text = if object { format!("{{\"a\":{text}") } else { text };
        let (passed, end) = scan(&pieces(&text, bytes));
        let passed = passed.concat() + &end.closing;
        if !passed.is_empty() {
            prop_assert_eq!(&serde_json::from_str::<Value>(&passed).unwrap(), &end.input);
        }
        prop_assert!(end.input.is_object());
        let parsed = serde_json::from_str::<Map<String, Value>>(&text).is_ok();
        let blank = text.trim_matches([' ', '\t', '\n', '\r']).is_empty();
        prop_assert_eq!(end.verdict == Verdict::Whole, parsed || blank, "{:?}", text);
    }
}
