//! What an archive says of itself: one JSON object a line, the first about the container, each of the others about an entry.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::transfer::archive::{ArchiveError, Member};

/// The only format so far.
pub const FORMAT: &str = "belljar.container/1";
/// The longest line: a path and a target, each byte escaped.
const LINE_BYTES_MAX: u64 = 128 * 1024;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// The container that was exported.
    pub container_id: String,
    /// Digest of the image that the files lie over.
    pub image: String,
    /// What stood between its code and the host.
    pub isolation: String,
    /// When the container was made.
    pub created_at: String,
    /// When it was exported.
    pub exported_at: String,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file, or a mark of removal as OCI layers have it.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier file.
    Hardlink,
    /// A named pipe.
    Fifo,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    path: Name,
    kind: Kind,
    mode: u32,
    size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Name>,
    /// `sha256:…` of a file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// A name: text where it is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes { base64: String },
}

impl Name {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { base64: STANDARD.encode(bytes) },
        }
    }

    fn shown(&self) -> &str {
        match self {
            Self::Text(text) | Self::Bytes { base64: text } => text,
        }
    }
}

impl Line {
    /// The line of an entry that stands under `path`.
    pub fn of(member: &Member, path: &[u8], digest: Option<[u8; 32]>) -> Self {
        let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self {
            path: Name::of(path),
            kind: member.kind,
            mode: member.mode,
            size_bytes: member.size,
            target: member.target.as_deref().map(Name::of),
            digest: digest.map(|digest| format!("sha256:{}", hex(digest))),
        }
    }

    /// What the other line says otherwise, by its field.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let fields = [
            ("path", self.path == other.path),
            ("kind", self.kind == other.kind),
            ("size_bytes", self.size_bytes == other.size_bytes),
            ("digest", self.digest == other.digest),
            ("target", self.target == other.target),
            ("mode", self.mode == other.mode),
        ];
        fields.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
    }
}

/// Lines that grow while entries go by: on disk, in a file without a name.
pub struct Draft {
    file: BufWriter<File>,
    bytes: u64,
}

impl Draft {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile()?), bytes: 0 })
    }

    /// Adds a line.
    pub fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.bytes += text.len() as u64;
        self.file.write_all(&text)
    }

    /// How long it is, and all of it.
    pub fn finish(self) -> io::Result<(u64, File)> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok((self.bytes, file))
    }
}

/// Holds a manifest against what was found in the archive; answers its head.
///
/// # Errors
/// A refusal that names the line and its field.
pub fn compare(given: impl Read, found: File) -> Result<Head, ArchiveError> {
    let refuse = |text: String| ArchiveError::Refused(format!("{}: {text}", super::MANIFEST));
    let mut given = BufReader::new(given);
    let head: Head = read_line(&mut given, 1)?.ok_or_else(|| refuse("it is empty".to_owned()))?;
    if head.format != FORMAT {
        return Err(refuse(format!("line 1: format: expected \"{FORMAT}\"")));
    }
    let mut found = BufReader::new(found);
    for number in 2_u64.. {
        let (said, is): (Option<Line>, Option<Line>) = (read_line(&mut given, number)?, read_line(&mut found, number)?);
        match (said, is) {
            (None, None) => break,
            (Some(said), None) => {
                return Err(refuse(format!("line {number}: path: \"{}\" is not in the archive", said.path.shown())));
            }
            (None, Some(is)) => {
                return Err(refuse(format!("line {number}: missing: \"{}\" is in the archive", is.path.shown())));
            }
            (Some(said), Some(is)) => {
                if let Some(field) = said.difference(&is) {
                    let text = format!("line {number}: {field}: \"{}\" in the archive is another", is.path.shown());
                    return Err(refuse(text));
                }
            }
        }
    }
    Ok(head)
}

fn read_line<T: for<'a> Deserialize<'a>>(source: &mut impl BufRead, number: u64) -> Result<Option<T>, ArchiveError> {
    let mut text = Vec::new();
    source.take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    let line = serde_json::from_slice(&text);
    line.map(Some).map_err(|error| ArchiveError::Refused(format!("{}: line {number}: {error}", super::MANIFEST)))
}
