//! What is sent.

use belljar_model::{Api, ChatSettings, MaxTokensKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{Answer, Fake};
use super::{KEY, cases, config, request, sample};

/// One request and what becomes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// In the Messages API.
    request: Value,
    #[serde(default)]
    settings: Settings,
    /// The body upstream without what every body has: `model`, the limit of 900 tokens, `stream` and `stream_options`.
    body: Option<Value>,
    /// Or the text with which it is refused before anything is sent.
    refused: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    max_tokens_key: Option<String>,
    output_tokens_max: Option<u64>,
    whole: bool,
    without_usage: bool,
    thinking: bool,
    thinking_key: Option<String>,
    strict_roles: bool,
    body: serde_json::Map<String, Value>,
}

impl Settings {
    fn read(self) -> ChatSettings {
        let key = self.max_tokens_key.as_deref().map(|key| MaxTokensKey::from_name(key).expect("a known key"));
        ChatSettings {
            api: Api::Chat,
            max_tokens_key: key.unwrap_or(MaxTokensKey::MaxTokens),
            output_tokens_max: self.output_tokens_max,
            stream: !self.whole,
            stream_usage: !self.without_usage,
            thinking: self.thinking,
            thinking_key: self.thinking_key,
            body: self.body,
            rescue: Vec::new(),
            strict_roles: self.strict_roles,
        }
    }
}

#[tokio::test]
async fn requests_as_data() {
    for (file, case) in cases::<Case>("requests") {
        let name = format!("{file}: {}", case.name);
        let said = Answer { content: vec![json!({"type": "text", "text": "well"})], ..Answer::default() };
        let fake = Fake::start(vec![said]).await.expect("the fake listens");
        let events = sample(config(&fake.url, case.settings.read()), request(&case.request)).await;
        assert_eq!(fake.violations(), Vec::<String>::new(), "{name}");
        let seen = fake.seen();
        match (case.body, case.refused) {
            (Some(body), None) => {
                let error = events.iter().find_map(|event| event.as_ref().err());
                assert_eq!(error, None, "{name}");
                let mut expected = json!({"model": "sent-upstream", "messages": [{"role": "user", "content": "go"}],
                    "max_tokens": 900, "stream": true, "stream_options": {"include_usage": true}});
                for (key, value) in body.as_object().expect("a body is an object") {
                    match value {
                        // Null takes a member away.
                        Value::Null => drop(expected.as_object_mut().map(|members| members.shift_remove(key))),
                        value => expected[key] = value.clone(),
                    }
                }
                assert_eq!(seen.len(), 1, "{name}");
                assert_eq!(seen[0].body, expected, "{name}");
                assert_eq!(seen[0].headers["authorization"], format!("Bearer {KEY}"), "{name}");
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
