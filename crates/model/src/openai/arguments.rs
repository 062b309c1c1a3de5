//! The arguments of one call as they come: passed on at once where they begin as an object, held back and mended where not.

use serde_json::Value;

/// The text of an object, or of what stands in its place.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    scan: ObjectScan,
    /// Not handed out yet.
    held: String,
}

/// Where an object is at that comes byte by byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjectScan {
    state: State,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    #[default]
    Blank,
    /// An object has begun.
    Object,
    /// The object has ended.
    Whole,
    /// It begins as something else.
    Odd,
}

impl ObjectScan {
    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) {
        match self.state {
            State::Blank if byte.is_ascii_whitespace() => {}
            State::Blank if byte == b'{' => {
                self.state = State::Object;
                self.depth = 1;
            }
            State::Blank => self.state = State::Odd,
            State::Object => self.step_inside(byte),
            State::Whole | State::Odd => {}
        }
    }

    /// Whether the object has ended.
    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    fn step_inside(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::Whole;
                }
            }
            _ => {}
        }
    }
}

impl Arguments {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str) {
        self.held.push_str(piece);
        piece.bytes().for_each(|byte| self.scan.step(byte));
    }

    /// Whether a whole object is there: nothing that follows can belong to it.
    pub(super) fn is_whole(&self) -> bool {
        self.scan.is_whole()
    }

    /// What can be passed on now; it may be empty.
    pub(super) fn take(&mut self) -> String {
        match self.scan.state {
            State::Object | State::Whole => std::mem::take(&mut self.held),
            State::Blank | State::Odd => String::new(),
        }
    }

    /// What is left at the end. `null` is how some say that there are no arguments, and a string that holds an object how some
    /// write one.
    pub(super) fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        match self.scan.state {
            State::Object | State::Whole => held,
            State::Blank => String::new(),
            State::Odd => match serde_json::from_str::<Value>(&held) {
                Ok(Value::Null) => String::new(),
                Ok(Value::String(text))
                    if serde_json::from_str::<Value>(&text).is_ok_and(|inner| inner.is_object()) =>
                {
                    text
                }
                Ok(_) | Err(_) => held,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&str]) -> (String, bool) {
        let mut arguments = Arguments::default();
        let mut out = String::new();
        for piece in pieces {
            arguments.push(piece);
            out.push_str(&arguments.take());
        }
        let whole = arguments.is_whole();
        out.push_str(&arguments.finish());
        (out, whole)
    }

    #[test]
    fn arguments_as_data() {
        let cases: [(&[&str], &str, bool); 10] = [
            (&[], "", false),
            (&[" ", "\n"], "", false),
            (&["{", "}"], "{}", true),
            (&["{\"a\": \"}", "\\\"}\"", "}"], "{\"a\": \"}\\\"}\"}", true),
            (&["{\"a\": [{}]", "}\n"], "{\"a\": [{}]}\n", true),
            (&["{\"a\": "], "{\"a\": ", false),
            (&["nu", "ll"], "", false),
            (&["\"{\\\"a\\\"", ": 1}\""], "{\"a\": 1}", false),
            (&["\"text\""], "\"text\"", false),
            (&["[1]"], "[1]", false),
        ];
        for (pieces, expected, whole) in cases {
            assert_eq!(read(pieces), (expected.to_owned(), whole), "{pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn an_object_is_whole_at_its_end_and_not_before(text in "[a-z{}\\[\\]\"\\\\\u{e9} ]{0,20}", cut in any::<proptest::sample::Index>()) {
            let object = serde_json::json!({"key": text, "list": [{"inner": text}]}).to_string();
            prop_assert_eq!(read(&[object.as_str()]), (object.clone(), true));
            let end = object.floor_char_boundary(cut.index(object.len()));
            prop_assert_eq!(read(&[&object[..end]]), (object[..end].to_owned(), false));
        }
    }
}
