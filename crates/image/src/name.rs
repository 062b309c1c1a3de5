//! Names that stand for images.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::ImageError;

/// A name under which an image can be asked for: 1 to 64 of `a-z 0-9 . _ -`, the first a letter or digit. Never
/// something that could be taken for a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName(String);

impl ImageName {
    /// The name that `belljar image build` gives and that containers start from unless configured otherwise.
    pub const DEFAULT: &'static str = "default";

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ImageName {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for ImageName {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        if first && rest && text.len() <= 64 && text.parse::<Digest>().is_err() {
            Ok(Self(text.into()))
        } else {
            Err(ImageError::BadName(text.into()))
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(64);
        let digest = "0".repeat(64);
        let too_long = "a".repeat(65);
        for (text, good) in [
            ("default", true),
            ("debian-13.1_x", true),
            ("0", true),
            (&longest[..63], true),
            (&longest, false), // 64 hexadecimal digits
            (&digest, false),
            (&too_long, false),
            ("", false),
            (".", false),
            ("..", false),
            (".hidden", false),
            ("-x", false),
            ("a/b", false),
            ("A", false),
            ("a b", false),
            ("ä", false),
            ("a\n", false),
        ] {
            assert_eq!(text.parse::<ImageName>().is_ok(), good, "{text:?}");
        }
    }
}
