//! The shapes identifiers may have, and the one check that holds a text against a shape.

/// Which characters may follow the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// `[A-Za-z0-9]`
    Alphanumeric,
    /// `[A-Za-z0-9_]`
    Word,
    /// `[A-Za-z0-9_-]`
    WordDash,
}

impl Alphabet {
    fn holds(self, byte: u8) -> bool {
        match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::WordDash => byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-',
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Alphanumeric => "[A-Za-z0-9]",
            Self::Word => "[A-Za-z0-9_]",
            Self::WordDash => "[A-Za-z0-9_-]",
        }
    }
}

/// What an identifier of one kind must look like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// What the identifier names, for messages: "file id".
    pub(crate) what: &'static str,
    /// The literal text in front; empty where any is accepted.
    pub(crate) prefix: &'static str,
    /// What may follow the prefix.
    pub(crate) alphabet: Alphabet,
    /// How much may follow the prefix, at least one character.
    pub(crate) suffix_chars_max: usize,
}

impl Shape {
    /// Holds `text` against the shape.
    pub(crate) fn check(&'static self, text: &str) -> Result<(), ParseIdError> {
        let problem = match text.strip_prefix(self.prefix) {
            None if text.is_empty() => Problem::Empty,
            None => Problem::Prefix,
            Some("") => Problem::Empty,
            Some(suffix) if suffix.len() > self.suffix_chars_max => Problem::TooLong,
            Some(suffix) => match suffix.bytes().position(|byte| !self.alphabet.holds(byte)) {
                Some(at) => Problem::Character { byte_index: self.prefix.len() + at },
                None => return Ok(()),
            },
        };
        Err(ParseIdError { shape: self, problem })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (prefix, class, max) = (self.prefix, self.alphabet.class(), self.suffix_chars_max);
        write!(f, "{prefix}{class}{{1,{max}}}")
    }
}

/// A text that is not an identifier of the expected kind.
///
/// The message says what was expected and where the text departs from it. It never repeats the text, which
/// is a stranger's and may be long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {}: {problem}; expected {shape}", shape.what)]
pub struct ParseIdError {
    pub(crate) shape: &'static Shape,
    problem: Problem,
}

impl ParseIdError {
    /// How the text departs from the shape.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// What the identifier would have named, in words: "file id".
    pub fn what(&self) -> &'static str {
        self.shape.what
    }
}

/// How a text departs from the shape of an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing there, or nothing behind the prefix.
    #[error("it is empty")]
    Empty,
    /// The text does not begin with the prefix of its kind.
    #[error("it has another prefix")]
    Prefix,
    /// More characters behind the prefix than any identifier has.
    #[error("it is too long")]
    TooLong,
    /// A character that no identifier of this kind has.
    #[error("it has a character that does not belong at byte {byte_index}")]
    Character {
        /// Where, in bytes from the start of the text.
        byte_index: usize,
    },
}
