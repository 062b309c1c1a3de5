//! Cells that are given a tool, `ask`, with the suite as the client: it answers with what the call says under `text`.

use belljar_sandbox::{
    CellOptions, CellOutcome, CodeTool, CodeTools, Lease, Parked, Progress, ResumeError, SandboxError, ToolAnswer,
};
use serde_json::{Value, json};

use crate::attack::range::CELL_FILE;

/// Pauses of one cell; one that pauses more often is given up, and ends.
const PAUSES_MAX: usize = 100;

/// What a cell is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A command of bash.
    Bash,
    /// A cell in Python.
    Cell,
}

/// Runs a cell to its end, answering whatever it calls.
///
/// # Errors
/// As the sandbox has it.
pub async fn run(
    lease: Lease,
    caller: Caller,
    source: &str,
    options: CellOptions,
) -> Result<CellOutcome, SandboxError> {
    let ask = CodeTool {
        name: "ask".to_owned(),
        function: "ask".to_owned(),
        description: String::new(),
        input_schema: json!({"type": "object"}),
    };
    let tools = CodeTools::new(vec![ask]).map_err(|error| SandboxError::Host(error.to_string()))?;
    let started = match caller {
        Caller::Bash => lease.bash_with(source, options, &tools).await,
        Caller::Cell => lease.python_with(source, CELL_FILE, options, &tools).await,
    };
    let mut progress = started.map_err(|none| none.error)?;
    for _ in 0..PAUSES_MAX {
        match progress {
            Progress::Ended(_, outcome) => return Ok(outcome),
            Progress::Called(parked) => progress = answered(parked, &tools).await?,
        }
    }
    Err(SandboxError::Host("it never stops calling".to_owned()))
}

async fn answered(parked: Parked, tools: &CodeTools) -> Result<Progress, SandboxError> {
    let answers = parked.calls().iter().map(|call| ToolAnswer {
        number: call.number,
        text: call.input.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        is_error: false,
    });
    let answers = answers.collect();
    parked.resume(answers, tools).await.map_err(|error| match error {
        ResumeError::NoOutcome(none) => none.error,
        ResumeError::Refused { why, .. } => SandboxError::Host(why.to_string()),
    })
}
