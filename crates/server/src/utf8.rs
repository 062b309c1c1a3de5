//! Bytes that come in pieces, as text: a character split over two pieces is not broken.

/// What is left of an unfinished character.
#[derive(Debug, Default)]
pub struct Utf8Pieces {
    unfinished: Vec<u8>,
}

impl Utf8Pieces {
    /// The text that `bytes` completes; what is not UTF-8 becomes the replacement character.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.unfinished.extend_from_slice(bytes);
        let end = complete_end(&self.unfinished);
        let text = String::from_utf8_lossy(&self.unfinished[..end]).into_owned();
        self.unfinished.drain(..end);
        text
    }
}

impl Utf8Pieces {
    /// Bytes that wait for the rest of their character.
    pub fn unfinished_bytes(&self) -> u64 {
        self.unfinished.len() as u64
    }
}

/// Where the last character that is merely unfinished begins; at most three bytes before the end.
fn complete_end(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let start = bytes.len() - back;
        let needed = match bytes[start] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return bytes.len(),
        };
        return if needed > back { start } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_character_is_whole_again() {
        let text = "aé€😀z";
        for split in 0..=text.len() {
            let mut pieces = Utf8Pieces::default();
            let joined = pieces.push(&text.as_bytes()[..split]) + &pieces.push(&text.as_bytes()[split..]);
            assert_eq!(joined, text, "split at {split}");
        }
    }

    #[test]
    fn garbage_does_not_pile_up() {
        let mut pieces = Utf8Pieces::default();
        assert_eq!(pieces.push(&[0xFF, 0x80, 0x80, 0x80, 0x80]).chars().count(), 5);
        assert!(pieces.unfinished.is_empty());
    }
}
