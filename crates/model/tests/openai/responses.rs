//! The same upstream, asked by its other API: what is sent, and how replies are read.

use belljar_model::{Api, ChatSettings};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::replies::told;
use super::support::{Answer, Fake, responses};
use super::{cases, config, request, sample};

/// One request, or one way to answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    request: Option<Value>,
    #[serde(default)]
    thinking: bool,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    settings_body: Map<String, Value>,
    /// The body upstream without `model`, the limit of 900 tokens, `stream` and `store`; null takes a member away.
    body: Option<Value>,
    /// Or the text with which it is refused before anything is sent.
    refused: Option<String>,
    /// The answer: its events, or one document.
    events: Option<Vec<Value>>,
    document: Option<Value>,
    expect: Option<Value>,
}

impl Case {
    fn settings(&self) -> ChatSettings {
        let (thinking, stream, body) = (self.thinking, !self.whole, self.settings_body.clone());
        ChatSettings { api: Api::Responses, thinking, stream, body, ..ChatSettings::default() }
    }

    fn asked(&self) -> Value {
        self.request.clone().unwrap_or_else(|| json!({}))
    }
}

#[tokio::test]
async fn requests_as_data() {
    for (file, case) in cases::<Case>("responses/requests") {
        let name = format!("{file}: {}", case.name);
        let said = Answer { content: vec![json!({"type": "text", "text": "well"})], ..Answer::default() };
        let fake = Fake::start(vec![said]).await.expect("the fake listens");
        let events = sample(config(&fake.url, case.settings()), request(&case.asked())).await;
        assert_eq!(fake.violations(), Vec::<String>::new(), "{name}");
        let seen = fake.seen();
        match (&case.body, &case.refused) {
            (Some(body), None) => {
                assert_eq!(told(&events)["blocks"], json!([{"text": "well"}]), "{name}");
                let mut expected = json!({"model": "sent-upstream", "input": [{"type": "message", "role": "user", "content": "go"}],
                    "max_output_tokens": 900, "stream": true, "store": false});
                for (key, value) in body.as_object().expect("a body is an object") {
                    match value {
                        Value::Null => drop(expected.as_object_mut().map(|members| members.shift_remove(key))),
                        value => expected[key] = value.clone(),
                    }
                }
                assert_eq!(seen.iter().map(|seen| &seen.body).collect::<Vec<_>>(), [&expected], "{name}");
            }
            (None, Some(text)) => {
                assert_eq!(seen.len(), 0, "{name}");
                let error = events[0].as_ref().expect_err("it is refused");
                assert_eq!((error.client.message.as_str(), error.client.kind.status()), (text.as_str(), 400), "{name}");
            }
            _ => panic!("{name}: one of `body` and `refused`"),
        }
    }
}

/// Every case, however its bytes are split.
#[tokio::test]
async fn replies_as_data() {
    let mut wrong = Vec::new();
    for (file, case) in cases::<Case>("responses/replies") {
        let raw = match (&case.events, &case.document) {
            (Some(events), None) => responses::sse(events),
            (None, Some(document)) => document.to_string(),
            _ => panic!("{}: one of `events` and `document`", case.name),
        };
        for chunk_bytes in [1, 13, 1 << 20] {
            let answer = Answer { raw: Some(raw.clone()), chunk_bytes: Some(chunk_bytes), ..Answer::default() };
            let fake = Fake::start(vec![answer]).await.expect("the fake listens");
            let told = told(&sample(config(&fake.url, case.settings()), request(&case.asked())).await);
            if Some(&told) != case.expect.as_ref() {
                wrong.push(format!("{file}: {} ({chunk_bytes}): {told}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the fake writes of itself is read as what it was told to say, streamed and whole.
#[tokio::test]
async fn replies_in_the_vendors_own_form() {
    let content = vec![
        json!({"type": "thinking", "thinking": "let me see"}),
        json!({"type": "text", "text": "I look it up."}),
        json!({"type": "tool_use", "id": "x", "name": "look_up", "input": {"q": [1, {"a": "b"}]}}),
        json!({"type": "tool_use", "id": "y", "name": "look_up", "input": {}}),
    ];
    for stream in [true, false] {
        let fake = Fake::start(vec![Answer { content: content.clone(), ..Answer::default() }])
            .await
            .expect("the fake listens");
        let settings = ChatSettings { api: Api::Responses, stream, ..ChatSettings::default() };
        let told = told(&sample(config(&fake.url, settings), request(&json!({}))).await);
        let blocks: Vec<&Value> = told["blocks"].as_array().expect("blocks").iter().collect();
        assert_eq!(blocks[0]["thinking"], "let me see");
        assert_eq!(
            blocks[1..],
            [
                &json!({"text": "I look it up."}),
                &json!({"call": "look_up", "input": "{\"q\":[1,{\"a\":\"b\"}]}"}),
                &json!({"call": "look_up", "input": "{}"})
            ]
        );
        assert_eq!((&told["stop_reason"], &told["usage"]), (&json!("tool_use"), &json!([7, 0, 5])));
    }
}
