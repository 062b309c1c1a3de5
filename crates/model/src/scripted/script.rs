//! Scripts: what the scripted model says, sampling by sampling, read from JSON or YAML with the path of every mistake.
//!
//! ```yaml
//! match: weather                  # plays when the last user text holds this; else only by name
//! steps:                          # one per sampling; a file may also be this list alone
//!   - content:
//!       - {type: thinking, thinking: "…", signature: "…"}       # signature optional
//!       - {type: redacted_thinking, data: "…"}
//!       - {type: text, text: "…"}
//!       - {type: tool_use, name: bash_code_execution, input: {command: ls}}
//!     stop_reason: tool_use       # default: tool_use after a call, else end_turn
//!     usage: {input_tokens: 7, output_tokens: 5}
//!     chunk_bytes: 24             # per piece; characters stay whole
//!     delay_ms: 0                 # before the first event
//!     chunk_delay_ms: 0           # before each piece
//!     fault: {kind: error_before_first_byte, status: 529, message: "…"}
//!            # or {kind: error_mid_stream, after_events: 3, message: "…"}
//!            # or {kind: cut_connection, after_events: 3}
//! ```
//!
//! The events of a step are: its start, then for each block its start, its pieces and its end, then the step's end.

use std::time::Duration;

use belljar_wire::error::ApiError;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::read::{Object, Path, list, string, unknown_tag};
use serde::Deserialize;
use serde_json::Value;

/// Bytes of a piece when a step does not say.
const CHUNK_BYTES_DEFAULT: usize = 24;
/// The longest pause that a step may ask for.
const DELAY_MS_MAX: u64 = 600_000;

/// One turn's samplings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Script {
    /// The script plays when the last user text holds this.
    pub(super) matches: Option<String>,
    pub(super) steps: Vec<Step>,
}

/// One sampling.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) content: Vec<StepBlock>,
    pub(super) stop_reason: StopReason,
    pub(super) usage: Option<Usage>,
    pub(super) chunk_bytes: usize,
    /// Before the first event.
    pub(super) delay: Duration,
    /// Before each piece of a block.
    pub(super) chunk_delay: Duration,
    pub(super) fault: Option<Fault>,
}

/// One block of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StepBlock {
    Text(String),
    Thinking { thinking: String, signature: String },
    RedactedThinking { data: String },
    ToolUse { name: String, input: Value },
}

/// What goes wrong in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    ErrorBeforeFirstByte { status: u16, message: String },
    ErrorMidStream { after_events: usize, message: String },
    CutConnection { after_events: usize },
}

impl Step {
    /// A step that says this and goes on as its blocks ask.
    pub(super) fn saying(content: Vec<StepBlock>) -> Self {
        Self {
            stop_reason: natural_stop(&content),
            content,
            usage: None,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            delay: Duration::ZERO,
            chunk_delay: Duration::ZERO,
            fault: None,
        }
    }
}

/// A model that calls a tool waits for it; any other is done.
fn natural_stop(content: &[StepBlock]) -> StopReason {
    let calls = content.iter().any(|block| matches!(block, StepBlock::ToolUse { .. }));
    if calls { StopReason::ToolUse } else { StopReason::EndTurn }
}

impl Script {
    /// Reads a script: an object with `steps`, or the list of steps alone.
    pub(super) fn read(value: Value) -> Result<Self, ApiError> {
        if value.is_array() {
            return Ok(Self { matches: None, steps: list(value, &Path::Root, read_step)? });
        }
        let mut object = Object::new(value, Path::Root)?;
        let matches = object.optional_string("match")?;
        if matches.as_deref() == Some("") {
            let error = "an empty text is in every text; leave `match` out instead";
            return Err(Path::Root.key("match").error(error));
        }
        let steps = object.required("steps")?;
        let steps = list(steps, &Path::Root.key("steps"), read_step)?;
        object.finish()?;
        Ok(Self { matches, steps })
    }
}

fn read_step(value: Value, path: Path<'_>) -> Result<Step, ApiError> {
    let mut object = Object::new(value, path)?;
    let content = list(object.required("content")?, &path.key("content"), read_block)?;
    let stop_reason = match object.take("stop_reason") {
        None => natural_stop(&content),
        Some(value) => StopReason::deserialize(&value).map_err(|error| path.key("stop_reason").error(error))?,
    };
    let usage = match object.take("usage") {
        None => None,
        Some(value) => Some(Usage::deserialize(&value).map_err(|error| path.key("usage").error(error))?),
    };
    let chunk_bytes = match read_number(&mut object, "chunk_bytes", 1, 1 << 20)? {
        None => CHUNK_BYTES_DEFAULT,
        Some(bytes) => usize::try_from(bytes).unwrap_or(CHUNK_BYTES_DEFAULT),
    };
    let mut delay = |key| {
        let delay = read_number(&mut object, key, 0, DELAY_MS_MAX)?;
        Ok(Duration::from_millis(delay.unwrap_or(0)))
    };
    let (delay, chunk_delay) = (delay("delay_ms")?, delay("chunk_delay_ms")?);
    let fault = object.take("fault").map(|value| read_fault(value, path.key("fault"))).transpose()?;
    object.finish()?;
    Ok(Step { content, stop_reason, usage, chunk_bytes, delay, chunk_delay, fault })
}

fn read_block(value: Value, path: Path<'_>) -> Result<StepBlock, ApiError> {
    let mut object = Object::new(value, path)?;
    let block = match object.string("type")?.as_str() {
        "text" => StepBlock::Text(object.string("text")?),
        "thinking" => StepBlock::Thinking {
            thinking: object.string("thinking")?,
            signature: object.optional_string("signature")?.unwrap_or_else(|| "scripted".to_owned()),
        },
        "redacted_thinking" => StepBlock::RedactedThinking { data: object.string("data")? },
        "tool_use" => {
            let name = string(object.required("name")?, &path.key("name"))?;
            let input = object.required("input")?;
            if !input.is_object() {
                return Err(path.key("input").error("Input should be an object"));
            }
            StepBlock::ToolUse { name, input }
        }
        other => {
            let known = ["redacted_thinking", "text", "thinking", "tool_use"];
            return Err(unknown_tag(&path, other, &known));
        }
    };
    object.finish()?;
    Ok(block)
}

fn read_fault(value: Value, path: Path<'_>) -> Result<Fault, ApiError> {
    let mut object = Object::new(value, path)?;
    let fault = match object.string("kind")?.as_str() {
        "error_before_first_byte" => {
            let status = read_number(&mut object, "status", 400, 599)?;
            let status = status.and_then(|status| u16::try_from(status).ok());
            let status = status.ok_or_else(|| path.key("status").error("Field required"))?;
            Fault::ErrorBeforeFirstByte { status, message: read_message(&mut object)? }
        }
        "error_mid_stream" => {
            Fault::ErrorMidStream { after_events: read_after_events(&mut object)?, message: read_message(&mut object)? }
        }
        "cut_connection" => Fault::CutConnection { after_events: read_after_events(&mut object)? },
        other => {
            let known = ["cut_connection", "error_before_first_byte", "error_mid_stream"];
            return Err(unknown_tag(&path.key("kind"), other, &known));
        }
    };
    object.finish()?;
    Ok(fault)
}

fn read_message(object: &mut Object<'_>) -> Result<String, ApiError> {
    let message = object.optional_string("message")?;
    Ok(message.unwrap_or_else(|| "a fault from the script".to_owned()))
}

fn read_after_events(object: &mut Object<'_>) -> Result<usize, ApiError> {
    let path = object.path();
    let events = read_number(object, "after_events", 1, 1 << 20)?;
    let events = events.and_then(|events| usize::try_from(events).ok());
    events.ok_or_else(|| path.key("after_events").error("Field required"))
}

fn read_number(object: &mut Object<'_>, key: &str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
    let path = object.path();
    let Some(value) = object.take(key) else {
        return Ok(None);
    };
    match value.as_u64() {
        Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => Err(path.key(key).error(format_args!("Input should be a whole number from {min} to {max}"))),
    }
}
