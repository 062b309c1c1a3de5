//! The chunks of which a reply mostly consists, read in one go: those that bring a piece of text or of thinking, and nothing else. Whatever
//! is not exactly as expected here is left to the reader of chunks, which reads everything and says what is wrong.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::chunk::Said;

/// The members that chunks have everywhere. What is ignored here the reader of chunks ignores, too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chunk<'a> {
    #[serde(borrow)]
    object: Option<Cow<'a, str>>,
    choices: [Choice; 1],
    usage: Option<IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "created")]
    _created: Option<IgnoredAny>,
    #[serde(rename = "model")]
    _model: Option<IgnoredAny>,
    #[serde(rename = "system_fingerprint")]
    _system_fingerprint: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(rename = "obfuscation")]
    _obfuscation: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    index: Option<u64>,
    delta: Delta,
    finish_reason: Option<IgnoredAny>,
    stop_reason: Option<IgnoredAny>,
    #[serde(rename = "logprobs")]
    _logprobs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<IgnoredAny>,
    tool_calls: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
    #[serde(rename = "role")]
    _role: Option<IgnoredAny>,
}

/// The piece that a chunk brings, if it is one of the frequent ones.
pub(super) fn read(data: &str) -> Option<Said> {
    let Chunk { object, choices: [choice], usage: None, .. } = serde_json::from_str(data).ok()? else {
        return None;
    };
    let Choice { index: None | Some(0), delta, finish_reason: None, stop_reason: None, .. } = choice else {
        return None;
    };
    let Delta { content, reasoning_content, reasoning, refusal: None, tool_calls: None, function_call: None, .. } =
        delta
    else {
        return None;
    };
    if object.is_some_and(|object| object == "error") {
        return None;
    }
    let full = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (full(content), full(reasoning_content).or(full(reasoning))) {
        (Some(text), None) => Some(Said::Text(text)),
        (None, Some(thinking)) => Some(Said::Thinking(thinking)),
        (Some(_), Some(_)) | (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Value, json};

    use super::super::chunk;
    use super::*;

    #[test]
    fn the_usual_chunks_are_read() {
        let chunk = |choice: Value| json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]});
        let cases = [
            (json!({"index": 0, "delta": {"content": "a\"\n"}, "finish_reason": null}), Said::Text("a\"\n".to_owned())),
            (json!({"delta": {"role": "assistant", "content": "a", "tool_calls": null}}), Said::Text("a".to_owned())),
            (
                json!({"delta": {"content": null, "reasoning_content": "a"}, "logprobs": {}}),
                Said::Thinking("a".to_owned()),
            ),
            (
                json!({"delta": {"content": "", "reasoning": "a", "reasoning_content": "a"}}),
                Said::Thinking("a".to_owned()),
            ),
        ];
        for (choice, said) in cases {
            assert_eq!(read(&chunk(choice.clone()).to_string()), Some(said), "{choice}");
        }
    }

    /// A member of an object, or none of that name.
    fn member(name: &'static str, values: Vec<Value>) -> impl Strategy<Value = Option<(String, Value)>> {
        prop_oneof![3 => Just(None), 1 => select(values).prop_map(move |value| Some((name.to_owned(), value)))]
    }

    fn object(members: Vec<Option<(String, Value)>>) -> Value {
        Value::Object(members.into_iter().flatten().collect())
    }

    fn texts() -> Vec<Value> {
        vec![json!("a"), json!("\u{e9}\n"), json!(""), Value::Null, json!(1), json!([{"type": "text", "text": "b"}])]
    }

    prop_compose! {
        fn deltas()(
            content in prop_oneof![1 => Just(None), 4 => select(texts()).prop_map(|value| Some(("content".to_owned(), value)))],
            thinking in member("reasoning_content", texts()),
            reasoning in member("reasoning", texts()),
            role in member("role", texts()),
            refusal in member("refusal", texts()),
            calls in member("tool_calls", vec![json!([]), Value::Null, json!([{"index": 0, "id": "x"}]), json!(1)]),
            other in member("other", texts()),
        ) -> Value {
            object(vec![content, thinking, reasoning, role, refusal, calls, other])
        }
    }

    prop_compose! {
        fn choices()(
            index in member("index", vec![json!(0), json!(1), Value::Null, json!("0"), json!(-1)]),
            delta in deltas(),
            finish in member("finish_reason", vec![json!("stop"), Value::Null, json!("")]),
            stop in member("stop_reason", vec![json!("END"), Value::Null, json!(2)]),
            message in member("message", vec![json!({"content": "c"}), Value::Null]),
        ) -> Value {
            object(vec![index, Some(("delta".to_owned(), delta)), finish, stop, message])
        }
    }

    proptest! {
        // Few of them are pieces.
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever is read here, the reader of chunks reads the same.
        #[test]
        fn it_reads_what_the_whole_reader_reads(
            choices in proptest::collection::vec(choices(), 0..3),
            tag in member("object", vec![json!("chat.completion.chunk"), json!("error"), json!(""), json!(1), Value::Null]),
            usage in member("usage", vec![Value::Null, json!({"prompt_tokens": 1}), json!({})]),
            error in member("error", vec![Value::Null, json!("no"), json!({"message": "no"})]),
            kind in member("type", vec![json!("error"), json!("x")]),
        ) {
            let data = object(vec![Some(("choices".to_owned(), Value::Array(choices))), tag, usage, error, kind]).to_string();
            if let Some(said) = read(&data) {
                let expected = chunk::Chunk { said: vec![said], ..chunk::Chunk::default() };
                prop_assert_eq!(chunk::read_whole(&data), Ok(expected));
            }
        }
    }
}
