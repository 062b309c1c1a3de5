//! What a file may be called (wire.md §9.2).

/// The most characters a file's name has (wire.md §9.2). Characters, not bytes: most Linux filesystems
/// hold only 255 bytes in a name.
pub const FILENAME_CHARS_MAX: usize = 255;

/// The most bytes a name has on Linux.
const NAME_BYTES_MAX: usize = 255;
/// Of a longer one, with its dot, nobody would know what kind of file it is.
const EXTENSION_BYTES_MAX: usize = 32;

/// Characters no name may hold, beside U+0000 to U+001F (wire.md §9.2).
const FORBIDDEN: &[char] = &['<', '>', ':', '"', '|', '?', '*', '\\', '/'];

/// A file's name: 1 to 255 characters, none of `< > : " | ? * \ /` or U+0000 to U+001F, and neither `.` nor
/// `..`, so that it names something inside whatever directory it is put in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filename(String);

/// A text that cannot be a file's name. Every message can be shown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilenameError {
    /// Nothing there. Only when a stored or typed name is parsed; an upload without a name gets one.
    #[error("a filename must not be empty")]
    Empty,
    /// More than [`FILENAME_CHARS_MAX`].
    #[error("a filename must have at most {FILENAME_CHARS_MAX} characters, this one has {chars}")]
    TooLong {
        /// How many it has.
        chars: usize,
    },
    /// One of `< > : " | ? * \ /` or U+0000 to U+001F.
    #[error("a filename must not contain {character:?} (at character {char_index})")]
    Forbidden {
        /// The first of them.
        character: char,
        /// Its place, counted in characters from 0.
        char_index: usize,
    },
    /// `.` or `..`, which name directories.
    #[error("a filename must not be \".\" or \"..\"")]
    Dots,
}

impl Filename {
    /// The name of an upload whose part said `given` (wire.md §9.2): the last component of a `/` separated
    /// path; `unnamed` and the usual extension of `mime_type` when there is nothing left.
    ///
    /// A backslash does not separate components here, it is one of the characters that are refused.
    pub fn of_upload(given: Option<&str>, mime_type: &str) -> Result<Self, FilenameError> {
        let last = given.and_then(|path| path.rsplit('/').next()).unwrap_or("");
        if last.is_empty() {
            return Ok(Self(format!("unnamed{}", extension_of(mime_type))));
        }
        last.parse()
    }

    /// The nearest permitted name to that of a file made inside a container, which may be any bytes: what is
    /// not UTF-8 becomes U+FFFD, what is forbidden becomes `_`, and it ends after 255 characters.
    pub fn of_generated(name: &[u8]) -> Self {
        let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
        let text: String = String::from_utf8_lossy(last)
            .chars()
            .map(|character| if is_forbidden(character) { '_' } else { character })
            .take(FILENAME_CHARS_MAX)
            .collect();
        match text.as_str() {
            "" => Self("unnamed".to_owned()),
            "." | ".." => Self(text.replace('.', "_")),
            _ => Self(text),
        }
    }

    /// The name as a directory can hold it: of more than 255 bytes the end of its stem goes, and its extension stays. Two long
    /// names may become one.
    pub fn in_container(&self) -> String {
        let (stem, extension) = match self.0.rfind('.') {
            Some(dot) if dot > 0 && self.0.len() - dot <= EXTENSION_BYTES_MAX => self.0.split_at(dot),
            Some(_) | None => (self.0.as_str(), ""),
        };
        let mut end = stem.len().min(NAME_BYTES_MAX - extension.len());
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{extension}", &stem[..end])
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_forbidden(character: char) -> bool {
    character <= '\u{1f}' || FORBIDDEN.contains(&character)
}

fn check(text: &str) -> Result<(), FilenameError> {
    let chars = text.chars().count();
    if chars == 0 {
        return Err(FilenameError::Empty);
    }
    if chars > FILENAME_CHARS_MAX {
        return Err(FilenameError::TooLong { chars });
    }
    if let Some((char_index, character)) = text.chars().enumerate().find(|(_, character)| is_forbidden(*character)) {
        return Err(FilenameError::Forbidden { character, char_index });
    }
    if matches!(text, "." | "..") {
        return Err(FilenameError::Dots);
    }
    Ok(())
}

impl std::str::FromStr for Filename {
    type Err = FilenameError;
    fn from_str(text: &str) -> Result<Self, FilenameError> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Filename {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The usual extension of a media type, with its dot. Parameters after `;` and case do not matter; a type
/// that is not in the table gets `.bin`, as for `application/octet-stream`.
fn extension_of(mime_type: &str) -> &'static str {
    let essence = mime_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    EXTENSIONS.iter().find(|(name, _)| *name == essence).map_or(".bin", |(_, extension)| *extension)
}

/// Media types as the IANA registry writes them.
const EXTENSIONS: &[(&str, &str)] = &[
    ("application/gzip", ".gz"),
    ("application/json", ".json"),
    ("application/msword", ".doc"),
    ("application/pdf", ".pdf"),
    ("application/rtf", ".rtf"),
    ("application/vnd.apache.parquet", ".parquet"),
    ("application/vnd.ms-excel", ".xls"),
    ("application/vnd.ms-powerpoint", ".ppt"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", ".pptx"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".docx"),
    ("application/x-tar", ".tar"),
    ("application/xml", ".xml"),
    ("application/yaml", ".yaml"),
    ("application/zip", ".zip"),
    ("audio/mpeg", ".mp3"),
    ("audio/wav", ".wav"),
    ("image/gif", ".gif"),
    ("image/jpeg", ".jpg"),
    ("image/png", ".png"),
    ("image/svg+xml", ".svg"),
    ("image/tiff", ".tiff"),
    ("image/webp", ".webp"),
    ("text/css", ".css"),
    ("text/csv", ".csv"),
    ("text/html", ".html"),
    ("text/javascript", ".js"),
    ("text/markdown", ".md"),
    ("text/plain", ".txt"),
    ("text/tab-separated-values", ".tsv"),
    ("text/xml", ".xml"),
    ("video/mp4", ".mp4"),
];
