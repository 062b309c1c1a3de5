//! What a backup consists of: one line of JSON for itself, one for each of its files in the order of their paths, one at the end.
//!
//! A manifest that is read is not trusted: paths are those that a backup has, and no others; each once; and it has an end, with the digest
//! of all lines before. Only one line of it is ever in memory.

use crate::ContentDigest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::{BufRead, Read as _, Write};

use crate::data_dir::{DATABASE, OWNER, SECRET};

/// Its name in a backup.
pub(super) const MANIFEST: &str = "manifest.jsonl";
/// The number of this form. A later one is refused.
pub(super) const FORMAT: u32 = 1;
/// No line that we write is longer.
const LINE_BYTES_MAX: u64 = 8 * 1024;
const RECORDINGS: &str = "recordings/";

/// What stands in the first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) belljar_backup: u32,
    /// The program that made it.
    pub(crate) belljar: String,
    /// The schema of its database.
    pub(crate) schema: u32,
    /// The id of the store; early schemas have none.
    pub(crate) store: Option<String>,
    pub(crate) made_at: String,
}

/// What stands for a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    bytes: u64,
    sha256: String,
}

/// What stands in the last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    files: u64,
    bytes: u64,
    sha256: String,
}

/// What a file of a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Database,
    /// The id of the store that the contents belong to.
    Owner,
    Content(ContentDigest),
    /// By its path below `recordings/`.
    Recording(String),
    /// With what scopes are signed.
    Secret,
}

impl Kept {
    /// Where it lies, in a backup as in a data directory.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Database => DATABASE.to_owned(),
            Self::Owner => OWNER.to_owned(),
            Self::Content(digest) => {
                let hex = digest.to_string();
                format!("blobs/{}/{}", &hex[..2], &hex[2..])
            }
            Self::Recording(below) => format!("{RECORDINGS}{below}"),
            Self::Secret => SECRET.to_owned(),
        }
    }

    /// Reads what [`Kept::path`] writes, and nothing else.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        let kept = if let Some(below) = path.strip_prefix("blobs/") {
            let (shard, rest) = below.split_at_checked(2)?;
            Self::Content(ContentDigest::from_hex(&format!("{shard}{}", rest.strip_prefix('/')?))?)
        } else if let Some(below) = path.strip_prefix(RECORDINGS) {
            let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
            below.split('/').all(plain).then(|| Self::Recording(below.to_owned()))?
        } else {
            [Self::Database, Self::Owner, Self::Secret].into_iter().find(|kept| kept.path() == path)?
        };
        Some(kept)
    }
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kept: Kept,
    pub(crate) bytes: u64,
    pub(crate) sha256: ContentDigest,
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
#[error("line {line}, {what}")]
pub struct ManifestFlaw {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong there.
    pub what: String,
}

/// Writes a manifest.
pub(super) struct ManifestWriter<W> {
    out: W,
    hasher: Sha256,
    files: u64,
    bytes: u64,
}

impl<W: Write> ManifestWriter<W> {
    pub(super) fn begin(out: W, head: &Head) -> std::io::Result<Self> {
        let mut manifest = Self { out, hasher: Sha256::new(), files: 0, bytes: 0 };
        manifest.line(head)?;
        Ok(manifest)
    }

    fn line(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hasher.update(&text);
        self.out.write_all(&text)
    }

    /// Files come in the order of their paths.
    pub(super) fn add(&mut self, entry: &Entry) -> std::io::Result<()> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.line(&Line { path: entry.kept.path(), bytes: entry.bytes, sha256: entry.sha256.to_string() })
    }

    /// Writes the end; how many files and bytes there are.
    pub(super) fn end(mut self) -> std::io::Result<(W, u64, u64)> {
        let sha256 = ContentDigest(self.hasher.clone().finalize().into()).to_string();
        let (files, bytes) = (self.files, self.bytes);
        self.line(&End { files, bytes, sha256 })?;
        Ok((self.out, files, bytes))
    }
}

/// Reads a manifest, line by line.
pub(crate) struct ManifestReader<R> {
    input: R,
    hasher: Sha256,
    head: Head,
    line: u64,
    last: String,
    files: u64,
    bytes: u64,
    is_over: bool,
}

impl<R: BufRead> ManifestReader<R> {
    /// Reads the first line.
    pub(crate) fn begin(mut input: R) -> Result<Self, ManifestFlaw> {
        let text = line(&mut input, 1)?;
        let flaw = |what: String| ManifestFlaw { line: 1, what };
        // Before anything else of it: a later form may look otherwise.
        let form: serde_json::Value = serde_json::from_slice(&text).map_err(|error| flaw(told(&error)))?;
        match form.get("belljar_backup").and_then(serde_json::Value::as_u64) {
            Some(form) if form == u64::from(FORMAT) => {}
            Some(form) => return Err(flaw(format!("has the form {form}; this program reads {FORMAT}"))),
            None => return Err(flaw("is not the beginning of a manifest".to_owned())),
        }
        let head: Head = serde_json::from_slice(&text).map_err(|error| flaw(told(&error)))?;
        let mut hasher = Sha256::new();
        hasher.update(&text);
        Ok(Self { input, hasher, head, line: 1, last: String::new(), files: 0, bytes: 0, is_over: false })
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// How many files there have been.
    pub(crate) fn files(&self) -> u64 {
        self.files
    }

    /// The bytes of the files that there have been.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn flaw(&self, what: impl Into<String>) -> ManifestFlaw {
        ManifestFlaw { line: self.line, what: what.into() }
    }

    /// The next file; none at the end, after that has been held against everything before.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ManifestFlaw> {
        if self.is_over {
            return Ok(None);
        }
        self.line += 1;
        let text = line(&mut self.input, self.line)?;
        let found: serde_json::Value = serde_json::from_slice(&text).map_err(|error| self.flaw(told(&error)))?;
        if found.get("path").is_none() {
            self.end(&text)?;
            return Ok(None);
        }
        let found: Line = serde_json::from_slice(&text).map_err(|error| self.flaw(told(&error)))?;
        self.hasher.update(&text);
        let entry = self.entry(&found)?;
        if found.path <= self.last {
            return Err(self.flaw(format!("{:?} is not in the order of paths, or there twice", found.path)));
        }
        if self.files == 0 && entry.kept != Kept::Database {
            return Err(self.flaw(format!("the first file is not {DATABASE}")));
        }
        self.last = found.path;
        self.files += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes);
        Ok(Some(entry))
    }

    fn entry(&self, found: &Line) -> Result<Entry, ManifestFlaw> {
        let kept = Kept::from_path(&found.path);
        let kept = kept.ok_or_else(|| self.flaw(format!("{:?} is not a file that a backup has", found.path)))?;
        let sha256 = ContentDigest::from_hex(&found.sha256);
        let sha256 = sha256.ok_or_else(|| self.flaw(format!("{:?} is not a SHA-256", found.sha256)))?;
        if matches!(&kept, Kept::Content(digest) if *digest != sha256) {
            return Err(self.flaw(format!("{:?} is not named by its digest", found.path)));
        }
        Ok(Entry { kept, bytes: found.bytes, sha256 })
    }

    fn end(&mut self, text: &[u8]) -> Result<(), ManifestFlaw> {
        let end: End = serde_json::from_slice(text).map_err(|error| self.flaw(told(&error)))?;
        if self.files == 0 {
            return Err(self.flaw(format!("there is no {DATABASE}")));
        }
        if (end.files, end.bytes) != (self.files, self.bytes) {
            return Err(self.flaw("files or bytes are not as many as the lines before have"));
        }
        let digest = ContentDigest(self.hasher.clone().finalize().into());
        if ContentDigest::from_hex(&end.sha256) != Some(digest) {
            return Err(self.flaw("the digest is not that of the lines before"));
        }
        let mut more = [0_u8; 1];
        match self.input.read(&mut more) {
            Ok(0) => {}
            Ok(_) => return Err(self.flaw("there is something behind the end")),
            Err(error) => return Err(self.flaw(error.to_string())),
        }
        self.is_over = true;
        Ok(())
    }
}

/// Reads a whole manifest; the paths in it.
#[cfg(fuzzing)]
pub fn read_manifest(bytes: &[u8]) -> Result<Vec<String>, ManifestFlaw> {
    let (mut reader, mut paths) = (ManifestReader::begin(bytes)?, Vec::new());
    while let Some(entry) = reader.next_entry()? {
        paths.push(entry.kept.path());
    }
    Ok(paths)
}

/// The next line, with its end.
fn line(input: &mut impl BufRead, number: u64) -> Result<Vec<u8>, ManifestFlaw> {
    let flaw = |what: String| ManifestFlaw { line: number, what };
    let mut text = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(|error| flaw(error.to_string()))?;
    match text.last() {
        Some(b'\n') => Ok(text),
        None => Err(flaw("it ends before its end".to_owned())),
        Some(_) if text.len() as u64 == LINE_BYTES_MAX => Err(flaw("is longer than any line of a manifest".to_owned())),
        Some(_) => Err(flaw("it ends in the midst of a line".to_owned())),
    }
}

/// Without the place, which is one within a line.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_a_backup() {
        let digest = ContentDigest::of(b"a");
        for kept in
            [Kept::Database, Kept::Owner, Kept::Secret, Kept::Content(digest), Kept::Recording("a/b.jsonl".to_owned())]
        {
            assert_eq!(Kept::from_path(&kept.path()), Some(kept));
        }
        let hex = digest.to_string();
        for bad in [
            "",
            "lock",
            "/belljar.sqlite",
            "../belljar.sqlite",
            "belljar.sqlite/",
            "belljar.sqlite-wal",
            "manifest.jsonl",
            "recordings/",
            "recordings/../../x",
            "recordings/a//b",
            "recordings/./a",
            "recordings/a\n",
            "blobs/tmp/0",
            &format!("blobs/{hex}"),
            &format!("blobs/{}/{}x", &hex[..2], &hex[2..]),
            &format!("blobs/{}/{}", &hex[..2], hex[2..].to_uppercase()),
            &format!("blobs/../blobs/{}/{}", &hex[..2], &hex[2..]),
        ] {
            assert_eq!(Kept::from_path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_was_written_is_read_and_no_part_of_it() {
        let head = Head {
            belljar_backup: FORMAT,
            belljar: "0.1.0".to_owned(),
            schema: 3,
            store: None,
            made_at: "2026-11-29T12:00:00.000000Z".to_owned(),
        };
        let entries = [Kept::Database, Kept::Content(ContentDigest::of(b"a")), Kept::Secret].map(|kept| Entry {
            kept,
            bytes: 1,
            sha256: ContentDigest::of(b"a"),
        });
        let mut manifest = ManifestWriter::begin(Vec::new(), &head).unwrap();
        entries.iter().for_each(|entry| manifest.add(entry).unwrap());
        let (text, files, bytes) = manifest.end().unwrap();
        assert_eq!((files, bytes), (3, 3));
        let mut reader = ManifestReader::begin(&text[..]).unwrap();
        assert_eq!(*reader.head(), head);
        for entry in &entries {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert!(reader.next_entry().unwrap().is_none() && reader.next_entry().unwrap().is_none());
        for cut in 0..text.len() {
            let whole = ManifestReader::begin(&text[..cut]).and_then(|mut reader| {
                while reader.next_entry()?.is_some() {}
                Ok(())
            });
            assert!(whole.is_err(), "the first {cut} bytes");
        }
    }
}
