//! The text editor: what it is asked, what it answers, and the order of reading and writing.

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

pub(crate) async fn run(
    _lease: &mut crate::lease::Lease,
    _command: EditCommand,
) -> Result<Result<EditOutcome, EditFailure>, crate::error::SandboxError> {
    unimplemented!()
}
