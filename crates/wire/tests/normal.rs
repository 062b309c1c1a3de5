//! Two replies have one normal form exactly where they say the same; what differs is found, key by key.

use belljar_wire::difference::{KeyOrder, differences, is_sorted};
use belljar_wire::normal::{Normal, Said};
use belljar_wire::sse::{RawEvent, read};
use serde_json::{Value, json};

fn events(data: &[Value]) -> Vec<RawEvent> {
    let named =
        |data: &Value| RawEvent { name: data["type"].as_str().unwrap_or_default().to_owned(), data: data.clone() };
    data.iter().map(named).collect()
}

fn piece(index: u64, kind: &str, key: &str, text: &str) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": { "type": kind, key: text } })
}

#[test]
fn what_differs_between_runs_is_taken_out() {
    let of = |number: u64, id: &str| {
        let reply = json!({
            "id": format!("msg_{id}"),
            "content": [
                { "type": "server_tool_use", "id": format!("srvtoolu_{id}"), "input": { "id": "kept", "usage": 3 } },
                { "type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{id}") },
                { "type": "thinking", "signature": format!("sig{id}") },
            ],
            "container": { "id": format!("container_{id}"), "expires_at": "2026-11-20T18:54:08.960841Z" },
            "usage": { "input_tokens": number, "cache_creation": { "a": number }, "service_tier": "standard" },
        });
        Normal::new(Said::Kept).message(reply)
    };
    assert_eq!(of(1, "a"), of(2, "b"));
    assert_eq!(
        of(1, "a"),
        json!({
            "id": "<msg 1>",
            "content": [
                { "type": "server_tool_use", "id": "<srvtoolu 1>", "input": { "id": "kept", "usage": 3 } },
                { "type": "bash_code_execution_tool_result", "tool_use_id": "<srvtoolu 1>" },
                { "type": "thinking", "signature": "<signature>" },
            ],
            "container": { "id": "<container 1>", "expires_at": "<time>" },
            "usage": { "input_tokens": "<number>", "cache_creation": { "a": "<number>" }, "service_tier": "standard" },
        })
    );
}

#[test]
fn ids_correspond_or_do_not() {
    let of = |first: &str, second: &str| {
        Normal::new(Said::Kept).message(json!([{ "id": first }, { "tool_use_id": second }, { "id": "toolu_c" }]))
    };
    assert_eq!(of("toolu_a", "toolu_a"), of("toolu_b", "toolu_b"));
    assert_ne!(of("toolu_a", "toolu_a"), of("toolu_a", "toolu_b"));
    assert_ne!(of("toolu_a", "toolu_a"), of("srvtoolu_a", "srvtoolu_a"));
}

#[test]
fn ids_of_a_request_are_known_in_its_reply() {
    let request = json!({ "container": "container_a", "messages": [{ "content": [{ "id": "srvtoolu_a" }] }] });
    let mut normal = Normal::new(Said::Kept);
    normal.request(&request);
    let reply = normal.message(json!({ "container": { "id": "container_b" }, "tool_use_id": "srvtoolu_a" }));
    assert_eq!(reply, json!({ "container": { "id": "<container 2>" }, "tool_use_id": "<srvtoolu 1>" }));
    let ids: Vec<&str> = normal.ids().iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["container_a", "srvtoolu_a", "container_b"]);
}

#[test]
fn pieces_are_joined_within_their_block_and_kind() {
    let cut = [
        piece(0, "input_json_delta", "partial_json", ""),
        piece(0, "input_json_delta", "partial_json", "{\"a\""),
        json!({ "type": "ping" }),
        piece(0, "input_json_delta", "partial_json", ":1}"),
        piece(1, "text_delta", "text", "x"),
        piece(1, "citations_delta", "citation", "c"),
        piece(1, "citations_delta", "citation", "c"),
        piece(2, "text_delta", "text", "x"),
    ];
    let whole = [
        piece(0, "input_json_delta", "partial_json", "{\"a\":1}"),
        piece(1, "text_delta", "text", "x"),
        piece(1, "citations_delta", "citation", "c"),
        piece(1, "citations_delta", "citation", "c"),
        piece(2, "text_delta", "text", "x"),
    ];
    assert_eq!(Normal::new(Said::Kept).events(events(&cut)), whole);
}

#[test]
fn an_event_by_another_name_stands_out() {
    let odd = vec![RawEvent { name: "message".to_owned(), data: json!({ "type": "message_stop" }) }];
    let expected = json!({ "event": "message", "data": { "type": "message_stop" } });
    assert_eq!(Normal::new(Said::Kept).events(odd), [expected]);
}

#[test]
fn what_was_said_can_be_left_out() {
    let said = |text: &str, stdout: &str| {
        Normal::new(Said::LeftOut).message(json!([
            { "type": "text", "text": text },
            { "type": "tool_use", "input": { "q": text } },
            { "content": { "stdout": stdout, "stderr": "", "return_code": 0, "content": [] } },
            { "content": text, "num_lines": null },
        ]))
    };
    assert_eq!(said("a", "1\n"), said("b", "2\n"));
    assert_ne!(said("a", "1\n"), said("a", ""));
}

#[test]
fn each_difference_has_its_place() {
    let left = json!({ "a": 1, "b": [{ "c": null, "d": 2 }], "e": [1] });
    let right = json!({ "b": [{ "d": 2, "c": null }], "a": 1, "e": [1, 2], "f": null });
    let found = |order| {
        let found: Vec<String> = differences(&left, &right, order).iter().map(ToString::to_string).collect();
        found
    };
    assert_eq!(
        found(KeyOrder::Counts),
        [
            "b[0]: keys in the order c, d | keys in the order d, c",
            "e[1]: (absent) | 2",
            "f: (absent) | null",
            ": keys in the order a, b, e | keys in the order b, a, e",
        ]
    );
    assert_eq!(found(KeyOrder::Lost), ["e[1]: (absent) | 2", "f: (absent) | null"]);
    assert_eq!(differences(&left, &left, KeyOrder::Counts), []);
}

#[test]
fn sorted_members_are_known_by_their_number() {
    assert!(is_sorted(&json!({ "a": 1, "b": [{ "c": 1 }], "d": 1, "e": 1 })));
    assert!(!is_sorted(&json!({ "a": 1, "b": [{ "d": 1, "c": 1 }], "d": 1, "e": 1 })));
    assert!(!is_sorted(&json!({ "a": 1, "b": 2 })));
}

#[test]
fn streams_of_others_read() {
    let stream = "\u{feff}: hello\r\nevent: a\r\ndata: {\"type\":\r\ndata: \"a\"   }\r\nid: 1\r\n\r\nevent: b\ndata:1\n\n\
                  event: none\n\ndata: 2\n\nevent: cut\ndata: 3\n";
    let read = read(stream).expect("it reads");
    let seen: Vec<(&str, &Value)> = read.iter().map(|event| (event.name.as_str(), &event.data)).collect();
    assert_eq!(seen, [("a", &json!({ "type": "a" })), ("b", &json!(1)), ("", &json!(2))]);
    assert!(belljar_wire::sse::read("data: {\n\n").is_err());
}
