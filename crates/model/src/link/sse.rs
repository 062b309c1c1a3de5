//! Server-sent events, parsed as they arrive (WHATWG HTML, "Interpreting an event stream").
//!
//! Bytes may be split anywhere. Line ends may be LF, CRLF or CR; comments, `id`, `retry` and unknown fields are skipped; a byte
//! order mark at the start is too. An event is bounded, so that a hostile upstream cannot fill the memory.

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// The last `event` field; empty when there was none.
    pub(crate) name: String,
    /// The `data` fields, joined by line feeds.
    pub(crate) data: String,
}

/// Bytes that are no event stream this server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("an event is longer than {0} bytes")]
    TooLong(usize),
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// A parser, fed piece by piece.
#[derive(Debug)]
pub(crate) struct SseParser {
    event_bytes_max: usize,
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    /// The last byte ended a line by CR: a LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
}

impl SseParser {
    /// A parser that refuses events of more than `event_bytes_max` bytes.
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            has_data: false,
            after_cr: false,
            first_line: true,
        }
    }

    /// Takes the next bytes, and adds the events that they complete; those before an error count, wherever the bytes were
    /// cut. After an error the parser is of no more use.
    pub(crate) fn push(&mut self, mut bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseError> {
        loop {
            if self.after_cr && !bytes.is_empty() {
                self.after_cr = false;
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.extend_line(bytes);
            };
            let (head, tail) = bytes.split_at(end);
            self.after_cr = tail.starts_with(b"\r");
            bytes = &tail[1..];
            // Most lines come whole, and are read where they lie.
            if self.line.is_empty() {
                self.check_room(head)?;
                events.extend(self.end_line(head)?);
                continue;
            }
            self.extend_line(head)?;
            let mut line = std::mem::take(&mut self.line);
            events.extend(self.end_line(&line)?);
            line.clear();
            self.line = line;
        }
    }

    fn check_room(&self, more: &[u8]) -> Result<(), SseError> {
        let held = self.line.len() + self.data.len() + self.name.len();
        match held.saturating_add(more.len()) > self.event_bytes_max {
            true => Err(SseError::TooLong(self.event_bytes_max)),
            false => Ok(()),
        }
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        self.check_room(bytes)?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Result<Option<SseEvent>, SseError> {
        let mut line = std::str::from_utf8(line).map_err(|_| SseError::NotUtf8)?;
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            // Comments have an empty field name; the rest does not concern us.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then_some(SseEvent { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, SseError> {
        let mut parser = SseParser::new(1 << 16);
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk, &mut events)?;
        }
        Ok(events.into_iter().map(|event| (event.name, event.data)).collect())
    }

    #[test]
    fn streams_as_data() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("event: a\ndata: 1\n\n", &[("a", "1")]),
            ("event:a\r\ndata:1\r\n\r\n", &[("a", "1")]),
            ("event: a\rdata: 1\r\r", &[("a", "1")]),
            ("\u{feff}data: 1\n\n", &[("", "1")]),
            (": comment\n\ndata: 1\ndata: 2\n\n", &[("", "1\n2")]),
            ("data\n\n", &[("", "")]),
            ("data:  two spaces\n\n", &[("", " two spaces")]),
            ("event: lost\n\ndata: 1\n\n", &[("", "1")]),
            ("id: 7\nretry: 9\nnonsense\ndata: 1\n\n", &[("", "1")]),
            ("data: {\"a\":1}      \n\n", &[("", "{\"a\":1}      ")]),
            ("data: never ended\n", &[]),
            ("data: a\n\n\n\n\ndata: b\n\n", &[("", "a"), ("", "b")]),
        ];
        for (stream, expected) in cases {
            let expected: Vec<(String, String)> =
                expected.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect();
            assert_eq!(parse(&[stream.as_bytes()]), Ok(expected), "{stream:?}");
        }
    }

    #[test]
    fn a_long_event_is_refused_however_it_is_split() {
        let mut parser = SseParser::new(8);
        let mut events = Vec::new();
        assert_eq!(parser.push(b"data: 12", &mut events), Ok(()));
        assert_eq!(parser.push(b"3", &mut events), Err(SseError::TooLong(8)));
        let mut parser = SseParser::new(8);
        assert_eq!(parser.push(b"data: 1\n", &mut events), Ok(()));
        assert_eq!(parser.push(b"data: 2\n", &mut events), Ok(()));
        assert_eq!(parser.push(b"data: 3\n", &mut events), Err(SseError::TooLong(8)));
        assert_eq!(events, []);
    }

    #[test]
    fn events_before_an_error_count_wherever_the_bytes_were_cut() {
        let stream = b"data: 1\n\ndata: 2\n\ndata: \xff\n\ndata: 3\n\n";
        for size in 1..=stream.len() {
            let mut parser = SseParser::new(1 << 16);
            let mut events = Vec::new();
            let read = stream.chunks(size).try_for_each(|piece| parser.push(piece, &mut events));
            assert_eq!(read, Err(SseError::NotUtf8));
            let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
            assert_eq!(data, ["1", "2"], "in pieces of {size}");
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn boundaries_do_not_matter(
            events in proptest::collection::vec(("[a-z_]{0,8}", "[^\r\n]{0,20}"), 0..6),
            line_end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let mut stream = Vec::new();
            for (name, data) in &events {
                stream.extend(format!("event: {name}{line_end}: x{line_end}data: {data}{line_end}{line_end}").bytes());
            }
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&chunks), Ok(events));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let whole = parse(&[&bytes]);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(whole, parse(&single));
        }
    }
}
