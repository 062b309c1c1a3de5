//! Code that runs in a container: commands of bash and cells in Python, which may call the client's tools and wait for them.

use belljar_guard::Verdict;
use belljar_ids::ServerToolUseId;
use belljar_sandbox::{
    CellOptions, CellOutcome, CodeTool as CallableTool, CodeTools, Lease, NoOutcome, Progress, PutError, ResumeError,
    SkipReason, ToolAnswer, ToolsError,
};
use belljar_turn::{CallAnswer, CallResult, CodeCall, CodeTool};
use belljar_wire::result::{BashOutput, BashResult, CodeOutput, CodeResult, ErrorCode, ExecutionError, ResultContent};
use belljar_wire::tool::SubTool;

use crate::app::Shared;
use crate::driver::calls::{CallEnd, Called, append_lines, forget_the_dead, place_code, sandbox_code, text};
use crate::driver::place::Place;
use crate::parked::{Kept, StillCell, Waiting, answers};
use crate::running::RunningCell;

/// Exit status of code that the guard halted: "found, but not executed" in the shell's own terms.
const HALTED_RETURN_CODE: i32 = 126;
/// Return code of code that is answered without having run to its end here.
const LOST_RETURN_CODE: i32 = 1;
/// Pictures that one cell of an interpreter of its own hands back although it did not put them into `$OUTPUT_DIR`.
const FIGURES_MAX: u32 = 20;
/// How deep below `/work` and `/tmp` pictures are looked for.
const FIGURE_DEPTH_MAX: u32 = 4;
/// How long they are looked for, in seconds.
const FIGURE_SEARCH_S_MAX: u32 = 5;

/// In whose form a result is told (wire.md §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Form {
    /// `bash_code_execution`.
    Bash,
    /// `code_execution`.
    Python,
}

/// The name of a cell's file, in tracebacks (wire.md §6.1).
fn cell_file(id: &ServerToolUseId) -> String {
    format!("/tmp/{id}/cell.py")
}

/// Runs a command, until it ends or waits for the client.
pub async fn bash(place: &mut Place, command: &str, tools: &[CodeTool]) -> CallEnd {
    let form = Form::Bash;
    if let Some(halted) = form.halted(place, command) {
        return CallEnd::of(place, halted);
    }
    let tools = match callable(tools) {
        Ok(tools) => tools,
        Err(error) => return CallEnd::of(place, form.cannot_call(&error)),
    };
    let lease = match place.claim().await {
        Ok(lease) => lease,
        Err(error) => return CallEnd::of(place, form.failed(place_code(&error))),
    };
    let running = place.app.running.enter(lease.container().clone());
    let options =
        CellOptions { wall: place.app.serving.invocation_wall, cancel: running.interrupt(), live: place.listener() };
    let progress = match tools.all() {
        [] => alone(lease, command, options).await,
        [..] => lease.bash_with(command, options, &tools).await,
    };
    went_on(place, form, running, progress).await
}

/// A command that has nothing to call.
async fn alone(mut lease: Lease, command: &str, options: CellOptions) -> Result<Progress, NoOutcome> {
    match lease.bash(command, options).await {
        Ok(outcome) => Ok(Progress::Ended(lease, outcome)),
        Err(error) => Err(NoOutcome { lease, error }),
    }
}

/// Runs a cell in the container's REPL, until it ends or waits for the client. Time up is an ordinary result here (wire.md §4.3).
pub async fn live(place: &mut Place, id: &ServerToolUseId, source: &str, tools: &[CodeTool]) -> CallEnd {
    let form = Form::Python;
    if let Some(halted) = form.halted(place, source) {
        return CallEnd::of(place, halted);
    }
    let tools = match callable(tools) {
        Ok(tools) => tools,
        Err(error) => return CallEnd::of(place, form.cannot_call(&error)),
    };
    let lease = match place.claim().await {
        Ok(lease) => lease,
        Err(error) => return CallEnd::of(place, form.failed(place_code(&error))),
    };
    let running = place.app.running.enter(lease.container().clone());
    let options =
        CellOptions { wall: place.app.serving.cell_wall, cancel: running.interrupt(), live: place.listener() };
    let progress = lease.python_with(source, &cell_file(id), options, &tools).await;
    went_on(place, form, running, progress).await
}

/// Goes on with what a continuation has found.
pub async fn resume(
    place: &mut Place,
    waiting: Waiting<StillCell>,
    results: Vec<CallResult>,
    tools: &[CodeTool],
) -> CallEnd {
    let StillCell { running, form, cell } = match waiting.kept {
        Kept::Outcome(result) => return CallEnd::of(place, result),
        Kept::Cell(cell) => cell,
    };
    let tools = match callable(tools) {
        Ok(tools) => tools,
        // Dropped, the cell ends: it cannot be told what it may call from here on.
        Err(error) => return CallEnd::of(place, form.cannot_call(&error)),
    };
    let progress = cell.resume(answers(&waiting.pending, &results), &tools).await;
    came_of(place, form, running, progress).await
}

/// Goes on with code that called tools of ours, with what they said.
pub async fn answer(place: &mut Place, still: StillCell, answers: Vec<CallAnswer>, tools: &[CodeTool]) -> CallEnd {
    let StillCell { running, form, cell } = still;
    let tools = match callable(tools) {
        Ok(tools) => tools,
        Err(error) => return CallEnd::of(place, form.cannot_call(&error)),
    };
    let answers =
        answers.into_iter().map(|CallAnswer { number, text, is_error }| ToolAnswer { number, text, is_error });
    let progress = cell.answer(answers.collect(), &tools).await;
    came_of(place, form, running, progress).await
}

/// What came of giving a cell its answers.
async fn came_of(
    place: &mut Place,
    form: Form,
    running: RunningCell,
    progress: Result<Progress, ResumeError>,
) -> CallEnd {
    match progress {
        Ok(progress) => went_on(place, form, running, Ok(progress)).await,
        Err(ResumeError::NoOutcome(none)) => went_on(place, form, running, Err(*none)).await,
        Err(ResumeError::Refused { why, .. }) => {
            tracing::error!(%why, "a cell refused the answers to its own calls");
            CallEnd::of(place, form.failed(ErrorCode::Unavailable))
        }
    }
}

async fn went_on(
    place: &mut Place,
    form: Form,
    running: RunningCell,
    progress: Result<Progress, NoOutcome>,
) -> CallEnd {
    match progress {
        Ok(Progress::Called(cell)) => {
            let container = place.pause_info(cell.container());
            let calls = cell.calls().iter().map(|call| CodeCall {
                number: call.number,
                tool: call.tool.clone(),
                input: call.input.clone(),
            });
            CallEnd::Called(Called { calls: calls.collect(), container, cell: StillCell { running, form, cell } })
        }
        Ok(Progress::Ended(lease, outcome)) => {
            drop(running);
            place.give_back(lease);
            let result = form.result(place, outcome).await;
            CallEnd::of(place, result)
        }
        Err(NoOutcome { lease, error }) => {
            place.give_back(lease);
            let result = form.failed(sandbox_code(place, &error));
            CallEnd::of(place, result)
        }
    }
}

/// Runs a cell in an interpreter of its own, which has the container's files and nothing else of the cells before.
pub async fn fresh(place: &mut Place, id: &ServerToolUseId, source: &str) -> ResultContent {
    let form = Form::Python;
    if let Some(halted) = form.halted(place, source) {
        return halted;
    }
    let (app, live) = (Shared::clone(&place.app), place.listener());
    let lease = match place.lease().await {
        Ok(lease) => lease,
        Err(error) => return form.failed(place_code(&error)),
    };
    let running = app.running.enter(lease.container().clone());
    match lease.write_file(&cell_file(id), source.as_bytes(), source.len() as u64).await {
        Ok(()) => {}
        Err(PutError::Sandbox(error)) => return form.failed(sandbox_code(place, &error)),
        Err(error) => return form.said(&format!("the cell could not be written to {}: {error}", cell_file(id))),
    }
    let options = CellOptions { wall: app.serving.invocation_wall, cancel: running.interrupt(), live };
    let outcome = lease.bash(&fresh_command(id), options).await;
    drop(running);
    match outcome {
        Ok(CellOutcome::TimedOut(output)) => {
            tracing::info!(wall_ms = output.wall.as_millis(), "a cell ran out of time");
            form.failed(ErrorCode::ExecutionTimeExceeded)
        }
        Ok(outcome) => form.result(place, outcome).await,
        Err(error) => form.failed(sandbox_code(place, &error)),
    }
}

/// The command of such a cell. Behind it, pictures that it has made elsewhere are handed back too: what users of this version know
/// is `plt.savefig('/tmp/out.png')`. A name that is taken stays with the file in `$OUTPUT_DIR`.
fn fresh_command(id: &ServerToolUseId) -> String {
    format!(
        r#"cell=/tmp/{id}
touch "$cell/begun"
PYTHONPATH="$PWD${{PYTHONPATH:+:$PYTHONPATH}}" python3 "$cell/cell.py"
code=$?
timeout {FIGURE_SEARCH_S_MAX} find /work /tmp -maxdepth {FIGURE_DEPTH_MAX} -xdev -type f -newer "$cell/begun" \
    \( -iname '*.png' -o -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.svg' -o -iname '*.pdf' \) -print0 2>/dev/null \
    | head -z -n {FIGURES_MAX} \
    | while IFS= read -r -d '' figure; do
        name="$OUTPUT_DIR/${{figure##*/}}"
        [ -e "$name" ] || cp -- "$figure" "$name" 2>/dev/null
    done
rm -rf "$cell"
exit "$code""#
    )
}

impl Form {
    /// That of a sub-tool. No edit calls anything, so none waits; the turn refuses the result of another.
    pub const fn of(sub_tool: SubTool) -> Self {
        match sub_tool {
            SubTool::BashCodeExecution => Self::Bash,
            SubTool::CodeExecution | SubTool::TextEditorCodeExecution => Self::Python,
        }
    }

    /// An outcome, told whole.
    async fn result(self, place: &mut Place, outcome: CellOutcome) -> ResultContent {
        let timed_out = matches!(outcome, CellOutcome::TimedOut(_));
        let mut output = outcome.into_output();
        let too_large = |skipped: &belljar_sandbox::Skipped| matches!(skipped.why, SkipReason::TooLarge(_));
        match self {
            Self::Bash if timed_out => {
                tracing::info!(wall_ms = output.wall.as_millis(), "a command ran out of time");
                return self.failed(ErrorCode::ExecutionTimeExceeded);
            }
            Self::Bash if output.skipped.iter().any(too_large) => return self.failed(ErrorCode::OutputFileTooLarge),
            Self::Bash | Self::Python => {}
        }
        let (kept, lost) = place.keep_all(&mut output).await;
        forget_the_dead(place, &output);
        let mut stderr = text(&output.stderr);
        append_lines(&mut stderr, output.notices().into_iter().chain(lost));
        let (stdout, return_code) = (text(&output.stdout), output.return_code);
        match self {
            Self::Bash => {
                let content = kept.into_iter().map(|record| BashOutput { file_id: record.id }).collect();
                ResultContent::BashCodeExecutionResult(BashResult { stdout, stderr, return_code, content })
            }
            Self::Python => {
                let content = kept.into_iter().map(|record| CodeOutput { file_id: record.id }).collect();
                let abort_reason = None;
                ResultContent::CodeExecutionResult(CodeResult { stdout, stderr, return_code, content, abort_reason })
            }
        }
    }

    /// Code that has nothing to show but what happened to it.
    pub fn said(self, what: &str) -> ResultContent {
        self.only(format!("belljar: {what}\n"), LOST_RETURN_CODE)
    }

    fn halted(self, place: &Place, code: &str) -> Option<ResultContent> {
        let Verdict::Halt { reason } = place.app.guard.look([code]) else {
            return None;
        };
        tracing::warn!(reason, "the guard halted code");
        Some(self.only(format!("belljar: halted by the operator's guard: {reason}\n"), HALTED_RETURN_CODE))
    }

    fn cannot_call(self, error: &ToolsError) -> ResultContent {
        self.said(&format!("these tools cannot be called from code: {error}"))
    }

    fn only(self, stderr: String, return_code: i32) -> ResultContent {
        let stdout = String::new();
        match self {
            Self::Bash => {
                ResultContent::BashCodeExecutionResult(BashResult { stdout, stderr, return_code, content: Vec::new() })
            }
            Self::Python => ResultContent::CodeExecutionResult(CodeResult {
                stdout,
                stderr,
                return_code,
                content: Vec::new(),
                abort_reason: None,
            }),
        }
    }

    /// A call that came to nothing.
    pub fn failed(self, error_code: ErrorCode) -> ResultContent {
        match self {
            Self::Bash => ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code }),
            Self::Python => ResultContent::CodeExecutionToolResultError(ExecutionError { error_code }),
        }
    }
}

/// The client's tools as the sandbox wants them.
fn callable(tools: &[CodeTool]) -> Result<CodeTools, ToolsError> {
    let tools = tools.iter().map(|tool| CallableTool {
        name: tool.name.clone(),
        function: tool.function.clone(),
        description: tool.description.clone().unwrap_or_default(),
        input_schema: tool.input_schema.clone(),
    });
    CodeTools::new(tools.collect())
}
