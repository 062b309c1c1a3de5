//! Which part of a content a request wants (RFC 9110, section 14). The hosted API documents none; browsers, `curl -C -` and readers of
//! large files ask for parts anyway, and a server may always answer with the whole.

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes, the last included.
    Of {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// Nothing: the content has none of what was asked for.
    Unsatisfied,
}

impl Part {
    /// Reads `range` and `if-range`, against the content's size and tag.
    pub fn read(headers: &HeaderMap, size: u64, tag: &str) -> Self {
        let mut ranges = headers.get_all(RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else { return Self::Whole };
        // A content never changes, and has one strong tag. A date could not be compared: none is sent.
        if headers.get(IF_RANGE).is_some_and(|condition| condition.as_bytes() != tag.as_bytes()) {
            return Self::Whole;
        }
        range.to_str().ok().and_then(|text| Self::parse(text, size)).unwrap_or(Self::Whole)
    }

    /// `None` for what is no single range of bytes: that is as if it had not been said.
    fn parse(text: &str, size: u64) -> Option<Self> {
        let (unit, range) = text.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
            return None;
        }
        let (first, last) = range.trim().split_once('-')?;
        let (first, last) = match (number(first)?, number(last)?) {
            (None, None) => return None,
            (Some(first), None) => (first, size.saturating_sub(1)),
            (Some(first), Some(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
            (Some(_), Some(_)) => return None,
            (None, Some(0)) => return Some(Self::Unsatisfied),
            (None, Some(bytes)) => (size.saturating_sub(bytes), size.saturating_sub(1)),
        };
        Some(if first < size { Self::Of { first, last } } else { Self::Unsatisfied })
    }
}

/// Digits, which may be missing. A number beyond all sizes is as good as the largest.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_single_range_is_cut_out_and_everything_else_is_the_whole() {
        let of = |first, last| Part::Of { first, last };
        let cases = [
            ("bytes=0-0", 10, of(0, 0)),
            ("bytes=0-9", 10, of(0, 9)),
            ("bytes=2-5", 10, of(2, 5)),
            ("bytes=5-", 10, of(5, 9)),
            ("bytes=5-99999999999999999999999", 10, of(5, 9)),
            ("bytes=-3", 10, of(7, 9)),
            ("bytes=-30", 10, of(0, 9)),
            ("BYTES = 1-2", 10, of(1, 2)),
            ("bytes=10-", 10, Part::Unsatisfied),
            ("bytes=99999999999999999999999-", 10, Part::Unsatisfied),
            ("bytes=-0", 10, Part::Unsatisfied),
            ("bytes=0-", 0, Part::Unsatisfied),
            ("bytes=-1", 0, Part::Unsatisfied),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("bytes", 10, Part::Whole),
            ("lines=1-2", 10, Part::Whole),
            ("", 10, Part::Whole),
        ];
        for (text, size, expected) in cases {
            let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static(text))]);
            assert_eq!(Part::read(&headers, size, "\"t\""), expected, "{text} of {size}");
        }
    }

    #[test]
    fn a_part_of_another_content_is_never_sent() {
        let read = |condition: &'static str| {
            let pairs =
                [(RANGE, HeaderValue::from_static("bytes=0-0")), (IF_RANGE, HeaderValue::from_static(condition))];
            Part::read(&HeaderMap::from_iter(pairs), 10, "\"t\"")
        };
        assert_eq!(read("\"t\""), Part::Of { first: 0, last: 0 });
        for other in ["\"u\"", "W/\"t\"", "Sun, 29 Nov 2026 00:00:00 GMT", ""] {
            assert_eq!(read(other), Part::Whole, "{other}");
        }
        let mut twice = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-0"))]);
        twice.append(RANGE, HeaderValue::from_static("bytes=1-1"));
        assert_eq!(Part::read(&twice, 10, "\"t\""), Part::Whole);
    }
}
