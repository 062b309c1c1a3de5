//! Recordings, as they lie on disk: a file is a list of exchanges. A stream's body is `{"__sse__": [{"event", "data"}, …]}`.

use std::path::{Path, PathBuf};

use belljar_wire::sse::RawEvent;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One request and its reply.
#[derive(Deserialize)]
pub struct Exchange {
    pub request: Request,
    pub response: Response,
}

#[derive(Deserialize)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: Map<String, Value>,
    #[serde(default)]
    pub body: Value,
}

#[derive(Deserialize)]
pub struct Response {
    pub status: u16,
    #[serde(default)]
    pub body: Value,
}

impl Request {
    /// Whether a message is asked for. Some recorders hide the path, none the body.
    pub fn is_for_a_message(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let hidden = !path.starts_with('/');
        self.method == "POST" && (hidden || path == "/v1/messages") && self.body["messages"].is_array()
    }

    /// Its method and the kind of its path: `DELETE /v1/files`.
    pub fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        let kind: Vec<&str> = path.split('/').take(3).collect();
        format!("{} {}", self.method, kind.join("/"))
    }

    /// A header, unless the recorder hid it.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        value.as_str().filter(|value| !value.contains("REDACTED"))
    }
}

impl Response {
    /// The events of a streamed reply.
    pub fn events(&self) -> Option<Vec<RawEvent>> {
        let events = self.body["__sse__"].as_array()?;
        let read = events.iter().map(|event| {
            let data = match &event["data"] {
                Value::String(text) => serde_json::from_str(text).expect("an event's data is JSON"),
                data => data.clone(),
            };
            RawEvent { name: event["event"].as_str().unwrap_or_default().to_owned(), data }
        });
        Some(read.collect())
    }
}

/// The recordings of a folder, by name.
pub fn load(folder: &Path) -> Vec<(String, Vec<Exchange>)> {
    let listed = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("a folder lists").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = paths.into_iter().map(|path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name.clone(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
    });
    read.collect()
}
