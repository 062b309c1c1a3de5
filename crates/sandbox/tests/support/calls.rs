//! Cells that call tools, with the test as the client.

use std::time::Duration;

use belljar_sandbox::{
    CellOptions, CellOutcome, CodeTool, CodeTools, Lease, LiveChunk, Output, Parked, Progress, SandboxConfig,
    ToolAnswer,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{CELL, Said, options, python_config, said};

/// A tool that takes anything.
pub fn tool(function: &str) -> CodeTool {
    CodeTool {
        name: function.replace('_', "-"),
        function: function.to_owned(),
        description: "A tool.".to_owned(),
        input_schema: json!({"type": "object"}),
    }
}

/// `query_db` and `anything`, which the client knows as `query-db` and `anything`.
pub fn tools() -> CodeTools {
    CodeTools::new(vec![tool("query_db"), tool("anything")]).expect("good")
}

/// With so many seconds for an answer.
pub fn waiting(tool_answer_wait_s_max: u64) -> SandboxConfig {
    SandboxConfig { tool_answer_wait_s_max, ..python_config() }
}

/// With an ear for what the cell prints, which is deaf when the cell is over.
pub fn heard() -> (CellOptions, mpsc::Receiver<LiveChunk>) {
    let (live, heard) = mpsc::channel(8);
    (CellOptions { live: Some(live), ..options() }, heard)
}

/// Waits for the end of a cell of which nobody asks for the outcome.
pub async fn over(mut heard: mpsc::Receiver<LiveChunk>) {
    let ending = async { while heard.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), ending).await.expect("it ends");
}

/// With so much wall time.
pub fn within(wall: Duration) -> CellOptions {
    CellOptions { wall, ..options() }
}

/// Starts a cell that can call [`tools`].
pub async fn start(lease: Lease, source: &str) -> Progress {
    start_with(lease, source, options()).await
}

/// As [`start`].
pub async fn start_with(lease: Lease, source: &str, options: CellOptions) -> Progress {
    lease.python_with(source, CELL, options, &tools()).await.expect("the container lives")
}

/// Starts a command that can call [`tools`].
pub async fn start_bash(lease: Lease, command: &str) -> Progress {
    lease.bash_with(command, options(), &tools()).await.expect("the container lives")
}

/// It must wait.
pub fn called(progress: Progress) -> Parked {
    match progress {
        Progress::Called(parked) => parked,
        Progress::Ended(_, outcome) => panic!("{outcome:?}"),
    }
}

/// It must have ended by itself.
pub fn ended(progress: Progress) -> (Lease, Said) {
    let (lease, output) = output(progress);
    (lease, said(&output))
}

/// It must have ended by itself, with nothing lost.
pub fn output(progress: Progress) -> (Lease, Output) {
    match progress {
        Progress::Ended(lease, CellOutcome::Ended(output)) => {
            assert_eq!(output.notices(), Vec::<String>::new());
            (lease, output)
        }
        other => panic!("{other:?}"),
    }
}

/// Number, tool and argument of each call.
pub fn calls(parked: &Parked) -> Vec<(u64, &str, Value)> {
    parked.calls().iter().map(|call| (call.number, call.tool.as_str(), Value::Object(call.input.clone()))).collect()
}

pub fn answer(number: u64, text: &str) -> ToolAnswer {
    ToolAnswer { number, text: text.to_owned(), is_error: false }
}

/// Answers each call with its number.
pub async fn resume(parked: Parked) -> Progress {
    let answers = parked.calls().iter().map(|call| answer(call.number, &call.number.to_string())).collect();
    resume_with(parked, answers).await
}

/// With these answers.
pub async fn resume_with(parked: Parked, answers: Vec<ToolAnswer>) -> Progress {
    parked.resume(answers, &tools()).await.expect("the container lives")
}

pub fn good(stdout: &str) -> Said {
    Said { return_code: 0, stdout: stdout.to_owned(), stderr: String::new() }
}
