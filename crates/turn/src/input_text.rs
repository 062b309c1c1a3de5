//! The JSON text of a tool's input, passed on while the model writes it.
//!
//! Clients want to see code appear as it is written, and parse the pieces only when the block stops. But a model may be cut off
//! in mid-string, or write what is no JSON at all, and what was sent cannot be taken back. So the text is scanned as it comes,
//! and passed on only up to points from where it can be closed: inside a string value, behind a value, behind an opening bracket.
//! Keys, numbers, literals and escapes are held back until they are whole; they are short. When the text ends too early or
//! goes wrong, what was passed on is closed, and the verdict says that it is not what the model meant, so nobody runs it.

use serde_json::{Map, Value};

/// Nesting that is passed on. Replies come back inside of requests, whose reader stops at 127.
const DEPTH_MAX: usize = 100;

/// Whether the text was an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The input is what the model wrote.
    Whole,
    /// The text ended inside of the object; the input is a closed prefix.
    Truncated,
    /// The text is not one JSON object; the input is a closed prefix.
    Malformed,
}

/// An input, and how far to trust it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReadInput {
    /// What is left to pass on.
    pub(crate) closing: String,
    /// What the pieces that were passed on add up to: an object.
    pub(crate) input: Value,
    /// Whether it is what the model meant.
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nest {
    Object,
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but blanks so far.
    Start,
    /// Behind `{`.
    FirstKey,
    /// Behind a comma in an object.
    Key,
    /// In a key that began at this byte of the held text.
    InKey { start: usize, escaped: bool },
    /// Behind a key.
    Colon,
    /// Behind a colon, or behind a comma in an array.
    Value,
    /// Behind `[`.
    FirstItem,
    /// In a string value.
    InText,
    /// In an escape of a string value, which is all of the held text.
    InEscape,
    /// In a number or literal that began at this byte of the held text.
    InScalar { start: usize },
    /// Behind a value.
    AfterValue,
    /// The object is closed.
    Whole,
    /// This is no JSON; nothing more is passed on.
    Malformed,
}

/// The scan of one input.
#[derive(Debug)]
pub(crate) struct InputText {
    passed: String,
    held: String,
    open: Vec<Nest>,
    in_text: bool,
    state: State,
}

impl InputText {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { passed: String::new(), held: String::new(), open: Vec::new(), in_text: false, state: State::Start }
    }

    /// Takes the next piece; gives what may be passed on now.
    pub(crate) fn push(&mut self, piece: &str) -> &str {
        let before = self.passed.len();
        let mut rest = piece;
        while let Some(next) = rest.chars().next() {
            if self.state == State::InText {
                let run = plain_run(rest);
                self.passed.push_str(&rest[..run]);
                rest = &rest[run..];
                if run > 0 {
                    continue;
                }
            }
            self.state = self.take(next);
            rest = &rest[next.len_utf8()..];
        }
        &self.passed[before..]
    }

    /// Ends the text.
    pub(crate) fn finish(mut self) -> ReadInput {
        let verdict = match self.state {
            State::Whole | State::Start => Verdict::Whole,
            State::Malformed => Verdict::Malformed,
            State::FirstKey
            | State::Key
            | State::InKey { .. }
            | State::Colon
            | State::Value
            | State::FirstItem
            | State::InText
            | State::InEscape
            | State::InScalar { .. }
            | State::AfterValue => Verdict::Truncated,
        };
        let mut closing = String::new();
        if self.in_text {
            closing.push('"');
        }
        closing.extend(self.open.iter().rev().map(|nest| match nest {
            Nest::Object => '}',
            Nest::Array => ']',
        }));
        self.passed.push_str(&closing);
        let input = if self.passed.is_empty() {
            Some(Value::Object(Map::new()))
        } else {
            serde_json::from_str(&self.passed).ok()
        };
        debug_assert!(input.is_some(), "what is passed on can be closed");
        ReadInput {
            closing,
            verdict: input.as_ref().map_or(Verdict::Malformed, |_| verdict),
            input: input.unwrap_or_default(),
        }
    }

    fn take(&mut self, next: char) -> State {
        let blank = matches!(next, ' ' | '\t' | '\n' | '\r');
        match self.state {
            State::Malformed => State::Malformed,
            State::Start | State::Whole if blank => self.state,
            State::Whole => State::Malformed,
            State::InText => self.take_in_text(next),
            State::InKey { start, escaped } => self.take_in_key(next, start, escaped),
            State::InEscape => self.take_in_escape(next),
            State::InScalar { start } => self.take_in_scalar(next, start),
            state @ (State::FirstKey
            | State::Key
            | State::Colon
            | State::Value
            | State::FirstItem
            | State::AfterValue)
                if blank =>
            {
                self.held.push(next);
                state
            }
            State::Start => match next {
                '{' => self.begin(Nest::Object),
                _ => State::Malformed,
            },
            State::FirstKey if next == '}' => self.end(Nest::Object),
            State::FirstKey | State::Key => self.begin_key(next),
            State::Colon if next == ':' => self.hold(next, State::Value),
            State::Colon => State::Malformed,
            State::FirstItem if next == ']' => self.end(Nest::Array),
            State::FirstItem | State::Value => self.begin_value(next),
            State::AfterValue => self.take_after_value(next),
        }
    }

    fn hold(&mut self, next: char, state: State) -> State {
        self.held.push(next);
        state
    }

    /// Passes on what is held.
    fn pass(&mut self) {
        self.passed.push_str(&self.held);
        self.held.clear();
    }

    fn begin(&mut self, nest: Nest) -> State {
        if self.open.len() == DEPTH_MAX {
            return State::Malformed;
        }
        self.open.push(nest);
        let (bracket, state) = match nest {
            Nest::Object => ('{', State::FirstKey),
            Nest::Array => ('[', State::FirstItem),
        };
        self.held.push(bracket);
        self.pass();
        state
    }

    fn end(&mut self, nest: Nest) -> State {
        if self.open.last() != Some(&nest) {
            return State::Malformed;
        }
        self.open.pop();
        self.held.push(match nest {
            Nest::Object => '}',
            Nest::Array => ']',
        });
        self.pass();
        if self.open.is_empty() { State::Whole } else { State::AfterValue }
    }

    fn begin_key(&mut self, next: char) -> State {
        let start = self.held.len();
        match next {
            '"' => self.hold(next, State::InKey { start, escaped: false }),
            _ => State::Malformed,
        }
    }

    fn take_in_key(&mut self, next: char, start: usize, escaped: bool) -> State {
        self.held.push(next);
        if escaped || next != '"' {
            let escaped = !escaped && next == '\\';
            return State::InKey { start, escaped };
        }
        match serde_json::from_str::<String>(&self.held[start..]) {
            Ok(_) => State::Colon,
            Err(_) => State::Malformed,
        }
    }

    fn begin_value(&mut self, next: char) -> State {
        match next {
            '"' => {
                self.held.push(next);
                self.pass();
                self.in_text = true;
                State::InText
            }
            '{' => self.begin(Nest::Object),
            '[' => self.begin(Nest::Array),
            '-' | '0'..='9' | 'a'..='z' => {
                let start = self.held.len();
                self.hold(next, State::InScalar { start })
            }
            _ => State::Malformed,
        }
    }

    fn take_in_text(&mut self, next: char) -> State {
        match next {
            '"' => {
                self.passed.push(next);
                self.in_text = false;
                State::AfterValue
            }
            '\\' => self.hold(next, State::InEscape),
            // Only control characters are left by `plain_run`.
            _ => State::Malformed,
        }
    }

    fn take_in_escape(&mut self, next: char) -> State {
        self.held.push(next);
        if self.held.len() < escape_bytes(&self.held) {
            return State::InEscape;
        }
        match serde_json::from_str::<String>(&format!("\"{}\"", self.held)) {
            Ok(_) => {
                self.pass();
                State::InText
            }
            Err(_) => State::Malformed,
        }
    }

    fn take_in_scalar(&mut self, next: char, start: usize) -> State {
        if next.is_ascii_alphanumeric() || matches!(next, '+' | '-' | '.') {
            return self.hold(next, State::InScalar { start });
        }
        // Numbers beyond what the reader can hold are refused here as they would be there.
        if serde_json::from_str::<Value>(&self.held[start..]).is_err() {
            return State::Malformed;
        }
        self.pass();
        self.state = State::AfterValue;
        self.take(next)
    }

    fn take_after_value(&mut self, next: char) -> State {
        match (next, self.open.last()) {
            (',', Some(Nest::Object)) => self.hold(next, State::Key),
            (',', Some(Nest::Array)) => self.hold(next, State::Value),
            ('}', _) => self.end(Nest::Object),
            (']', _) => self.end(Nest::Array),
            _ => State::Malformed,
        }
    }
}

/// Bytes at the start of `text` that stand for themselves inside of a JSON string.
fn plain_run(text: &str) -> usize {
    let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    text.bytes().position(special).unwrap_or(text.len())
}

/// How long the escape at the start of `held` is going to be: 2 bytes, 6, or 12 for a pair of surrogates.
fn escape_bytes(held: &str) -> usize {
    match held.as_bytes() {
        [_, b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'b' | b'A'..=b'B', ..] => 12,
        [_, b'u', ..] => 6,
        _ => 2,
    }
}

#[cfg(test)]
#[path = "input_text_tests.rs"]
mod tests;
