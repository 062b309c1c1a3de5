//! From a server tool's call to the content of its result block: guard, container, cell, files.

use belljar_guard::Verdict;
use belljar_ids::ServerToolUseId;
use belljar_sandbox::{
    CellOptions, CellOutcome, EditCommand, EditFailure, EditOutcome, FileType as SeenType, KillReason, Loss, Output,
    SandboxError, SkipReason,
};
use belljar_turn::{CodeCall, EditCall, Interpreter, ServerCall};
use belljar_wire::container::ContainerInfo;
use belljar_wire::result::{
    BashOutput, BashResult, CreateResult, EditorError, ErrorCode, ExecutionError, FileType, ResultContent,
    StrReplaceResult, ViewResult,
};
use belljar_wire::tool::SubTool;

use crate::app::Shared;
use crate::driver::place::{Place, PlaceError};
use crate::driver::python;
use crate::parked::StillCell;

/// Exit status of a command that the guard halted: "found, but not executed" in the shell's own terms.
pub const HALTED_RETURN_CODE: i32 = 126;
/// Return code of a call that is answered without having run to its end here.
pub const LOST_RETURN_CODE: i32 = 1;

/// How far a call has come.
pub enum CallEnd {
    /// It has its result.
    Ended(ResultContent),
    /// Its code has called tools of the client, and stands still.
    Called(Called),
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
    match call {
        ServerCall::Bash { command, tools: _ } => CallEnd::Ended(bash(place, &command).await),
        ServerCall::Edit(call) => CallEnd::Ended(edit(place, call).await),
        ServerCall::Python { code, interpreter: Interpreter::Live, tools } => {
            python::live(place, id, &code, &tools).await
        }
        ServerCall::Python { code, interpreter: Interpreter::Fresh, tools: _ } => {
            CallEnd::Ended(python::fresh(place, id, &code).await)
        }
    }
}

/// The result of code that is not there any more to go on.
pub fn lost(sub_tool: SubTool, how: &str) -> ResultContent {
    match sub_tool {
        SubTool::CodeExecution => python::said(how),
        SubTool::BashCodeExecution => ResultContent::BashCodeExecutionResult(BashResult {
            stdout: String::new(),
            stderr: format!("belljar: {how}\n"),
            return_code: LOST_RETURN_CODE,
            content: Vec::new(),
        }),
        // No edit calls anything.
        SubTool::TextEditorCodeExecution => editor_error(ErrorCode::Unavailable, how.to_owned()),
    }
}

async fn bash(place: &mut Place, command: &str) -> ResultContent {
    if let Verdict::Halt { reason } = place.app.guard.look([command]) {
        tracing::warn!(reason, "the guard halted a command");
        return halted(&reason);
    }
    let app = Shared::clone(&place.app);
    let lease = match place.lease().await {
        Ok(lease) => lease,
        Err(error) => {
            return ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code: place_code(&error) });
        }
    };
    let running = app.running.enter(lease.container().clone());
    let options = CellOptions { wall: app.serving.invocation_wall, cancel: running.interrupt(), live: None };
    match lease.bash(command, options).await {
        Ok(outcome) => bash_result(place, outcome).await,
        Err(error) => {
            let error_code = sandbox_code(place, &error);
            ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code })
        }
    }
}

fn halted(reason: &str) -> ResultContent {
    ResultContent::BashCodeExecutionResult(BashResult {
        stdout: String::new(),
        stderr: format!("belljar: halted by the operator's guard: {reason}\n"),
        return_code: HALTED_RETURN_CODE,
        content: Vec::new(),
    })
}

async fn bash_result(place: &mut Place, outcome: CellOutcome) -> ResultContent {
    let mut output = match outcome {
        CellOutcome::TimedOut(output) => {
            tracing::info!(wall_ms = output.wall.as_millis(), "a command ran out of time");
            return execution_error(ErrorCode::ExecutionTimeExceeded);
        }
        CellOutcome::Crashed(output)
        | CellOutcome::Killed(KillReason::Memory | KillReason::Requested, output)
        | CellOutcome::Ended(output) => output,
    };
    if output.skipped.iter().any(|skipped| matches!(skipped.why, SkipReason::TooLarge(_))) {
        return execution_error(ErrorCode::OutputFileTooLarge);
    }
    let (kept, lost) = place.keep_all(&mut output).await;
    forget_the_dead(place, &output);
    let content = kept.into_iter().map(|record| BashOutput { file_id: record.id }).collect();
    let mut stderr = text(&output.stderr);
    append_lines(&mut stderr, output.notices().into_iter().chain(lost));
    ResultContent::BashCodeExecutionResult(BashResult {
        stdout: text(&output.stdout),
        stderr,
        return_code: output.return_code,
        content,
    })
}

/// The next call gets a new container when this one died under the cell.
pub fn forget_the_dead(place: &mut Place, output: &Output) {
    if output.losses.iter().any(|loss| matches!(loss, Loss::ContainerDied(_))) {
        place.forget();
    }
}

fn execution_error(error_code: ErrorCode) -> ResultContent {
    ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code })
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
        PlaceError::Full => ErrorCode::TooManyRequests,
        PlaceError::Upload(_) | PlaceError::Isolation | PlaceError::Broken(_) => ErrorCode::Unavailable,
    }
}

/// The part of a failure that the model may read.
fn client_text(error: &PlaceError) -> String {
    match error {
        PlaceError::Full | PlaceError::Isolation | PlaceError::Upload(_) => error.to_string(),
        PlaceError::Broken(_) => "the container is not available".to_owned(),
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
