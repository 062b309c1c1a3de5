//! Bodies made to hurt the reader: deep, wide, exact to the digit, and mutated from valid ones.

use belljar_wire::error::ApiError;
use belljar_wire::read::JSON_VALUES_MAX;
use belljar_wire::request::MessagesRequest;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A body with `value`, JSON text, as a tool's input in a replay.
fn with_input(value: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"n","input":{value}}}]}}]}}"#
    )
}

fn message(result: Result<MessagesRequest, ApiError>) -> String {
    result.map(|_| "accepted".to_owned()).unwrap_or_else(|error| error.message)
}

#[test]
fn deep_nesting_is_refused_on_a_small_stack() {
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let reader = small.spawn(|| {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for levels in [200, 1_000_000] {
                let body = format!("{}1{}", open.repeat(levels), close.repeat(levels));
                let column = 128 * open.len() - open.len() + 1;
                assert_eq!(
                    message(MessagesRequest::read(body.as_bytes())),
                    format!("The request body is not valid JSON: recursion limit exceeded at line 1 column {column}")
                );
                let unclosed = MessagesRequest::read(open.repeat(levels).as_bytes());
                assert_eq!(
                    message(unclosed),
                    format!("The request body is not valid JSON: recursion limit exceeded at line 1 column {column}")
                );
            }
        }
        // The deepest that is read: five levels lie above an input.
        let input = format!("{{\"a\":{}1{}}}", "[".repeat(121), "]".repeat(121));
        assert_eq!(message(MessagesRequest::read(with_input(&input).as_bytes())), "accepted");
    });
    let reader = reader.expect("a thread starts");
    assert!(reader.join().is_ok(), "the reader panicked");
}

#[test]
fn more_values_than_the_limit_are_refused() {
    let body = |zeros: usize| with_input(&format!("{{\"a\":[{}0]}}", "0,".repeat(zeros - 1)));
    // Besides the zeros: the body, its three members, a message, its role, its content, a block, its four members, the list.
    let besides = 13;
    let most = MessagesRequest::read(body(JSON_VALUES_MAX - besides).as_bytes());
    assert_eq!(message(most), "accepted");
    let text = body(JSON_VALUES_MAX - besides + 1);
    let column = text.rfind("0]").expect("the last zero is there");
    assert_eq!(
        message(MessagesRequest::read(text.as_bytes())),
        format!("The request body is refused: it has more than 1000000 values at line 1 column {column}")
    );
}

/// What a replayed input becomes when it is written again.
fn rewritten(input: &str) -> String {
    let request = MessagesRequest::read(with_input(input).as_bytes()).expect("the body is valid");
    let written = serde_json::to_string(&request.messages).expect("messages serialize");
    let from = written.find(r#""input":"#).expect("the input is written") + r#""input":"#.len();
    written[from..].strip_suffix("}]}]").expect("the input stands last").to_owned()
}

#[test]
fn numbers_replay_to_the_last_digit() {
    for number in [
        "0",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "1.0",
        "0.30000000000000004",
        "5e-324",
        "1.7976931348623157e308",
        "0.00003568962416462689",
    ] {
        let input = format!(r#"{{"n":{number}}}"#);
        assert_eq!(rewritten(&input), input.replace("e308", "e+308"), "{number}");
    }
}

/// Integers beyond 64 bits become doubles, as they do in JavaScript; pinned here so that a change is noticed.
#[test]
fn integers_beyond_64_bits_become_doubles() {
    assert_eq!(rewritten(r#"{"n":18446744073709551616}"#), r#"{"n":1.8446744073709552e+19}"#);
}

proptest! {
    #[test]
    fn doubles_replay_exactly(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
        let input = json!({"n": number}).to_string();
        prop_assert_eq!(rewritten(&input), input);
    }

    #[test]
    fn keys_of_an_input_keep_their_order(keys in prop::collection::hash_set("[a-z]{1,6}", 0..12)) {
        let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\":1")).collect();
        let input = format!("{{{}}}", members.join(","));
        prop_assert_eq!(rewritten(&input), input);
    }
}

/// A valid body that uses most of what there is.
fn full() -> Value {
    json!({
        "model": "m", "max_tokens": 16, "stream": true, "system": [{"type": "text", "text": "s"}],
        "container": {"id": "container_01", "skills": [{"type": "anthropic", "skill_id": "xlsx", "version": "latest"}]},
        "tools": [
            {"type": "code_execution_20260120", "name": "code_execution", "allowed_callers": ["direct"]},
            {"name": "a", "description": "d", "input_schema": {"type": "object"}, "strict": true},
            {"type": "bash_20250124", "name": "bash"}
        ],
        "tool_choice": {"type": "tool", "name": "a"}, "metadata": {"user_id": "u"}, "stop_sequences": ["x"],
        "messages": [
            {"role": "user", "content": [{"type": "container_upload", "file_id": "file_01"}, {"type": "image", "source": {}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "server_tool_use", "id": "srvtoolu_01", "name": "code_execution", "input": {"code": "1"}},
                {"type": "tool_use", "id": "t", "name": "a", "input": {},
                 "caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_01"}}
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}]},
            {"role": "assistant", "content": [
                {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_01", "content": {"type": "code_execution_result"}},
                {"type": "web_search_tool_result", "x": 1}, {"type": "text", "text": "t", "citations": []}
            ]},
            {"role": "system", "content": "s"}
        ]
    })
}

/// How many values lie in `value`, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The `nth` value in `value`, counted as [`count`] counts.
fn nth(value: &mut Value, mut nth: usize) -> Option<&mut Value> {
    if nth == 0 {
        return Some(value);
    }
    nth -= 1;
    let inner: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(members) => members.values_mut().collect(),
        _ => return None,
    };
    for value in inner {
        match count(value) {
            size if nth < size => return self::nth(value, nth),
            size => nth -= size,
        }
    }
    None
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["text", "tool_use", "direct", "user", "custom", "image"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            "[a-z]{0,4}",
            prop::sample::select(vec!["type", "text", "id", "content"]).prop_map(str::to_owned)
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Reading neither panics nor answers with anything but a short 400 that names something.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    if let Err(error) = MessagesRequest::read(body) {
        prop_assert_eq!(error.kind.status(), 400);
        prop_assert!(error.message.contains(": "), "{}", error.message);
        prop_assert!(error.message.len() < 4096, "{} bytes", error.message.len());
    }
    Ok(())
}

#[test]
fn the_body_to_mutate_is_valid() {
    assert_eq!(message(MessagesRequest::read(full().to_string().as_bytes())), "accepted");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn mutated_values_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..3)
    ) {
        let mut body = full();
        for (index, change) in changes {
            let size = count(&body);
            *nth(&mut body, index.index(size)).expect("the index is within") = change;
        }
        check(body.to_string().as_bytes())?;
    }

    #[test]
    fn mutated_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let mut body = full().to_string().into_bytes();
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        check(&body)?;
        check(&body[..end.index(body.len())])?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&body)?;
    }
}
