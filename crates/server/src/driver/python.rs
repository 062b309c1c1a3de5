//! Python cells: in the container's REPL, where they may call the client's tools and wait, or in an interpreter of their own.

use belljar_guard::Verdict;
use belljar_ids::ServerToolUseId;
use belljar_sandbox::{
    CellOptions, CellOutcome, CodeTool as CallableTool, CodeTools, KillReason, NoOutcome, Progress, PutError,
    ResumeError, ToolsError,
};
use belljar_turn::{CallResult, CodeCall, CodeTool};
use belljar_wire::result::{CodeOutput, CodeResult, ErrorCode, ExecutionError, ResultContent};

use crate::app::Shared;
use crate::driver::calls::{
    CallEnd, Called, HALTED_RETURN_CODE, LOST_RETURN_CODE, append_lines, forget_the_dead, place_code, sandbox_code,
    text,
};
use crate::driver::place::Place;
use crate::parked::{Kept, StillCell, Waiting, answers};
use crate::running::RunningCell;

/// Pictures that one cell of an interpreter of its own hands back although it did not put them into `$OUTPUT_DIR`.
const FIGURES_MAX: u32 = 20;
/// How deep below `/work` and `/tmp` pictures are looked for.
const FIGURE_DEPTH_MAX: u32 = 4;
/// How long they are looked for, in seconds.
const FIGURE_SEARCH_S_MAX: u32 = 5;

/// The name of a cell's file, in tracebacks (wire.md §6.1).
fn cell_file(id: &ServerToolUseId) -> String {
    format!("/tmp/{id}/cell.py")
}

/// Runs a cell in the container's REPL, until it ends or waits for the client. Time up is an ordinary result here (wire.md §4.3).
pub async fn live(place: &mut Place, id: &ServerToolUseId, code: &str, tools: &[CodeTool]) -> CallEnd {
    if let Some(halted) = halted(place, code) {
        return CallEnd::Ended(halted);
    }
    let tools = match callable(tools) {
        Ok(tools) => tools,
        Err(error) => return CallEnd::Ended(said(&format!("these tools cannot be called from code: {error}"))),
    };
    let lease = match place.claim().await {
        Ok(lease) => lease,
        Err(error) => return CallEnd::Ended(failed(place_code(&error))),
    };
    let running = place.app.running.enter(lease.container().clone());
    let options = CellOptions { wall: place.app.serving.cell_wall, cancel: running.interrupt(), live: None };
    let progress = lease.python_with(code, &cell_file(id), options, &tools).await;
    went_on(place, running, progress).await
}

/// Goes on with what a continuation has found.
pub async fn resume(
    place: &mut Place,
    waiting: Waiting<StillCell>,
    results: Vec<CallResult>,
    tools: &[CodeTool],
) -> CallEnd {
    let StillCell { running, cell } = match waiting.kept {
        Kept::Outcome(result) => return CallEnd::Ended(result),
        Kept::Cell(cell) => cell,
    };
    let tools = match callable(tools) {
        Ok(tools) => tools,
        // Dropped, the cell ends: it cannot be told what it may call from here on.
        Err(error) => return CallEnd::Ended(said(&format!("these tools cannot be called from code: {error}"))),
    };
    match cell.resume(answers(&waiting.pending, &results), &tools).await {
        Ok(progress) => went_on(place, running, Ok(progress)).await,
        Err(ResumeError::NoOutcome(none)) => went_on(place, running, Err(*none)).await,
        Err(ResumeError::Refused { why, .. }) => {
            tracing::error!(%why, "a cell refused the results that it was kept for");
            CallEnd::Ended(failed(ErrorCode::Unavailable))
        }
    }
}

async fn went_on(place: &mut Place, running: RunningCell, progress: Result<Progress, NoOutcome>) -> CallEnd {
    match progress {
        Ok(Progress::Called(cell)) => {
            let container = place.pause_info(cell.container()).await;
            let calls = cell.calls().iter().map(|call| CodeCall {
                number: call.number,
                tool: call.tool.clone(),
                input: call.input.clone(),
            });
            CallEnd::Called(Called { calls: calls.collect(), container, cell: StillCell { running, cell } })
        }
        Ok(Progress::Ended(lease, outcome)) => {
            drop(running);
            place.give_back(lease);
            CallEnd::Ended(result(place, outcome).await)
        }
        Err(NoOutcome { lease, error }) => {
            place.give_back(lease);
            CallEnd::Ended(failed(sandbox_code(place, &error)))
        }
    }
}

/// Runs a cell in an interpreter of its own, which has the container's files and nothing else of the cells before.
pub async fn fresh(place: &mut Place, id: &ServerToolUseId, code: &str) -> ResultContent {
    if let Some(halted) = halted(place, code) {
        return halted;
    }
    let app = Shared::clone(&place.app);
    let lease = match place.lease().await {
        Ok(lease) => lease,
        Err(error) => return failed(place_code(&error)),
    };
    let running = app.running.enter(lease.container().clone());
    let size = code.len() as u64;
    match lease.write_file(&cell_file(id), code.as_bytes(), size).await {
        Ok(()) => {}
        Err(PutError::Sandbox(error)) => return failed(sandbox_code(place, &error)),
        Err(error) => return said(&format!("the cell could not be written to {}: {error}", cell_file(id))),
    }
    let options = CellOptions { wall: app.serving.invocation_wall, cancel: running.interrupt(), live: None };
    let outcome = lease.bash(&fresh_command(id), options).await;
    drop(running);
    match outcome {
        Ok(CellOutcome::TimedOut(output)) => {
            tracing::info!(wall_ms = output.wall.as_millis(), "a cell ran out of time");
            failed(ErrorCode::ExecutionTimeExceeded)
        }
        Ok(outcome) => result(place, outcome).await,
        Err(error) => failed(sandbox_code(place, &error)),
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

/// A cell's outcome, told whole.
async fn result(place: &mut Place, outcome: CellOutcome) -> ResultContent {
    let mut output = match outcome {
        CellOutcome::Ended(output)
        | CellOutcome::TimedOut(output)
        | CellOutcome::Killed(KillReason::Memory | KillReason::Requested, output)
        | CellOutcome::Crashed(output) => output,
    };
    let (kept, lost) = place.keep_all(&mut output).await;
    forget_the_dead(place, &output);
    let content = kept.into_iter().map(|record| CodeOutput { file_id: record.id }).collect();
    let mut stderr = text(&output.stderr);
    append_lines(&mut stderr, output.notices().into_iter().chain(lost));
    made(text(&output.stdout), stderr, output.return_code, content)
}

fn halted(place: &Place, code: &str) -> Option<ResultContent> {
    let Verdict::Halt { reason } = place.app.guard.look([code]) else {
        return None;
    };
    tracing::warn!(reason, "the guard halted a cell");
    let stderr = format!("belljar: halted by the operator's guard: {reason}\n");
    Some(made(String::new(), stderr, HALTED_RETURN_CODE, Vec::new()))
}

/// A cell that has nothing to show but what happened to it.
pub fn said(what: &str) -> ResultContent {
    made(String::new(), format!("belljar: {what}\n"), LOST_RETURN_CODE, Vec::new())
}

fn made(stdout: String, stderr: String, return_code: i32, content: Vec<CodeOutput>) -> ResultContent {
    ResultContent::CodeExecutionResult(CodeResult { stdout, stderr, return_code, content, abort_reason: None })
}

fn failed(error_code: ErrorCode) -> ResultContent {
    ResultContent::CodeExecutionToolResultError(ExecutionError { error_code })
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
