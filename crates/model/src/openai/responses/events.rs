//! Events of the Responses API, read as chunks: what they say, item by item.
//!
//! An item may come in pieces, whole when it is done, whole in the reply at the end, or in any of these ways twice. What has come in
//! pieces is not taken again.

use std::collections::HashSet;

use belljar_wire::message::{OutputTokensDetails, Usage};
use belljar_wire::read::Brief;
use serde_json::{Map, Value};

use crate::openai::calls::CallPiece;
use crate::openai::chunk::{Chunk, Said};
use crate::openai::failure::Told;

/// One reply being read.
#[derive(Debug, Default)]
pub(in crate::openai) struct Reader {
    /// Items of which content has come, by number and by id: not every server gives both.
    said: HashSet<String>,
    /// Under which name thinking comes. Some send it under both.
    thinking: Option<String>,
}

impl Reader {
    /// Reads one event, or a reply that comes whole.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub(in crate::openai) fn read(&mut self, data: &str) -> Result<Chunk, String> {
        let value: Value = serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
        let Value::Object(members) = value else {
            return Err("an event is no JSON object".to_owned());
        };
        if let Some(error) = Told::of_members(&members) {
            return Ok(Chunk { error: Some(error), ..Chunk::default() });
        }
        if members.get("object").is_some_and(|tag| tag == "response") {
            return self.whole(&members);
        }
        let Some(tag) = members.get("type").and_then(Value::as_str) else {
            return Err(format!("an event has no `type`: {}", Brief(data)));
        };
        let mut chunk = Chunk::default();
        match tag {
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled"
            | "response.done" => {
                return match members.get("response").and_then(Value::as_object) {
                    Some(response) => self.whole(response),
                    None => Err(format!("`{tag}` has no `response`")),
                };
            }
            "response.output_text.delta" => chunk.said.extend(self.piece(&members, "delta").map(Said::Text)),
            "response.refusal.delta" => chunk.said.extend(self.piece(&members, "delta").map(Said::Refusal)),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" | "response.reasoning.delta" => {
                chunk.said.extend(self.thought(tag, &members));
            }
            "response.reasoning_summary_part.added" if number(&members, "summary_index") > Some(0) => {
                chunk.said.push(Said::Thinking("\n\n".to_owned()));
            }
            "response.function_call_arguments.delta" => {
                if let Some(arguments) = self.piece(&members, "delta") {
                    chunk.said.push(Said::Call(CallPiece { arguments: Some(arguments), ..place(&members) }));
                }
            }
            "response.output_item.added" => {
                if let Some(item) = members.get("item").and_then(Value::as_object) {
                    chunk.said.extend(self.begun(item, number(&members, "output_index")));
                }
            }
            "response.output_item.done" => {
                if let Some(item) = members.get("item").and_then(Value::as_object) {
                    self.item(item, number(&members, "output_index"), &mut chunk.said);
                }
            }
            // What else there is says nothing new.
            _ => {}
        }
        Ok(chunk)
    }

    /// A piece that is not empty; its item has content from now on.
    fn piece(&mut self, members: &Map<String, Value>, key: &str) -> Option<String> {
        let piece = members.get(key)?.as_str().filter(|piece| !piece.is_empty())?.to_owned();
        self.said.extend(names(text(members, "item_id"), number(members, "output_index")));
        Some(piece)
    }

    /// A piece of what was thought, unless it comes under another name, too.
    fn thought(&mut self, tag: &str, members: &Map<String, Value>) -> Option<Said> {
        let first = self.thinking.get_or_insert_with(|| tag.to_owned()) == tag;
        if first { self.piece(members, "delta").map(Said::Thinking) } else { None }
    }

    /// A call is named when it begins; everything else begins with its first piece.
    fn begun(&mut self, item: &Map<String, Value>, index: Option<u64>) -> Option<Said> {
        if item.get("type")?.as_str()? != "function_call" {
            return None;
        }
        let call = whole_call(item, index);
        if call.arguments.is_some() {
            self.said.extend(names(text(item, "id"), index));
        }
        Some(Said::Call(call))
    }

    /// A whole item, as far as it has not come before.
    fn item(&mut self, item: &Map<String, Value>, index: Option<u64>, said: &mut Vec<Said>) {
        let names: Vec<String> = names(text(item, "id"), index).collect();
        if names.iter().any(|name| self.said.contains(name)) {
            return;
        }
        self.said.extend(names);
        let parts = |key: &str| item.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match item.get("type").and_then(Value::as_str) {
            Some("message") => {
                for part in parts("content").iter().filter_map(Value::as_object) {
                    said.extend(text(part, "text").map(Said::Text));
                    said.extend(text(part, "refusal").map(Said::Refusal));
                }
            }
            Some("function_call") => said.push(Said::Call(whole_call(item, index))),
            Some("reasoning") => {
                let texts = |key| parts(key).iter().filter_map(|part| text(part.as_object()?, "text"));
                let mut thoughts: Vec<String> = texts("summary").collect();
                if thoughts.is_empty() {
                    thoughts.extend(texts("content"));
                }
                if !thoughts.is_empty() {
                    said.push(Said::Thinking(thoughts.join("\n\n")));
                }
            }
            other => tracing::warn!(item = %Brief(other.unwrap_or_default()), "skipping an item of unknown type"),
        }
    }

    /// The reply at its end: what of it has not come, why it ended, and what it took.
    fn whole(&mut self, response: &Map<String, Value>) -> Result<Chunk, String> {
        if let Some(error) = Told::of_members(response) {
            return Ok(Chunk { error: Some(error), ..Chunk::default() });
        }
        let mut chunk = Chunk { usage: response.get("usage").and_then(usage), over: true, ..Chunk::default() };
        let items = match response.get("output") {
            Some(Value::Array(items)) => items.as_slice(),
            None | Some(Value::Null) => &[],
            Some(_) => return Err("`output` is no list".to_owned()),
        };
        for (index, item) in (0..).zip(items) {
            let Some(item) = item.as_object() else {
                return Err("an item of `output` is no object".to_owned());
            };
            self.item(item, Some(index), &mut chunk.said);
        }
        let reason =
            response.get("incomplete_details").and_then(|details| details.get("reason")).and_then(Value::as_str);
        chunk.finish = match text(response, "status").as_deref() {
            None | Some("completed") => Some("stop".to_owned()),
            Some("incomplete") => Some(match reason {
                Some("max_output_tokens") | None => "length".to_owned(),
                Some(other) => other.to_owned(),
            }),
            Some(status @ ("queued" | "in_progress")) => {
                return Err(format!("the reply came before it was made: it is `{status}`"));
            }
            // A word for a failure, or one that nobody knows yet.
            Some(status) => Some(if status == "failed" { "error".to_owned() } else { status.to_owned() }),
        };
        Ok(chunk)
    }
}

/// What an item goes by.
fn names(id: Option<String>, index: Option<u64>) -> impl Iterator<Item = String> {
    id.into_iter().chain(index.map(|index| format!("#{index}")))
}

fn text(members: &Map<String, Value>, key: &str) -> Option<String> {
    members.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn number(members: &Map<String, Value>, key: &str) -> Option<u64> {
    members.get(key)?.as_u64()
}

/// Where a piece of a call belongs.
fn place(members: &Map<String, Value>) -> CallPiece {
    CallPiece { index: number(members, "output_index"), id: text(members, "item_id"), ..CallPiece::default() }
}

fn whole_call(item: &Map<String, Value>, index: Option<u64>) -> CallPiece {
    let arguments = match item.get("arguments") {
        Some(object @ (Value::Object(_) | Value::Array(_))) => Some(object.to_string()),
        _ => text(item, "arguments"),
    };
    CallPiece { index, id: text(item, "id"), name: text(item, "name"), arguments }
}

/// Counts as far as they are counts. Cached tokens are among the input here, and beside it in the Messages API.
fn usage(usage: &Value) -> Option<Usage> {
    let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    let (input, output) = (number("/input_tokens"), number("/output_tokens"));
    if input.is_none() && output.is_none() {
        return None;
    }
    let input = input.unwrap_or(0);
    let cached = number("/input_tokens_details/cached_tokens").unwrap_or(0).min(input);
    let thinking = number("/output_tokens_details/reasoning_tokens");
    Some(Usage {
        input_tokens: input - cached,
        cache_read_input_tokens: cached,
        output_tokens: output.unwrap_or(0),
        output_tokens_details: thinking.map(|thinking_tokens| OutputTokensDetails { thinking_tokens }),
        ..Usage::default()
    })
}
