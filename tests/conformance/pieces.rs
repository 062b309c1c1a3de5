//! A recorded reply, taken apart: what the model said, what its code called, what came of it, and how the reply ended.

use std::collections::VecDeque;

use belljar_ids::{SeededIds, ToolUseId};
use belljar_wire::event::Delta;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use belljar_wire::sse::RawEvent;
use serde_json::{Map, Value, json};

use crate::recording::Response;

/// A part of a reply.
pub enum Piece {
    /// A block that the model sampled. A call of a server tool has the id that the recording gives it, and its input.
    Sampled { events: Vec<SamplingEvent>, call: Option<Call> },
    /// A call that the code of a cell made.
    Called { cell: String, tool: String, input: Map<String, Value> },
    /// What a cell came to.
    Result { cell: String, content: Value },
}

/// A call of the model.
pub enum Call {
    Server { id: String, input: Value },
    Client,
}

/// A recorded reply.
pub struct Reply {
    pub pieces: VecDeque<Piece>,
    pub ending: Ending,
    /// As of the head, and as of the end; without the server tools of whoever was recorded.
    pub usage: (Usage, Usage),
}

/// Why it ended.
pub struct Ending {
    pub stop_reason: StopReason,
    pub stop_sequence: Option<String>,
    pub stop_details: Option<Value>,
}

struct Block {
    start: Value,
    deltas: Vec<Value>,
}

impl Reply {
    /// Takes a reply apart, or says what of it cannot be played.
    pub fn of(response: &Response, ids: &mut SeededIds) -> Result<Self, String> {
        let (blocks, head, end) = match response.events() {
            Some(events) => streamed(events),
            None => plain(&response.body),
        };
        let pieces = blocks.into_iter().map(|block| piece(block, ids)).collect::<Result<_, _>>()?;
        let text = |key: &str| end[key].as_str().map(str::to_owned);
        let stop_reason = serde_json::from_value(end["stop_reason"].clone());
        let ending = Ending {
            stop_reason: stop_reason.map_err(|error| format!("stop_reason: {error}"))?,
            stop_sequence: text("stop_sequence"),
            stop_details: Some(end["stop_details"].clone()).filter(|details| !details.is_null()),
        };
        let mut total = head["usage"].clone();
        for (key, value) in end["usage"].as_object().into_iter().flatten() {
            total[key] = value.clone();
        }
        Ok(Self { pieces, ending, usage: (usage(&head["usage"])?, usage(&total)?) })
    }
}

fn usage(recorded: &Value) -> Result<Usage, String> {
    let mut recorded = recorded.clone();
    if let Some(members) = recorded.as_object_mut() {
        members.shift_remove("server_tool_use");
    }
    serde_json::from_value(recorded).map_err(|error| format!("usage: {error}"))
}

/// Blocks, the head of the message, and its end. A reply that came whole in its head is plain.
fn streamed(events: Vec<RawEvent>) -> (Vec<Block>, Value, Value) {
    let (mut blocks, mut head, mut end): (Vec<Block>, _, _) = (Vec::new(), Value::Null, Value::Null);
    for RawEvent { data, .. } in events {
        match data["type"].as_str().unwrap_or_default() {
            "message_start" if data["message"]["content"] != json!([]) => return plain(&data["message"]),
            "message_start" => head = data["message"].clone(),
            "content_block_start" => {
                blocks.push(Block { start: data["content_block"].clone(), deltas: Vec::new() });
            }
            "content_block_delta" => {
                let block = blocks.last_mut().expect("a piece follows its block");
                block.deltas.push(data["delta"].clone());
            }
            "message_delta" => {
                end = data["delta"].clone();
                end["usage"] = data["usage"].clone();
            }
            _ => {}
        }
    }
    (blocks, head, end)
}

fn plain(message: &Value) -> (Vec<Block>, Value, Value) {
    let blocks = message["content"].as_array().into_iter().flatten();
    let blocks = blocks.map(|block| Block { start: block.clone(), deltas: Vec::new() });
    (blocks.collect(), message.clone(), message.clone())
}

fn piece(block: Block, ids: &mut SeededIds) -> Result<Piece, String> {
    let Block { start, deltas } = block;
    let text = |key: &str| start[key].as_str().unwrap_or_default().to_owned();
    let caller = &start["caller"]["tool_id"];
    match (text("type").as_str(), caller.as_str()) {
        ("tool_use", Some(cell)) => Ok(Piece::Called {
            cell: cell.to_owned(),
            tool: text("name"),
            input: start["input"].as_object().cloned().unwrap_or_default(),
        }),
        (tag @ "server_tool_use", Some(_)) => Err(format!("a `{tag}` that code made: {}", text("name"))),
        ("server_tool_use", None) if belljar_wire::tool::SubTool::from_name(&text("name")).is_none() => {
            Err(format!("a call of `{}`, which this server does not have", text("name")))
        }
        ("server_tool_use" | "tool_use", None) => Ok(tool(&start, &deltas, ids)),
        ("text" | "thinking" | "redacted_thinking", _) => sampled(&start, &deltas),
        (
            "bash_code_execution_tool_result" | "code_execution_tool_result" | "text_editor_code_execution_tool_result",
            _,
        ) => Ok(Piece::Result { cell: text("tool_use_id"), content: start["content"].clone() }),
        (tag, _) => Err(format!("a block of type `{tag}`")),
    }
}

fn tool(start: &Value, deltas: &[Value], ids: &mut SeededIds) -> Piece {
    let name = start["name"].as_str().unwrap_or_default().to_owned();
    // The upstream names its calls; a server tool's call gets another name on the way.
    let id = ToolUseId::mint(ids);
    let mut events = vec![SamplingEvent::BlockStarted(SampledBlock::ToolUse { id, name })];
    let pieces: Vec<String> = match deltas {
        [] => vec![start["input"].to_string()],
        deltas => deltas.iter().filter_map(|delta| delta["partial_json"].as_str().map(str::to_owned)).collect(),
    };
    let written: String = pieces.concat();
    let given = pieces.into_iter().filter(|piece| !piece.is_empty());
    events.extend(given.map(|partial_json| SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json })));
    events.push(SamplingEvent::BlockEnded);
    let call = match start["type"] == "server_tool_use" {
        true => Call::Server {
            id: start["id"].as_str().unwrap_or_default().to_owned(),
            input: serde_json::from_str(&written).unwrap_or_default(),
        },
        false => Call::Client,
    };
    Piece::Sampled { events, call: Some(call) }
}

fn sampled(start: &Value, deltas: &[Value]) -> Result<Piece, String> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let block = match start["type"].as_str() {
        Some("thinking") => SampledBlock::Thinking,
        Some("redacted_thinking") => SampledBlock::RedactedThinking { data: text(start, "data") },
        // Of a plain reply it is not known how its stream began.
        _ if start["citations"] == json!([]) => SampledBlock::CitedText,
        _ => SampledBlock::Text,
    };
    // A plain block is one piece of each kind that it has; a streamed one starts empty.
    let mut pieces = vec![
        Delta::TextDelta { text: text(start, "text") },
        Delta::ThinkingDelta { thinking: text(start, "thinking") },
        Delta::SignatureDelta { signature: text(start, "signature") },
    ];
    let citations = start["citations"].as_array().into_iter().flatten();
    pieces.extend(citations.map(|citation| Delta::CitationsDelta { citation: citation.clone() }));
    for delta in deltas {
        pieces.push(match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => Delta::TextDelta { text: text(delta, "text") },
            "thinking_delta" => Delta::ThinkingDelta { thinking: text(delta, "thinking") },
            "signature_delta" => Delta::SignatureDelta { signature: text(delta, "signature") },
            "citations_delta" => Delta::CitationsDelta { citation: delta["citation"].clone() },
            other => return Err(format!("a piece of type `{other}`")),
        });
    }
    let says_something = |delta: &Delta| match delta {
        Delta::TextDelta { text } => !text.is_empty(),
        Delta::ThinkingDelta { thinking } => !thinking.is_empty(),
        Delta::SignatureDelta { signature } => !signature.is_empty(),
        Delta::InputJsonDelta { .. } | Delta::CitationsDelta { .. } => true,
    };
    let mut events = vec![SamplingEvent::BlockStarted(block)];
    events.extend(pieces.into_iter().filter(says_something).map(SamplingEvent::BlockDelta));
    events.push(SamplingEvent::BlockEnded);
    Ok(Piece::Sampled { events, call: None })
}
