//! The file of requests: one JSON document or one a line.
//!
//! A request is a body; or a body with its headers, as `{"headers": {…}, "body": {…}}`; or an exchange of a recording, as
//! `{"request": {"headers", "body"}, "response": {"status", "body"}}`. The exchanges of one file are one conversation: later ones
//! may name ids of earlier replies.

use std::collections::HashMap;
use std::path::Path;

use belljar_wire::sse::RawEvent;
use serde_json::{Map, Value};

use super::answer::{Answer, Reply};
use crate::exit::Exit;

/// One request to be asked.
pub struct Question {
    /// As it will be sent, but for ids.
    pub body: Value,
    /// `anthropic-version`, `anthropic-beta`, and the script of a scripted model, as far as the file says them.
    pub headers: Vec<(String, String)>,
    /// What was recorded.
    pub recorded: Option<Answer>,
}

/// Headers that decide what a request means; everything else is the sender's.
const HEADERS: [&str; 3] = ["anthropic-version", "anthropic-beta", "belljar-script"];

/// What recorders put where a value was.
const HIDDEN: &str = "REDACTED";

/// Reads the file.
pub fn read(path: &Path) -> Result<Vec<Question>, Exit> {
    let wrong = |what: String| Exit::usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let documents: Vec<Value> = match serde_json::from_str(&text) {
        Ok(Value::Array(documents)) => documents,
        Ok(document) => vec![document],
        Err(whole) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let read: Result<_, _> = lines.map(serde_json::from_str).collect();
            read.map_err(|line| wrong(format!("neither JSON ({whole}) nor a document a line ({line})")))?
        }
    };
    let questions: Vec<Question> = documents.into_iter().filter_map(question).collect();
    if questions.is_empty() {
        return Err(wrong("no request for a message is in it".to_owned()));
    }
    Ok(questions)
}

/// Exchanges that ask for no message, such as uploads, are left out.
fn question(document: Value) -> Option<Question> {
    let request = if document["request"].is_object() { &document["request"] } else { &document };
    let body = if request["body"].is_object() { &request["body"] } else { request };
    if !body["messages"].is_array() {
        return None;
    }
    let headers = request["headers"].as_object().into_iter().flatten().filter_map(|(name, value)| {
        let value = value.as_str().filter(|value| !value.contains(HIDDEN))?;
        let name = HEADERS.into_iter().find(|known| name.eq_ignore_ascii_case(known))?;
        Some((name.to_owned(), value.to_owned()))
    });
    Some(Question { headers: headers.collect(), recorded: recorded(&document["response"]), body: body.clone() })
}

fn recorded(response: &Value) -> Option<Answer> {
    let status = response["status"].as_u64().and_then(|status| u16::try_from(status).ok())?;
    let reply = match response["body"]["__sse__"].as_array() {
        None => Reply::Plain(response["body"].clone()),
        Some(events) => {
            let event = |event: &Value| RawEvent {
                name: event["event"].as_str().unwrap_or_default().to_owned(),
                data: event["data"].clone(),
            };
            Reply::Stream(events.iter().map(event).collect())
        }
    };
    Some(Answer { status, reply, first_event: None, total: None })
}

/// The same with other ids, wherever a whole text is one that is known.
pub fn with_ids(value: Value, known: &HashMap<String, String>) -> Value {
    match value {
        Value::String(text) => known.get(&text).cloned().unwrap_or(text).into(),
        Value::Array(items) => items.into_iter().map(|item| with_ids(item, known)).collect(),
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (key, with_ids(value, known)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        value @ (Value::Null | Value::Bool(_) | Value::Number(_)) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(text: &str) -> Result<Vec<Question>, Exit> {
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        std::fs::write(file.path(), text).expect("it can be written");
        read(file.path())
    }

    #[test]
    fn requests_come_in_several_forms() {
        let body = r#"{"model": "m", "messages": []}"#;
        let hidden = r#"{"anthropic-version": "**REDACTED**", "Anthropic-Beta": "a-2025-01-01", "x-api-key": "k"}"#;
        let exchange = format!(
            r#"{{"request": {{"headers": {hidden}, "body": {body}}}, "response": {{"status": 200, "body": {{"__sse__": []}}}}}}"#
        );
        let upload =
            r#"{"request": {"method": "POST", "path": "/v1/files", "body": null}, "response": {"status": 200}}"#;
        let cases = [
            (body.to_owned(), 1),
            (format!("[{body}, {body}]"), 2),
            (format!("{body}\n\n{body}\n"), 2),
            (format!(r#"{{"body": {body}}}"#), 1),
            (format!("[{upload}, {exchange}]"), 1),
        ];
        for (text, count) in cases {
            let read = questions(&text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(read.len(), count, "{text}");
            assert!(read.iter().all(|question| question.body["model"] == "m"));
        }
        let read = questions(&exchange).expect("an exchange");
        assert_eq!(read[0].headers, [("anthropic-beta".to_owned(), "a-2025-01-01".to_owned())]);
        assert!(matches!(read[0].recorded, Some(Answer { status: 200, reply: Reply::Stream(_), .. })));
    }

    #[test]
    fn a_file_without_requests_is_refused() {
        for text in ["", "[]", "{", "{}", upload_only()] {
            assert!(questions(text).is_err(), "{text}");
        }
    }

    fn upload_only() -> &'static str {
        r#"[{"request": {"method": "DELETE", "path": "/v1/files/a"}, "response": {"status": 200}}]"#
    }
}
