//! The fixed rule for turns without a script: run the user's own code, or look at the user's own data, and quote the output.

use std::collections::BTreeMap;

use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::{SubTool, ToolChoiceMode};
use serde_json::{Value, json};

use super::fence::{Fenced, Language, fence, fenced_code};
use super::history::Turn;
use super::script::{Step, StepBlock};
use crate::lower::Rendered;

/// Most bytes of one output that the answer quotes.
const QUOTE_BYTES_MAX: usize = 16 * 1024;

const SELF_DESCRIPTION: &str = "I am Belljar's built-in scripted model, not a language model: I follow a fixed rule. Send a \
     message with a fenced ```python or ```bash block and declare the code execution tool, and I run the block and quote its \
     output. Send a CSV file as a container_upload, and I summarize and plot it. To talk to a language model, configure an \
     upstream.";

const NO_TOOL: &str = "I am Belljar's built-in scripted model. There is something to run here, but the request offers no tool \
     that I could run it with: declare the code execution tool, for example \
     {\"type\": \"code_execution_20250825\", \"name\": \"code_execution\"}.";

/// Describes uploaded tables; a list of file names named `UPLOADS` precedes it.
const SUMMARY: &str = include_str!("summary.py");

/// The next sampling of the turn.
pub(super) fn next_step(request: &SamplingRequest, turn: &Turn<'_>, uploads: &BTreeMap<String, String>) -> Step {
    let runner = Runner::of(request);
    let blocks = fenced_code(&turn.text);
    if blocks.is_empty() && turn.uploads.is_empty() {
        return say(SELF_DESCRIPTION);
    }
    let Some(runner) = runner else {
        return say(NO_TOOL);
    };
    if blocks.is_empty() {
        return match turn.samplings {
            0 => call(
                "I look at the uploaded data.",
                runner.run(&Fenced { language: Language::Python, code: summary(&turn.uploads, uploads) }),
            ),
            _ => say(data_answer(&turn.outcomes)),
        };
    }
    match blocks.get(turn.samplings) {
        Some(block) => {
            let (number, all) = (turn.samplings + 1, blocks.len());
            let language = block.language.name();
            let intro = match all {
                1 => format!("I run the {language} block."),
                _ => format!("I run block {number} of {all} ({language})."),
            };
            call(intro, runner.run(block))
        }
        None => say(code_answer(&blocks, &turn.outcomes)),
    }
}

fn say(text: impl Into<String>) -> Step {
    Step::saying(vec![StepBlock::Text(text.into())])
}

fn call(intro: impl Into<String>, (sub_tool, input): (SubTool, Value)) -> Step {
    Step::saying(vec![StepBlock::Text(intro.into()), StepBlock::ToolUse { name: sub_tool.name().to_owned(), input }])
}

/// How code can be run with what the request offers.
#[derive(Clone, Copy)]
enum Runner {
    Python,
    Bash,
    Both,
}

impl Runner {
    fn of(request: &SamplingRequest) -> Option<Self> {
        let choice = request.tool_choice.as_ref();
        if choice.is_some_and(|choice| choice.mode == ToolChoiceMode::None) {
            return None;
        }
        let offers = |wanted: SubTool| {
            request.tools.iter().any(|tool| match tool {
                ModelTool::Server { sub_tool, .. } => *sub_tool == wanted,
                ModelTool::Custom(_) | ModelTool::Vendor(_) => false,
            })
        };
        match (offers(SubTool::CodeExecution), offers(SubTool::BashCodeExecution)) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::Python),
            (false, true) => Some(Self::Bash),
            (false, false) => None,
        }
    }

    fn run(self, block: &Fenced) -> (SubTool, Value) {
        let code = &block.code;
        match (block.language, self) {
            (Language::Python, Self::Python | Self::Both) => (SubTool::CodeExecution, json!({"code": code})),
            (Language::Bash, Self::Bash | Self::Both) => (SubTool::BashCodeExecution, json!({"command": code})),
            (Language::Python, Self::Bash) => (SubTool::BashCodeExecution, json!({"command": python_in_bash(code)})),
            (Language::Bash, Self::Python) => (SubTool::CodeExecution, json!({"code": bash_in_python(code)})),
        }
    }
}

/// A here-document takes any text, as long as no line of it is the delimiter.
pub(super) fn python_in_bash(code: &str) -> String {
    let taken = |delimiter: &str| code.split('\n').any(|line| line == delimiter);
    let mut delimiter = "BELLJAR_PYTHON".to_owned();
    while taken(&delimiter) {
        delimiter.push('_');
    }
    let end = if code.is_empty() || code.ends_with('\n') { "" } else { "\n" };
    format!("python3 - <<'{delimiter}'\n{code}{end}{delimiter}\n")
}

/// A JSON string is a Python string, too. The script goes through a file: as an argument it could be too long, and on standard
/// input its own commands would read it.
pub(super) fn bash_in_python(code: &str) -> String {
    let literal = Value::from(code);
    format!(
        "import subprocess, sys, tempfile\n\
         with tempfile.NamedTemporaryFile('w', suffix='.sh', encoding='utf-8', newline='') as script:\n    \
             script.write({literal})\n    \
             script.flush()\n    \
             done = subprocess.run(['bash', script.name], stdin=subprocess.DEVNULL, capture_output=True)\n\
         sys.stdout.write(done.stdout.decode('utf-8', 'replace'))\n\
         sys.stderr.write(done.stderr.decode('utf-8', 'replace'))\n\
         if done.returncode:\n    \
             sys.exit(done.returncode)\n"
    )
}

/// The program that describes the uploads: it looks at what is there when a name is not known.
pub(super) fn summary(file_ids: &[&str], uploads: &BTreeMap<String, String>) -> String {
    let names: Option<Vec<&str>> = file_ids.iter().map(|id| uploads.get(*id).map(String::as_str)).collect();
    let names = Value::from(names.unwrap_or_default());
    format!("UPLOADS = {names}\n{SUMMARY}")
}

fn code_answer(blocks: &[Fenced], outcomes: &[Rendered]) -> String {
    if let ([block], [outcome]) = (blocks, outcomes) {
        let language = block.language.name();
        return format!("The {language} block {}", quoted(outcome));
    }
    let mut parts = vec![format!("I ran {} blocks.", blocks.len())];
    for (index, block) in blocks.iter().enumerate() {
        let (number, language) = (index + 1, block.language.name());
        parts.push(match outcomes.get(index) {
            Some(outcome) => format!("Block {number} ({language}) {}", quoted(outcome)),
            None => format!("Block {number} ({language}) has no result in this conversation."),
        });
    }
    parts.join("\n\n")
}

fn data_answer(outcomes: &[Rendered]) -> String {
    match outcomes {
        [] => "The look at the uploaded data has no result in this conversation.".to_owned(),
        [outcome, ..] => format!("The look at the uploaded data {}", quoted(outcome)),
    }
}

fn quoted(outcome: &Rendered) -> String {
    let verb = if outcome.is_error { "could not be run" } else { "gave" };
    let text = outcome.text.as_str();
    if text.len() <= QUOTE_BYTES_MAX {
        return format!("{verb}:\n\n{}", fence(text));
    }
    let end = (0..=QUOTE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let (quote, left) = (&text[..end], text.len() - end);
    format!("{verb}:\n\n{}\n\n({left} more bytes are not quoted.)", fence(quote))
}
