//! Bodies of `POST /v1/messages` and what reading them says, as data: `requests/*.json`.
//!
//! A case has a `name`, one body and one expectation. Bodies: `body` whole; `with`, `without`, `user`, `assistant` or `tool`,
//! laid over a small valid body; `raw` text; `hex` bytes. With `counts` it is read as one of `POST /v1/messages/count_tokens`. Expectations: `"accepted": true`, or the exact `error`, which is
//! always a 400, with `code` when there are details. What is accepted must also replay: assistant messages serialize to
//! what was sent.

use std::path::PathBuf;

use belljar_wire::error::{ApiError, ErrorCode};
use belljar_wire::request::{MessagesRequest, Role};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    body: Option<Value>,
    raw: Option<String>,
    hex: Option<String>,
    #[serde(default)]
    with: Map<String, Value>,
    #[serde(default)]
    without: Vec<String>,
    user: Option<Value>,
    assistant: Option<Value>,
    tool: Option<Value>,
    /// The body of a request that only counts.
    #[serde(default)]
    counts: bool,
    #[serde(default)]
    accepted: bool,
    error: Option<String>,
    #[serde(default)]
    code: Value,
}

impl Case {
    /// The bytes to read, and the document that they are if they are one.
    fn body(&self) -> (Vec<u8>, Option<Value>) {
        if let Some(hex) = &self.hex {
            return (bytes(hex), None);
        }
        if let Some(raw) = &self.raw {
            return (raw.clone().into_bytes(), serde_json::from_str(raw).ok());
        }
        let mut body = self.body.clone().unwrap_or_else(|| self.overlay());
        if let Value::Object(members) = &mut body {
            members.extend(self.with.clone());
            members.retain(|key, _| !self.without.contains(key));
        }
        (body.to_string().into_bytes(), Some(body))
    }

    fn overlay(&self) -> Value {
        let hello = json!({"role": "user", "content": "Hello"});
        let mut body = json!({"model": "any", "max_tokens": 16, "messages": [hello]});
        if let Some(content) = &self.user {
            body["messages"] = json!([{"role": "user", "content": content}]);
        }
        if let Some(content) = &self.assistant {
            body["messages"] = json!([{"role": "assistant", "content": content}]);
        }
        if let Some(tool) = &self.tool {
            body["tools"] = json!([tool]);
        }
        body
    }

    fn expected(&self) -> Option<ApiError> {
        assert_ne!(self.accepted, self.error.is_some(), "{}: one expectation", self.name);
        let error = ApiError::invalid(self.error.as_ref()?);
        Some(match self.code.as_str() {
            None => error,
            Some("thread_unsupported_request") => error.with_code(ErrorCode::ThreadUnsupportedRequest),
            Some(other) => panic!("{}: no such code: {other}", self.name),
        })
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<&str> = hex.split(' ').collect();
    let byte = |digits: &&str| u8::from_str_radix(digits, 16).expect("two hexadecimal digits");
    digits.iter().map(byte).collect()
}

/// What is wrong with how `case` went, if anything.
fn check(case: &Case) -> Option<String> {
    let (body, document) = case.body();
    let read = match case.counts {
        true => MessagesRequest::read_to_count(&body),
        false => MessagesRequest::read(&body),
    };
    match (read, case.expected()) {
        (Ok(request), None) => replay_fault(&request, &document?),
        (Ok(_), Some(error)) => Some(format!("accepted, should say {:?}", error.message)),
        (Err(got), Some(expected)) if got == expected => None,
        (Err(got), Some(expected)) => Some(format!("says {got:?}\n   should say {expected:?}")),
        (Err(got), None) => Some(format!("refused: {got:?}")),
    }
}

fn replay_fault(request: &MessagesRequest, document: &Value) -> Option<String> {
    let pairs = request.messages.iter().enumerate();
    let mut replays = pairs.filter(|(_, message)| message.role == Role::Assistant);
    replays.find_map(|(index, message)| {
        let written = serde_json::to_value(message).expect("messages serialize");
        let sent = &document["messages"][index];
        (&written != sent).then(|| format!("replays {sent}\n   as {written}"))
    })
}

#[test]
fn requests_read_as_their_cases_say() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let files = std::fs::read_dir(&folder).expect("the folder of cases is there");
    let (mut cases, mut faults) = (0, Vec::new());
    for file in files {
        let path = file.expect("the folder lists").path();
        let text = std::fs::read_to_string(&path).expect("a file of cases reads");
        let list: Vec<Case> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for case in &list {
            cases += 1;
            faults.extend(check(case).map(|fault| format!("{stem}: {}\n   {fault}", case.name)));
        }
    }
    assert!(faults.is_empty(), "{} of {cases} cases:\n{}", faults.len(), faults.join("\n"));
    assert!(cases > 200, "cases went missing: {cases}");
}
