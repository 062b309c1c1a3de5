//! From a server tool's call to the content of its result block: guard, container, cell, files.

use belljar_guard::Verdict;
use belljar_ids::ServerToolUseId;
use belljar_sandbox::{EditCommand, EditFailure, EditOutcome, FileType as SeenType, Loss, Output, SandboxError};
use belljar_turn::{CodeCall, EditCall, Interpreter, ServerCall};
use belljar_wire::container::ContainerInfo;
use belljar_wire::result::{
    CreateResult, EditorError, ErrorCode, FileType, ResultContent, StrReplaceResult, ViewResult,
};

use crate::driver::code;
use crate::driver::place::{Place, PlaceError};
use crate::parked::StillCell;

/// How far a call has come.
pub enum CallEnd {
    /// It has its result, and the container as of now, if there is one.
    Ended(ResultContent, Option<ContainerInfo>),
    /// Its code has called tools of the client, and stands still.
    Called(Called),
}

impl CallEnd {
    /// A result, and its place as it is now.
    pub fn of(place: &mut Place, result: ResultContent) -> Self {
        let container = place.info();
        Self::Ended(result, container)
    }
}

/// Code that waits for the client.
pub struct Called {
    /// What it called, in its order.
    pub calls: Vec<CodeCall>,
    /// Where it waits, and how long.
    pub container: ContainerInfo,
    /// The code, and the hold on its container.
    pub cell: StillCell,
}

/// Runs one call. Whatever happens is a result; what is ours to fix is also logged.
pub async fn run(place: &mut Place, id: &ServerToolUseId, call: ServerCall) -> CallEnd {
    if let Some(form) = code_form(&call)
        && let Err(failure) = place.app.tenants.take_execution(place.workspace()).await
    {
        tracing::info!(%id, "a call was not run: {}", failure.into_error().message);
        return CallEnd::of(place, form.failed(ErrorCode::TooManyRequests));
    }
    match call {
        ServerCall::Bash { command, tools } => code::bash(place, &command, &tools).await,
        ServerCall::Edit(call) => {
            let result = edit(place, call).await;
            CallEnd::of(place, result)
        }
        ServerCall::Python { code, interpreter: Interpreter::Live, tools } => {
            code::live(place, id, &code, &tools).await
        }
        // No tools: this version has no runtime that calls them (wire.md §10.1).
        ServerCall::Python { code, interpreter: Interpreter::Fresh, tools: _ } => {
            let result = code::fresh(place, id, &code).await;
            CallEnd::of(place, result)
        }
    }
}

/// In whose form a call runs code: what counts as an execution. An edit runs none.
const fn code_form(call: &ServerCall) -> Option<code::Form> {
    match call {
        ServerCall::Bash { .. } => Some(code::Form::Bash),
        ServerCall::Python { .. } => Some(code::Form::Python),
        ServerCall::Edit(_) => None,
    }
}

/// The next call gets a new container when this one died under the cell.
pub fn forget_the_dead(place: &mut Place, output: &Output) {
    if output.losses.iter().any(|loss| matches!(loss, Loss::ContainerDied(_))) {
        place.forget();
    }
}

/// A stream as text: what is not UTF-8 is shown as the replacement character.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Appends whole lines, on a line of their own.
pub fn append_lines(text: &mut String, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&line);
        text.push('\n');
    }
}

async fn edit(place: &mut Place, call: EditCall) -> ResultContent {
    let command = match call {
        EditCall::View { path, view_range } => EditCommand::View { path, view_range },
        EditCall::Create { path, file_text } => EditCommand::Create { path, file_text },
        EditCall::StrReplace { path, old_str, new_str } => EditCommand::StrReplace { path, old_str, new_str },
    };
    if let Verdict::Halt { reason } = place.app.guard.look(written(&command)) {
        tracing::warn!(reason, "the guard halted an edit");
        return editor_error(ErrorCode::Unavailable, format!("halted by the operator's guard: {reason}"));
    }
    let lease = match place.lease().await {
        Ok(lease) => lease,
        Err(error) => return editor_error(place_code(&error), client_text(&error)),
    };
    match lease.edit(command).await {
        Ok(Ok(outcome)) => edit_result(outcome),
        Ok(Err(failure)) => edit_failure(failure),
        Err(error) => {
            let error_code = sandbox_code(place, &error);
            editor_error(error_code, "the container is not available".to_owned())
        }
    }
}

/// The texts of an edit that the guard looks at.
fn written(command: &EditCommand) -> [&str; 2] {
    match command {
        EditCommand::View { path, .. } => [path, ""],
        EditCommand::Create { path, file_text } => [path, file_text],
        EditCommand::StrReplace { path, new_str, .. } => [path, new_str],
    }
}

fn edit_result(outcome: EditOutcome) -> ResultContent {
    match outcome {
        EditOutcome::View { content, file_type, num_lines, start_line, total_lines } => {
            let file_type = match file_type {
                SeenType::Text => FileType::Text,
                SeenType::Image => FileType::Image,
                SeenType::Pdf => FileType::Pdf,
            };
            ResultContent::TextEditorCodeExecutionViewResult(ViewResult {
                file_type,
                content,
                num_lines,
                start_line,
                total_lines,
            })
        }
        EditOutcome::Create { is_file_update } => {
            ResultContent::TextEditorCodeExecutionCreateResult(CreateResult { is_file_update })
        }
        EditOutcome::StrReplace { old_start, old_lines, new_start, new_lines, lines } => {
            ResultContent::TextEditorCodeExecutionStrReplaceResult(StrReplaceResult {
                old_start: Some(old_start),
                old_lines: Some(old_lines),
                new_start: Some(new_start),
                new_lines: Some(new_lines),
                lines: Some(lines),
            })
        }
    }
}

fn edit_failure(failure: EditFailure) -> ResultContent {
    match failure {
        EditFailure::FileNotFound { message } => editor_error(ErrorCode::FileNotFound, message),
        EditFailure::InvalidInput { message } => editor_error(ErrorCode::InvalidToolInput, message),
        EditFailure::Unavailable { message } => editor_error(ErrorCode::Unavailable, message),
    }
}

fn editor_error(error_code: ErrorCode, message: String) -> ResultContent {
    ResultContent::TextEditorCodeExecutionToolResultError(EditorError { error_code, error_message: Some(message) })
}

pub fn place_code(error: &PlaceError) -> ErrorCode {
    tracing::error!(%error, "no container for a call");
    match error {
        PlaceError::Full | PlaceError::Quota => ErrorCode::TooManyRequests,
        PlaceError::Upload(_) | PlaceError::Isolation | PlaceError::Store(_) | PlaceError::Broken(_) => {
            ErrorCode::Unavailable
        }
    }
}

/// The part of a failure that the model may read.
fn client_text(error: &PlaceError) -> String {
    match error {
        PlaceError::Full | PlaceError::Quota | PlaceError::Isolation | PlaceError::Upload(_) => error.to_string(),
        PlaceError::Store(_) | PlaceError::Broken(_) => "the container is not available".to_owned(),
    }
}

/// The code for a call that did not run, and what becomes of the container.
pub fn sandbox_code(place: &mut Place, error: &SandboxError) -> ErrorCode {
    match error {
        SandboxError::CommandHasNul
        | SandboxError::CommandTooLong { .. }
        | SandboxError::FileName { .. }
        | SandboxError::LimitRefused { .. } => ErrorCode::InvalidToolInput,
        SandboxError::Full { .. } => ErrorCode::TooManyRequests,
        SandboxError::NotStarted(_) => {
            tracing::warn!(%error, "a command could not be started");
            ErrorCode::Unavailable
        }
        SandboxError::Dead(_)
        | SandboxError::Exists(_)
        | SandboxError::Launch(_)
        | SandboxError::Gvisor(_)
        | SandboxError::Host(_)
        | SandboxError::Io { .. }
        | SandboxError::Closed => {
            tracing::error!(%error, "a call failed");
            place.forget();
            ErrorCode::Unavailable
        }
    }
}
