//! The text editor: what it is asked, what it answers, and the order of reading and writing.

mod path;
mod replace;
mod view;

use tokio::io::AsyncReadExt;

use crate::error::{PutError, ReadError, SandboxError};
use crate::files;
use crate::lease::Lease;

/// A command of the text editor (wire.md §5). Paths are the container's: absolute, relative to `/work`, with `~`,
/// `$HOME` or `$INPUT_DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditCommand {
    /// Show a file.
    View {
        /// The file.
        path: String,
        /// First and last line, counted from 1; -1 as the last means the end of the file.
        view_range: Option<(i64, i64)>,
    },
    /// Write a file, parents included, over whatever file was there.
    Create {
        /// The file.
        path: String,
        /// Its whole content.
        file_text: String,
    },
    /// Replace the one place where `old_str` stands.
    StrReplace {
        /// The file.
        path: String,
        /// What stands there.
        old_str: String,
        /// What shall stand there.
        new_str: String,
    },
}

/// What an edit did (wire.md §6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditOutcome {
    /// A file's content.
    View {
        /// Text without line numbers and without the last line end; base64 of the whole file for images and PDFs.
        content: String,
        /// What it is.
        file_type: FileType,
        /// Lines in `content`; none unless text.
        num_lines: Option<u64>,
        /// Number of the first of them, from 1; none unless text.
        start_line: Option<u64>,
        /// Lines of the whole file; none unless text.
        total_lines: Option<u64>,
    },
    /// A file was written.
    Create {
        /// There was one before.
        is_file_update: bool,
    },
    /// A place was replaced; a unified diff's hunk with three lines of context.
    StrReplace {
        /// First line of the hunk in the old file, from 1.
        old_start: u64,
        /// Lines of the hunk in the old file.
        old_lines: u64,
        /// First line of the hunk in the new file, from 1; 0 when the new file has no lines.
        new_start: u64,
        /// Lines of the hunk in the new file.
        new_lines: u64,
        /// Each with a space, `-` or `+` before it, without a line end.
        lines: Vec<String>,
    },
}

/// What a viewed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// UTF-8 text.
    Text,
    /// PNG, JPEG, GIF or WebP, told by its first bytes.
    Image,
    /// PDF, told by its first bytes.
    Pdf,
}

/// Why an edit was not done; the container is fine. The message is for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditFailure {
    /// `file_not_found` on the wire (§6.4).
    FileNotFound {
        /// One sentence.
        message: String,
    },
    /// `invalid_tool_input` on the wire.
    InvalidInput {
        /// One sentence.
        message: String,
    },
    /// `unavailable` on the wire: the container's filesystem refused, for example because its disk is full.
    Unavailable {
        /// One sentence.
        message: String,
    },
}

impl EditFailure {
    fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidInput { message: message.into() }
    }
}

/// The largest file that is viewed or edited, in bytes.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Why an edit did not happen: the asker's fault, or ours.
enum Trouble {
    Failure(EditFailure),
    Broken(SandboxError),
}

impl From<EditFailure> for Trouble {
    fn from(failure: EditFailure) -> Self {
        Self::Failure(failure)
    }
}

/// Reads, thinks, writes. The thinking is in the modules beside this one, which do no IO.
pub(crate) async fn run(
    lease: &mut Lease,
    command: EditCommand,
) -> Result<Result<EditOutcome, EditFailure>, SandboxError> {
    let outcome = match command {
        EditCommand::View { path, view_range } => view_file(lease, &path, view_range).await,
        EditCommand::Create { path, file_text } => create(lease, &path, &file_text).await,
        EditCommand::StrReplace { path, old_str, new_str } => str_replace(lease, &path, &old_str, &new_str).await,
    };
    match outcome {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(Trouble::Failure(failure)) => Ok(Err(failure)),
        Err(Trouble::Broken(error)) => Err(error),
    }
}

async fn view_file(lease: &mut Lease, path: &str, view_range: Option<(i64, i64)>) -> Result<EditOutcome, Trouble> {
    let content = read(lease, path).await?;
    Ok(view::view(path, &content, view_range, lease.host.config.output_bytes_max)?)
}

async fn create(lease: &mut Lease, path: &str, file_text: &str) -> Result<EditOutcome, Trouble> {
    let is_file_update = write(lease, path, file_text).await?;
    Ok(EditOutcome::Create { is_file_update })
}

async fn str_replace(lease: &mut Lease, path: &str, old_str: &str, new_str: &str) -> Result<EditOutcome, Trouble> {
    let content = read(lease, path).await?;
    let text = std::str::from_utf8(&content)
        .map_err(|_| EditFailure::invalid(format!("{path} is not UTF-8 text and cannot be edited")))?;
    let (changed, hunk) = replace::replace(path, text, old_str, new_str)?;
    write(lease, path, &changed).await?;
    Ok(hunk)
}

async fn read(lease: &mut Lease, path: &str) -> Result<Vec<u8>, Trouble> {
    let absolute = path::expand(path)?;
    let opened = lease.read_file(&absolute, FILE_BYTES_MAX).await;
    let mut file = opened.map_err(|error| match error {
        ReadError::NotFound => {
            Trouble::Failure(EditFailure::FileNotFound { message: format!("{path} does not exist") })
        }
        ReadError::IsDirectory => EditFailure::invalid(format!("{path} is a directory, not a file")).into(),
        ReadError::NotRegular => EditFailure::invalid(format!("{path} is not a regular file")).into(),
        ReadError::TooLarge { size, bytes_max } => EditFailure::invalid(format!(
            "{path} has {size} bytes; at most {bytes_max} can be viewed or edited, use a shell command instead"
        ))
        .into(),
        ReadError::Refused(why) => EditFailure::invalid(format!("{path} cannot be read: {why}")).into(),
        ReadError::Sandbox(error) => Trouble::Broken(error),
    })?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)
        .await
        .map_err(|source| Trouble::Broken(SandboxError::Io { what: "read a file of a container", source }))?;
    Ok(content)
}

/// Returns whether there was a file before.
async fn write(lease: &mut Lease, path: &str, text: &str) -> Result<bool, Trouble> {
    let absolute = path::expand(path)?;
    files::put(lease, &absolute, text.as_bytes(), text.len() as u64).await.map_err(|error| match error {
        PutError::DiskFull => EditFailure::Unavailable { message: "the container's disk is full".to_owned() }.into(),
        PutError::Refused(why) => EditFailure::invalid(format!("{path} cannot be written: {why}")).into(),
        PutError::Name(_) => EditFailure::invalid(format!("{path:?} is not a path")).into(),
        PutError::Sandbox(error) => Trouble::Broken(error),
        error @ (PutError::Source(_) | PutError::Size { .. }) => {
            Trouble::Broken(SandboxError::Io { what: "feed a text", source: std::io::Error::other(error.to_string()) })
        }
    })
}
