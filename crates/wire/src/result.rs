//! What a server tool's call came to: the `content` of its result block (wire.md §6).

use belljar_ids::FileId;
use serde::{Deserialize, Deserializer, Serialize};

/// The one object in a result block's `content`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResultContent {
    /// A bash command ended, whatever its exit status.
    BashCodeExecutionResult(BashResult),
    /// The bash sub-tool itself failed.
    BashCodeExecutionToolResultError(ExecutionError),
    /// A Python cell ended.
    CodeExecutionResult(CodeResult),
    /// The Python sub-tool itself failed.
    CodeExecutionToolResultError(ExecutionError),
    /// `view` of a file.
    TextEditorCodeExecutionViewResult(ViewResult),
    /// `create`.
    TextEditorCodeExecutionCreateResult(CreateResult),
    /// `str_replace`.
    TextEditorCodeExecutionStrReplaceResult(StrReplaceResult),
    /// The text editor sub-tool failed.
    TextEditorCodeExecutionToolResultError(EditorError),
}

/// wire.md §6.2. Every field is always present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BashResult {
    /// Standard output, final newline kept.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The shell's exit status; 128 + signal when a signal ended it.
    pub return_code: i32,
    /// Files captured from `$OUTPUT_DIR`.
    pub content: Vec<BashOutput>,
}

/// A captured file; metadata comes from the Files API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "bash_code_execution_output")]
pub struct BashOutput {
    /// The stored file.
    pub file_id: FileId,
}

/// wire.md §6.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeResult {
    /// Standard output.
    pub stdout: String,
    /// Standard error; a traceback on an exception.
    pub stderr: String,
    /// 0, or 1 after an exception.
    pub return_code: i32,
    /// Captured files.
    pub content: Vec<CodeOutput>,
    /// Null in every reply since 2026-02, whatever the version (wire.md §6.1, §23); absent from older ones that come back.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub abort_reason: Option<NoAbort>,
}

/// The only value of `abort_reason` that was ever seen: `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoAbort;

/// A `null` that stands there is not one that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NoAbort>, D::Error> {
    NoAbort::deserialize(deserializer).map(Some)
}

/// A file captured from a Python cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "code_execution_output")]
pub struct CodeOutput {
    /// The stored file.
    pub file_id: FileId,
}

/// wire.md §6.4, bash and Python columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionError {
    /// Why.
    pub error_code: ErrorCode,
}

/// wire.md §6.4, editor column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditorError {
    /// Why.
    pub error_code: ErrorCode,
    /// Text for the model, or null.
    pub error_message: Option<String>,
}

/// Closed list of tool error codes that this server sends (wire.md §6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The model's parameters are not valid.
    InvalidToolInput,
    /// The tool is down for now.
    Unavailable,
    /// The tool's rate limit was hit.
    TooManyRequests,
    /// The whole invocation ran too long.
    ExecutionTimeExceeded,
    /// An output file is larger than a file may be.
    OutputFileTooLarge,
    /// The file to view or edit is not there.
    FileNotFound,
}

/// `view` (wire.md §6.3): the raw text, without line numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewResult {
    /// What the file holds.
    pub file_type: FileType,
    /// The lines asked for.
    pub content: String,
    /// Lines in `content`, or null for what has none.
    pub num_lines: Option<u64>,
    /// First line, counted from 1.
    pub start_line: Option<u64>,
    /// Lines in the file.
    pub total_lines: Option<u64>,
}

/// What a viewed file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// Text.
    Text,
    /// An image.
    Image,
    /// A PDF document.
    Pdf,
}

/// `create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateResult {
    /// True when the file was there and was overwritten.
    pub is_file_update: bool,
}

/// `str_replace`: a unified-diff hunk with three lines of context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrReplaceResult {
    /// First line of the hunk before, counted from 1.
    pub old_start: Option<u64>,
    /// Lines of the hunk before, context included.
    pub old_lines: Option<u64>,
    /// First line of the hunk after.
    pub new_start: Option<u64>,
    /// Lines of the hunk after.
    pub new_lines: Option<u64>,
    /// The hunk's body, each line prefixed by space, `-` or `+`.
    pub lines: Option<Vec<String>>,
}
