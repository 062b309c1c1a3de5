//! The fixed rule: what the built-in model does without a script. It runs the code in the user's message, or describes an uploaded
//! table, and quotes what came out. It never pretends to understand.

use std::collections::BTreeMap;

use belljar_wire::message::StopReason;
use belljar_wire::read::Brief;
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::{SubTool, ToolChoiceMode};
use serde_json::{Value, json};

use crate::scripted::fences::{self, Code, Language};
use crate::scripted::history::TurnSoFar;
use crate::scripted::play::TOKEN_BYTES;
use crate::scripted::quote::{self, Outcome};
use crate::scripted::script::{Step, StepBlock};
use crate::scripted::shell;

/// The analysis of a table, written to be read: it stands in the reply as a call's input.
const ANALYSIS: &str = include_str!("analysis.py");

const ABOUT: &str = include_str!("about.md");

const NO_TOOL: &str = "The request offers no tool to run code with. Declare the code execution tool in `tools`: \
                       `{\"type\": \"code_execution_20250825\", \"name\": \"code_execution\"}`.";

const DISCLAIMER: &str = "_Belljar's built-in model ran this by a fixed rule; it is not a language model._";

/// Which tools there are to run code with.
#[derive(Clone, Copy)]
enum Hands {
    /// Bash, and perhaps Python cells.
    Bash { python: bool },
    /// Python cells only.
    Python,
}

impl Hands {
    fn of(request: &SamplingRequest) -> Option<Self> {
        let mode = request.tool_choice.as_ref().map(|choice| &choice.mode);
        if matches!(mode, Some(ToolChoiceMode::None)) {
            return None;
        }
        let offers = |wanted: SubTool| {
            request.tools.iter().any(|tool| matches!(tool, ModelTool::Server { sub_tool, .. } if *sub_tool == wanted))
        };
        let python = offers(SubTool::CodeExecution);
        match (offers(SubTool::BashCodeExecution), python) {
            (true, python) => Some(Self::Bash { python }),
            (false, true) => Some(Self::Python),
            (false, false) => None,
        }
    }
}

/// One call to make.
enum Task {
    Code(Code),
    Table { name: String },
}

impl Task {
    fn title(&self) -> String {
        match self {
            Self::Code(code) => format!("the {} block", code.language.name()),
            Self::Table { name } => format!("the analysis of {}", quoted(name)),
        }
    }

    fn call(&self, hands: Hands) -> StepBlock {
        let (sub_tool, text) = match (self, hands) {
            (Self::Code(code), hands) => code_call(code, hands),
            (Self::Table { name }, Hands::Bash { .. }) => {
                let argument = format!(" \"$INPUT_DIR\"/{}", shell::word(name));
                (SubTool::BashCodeExecution, shell::python(ANALYSIS, &argument))
            }
            (Self::Table { name }, Hands::Python) => {
                let arguments = format!(
                    "import os, sys\nsys.argv = [\"analysis\", os.path.join(os.environ[\"INPUT_DIR\"], {})]\n",
                    shell::python_string(name)
                );
                (SubTool::CodeExecution, arguments + ANALYSIS)
            }
        };
        let input = match sub_tool {
            SubTool::CodeExecution => json!({ "code": text }),
            SubTool::BashCodeExecution | SubTool::TextEditorCodeExecution => {
                json!({ "command": text })
            }
        };
        StepBlock::ToolUse { name: sub_tool.name().to_owned(), input, id: None }
    }
}

fn code_call(code: &Code, hands: Hands) -> (SubTool, String) {
    let source = &code.source;
    match (code.language, hands) {
        (Language::Python, Hands::Bash { python: true } | Hands::Python) => (SubTool::CodeExecution, source.clone()),
        (Language::Python, Hands::Bash { python: false }) => (SubTool::BashCodeExecution, shell::python(source, "")),
        (Language::Bash, Hands::Bash { .. }) => (SubTool::BashCodeExecution, source.clone()),
        (Language::Bash, Hands::Python) => (SubTool::CodeExecution, shell::bash_from_python(source)),
    }
}

/// What a message asks for.
struct Plan {
    tasks: Vec<Task>,
    /// Uploads that are no tables; the name, or the id where no name is known.
    others: Vec<String>,
}

impl Plan {
    fn of(turn: &TurnSoFar<'_>, uploads: &BTreeMap<String, String>) -> Self {
        let code = fences::code(&turn.text());
        let mut plan = Self { tasks: code.into_iter().map(Task::Code).collect(), others: Vec::new() };
        if !plan.tasks.is_empty() {
            return plan;
        }
        for id in turn.uploads() {
            match uploads.get(id) {
                Some(name) if is_table(name) => plan.tasks.push(Task::Table { name: name.clone() }),
                Some(name) => plan.others.push(name.clone()),
                None => plan.others.push(id.to_owned()),
            }
        }
        plan
    }
}

/// Whether the analysis reads such a file. A name that could leave the input directory, or that no file can have, is none.
fn is_table(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let stem = lower.strip_suffix(".gz").unwrap_or(&lower);
    let table = stem.ends_with(".csv") || stem.ends_with(".tsv");
    table && !name.contains(['/', '\0'])
}

/// The next sampling of a turn without a script.
pub(super) fn step(request: &SamplingRequest, turn: &TurnSoFar<'_>, uploads: &BTreeMap<String, String>) -> Step {
    let plan = Plan::of(turn, uploads);
    let Some(hands) = Hands::of(request) else {
        return answer(without_tools(&plan), request.max_tokens);
    };
    if plan.tasks.is_empty() {
        return answer(without_tasks(&plan), request.max_tokens);
    }
    match plan.tasks.get(turn.samplings()) {
        Some(task) => {
            let title = task.title();
            let text = match plan.tasks.len() {
                1 => format!("Running {title}."),
                all => format!("Running {title} ({} of {all}).", turn.samplings() + 1),
            };
            Step::of(vec![StepBlock::Text(text), task.call(hands)])
        }
        None => answer(report(&plan, turn), request.max_tokens),
    }
}

/// The last step: a text, cut where the turn's tokens end.
fn answer(mut text: String, max_tokens: u64) -> Step {
    let bytes_max = usize::try_from(max_tokens.saturating_mul(TOKEN_BYTES)).unwrap_or(usize::MAX);
    let cut = text.len() > bytes_max;
    text.truncate(text.floor_char_boundary(bytes_max));
    let mut step = Step::of(vec![StepBlock::Text(text)]);
    step.stop_reason = cut.then_some(StopReason::MaxTokens);
    step
}

fn without_tools(plan: &Plan) -> String {
    if plan.tasks.is_empty() && plan.others.is_empty() {
        return ABOUT.trim_end().to_owned();
    }
    format!("{NO_TOOL}\n\n{}", ABOUT.trim_end())
}

fn without_tasks(plan: &Plan) -> String {
    if plan.others.is_empty() {
        return ABOUT.trim_end().to_owned();
    }
    format!("{}\n\n{}", others(plan), ABOUT.trim_end())
}

fn others(plan: &Plan) -> String {
    let names: Vec<String> = plan.others.iter().map(|name| quoted(name)).collect();
    format!(
        "Uploaded to `$INPUT_DIR`, and of no kind that the fixed rule describes: {}. Send a fenced `bash` or `python` block that \
         reads what you want to know.",
        names.join(", ")
    )
}

fn report(plan: &Plan, turn: &TurnSoFar<'_>) -> String {
    let mut results = turn.results().into_iter();
    let mut parts = Vec::new();
    for (index, task) in plan.tasks.iter().enumerate() {
        let outcome = Outcome::of(results.next().flatten());
        let mut title = task.title();
        if plan.tasks.len() > 1 {
            title = format!("{title} ({} of {})", index + 1, plan.tasks.len());
        }
        parts.push(format!("Ran {title}: {}", outcome.told()));
        if let (Task::Table { .. }, Outcome::Ended { files, .. }) = (task, &outcome) {
            parts.push(chart(files));
        }
    }
    if !plan.others.is_empty() {
        parts.push(others(plan));
    }
    parts.push(DISCLAIMER.to_owned());
    parts.join("\n\n")
}

fn chart(files: &[String]) -> String {
    match files {
        [] => "No chart was made.".to_owned(),
        [id, ..] => {
            format!("A chart was made: `chart.png`, to be had from the Files API as `{id}`.")
        }
    }
}

/// A file's name for a person: on one line, and short.
fn quoted(name: &str) -> String {
    let json = Value::from(name).to_string();
    quote::inline(&Brief(&json).to_string())
}
