//! The normal form of a reply: what is left of it when everything is taken out that differs from one run to the next.
//!
//! Two replies of the same server to the same request have the same normal form. So have two servers that speak the same wire:
//! the conformance suite and `belljar compare` look for what else differs ([`crate::difference`]).
//!
//! * Ids become `<kind 1>`, `<kind 2>`, … in the order in which they are met, and the same id becomes the same text wherever it
//!   stands: ids must correspond, whatever they are.
//! * Times, signatures and the numbers of `usage` become `<time>`, `<signature>` and `<number>`; their keys stay.
//! * Pings go, and pieces of one block are joined: where they were cut means nothing (wire.md §11.2).

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::sse::RawEvent;

/// Members whose string is an id, wherever they stand but in what a model or a client wrote.
const ID_KEYS: [&str; 6] = ["id", "tool_use_id", "tool_id", "file_id", "request_id", "previous_message_id"];

/// Members whose string is a point in time.
const TIME_KEYS: [&str; 2] = ["expires_at", "created_at"];

/// Members that hold what a model or its tools wrote; [`Said::LeftOut`] leaves them out.
const SAID_KEYS: [&str; 10] = [
    "text",
    "thinking",
    "data",
    "partial_json",
    "stdout",
    "stderr",
    "return_code",
    "lines",
    "citation",
    "encrypted_stdout",
];

/// What becomes of what a model, and the code that it wrote, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It stays.
    Kept,
    /// It goes: two runs of one model never say the same.
    LeftOut,
}

/// Normal forms of one conversation, which share their ids.
#[derive(Clone, Debug)]
pub struct Normal {
    said: Said,
    ids: HashMap<String, String>,
    counts: BTreeMap<String, usize>,
    met: Vec<(String, String)>,
}

impl Normal {
    /// Of a conversation that has not begun.
    pub fn new(said: Said) -> Self {
        Self { said, ids: HashMap::new(), counts: BTreeMap::new(), met: Vec::new() }
    }

    /// The ids met so far, each once, in their order, with what became of them.
    pub fn ids(&self) -> &[(String, String)] {
        &self.met
    }

    /// Meets the ids of a request: its container's, and those of what it sends back.
    pub fn request(&mut self, body: &Value) {
        match &body["container"] {
            Value::String(id) => _ = self.id(id),
            container => _ = self.value(container.clone()),
        }
        self.value(body["messages"].clone());
    }

    /// The normal form of a plain reply, or of an error's body.
    pub fn message(&mut self, body: Value) -> Value {
        self.value(body)
    }

    /// The normal form of a stream. An event whose name is not its `type` keeps its name beside it: clients go by the name
    /// (wire.md §11.1).
    pub fn events(&mut self, events: Vec<RawEvent>) -> Vec<Value> {
        let mut kept: Vec<Value> = Vec::with_capacity(events.len());
        for RawEvent { name, data } in events {
            if data["type"] == "ping" {
                continue;
            }
            if data["type"] != name.as_str() {
                let mut odd = Map::new();
                odd.insert("event".to_owned(), Value::from(name));
                odd.insert("data".to_owned(), data);
                kept.push(Value::Object(odd));
                continue;
            }
            if is_empty_piece(&data) || kept.last_mut().is_some_and(|last| joined(last, &data)) {
                continue;
            }
            kept.push(data);
        }
        kept.into_iter().map(|event| self.value(event)).collect()
    }

    fn id(&mut self, id: &str) -> String {
        if let Some(name) = self.ids.get(id) {
            return name.clone();
        }
        // An id that nobody here minted may be of any form.
        let kind = id.split_once('_').map_or("id", |(kind, _)| kind);
        let count = self.counts.entry(kind.to_owned()).or_insert(0);
        *count += 1;
        let name = format!("<{kind} {count}>");
        self.ids.insert(id.to_owned(), name.clone());
        self.met.push((id.to_owned(), name.clone()));
        name
    }

    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::Object(members) => {
                Value::Object(members.into_iter().map(|(key, value)| self.member(key, value)).collect())
            }
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => value,
        }
    }

    fn member(&mut self, key: String, value: Value) -> (String, Value) {
        let value = match (key.as_str(), value) {
            // What a model wrote: nothing in it is ours.
            ("input", value) if self.said == Said::Kept => value,
            ("input", Value::Object(members)) if members.is_empty() => Value::Object(members),
            ("input", _) => said(),
            (key, Value::String(id)) if ID_KEYS.contains(&key) => Value::from(self.id(&id)),
            (key, Value::String(time)) if TIME_KEYS.contains(&key) && looks_like_a_time(&time) => Value::from("<time>"),
            ("signature", Value::String(signature)) if !signature.is_empty() => Value::from("<signature>"),
            ("usage", value) => numbers_out(value),
            (key, value) if self.said == Said::LeftOut && is_said(key, &value) => said(),
            (_, value) => self.value(value),
        };
        (key, value)
    }
}

fn said() -> Value {
    Value::from("<said>")
}

/// `content` is said where it is a text: that of a viewed file. Empty texts and nulls are shapes.
fn is_said(key: &str, value: &Value) -> bool {
    let holds = match value {
        Value::Null | Value::Bool(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(_) | Value::Array(_) => true,
        Value::Object(_) => key == "citation",
    };
    holds && (SAID_KEYS.contains(&key) || (key == "content" && value.is_string()))
}

/// `2026-11-20T18:54:08…Z`.
fn looks_like_a_time(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd";
    let fits = |(byte, form): (u8, &u8)| if *form == b'd' { byte.is_ascii_digit() } else { byte == *form };
    text.len() > form.len() && text.bytes().zip(form).all(fits) && text.ends_with('Z')
}

fn numbers_out(value: Value) -> Value {
    match value {
        Value::Number(_) => Value::from("<number>"),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, numbers_out(value))).collect(),
        Value::Array(items) => items.into_iter().map(numbers_out).collect(),
        value @ (Value::Null | Value::Bool(_) | Value::String(_)) => value,
    }
}

/// The member of a delta that holds its piece of text; a citation is whole.
fn piece_key(delta: &Value) -> Option<&'static str> {
    match delta["type"].as_str()? {
        "text_delta" => Some("text"),
        "input_json_delta" => Some("partial_json"),
        "thinking_delta" => Some("thinking"),
        "signature_delta" => Some("signature"),
        _ => None,
    }
}

fn is_empty_piece(event: &Value) -> bool {
    let delta = &event["delta"];
    event["type"] == "content_block_delta" && piece_key(delta).is_some_and(|key| delta[key] == "")
}

/// Appends a piece to the one before it, if both are of one kind and of one block.
fn joined(last: &mut Value, event: &Value) -> bool {
    let same = ["type", "index"].iter().all(|key| last[*key] == event[*key])
        && event["type"] == "content_block_delta"
        && last["delta"]["type"] == event["delta"]["type"];
    let Some(key) = piece_key(&event["delta"]).filter(|_| same) else {
        return false;
    };
    let (Some(before), Some(more)) = (last["delta"][key].as_str(), event["delta"][key].as_str()) else {
        return false;
    };
    let whole = format!("{before}{more}");
    last["delta"][key] = Value::from(whole);
    true
}
