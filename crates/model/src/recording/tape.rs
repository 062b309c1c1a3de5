//! Writing a recording.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use http::HeaderMap;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::canonical::Canonical;
use super::line::{Content, Exchange, Line, Piece};
use super::{Asked, End, Head, RecordingError};
use crate::config::Secret;

/// For the file's owner alone: it holds what people said.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Headers of answers that mean something to us. No other is kept: some hold credentials, and organisations.
const HEADERS_KEPT: [&str; 7] = [
    "content-type",
    "content-encoding",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "request-id",
    "x-request-id",
];
/// Shortest key that is looked for in what is written: a shorter one is no secret, and would be found in words.
const KEY_BYTES_MIN: usize = 8;

/// A file that exchanges are added to.
#[derive(Debug)]
pub(crate) struct Tape {
    path: PathBuf,
    file: Mutex<File>,
    /// What must not be written, as it is and as it stands in JSON.
    secrets: Vec<String>,
}

impl Tape {
    /// Opens the file, or makes it, and says what the upstream speaks unless the file says so already.
    pub(crate) fn open(path: &Path, head: &Head, key: Option<&Secret>) -> Result<Self, RecordingError> {
        let refused = |error: std::io::Error| RecordingError::file(path, error);
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(refused)?;
        }
        // Opening a pipe would wait for its reader.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(RecordingError::file(path, "not a regular file"));
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).append(true).mode(MODE).open(path).map_err(refused)?;
        file.set_permissions(Permissions::from_mode(MODE)).map_err(refused)?;
        let key = key.map(Secret::expose).filter(|key| key.len() >= KEY_BYTES_MIN);
        let secrets = key.map(|key| {
            let written = Value::from(key).to_string();
            vec![key.to_owned(), written[1..written.len() - 1].to_owned()]
        });
        let last = last_head(&file).map_err(refused)?;
        if last.as_ref().is_some_and(|last| last.dialect != head.dialect) {
            return Err(RecordingError::OtherDialect { path: path.to_owned() });
        }
        let tape = Self { path: path.to_owned(), file: Mutex::new(file), secrets: secrets.unwrap_or_default() };
        let mut head = head.clone();
        if let Some(settings) = &mut head.settings {
            settings.body.values_mut().for_each(|value| tape.mask_within(value));
        }
        if last.as_ref() != Some(&head) {
            tape.add(&Line::Recording(head)).map_err(refused)?;
        }
        Ok(tape)
    }

    /// Adds a line, whole or not at all.
    fn add(&self, line: &Line) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&*file, FlockOperation::LockExclusive)?;
        let added = add_at_end(&mut file, text);
        // Closing the file lets go of it in any case.
        let _unlocked = flock(&*file, FlockOperation::Unlock);
        added
    }

    /// Puts asterisks where a secret stands: as many, so that nothing moves.
    fn mask(&self, bytes: &mut [u8]) {
        for secret in &self.secrets {
            let mut from = 0;
            while let Some(at) = find(&bytes[from..], secret.as_bytes()).map(|at| from + at) {
                bytes[at..at + secret.len()].fill(b'*');
                from = at + secret.len();
            }
        }
    }

    /// The same in all texts of a value.
    fn mask_within(&self, value: &mut Value) {
        match value {
            Value::String(text) => masked(text, &self.secrets),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_within(item)),
            Value::Object(members) => members.values_mut().for_each(|value| self.mask_within(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

fn masked(text: &mut String, secrets: &[String]) {
    for secret in secrets {
        if text.contains(secret.as_str()) {
            *text = text.replace(secret.as_str(), &"*".repeat(secret.len()));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|byte| *byte == first)?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Who holds the lock is the only one to write.
fn add_at_end(file: &mut File, mut text: Vec<u8>) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    if let Some(last) = length.checked_sub(1) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        // A line was torn: what follows must not become part of it.
        if byte != *b"\n" {
            text.insert(0, b'\n');
        }
    }
    let written = file.write_all(&text);
    if written.is_err() {
        // What did not fit must not stay as a torn line.
        file.set_len(length)?;
    }
    written
}

/// What the file says last of what its upstream speaks.
fn last_head(file: &File) -> std::io::Result<Option<Head>> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let beginning = br#"{"recording":"#;
    let mut last = None;
    loop {
        // Heads are short; of any other line the beginning is enough.
        let mut line = Vec::new();
        if (&mut reader).take(64 * 1024).read_until(b'\n', &mut line)? == 0 {
            return Ok(last);
        }
        if !line.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
        }
        if line.starts_with(beginning)
            && let Ok(Line::Recording(head)) = serde_json::from_slice(&line)
        {
            last = Some(head);
        }
    }
}

/// One call under way. What came of it is written when it is let go of, however it ends.
pub(crate) struct Taping {
    tape: Arc<Tape>,
    exchange: Exchange,
    begun: Instant,
    /// The body so far, and where its pieces end, each with when it came.
    body: Vec<u8>,
    ends: Vec<(u64, usize)>,
    end: Option<End>,
}

impl Taping {
    /// A call that is being sent; none when it is no JSON, which it always is.
    pub(crate) fn begin(tape: &Arc<Tape>, asked: &Asked<'_>, request_id: &str, attempt: u32) -> Option<Self> {
        let request: Value = serde_json::from_slice(asked.body).ok()?;
        let digest = Canonical::of(asked.endpoint, asked.betas, &request).digest().to_string();
        let at = jiff::Timestamp::try_from(SystemTime::now()).map(|at| at.to_string()).unwrap_or_default();
        let exchange = Exchange {
            at,
            request_id: request_id.to_owned(),
            attempt,
            endpoint: asked.endpoint,
            digest,
            betas: asked.betas.map(str::to_owned),
            request,
            status: None,
            headers: BTreeMap::new(),
            pieces: Vec::new(),
            end: End::Unanswered("nobody waited for the answer".to_owned()),
            whole_ms: 0,
        };
        Some(Self {
            tape: Arc::clone(tape),
            exchange,
            begun: Instant::now(),
            body: Vec::new(),
            ends: Vec::new(),
            end: None,
        })
    }

    /// An answer has begun.
    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.exchange.status = Some(status);
        self.exchange.end = End::Left;
        let kept = HEADERS_KEPT.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        self.exchange.headers = kept.collect();
    }

    /// A piece of its body.
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
        self.ends.push((self.elapsed_ms(), self.body.len()));
    }

    /// It is over. What is said first counts.
    pub(crate) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Taping {
    /// Writes to the page cache and waits for nothing but other writers of the same file.
    fn drop(&mut self) {
        self.exchange.whole_ms = self.elapsed_ms();
        if let Some(end) = self.end.take() {
            self.exchange.end = end;
        }
        // Before it is cut: a secret may stand across two pieces.
        self.tape.mask(&mut self.body);
        let mut from = 0;
        for (at_ms, end) in &self.ends {
            self.exchange.pieces.push(Piece(*at_ms, Content::of(&self.body[from..*end])));
            from = *end;
        }
        self.tape.mask_within(&mut self.exchange.request);
        self.exchange.headers.values_mut().for_each(|value| masked(value, &self.tape.secrets));
        if let End::Cut(how) | End::Unreachable(how) | End::Unanswered(how) = &mut self.exchange.end {
            masked(how, &self.tape.secrets);
        }
        let line = Line::Exchange(self.exchange.clone());
        if let Err(error) = self.tape.add(&line) {
            tracing::error!(path = %self.tape.path.display(), %error, "an exchange could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Dialect, Endpoint, Recording};

    const KEY: &str = "sk-secret-0123456789";

    fn tape(path: &Path) -> Arc<Tape> {
        let head = Head::new(Dialect::Anthropic, "up", None);
        Arc::new(Tape::open(path, &head, Some(&Secret::new(KEY))).expect("the file opens"))
    }

    fn record(tape: &Arc<Tape>, said: &str, pieces: &[&[u8]]) {
        let body = serde_json::json!({"said": said}).to_string();
        let asked = Asked { endpoint: Endpoint::Messages, betas: None, body: body.as_bytes() };
        let mut taping = Taping::begin(tape, &asked, "req_1", 0).expect("JSON");
        taping.answered(200, &HeaderMap::new());
        pieces.iter().for_each(|piece| taping.piece(piece));
        taping.end(End::Complete);
    }

    #[test]
    fn a_key_is_not_written_however_it_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er.jsonl");
        let tape = tape(&path);
        let body = format!("é your key {KEY} is bad");
        for size in 1..body.len() {
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            record(&tape, &format!("my key is {KEY}, or {KEY}{KEY}"), &pieces);
        }
        let written = std::fs::read(&path).expect("the file");
        let text = String::from_utf8(written).expect("JSON is UTF-8");
        // In one piece and, with the marks of the pieces taken out, in several.
        let joined: String = text.chars().filter(|c| c.is_ascii_alphabetic() || *c == '-').collect();
        assert!(!text.contains(KEY) && !joined.contains("sk-secret"), "{text}");
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, MODE);
        assert_eq!(Recording::open(&path).expect("a recording").count(), body.len() - 1);
    }

    #[test]
    fn a_torn_line_is_passed_over_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        record(&tape(&path), "one", &[b"1"]);
        let whole = std::fs::read(&path).expect("the file");
        for torn in 0..whole.len() {
            std::fs::write(&path, &whole[..torn]).expect("the file");
            let tape = tape(&path);
            record(&tape, "two", &[b"2"]);
            let recording = Recording::open(&path).expect("a recording");
            // Without its line end, a line is still one.
            let kept = usize::from(torn + 1 >= whole.len());
            assert_eq!(recording.count(), kept + 1, "torn at {torn}");
        }
    }

    #[test]
    fn an_open_file_of_others_becomes_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "").expect("the file");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("the mode");
        let _tape = tape(&path);
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, MODE);
        let head = Head::new(Dialect::Openai, "up", None);
        let other = Tape::open(&path, &head, None).map(|_| ());
        assert_eq!(other, Err(RecordingError::OtherDialect { path: path.clone() }));
        let folder = folder.path().to_owned();
        assert!(matches!(Tape::open(&folder, &head, None), Err(RecordingError::File { .. })));
    }

    #[test]
    fn many_at_once_write_whole_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        // Two servers, four requests each at a time.
        let tapes = [tape(&path), tape(&path)];
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let tape = &tapes[writer % 2];
                scope.spawn(move || {
                    for number in 0..20 {
                        let large = vec![b'x'; 40_000 + writer * 1000];
                        record(tape, &format!("{writer} {number}"), &[&large, b"\xff"]);
                    }
                });
            }
        });
        let recording = Recording::open(&path).expect("a recording");
        assert_eq!((recording.count(), recording.passed_over()), (160, 0));
    }
}
