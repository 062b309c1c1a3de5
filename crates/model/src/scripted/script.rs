//! What a script is, and reading one: every problem names its field.

use std::num::NonZeroUsize;
use std::time::Duration;

use belljar_ids::ToolUseId;
use belljar_wire::error::ApiError;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::read::{Object, Path, list, string, unknown_tag};
use serde_json::{Map, Value, json};

/// Bytes of a piece of a text, when a step does not say.
const CHUNK_BYTES_DEFAULT: NonZeroUsize = NonZeroUsize::new(24).expect("24 is not 0");

/// What a failing upstream answers, when a fault does not say: overloaded (wire.md §2.6).
const FAULT_STATUS_DEFAULT: u16 = 529;

/// One conversation's worth of samplings.
#[derive(Debug, PartialEq)]
pub(super) struct Script {
    /// The text in the user's last words that chooses the script.
    pub(super) matches: Option<String>,
    /// One per sampling of a turn, in order.
    pub(super) steps: Vec<Step>,
}

/// What the model says and does in one sampling.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    pub(super) content: Vec<StepBlock>,
    /// Absent: `tool_use` where the content calls a tool, `stop_sequence` where one is named, else `end_turn`.
    pub(super) stop_reason: Option<StopReason>,
    pub(super) stop_sequence: Option<String>,
    pub(super) stop_details: Option<Value>,
    /// Members of `usage` that the script states; the others are estimated.
    pub(super) usage: Map<String, Value>,
    pub(super) chunk_bytes: NonZeroUsize,
    /// Before each piece.
    pub(super) delay: Option<Duration>,
    pub(super) fault: Option<Fault>,
}

#[derive(Debug, PartialEq)]
pub(super) enum StepBlock {
    Text(String),
    Thinking {
        thinking: String,
        signature: Option<String>,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        name: String,
        /// An object.
        input: Value,
        /// Absent: one is made.
        id: Option<ToolUseId>,
    },
}

/// How an upstream fails.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// It refuses the request.
    BeforeFirstByte(Failure),
    /// It reports an error after that many events.
    MidStream { after_events: usize, failure: Failure },
    /// Its connection ends after that many events.
    Cut { after_events: usize },
}

/// An upstream's error.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    /// 400 to 599.
    pub(super) status: u16,
    pub(super) message: Option<String>,
}

impl Step {
    /// A step that holds nothing but its content.
    pub(super) fn of(content: Vec<StepBlock>) -> Self {
        Self {
            content,
            stop_reason: None,
            stop_sequence: None,
            stop_details: None,
            usage: Map::new(),
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            delay: None,
            fault: None,
        }
    }

    /// Whether it calls a tool.
    pub(super) fn calls(&self) -> bool {
        self.content.iter().any(|block| matches!(block, StepBlock::ToolUse { .. }))
    }

    /// Why the sampling ends.
    pub(super) fn stop_reason(&self) -> StopReason {
        match (self.stop_reason, &self.stop_sequence) {
            (Some(stated), _) => stated,
            (None, _) if self.calls() => StopReason::ToolUse,
            (None, Some(_)) => StopReason::StopSequence,
            (None, None) => StopReason::EndTurn,
        }
    }

    /// Its texts, in one.
    pub(super) fn text(&self) -> String {
        let texts = self.content.iter().map(|block| match block {
            StepBlock::Text(text) => text.as_str(),
            StepBlock::Thinking { .. } | StepBlock::RedactedThinking { .. } | StepBlock::ToolUse { .. } => "",
        });
        texts.collect()
    }
}

impl Script {
    /// Reads `{"match", "steps"}`, or a bare list of steps.
    ///
    /// # Errors
    /// The message begins with the field's path: `steps.0.content.1.text: Field required`.
    pub(super) fn read(value: Value) -> Result<Self, ApiError> {
        let root = Path::Root;
        let (matches, steps, path) = match value {
            Value::Array(_) => (None, value, root),
            Value::Object(_) => {
                let mut object = Object::new(value, root)?;
                let matches = object.optional_string("match")?;
                let steps = object.required("steps")?;
                object.finish()?;
                (matches, steps, root.key("steps"))
            }
            _ => {
                return Err(ApiError::invalid("a script is an object with `steps`, or a list of steps"));
            }
        };
        if matches.as_deref() == Some("") {
            return Err(root
                .key("match")
                .error("an empty text stands in every message; leave `match` out to play the script by name only"));
        }
        let steps = list(steps, &path, read_step)?;
        if steps.is_empty() {
            return Err(ApiError::invalid("steps: at least one step is required"));
        }
        Ok(Self { matches, steps })
    }
}

fn read_step(value: Value, path: Path<'_>) -> Result<Step, ApiError> {
    let mut object = Object::new(value, path)?;
    let content = list(object.required("content")?, &path.key("content"), read_block)?;
    let step = Step {
        content,
        stop_reason: read_stop_reason(&mut object)?,
        stop_sequence: object.optional_string("stop_sequence")?,
        stop_details: object.take("stop_details"),
        usage: read_usage(&mut object)?,
        chunk_bytes: read_chunk_bytes(&mut object)?,
        delay: optional_count(&mut object, "delay_ms")?.map(Duration::from_millis),
        fault: object.take("fault").map(|value| read_fault(value, path.key("fault"))).transpose()?,
    };
    object.finish()?;
    Ok(step)
}

fn read_block(value: Value, path: Path<'_>) -> Result<StepBlock, ApiError> {
    let mut object = Object::new(value, path)?;
    let tag = object.string("type")?;
    let block = match tag.as_str() {
        "text" => StepBlock::Text(object.string("text")?),
        "thinking" => StepBlock::Thinking {
            thinking: object.string("thinking")?,
            signature: object.optional_string("signature")?,
        },
        "redacted_thinking" => StepBlock::RedactedThinking { data: object.string("data")? },
        "tool_use" => read_tool_use(&mut object)?,
        other => {
            let expected = ["text", "thinking", "redacted_thinking", "tool_use"];
            return Err(unknown_tag(&path, other, &expected));
        }
    };
    object.finish()?;
    Ok(block)
}

fn read_tool_use(object: &mut Object<'_>) -> Result<StepBlock, ApiError> {
    let path = object.path();
    let name = object.string("name")?;
    let input = object.required("input")?;
    if !input.is_object() {
        return Err(path.key("input").error("Input should be an object"));
    }
    let id = object.optional_string("id")?;
    let id = id.map(|id| id.parse().map_err(|error| path.key("id").error(error)));
    Ok(StepBlock::ToolUse { name, input, id: id.transpose()? })
}

fn read_stop_reason(object: &mut Object<'_>) -> Result<Option<StopReason>, ApiError> {
    let path = object.path();
    let Some(value) = object.take("stop_reason") else {
        return Ok(None);
    };
    let path = path.key("stop_reason");
    serde_json::from_value(value).map(Some).map_err(|error| path.error(error))
}

/// Members of `usage` that an upstream reports; `server_tool_use` is counted by this server.
const USAGE_MEMBERS: [&str; 8] = [
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "output_tokens",
    "output_tokens_details",
    "service_tier",
    "inference_geo",
];

fn read_usage(object: &mut Object<'_>) -> Result<Map<String, Value>, ApiError> {
    let path = object.path();
    let path = path.key("usage");
    let Some(value) = object.take("usage") else {
        return Ok(Map::new());
    };
    let mut given = Object::new(value, path)?;
    let mut usage = Map::new();
    for member in USAGE_MEMBERS {
        let Some(value) = given.take(member) else {
            continue;
        };
        let mut whole = json!({"input_tokens": 0, "output_tokens": 0});
        whole[member] = value.clone();
        serde_json::from_value::<Usage>(whole).map_err(|error| path.key(member).error(error))?;
        usage.insert(member.to_owned(), value);
    }
    given.finish()?;
    Ok(usage)
}

fn optional_count(object: &mut Object<'_>, key: &str) -> Result<Option<u64>, ApiError> {
    let path = object.path();
    let number = object.optional_number(key)?;
    let count = number
        .map(|number| number.as_u64().ok_or_else(|| path.key(key).error("Input should be 0 or a positive integer")));
    count.transpose()
}

fn read_chunk_bytes(object: &mut Object<'_>) -> Result<NonZeroUsize, ApiError> {
    let path = object.path();
    let Some(bytes) = optional_count(object, "chunk_bytes")? else {
        return Ok(CHUNK_BYTES_DEFAULT);
    };
    let bytes = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
    bytes.ok_or_else(|| path.key("chunk_bytes").error("Input should be at least 1"))
}

fn read_fault(value: Value, path: Path<'_>) -> Result<Fault, ApiError> {
    let mut object = Object::new(value, path)?;
    let kind = string(object.required("kind")?, &path.key("kind"))?;
    let fault = match kind.as_str() {
        "error_before_first_byte" => Fault::BeforeFirstByte(read_failure(&mut object)?),
        "error_mid_stream" => {
            Fault::MidStream { after_events: read_after_events(&mut object)?, failure: read_failure(&mut object)? }
        }
        "cut_connection" => Fault::Cut { after_events: read_after_events(&mut object)? },
        _ => {
            return Err(path
                .key("kind")
                .error("Input should be 'error_before_first_byte', 'error_mid_stream' or 'cut_connection'"));
        }
    };
    object.finish()?;
    Ok(fault)
}

fn read_after_events(object: &mut Object<'_>) -> Result<usize, ApiError> {
    let path = object.path();
    let count = optional_count(object, "after_events")?;
    let count = count.ok_or_else(|| path.key("after_events").error("Field required"))?;
    // A count beyond memory is beyond any step's events, which is what matters.
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn read_failure(object: &mut Object<'_>) -> Result<Failure, ApiError> {
    let path = object.path();
    let status = match optional_count(object, "status")? {
        None => FAULT_STATUS_DEFAULT,
        Some(status) => u16::try_from(status)
            .ok()
            .filter(|status| (400..=599).contains(status))
            .ok_or_else(|| path.key("status").error("Input should be an HTTP status from 400 to 599"))?,
    };
    Ok(Failure { status, message: object.optional_string("message")? })
}
