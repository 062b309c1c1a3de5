//! What the fuzz targets (`fuzz/`) see of the scan of a tool's input.

use serde_json::Value;

use crate::input_text::{InputText, Verdict};

/// All that is passed on for these pieces, what it adds up to, and how far it is trusted.
pub fn pass_on<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Value, &'static str) {
    let mut text = InputText::new();
    let mut passed: String = pieces.into_iter().map(|piece| text.push(piece).to_owned()).collect();
    let end = text.finish();
    passed.push_str(&end.closing);
    let verdict = match end.verdict {
        Verdict::Whole => "whole",
        Verdict::Truncated => "truncated",
        Verdict::Malformed => "malformed",
    };
    (passed, end.input, verdict)
}
