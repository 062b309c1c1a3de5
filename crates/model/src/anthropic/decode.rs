//! From the upstream's events to sampling events. Every broken promise of the upstream is a fault with a text, never a panic.

use std::collections::BTreeMap;

use belljar_wire::event::Delta;
use belljar_wire::hosted_tool::HostedBlock;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::read::Brief;
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::piece::{self, Piece};
use crate::link::sse::SseEvent;

/// What an upstream's stream can come to instead of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DecodeFault {
    /// An `error` event, with its `error.type` and `error.message`.
    Error { tag: String, message: String },
    /// No reply of the Messages API. The text is the operator's.
    Protocol(String),
}

/// One reply being decoded.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    started: bool,
    open: Option<Open>,
    /// Blocks that ended when a later one began, and are still to be told to end: llama.cpp ends all of them last.
    /// By their number, so that an upstream with a million of them cannot have all looked through for each.
    outrun: BTreeMap<u64, OpenKind>,
    usage: Map<String, Value>,
    ending: Option<Ending>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    index: u64,
    kind: OpenKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenKind {
    Text,
    Thinking,
    /// It came whole.
    Whole,
    /// Its input follows.
    Call,
}

#[derive(Clone, Debug, Deserialize)]
struct Ending {
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    stop_details: Option<Value>,
}

#[derive(Deserialize)]
struct Tagged {
    #[serde(rename = "type")]
    tag: String,
}

#[derive(Deserialize)]
struct MessageStart {
    message: MessageHead,
}

#[derive(Deserialize)]
struct MessageHead {
    #[serde(default)]
    usage: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct BlockStart {
    index: u64,
    content_block: Map<String, Value>,
}

#[derive(Deserialize)]
struct BlockDelta {
    index: u64,
    delta: Map<String, Value>,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u64,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: Ending,
    #[serde(default)]
    usage: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct ErrorEvent {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    #[serde(rename = "type", default)]
    tag: String,
    #[serde(default)]
    message: String,
}

fn protocol<T>(text: impl Into<String>) -> Result<T, DecodeFault> {
    Err(DecodeFault::Protocol(text.into()))
}

fn read<'a, T: Deserialize<'a>>(what: &str, data: &'a str) -> Result<T, DecodeFault> {
    serde_json::from_str(data).or_else(|error| protocol(format!("`{what}` is unreadable: {error}")))
}

impl Decoder {
    /// Whether `message_stop` has come: nothing that follows counts.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes one event; events of unknown types yield nothing.
    pub(crate) fn take(&mut self, event: &SseEvent) -> Result<Vec<SamplingEvent>, DecodeFault> {
        if self.ended {
            return Ok(Vec::new());
        }
        if let Some(piece) = piece::read(&event.data).filter(|piece| self.takes(piece)) {
            return Ok(vec![SamplingEvent::BlockDelta(piece.delta)]);
        }
        let tag = match serde_json::from_str::<Tagged>(&event.data) {
            Ok(tagged) => tagged.tag,
            Err(error) => {
                return protocol(format!("an event without a readable `type`: {error}"));
            }
        };
        let data = event.data.as_str();
        match tag.as_str() {
            "message_start" => self.message_start(read(&tag, data)?),
            "content_block_start" => self.block_start(read(&tag, data)?),
            "content_block_delta" => self.block_delta(read(&tag, data)?),
            "content_block_stop" => self.block_stop(&read(&tag, data)?),
            "message_delta" => self.message_delta(read(&tag, data)?),
            "message_stop" => self.message_stop(),
            "error" => {
                let ErrorText { tag, message } = read::<ErrorEvent>(&tag, data)?.error;
                Err(DecodeFault::Error { tag, message })
            }
            // `ping`, and what later years bring.
            _ => Ok(Vec::new()),
        }
    }

    /// Whether it belongs to the open block. If not, the event is read again, and what is wrong with it is said.
    fn takes(&self, piece: &Piece) -> bool {
        let kind = match piece.delta {
            Delta::TextDelta { .. } => OpenKind::Text,
            Delta::ThinkingDelta { .. } => OpenKind::Thinking,
            Delta::InputJsonDelta { .. } => OpenKind::Call,
            Delta::SignatureDelta { .. } | Delta::CitationsDelta { .. } => return false,
        };
        self.open == Some(Open { index: piece.index, kind })
    }

    fn between_blocks(&self, what: &str) -> Result<(), DecodeFault> {
        match (self.started, self.open) {
            (false, _) => protocol(format!("`{what}` before `message_start`")),
            (true, Some(open)) => protocol(format!("`{what}` while block {} is open", open.index)),
            (true, None) => Ok(()),
        }
    }

    fn message_start(&mut self, start: MessageStart) -> Result<Vec<SamplingEvent>, DecodeFault> {
        if std::mem::replace(&mut self.started, true) {
            return protocol("a second `message_start`");
        }
        self.learn_usage(start.message.usage);
        let usage = self.usage()?;
        Ok(vec![SamplingEvent::Started { usage }])
    }

    fn block_start(&mut self, start: BlockStart) -> Result<Vec<SamplingEvent>, DecodeFault> {
        let BlockStart { index, content_block: block } = start;
        let mut events = Vec::new();
        if let Some(outrun) = self.open.take_if(|open| open.index < index) {
            self.outrun.insert(outrun.index, outrun.kind);
            events.push(SamplingEvent::BlockEnded);
        }
        self.between_blocks("content_block_start")?;
        let (kind, sampled, first) = read_block(&block)?;
        self.open = Some(Open { index, kind });
        events.push(SamplingEvent::BlockStarted(sampled));
        events.extend(first.map(SamplingEvent::BlockDelta));
        Ok(events)
    }

    fn block_delta(&mut self, delta: BlockDelta) -> Result<Vec<SamplingEvent>, DecodeFault> {
        let BlockDelta { index, delta } = delta;
        let kind = match self.open {
            Some(open) if open.index == index => open.kind,
            Some(open) => return self.late_delta(index, delta, open),
            None => return protocol(format!("a delta for block {index}, which is not open")),
        };
        let piece = read_delta(kind, delta)?;
        Ok(piece.map(SamplingEvent::BlockDelta).into_iter().collect())
    }

    /// A block that has ended may still be told nothing (llama.cpp: that it has no signature).
    fn late_delta(&self, index: u64, delta: Map<String, Value>, open: Open) -> Result<Vec<SamplingEvent>, DecodeFault> {
        match self.outrun.get(&index).map(|kind| read_delta(*kind, delta)).transpose()? {
            Some(None) => Ok(Vec::new()),
            None | Some(Some(_)) => protocol(format!("a delta for block {index} while block {} is open", open.index)),
        }
    }

    fn block_stop(&mut self, stop: &BlockStop) -> Result<Vec<SamplingEvent>, DecodeFault> {
        if self.open.take_if(|open| open.index == stop.index).is_some() {
            return Ok(vec![SamplingEvent::BlockEnded]);
        }
        if self.outrun.remove(&stop.index).is_none() {
            return protocol(format!("block {} ends but is not open", stop.index));
        }
        Ok(Vec::new())
    }

    fn message_delta(&mut self, delta: MessageDelta) -> Result<Vec<SamplingEvent>, DecodeFault> {
        self.between_blocks("message_delta")?;
        self.learn_usage(delta.usage);
        if delta.delta.stop_reason.is_some() || self.ending.is_none() {
            self.ending = Some(delta.delta);
        }
        Ok(Vec::new())
    }

    fn message_stop(&mut self) -> Result<Vec<SamplingEvent>, DecodeFault> {
        self.between_blocks("message_stop")?;
        let Some(Ending { stop_reason: Some(reason), stop_sequence, stop_details }) = self.ending.take() else {
            return protocol("`message_stop` without a stop reason");
        };
        let stop_reason: StopReason = match StopReason::deserialize(Value::from(reason.as_str())) {
            Ok(stop_reason) => stop_reason,
            Err(_) => return protocol(format!("unknown stop reason `{}`", Brief(&reason))),
        };
        // llama.cpp says which one it was, and calls the end a natural one.
        let stop_reason = match (stop_reason, &stop_sequence) {
            (StopReason::EndTurn, Some(_)) => StopReason::StopSequence,
            (stop_reason, _) => stop_reason,
        };
        self.ended = true;
        Ok(vec![SamplingEvent::Ended { stop_reason, stop_sequence, stop_details, usage: self.usage()? }])
    }

    /// Later numbers replace earlier ones: usage is cumulative (wire.md §11.2). Nulls say nothing.
    fn learn_usage(&mut self, usage: Option<Map<String, Value>>) {
        for (key, value) in usage.into_iter().flatten() {
            if !value.is_null() {
                self.usage.insert(key, value);
            }
        }
    }

    fn usage(&mut self) -> Result<Usage, DecodeFault> {
        for key in ["input_tokens", "output_tokens"] {
            self.usage.entry(key).or_insert_with(|| Value::from(0));
        }
        Usage::deserialize(Value::Object(self.usage.clone()))
            .or_else(|error| protocol(format!("`usage` is unreadable: {error}")))
    }
}

fn text<'a>(members: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    members.get(key)?.as_str()
}

/// The block, and a first piece where the upstream put content into the start already.
fn read_block(block: &Map<String, Value>) -> Result<(OpenKind, SampledBlock, Option<Delta>), DecodeFault> {
    let first = |key: &str| text(block, key).filter(|text| !text.is_empty()).map(str::to_owned);
    match text(block, "type").unwrap_or_default() {
        "text" => {
            let cites = block.get("citations").is_some_and(Value::is_array);
            let sampled = if cites { SampledBlock::CitedText } else { SampledBlock::Text };
            Ok((OpenKind::Text, sampled, first("text").map(|text| Delta::TextDelta { text })))
        }
        "thinking" => Ok((
            OpenKind::Thinking,
            SampledBlock::Thinking,
            first("thinking").map(|thinking| Delta::ThinkingDelta { thinking }),
        )),
        "redacted_thinking" => match first("data") {
            Some(data) => Ok((OpenKind::Whole, SampledBlock::RedactedThinking { data }, None)),
            None => protocol("`redacted_thinking` without data"),
        },
        "tool_use" => {
            let Some(id) = text(block, "id").and_then(|id| id.parse().ok()) else {
                return protocol("`tool_use` without a readable id");
            };
            let Some(name) = text(block, "name").filter(|name| !name.is_empty()) else {
                return protocol("`tool_use` without a name");
            };
            let name = name.to_owned();
            Ok((OpenKind::Call, SampledBlock::ToolUse { id, name }, whole_input(block)))
        }
        other => match HostedBlock::read(block) {
            Ok(Some(HostedBlock::Call(call))) => {
                Ok((OpenKind::Call, SampledBlock::Hosted(HostedBlock::Call(call)), whole_input(block)))
            }
            Ok(Some(whole)) => Ok((OpenKind::Whole, SampledBlock::Hosted(whole), None)),
            Err(error) => protocol(format!("a block is unreadable: {}", error.message)),
            // Skipping it would lose what the model said.
            Ok(None) => protocol(format!("a block of unknown type `{}`", Brief(other))),
        },
    }
}

/// The input of a call that the upstream did not cut into pieces.
fn whole_input(block: &Map<String, Value>) -> Option<Delta> {
    let whole = block.get("input").filter(|input| input.as_object().is_some_and(|object| !object.is_empty()));
    whole.map(|input| Delta::InputJsonDelta { partial_json: input.to_string() })
}

/// A piece that fits the open block; empty pieces and unknown kinds yield none.
fn read_delta(kind: OpenKind, mut delta: Map<String, Value>) -> Result<Option<Delta>, DecodeFault> {
    let tag = text(&delta, "type").unwrap_or_default().to_owned();
    let (fits, key) = match tag.as_str() {
        "text_delta" => (OpenKind::Text, "text"),
        "citations_delta" => (OpenKind::Text, "citation"),
        "thinking_delta" => (OpenKind::Thinking, "thinking"),
        "signature_delta" => (OpenKind::Thinking, "signature"),
        "input_json_delta" => (OpenKind::Call, "partial_json"),
        "" => return protocol("a delta without a type"),
        other => {
            tracing::warn!(delta = %Brief(other), "skipping a delta of unknown type");
            return Ok(None);
        }
    };
    if kind != fits {
        return protocol(format!("`{tag}` does not fit its block"));
    }
    let Some(value) = delta.shift_remove(key) else {
        return protocol(format!("`{tag}` without `{key}`"));
    };
    if tag == "citations_delta" {
        return Ok(Some(Delta::CitationsDelta { citation: value }));
    }
    let Value::String(piece) = value else {
        return protocol(format!("`{tag}.{key}` is not a string"));
    };
    if piece.is_empty() {
        return Ok(None);
    }
    Ok(Some(match tag.as_str() {
        "text_delta" => Delta::TextDelta { text: piece },
        "thinking_delta" => Delta::ThinkingDelta { thinking: piece },
        "signature_delta" => Delta::SignatureDelta { signature: piece },
        _ => Delta::InputJsonDelta { partial_json: piece },
    }))
}
