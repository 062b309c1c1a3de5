//! Reading a recording: where everything stands, and nothing of what it says.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::RecordingError;
use super::canonical::{Canonical, Digest};
use super::line::{Dialect, Exchange, FORM, Head, Line};

/// Longest line that is read: a request and a reply of the largest size, in base64, are shorter.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// A recording on disk.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: File,
    head: Head,
    entries: Vec<Entry>,
    passed_over: usize,
}

/// Where an exchange stands, and what it is known by.
pub(crate) struct Entry {
    offset: u64,
    bytes: usize,
    pub(crate) attempt: u32,
    pub(crate) digest: Digest,
    pub(crate) sketch: Box<[u64]>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.digest, self.offset)
    }
}

impl Recording {
    /// Reads a file once, from end to end. Lines that are none are passed over, and said in the log.
    ///
    /// # Errors
    /// A file that cannot be read, or is no recording.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let refused = |error: std::io::Error| RecordingError::file(path, error);
        if std::fs::metadata(path).map_err(refused)?.is_file() {
            let file = File::open(path).map_err(refused)?;
            return Self::read(path, file);
        }
        Err(RecordingError::file(path, "not a regular file"))
    }

    fn read(path: &Path, file: File) -> Result<Self, RecordingError> {
        let mut reader = BufReader::new(&file);
        let (mut head, mut entries, mut passed_over, mut offset) = (None, Vec::new(), 0, 0);
        let mut text = Vec::new();
        loop {
            text.clear();
            let mut limited = (&mut reader).take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut text).map_err(|error| RecordingError::file(path, error))?;
            if read == 0 {
                break;
            }
            let begin = offset;
            offset += read as u64;
            if !text.ends_with(b"\n") && read as u64 == LINE_BYTES_MAX {
                let skipped = reader.skip_until(b'\n').map_err(|error| RecordingError::file(path, error))?;
                offset += skipped as u64;
                text.clear();
                text.push(b'?');
            }
            match line(&text) {
                _ if text.trim_ascii().is_empty() => {}
                Some(Line::Recording(found)) => head = Some(found),
                Some(Line::Exchange(exchange)) => entries.push(Entry::of(&exchange, begin, text.len())),
                None => {
                    passed_over += 1;
                    if passed_over == 1 {
                        let path = path.display();
                        tracing::warn!(%path, offset = begin, "a line of a recording is torn, or none of this version's: passed over");
                    }
                }
            }
        }
        drop(reader);
        if passed_over > 1 {
            tracing::warn!(path = %path.display(), lines = passed_over, "lines of a recording were passed over");
        }
        let head = head.ok_or_else(|| RecordingError::NoHead { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), file, head, entries, passed_over })
    }

    /// How many exchanges there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// How many lines could not be read.
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// The `kind` of the upstream that was recorded.
    pub fn dialect(&self) -> &'static str {
        self.head.dialect.name()
    }

    /// The operator's name for it.
    pub fn upstream(&self) -> &str {
        &self.head.upstream
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads one exchange. Whoever changed the file meanwhile has made it unreadable.
    pub(crate) fn exchange(&self, index: usize) -> Result<Exchange, RecordingError> {
        let count = self.entries.len();
        let missing =
            || RecordingError::NoSuchExchange { path: self.path.clone(), number: index.saturating_add(1), count };
        let entry = self.entries.get(index).ok_or_else(missing)?;
        let mut text = vec![0; entry.bytes];
        self.file.read_exact_at(&mut text, entry.offset).map_err(|error| RecordingError::file(&self.path, error))?;
        match line(&text) {
            Some(Line::Exchange(exchange)) => Ok(exchange),
            Some(Line::Recording(_)) | None => {
                Err(RecordingError::file(&self.path, "it was changed since it was opened"))
            }
        }
    }
}

impl Entry {
    fn of(exchange: &Exchange, offset: u64, bytes: usize) -> Self {
        let canonical = Canonical::of(exchange.endpoint, exchange.betas.as_deref(), &exchange.request);
        Self { offset, bytes, attempt: exchange.attempt, digest: canonical.digest(), sketch: canonical.sketch() }
    }

    /// How many parts it shares with another call.
    pub(crate) fn likeness(&self, sketch: &[u64]) -> usize {
        let (mut left, mut right, mut shared) = (self.sketch.iter().peekable(), sketch.iter().peekable(), 0);
        while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
            match one.cmp(other) {
                std::cmp::Ordering::Less => drop(left.next()),
                std::cmp::Ordering::Greater => drop(right.next()),
                std::cmp::Ordering::Equal => {
                    shared += 1;
                    left.next();
                    right.next();
                }
            }
        }
        shared
    }
}

/// A line, if it is one of this version's, and says one thing.
fn line(text: &[u8]) -> Option<Line> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let fits = match &line {
        Line::Recording(Head { form, dialect: Dialect::Anthropic | Dialect::Openai, .. }) => *form <= FORM,
        Line::Exchange(exchange) => exchange.is_whole(),
    };
    fits.then_some(line)
}
