//! What a client replays is kept: any block of an assistant message serializes to the members it came with.

use belljar_wire::request::MessagesRequest;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map(any::<String>(), anything(), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// The members that a block's kind needs, of legal types.
fn known() -> impl Strategy<Value = Value> {
    let result_tag = prop::sample::select(vec![
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
    ]);
    let passive_tag = prop::sample::select(vec![
        "web_search_tool_result",
        "web_fetch_tool_result",
        "mcp_tool_use",
        "compaction",
        "document",
        "image",
    ]);
    let caller = prop_oneof![
        Just(Value::Null),
        Just(json!({"type": "direct"})),
        "[A-Za-z0-9_]{1,24}"
            .prop_map(|id| json!({"type": "code_execution_20260120", "tool_id": format!("srvtoolu_{id}")})),
    ];
    let citations = prop_oneof![Just(Value::Null), prop::collection::vec(anything(), 0..3).prop_map(Value::from)];
    let id = "[A-Za-z0-9_]{1,24}";
    prop_oneof![
        any::<String>().prop_map(|text| json!({"type": "text", "text": text})),
        (any::<String>(), citations).prop_map(|(text, citations)| json!({"type": "text", "text": text, "citations": citations})),
        any::<(String, String)>().prop_map(|(thinking, signature)| json!({"type": "thinking", "thinking": thinking, "signature": signature})),
        any::<String>().prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        (id, any::<String>(), object()).prop_map(|(id, name, input)| json!({"type": "tool_use", "id": id, "name": name, "input": input})),
        (id, any::<String>(), object(), caller).prop_map(|(id, name, input, caller)| {
            json!({"type": "server_tool_use", "id": format!("srvtoolu_{id}"), "name": name, "input": input, "caller": caller})
        }),
        (result_tag, id, object()).prop_map(|(tag, id, content)| {
            json!({"type": tag, "tool_use_id": format!("srvtoolu_{id}"), "content": content})
        }),
        any::<String>().prop_map(|file_id| json!({"type": "container_upload", "file_id": file_id})),
        passive_tag.prop_map(|tag| json!({"type": tag})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    // Keys that some block knows, of any type, are not extra: they would be read, and perhaps rightly refused.
    let extra_key = prop_oneof![
        any::<String>(),
        prop::sample::select(vec!["cache_control", "abort_reason", "$serde_json::private::Number"])
            .prop_map(str::to_owned),
    ]
    .prop_filter("known", |key| !["citations", "caller"].contains(&key.as_str()));
    (known(), prop::collection::hash_map(extra_key, anything(), 0..4)).prop_map(|(known, extra)| {
        let Value::Object(known) = known else {
            panic!("a block is an object");
        };
        let mut members: Map<String, Value> = extra.into_iter().collect();
        members.extend(known);
        Value::Object(members)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn assistant_blocks_serialize_to_what_came(blocks in prop::collection::vec(block(), 0..5)) {
        let sent = json!([{"role": "assistant", "content": blocks}]);
        let body = json!({"model": "m", "max_tokens": 1, "messages": sent});
        let request = MessagesRequest::read(body.to_string().as_bytes());
        let request = request.map_err(|error| TestCaseError::fail(error.message))?;
        prop_assert_eq!(serde_json::to_value(&request.messages).expect("messages serialize"), sent.clone());
        // And once more, through the text: what was written reads as the same request.
        let again = json!({"model": "m", "max_tokens": 1, "messages": &request.messages});
        let again = MessagesRequest::read(again.to_string().as_bytes());
        prop_assert_eq!(again.map_err(|error| TestCaseError::fail(error.message))?, request);
    }
}
