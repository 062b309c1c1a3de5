//! Lowering: cases as data, and the rules that hold for every history.

mod support;

use std::collections::BTreeMap;

use belljar_model::KnownFiles;
use belljar_model::lower::{lower, messages};
use belljar_wire::media::FileContent;
use belljar_wire::request::{InputMessage, MessagesRequest};
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::{AllowedCaller, VendorTool};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(conversation: &Value) -> Vec<InputMessage> {
    let body = json!({"model": "m", "max_tokens": 1, "messages": conversation});
    MessagesRequest::read(body.to_string().as_bytes()).expect("the conversation is legal").messages
}

fn lowered(conversation: &Value) -> Value {
    let uploads = BTreeMap::from([("file_01named".to_owned(), "a \"b\".csv".to_owned())]);
    let encoded = FileContent::Encoded { media_type: "image/png".to_owned(), data: "iVBORw==".to_owned() };
    let contents = BTreeMap::from([
        ("file_01image".to_owned(), encoded),
        ("file_01text".to_owned(), FileContent::Text("a\nb".to_owned())),
    ]);
    serde_json::to_value(messages(&read(conversation), &KnownFiles { uploads, contents }))
        .expect("plain messages serialize")
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn bash(id: &str, command: &str) -> Value {
    json!({"type": "server_tool_use", "id": format!("srvtoolu_{id}"), "name": "bash_code_execution",
        "input": {"command": command}})
}

fn printed(id: &str, stdout: &str) -> Value {
    json!({"type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{id}"),
        "content": {"type": "bash_code_execution_result", "stdout": stdout, "stderr": "", "return_code": 0,
            "content": [{"type": "bash_code_execution_output", "file_id": "file_01secret"}]}})
}

fn plain_bash(id: &str, command: &str) -> Value {
    json!({"type": "tool_use", "id": format!("toolu_{id}"), "name": "bash_code_execution", "input": {"command": command}})
}

fn plain_result(id: &str, content: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": format!("toolu_{id}"), "content": content})
}

fn client_call(id: &str) -> Value {
    json!({"type": "tool_use", "id": format!("toolu_{id}"), "name": "look_up", "input": {}})
}

fn user(content: impl Into<Value>) -> Value {
    json!({"role": "user", "content": content.into()})
}

fn assistant(content: impl Into<Value>) -> Value {
    json!({"role": "assistant", "content": content.into()})
}

const NOT_RUN: &str = "[no result: this call was not run to its end]";

fn aborted(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": format!("toolu_{id}"), "content": NOT_RUN, "is_error": true})
}

#[test]
fn a_turn_becomes_alternating_messages() {
    let thinking = json!({"type": "thinking", "thinking": "hm", "signature": "s1"});
    let sent = json!([
        user("go"),
        assistant(vec![
            thinking.clone(),
            text("I run it."),
            bash("a", "ls"),
            printed("a", "x\n"),
            thinking.clone(),
            bash("b", "pwd"),
            bash("c", "id"),
            printed("b", "/\n"),
            printed("c", "root\n"),
            text(""),
            text("Done."),
        ]),
        user(vec![text("thanks")]),
    ]);
    let expected = json!([
        user(vec![text("go")]),
        assistant(vec![thinking.clone(), text("I run it."), plain_bash("a", "ls")]),
        user(vec![plain_result("a", "x\n")]),
        assistant(vec![thinking, plain_bash("b", "pwd"), plain_bash("c", "id")]),
        user(vec![plain_result("b", "/\n"), plain_result("c", "root\n")]),
        assistant(vec![text("Done.")]),
        user(vec![text("thanks")]),
    ]);
    assert_eq!(lowered(&sent), expected);
}

#[test]
fn deferred_results_stand_with_their_calls() {
    // A batch of server and client calls: the server's result heads the next reply (wire.md §13.2).
    let sent = json!([
        user("go"),
        assistant(vec![bash("a", "ls"), client_call("T")]),
        user(vec![plain_result("T", "found")]),
        assistant(vec![printed("a", "x\n"), text("Done.")]),
    ]);
    let expected = json!([
        user(vec![text("go")]),
        assistant(vec![plain_bash("a", "ls"), client_call("T")]),
        user(vec![plain_result("a", "x\n"), plain_result("T", "found")]),
        assistant(vec![text("Done.")]),
    ]);
    assert_eq!(lowered(&sent), expected);
}

#[test]
fn paused_turns_go_on() {
    // wire.md §13.1: the paused message ends in mid-call, the next one begins with the result.
    let sent = json!([
        user("go"),
        assistant(vec![text("One."), bash("a", "ls")]),
        assistant(vec![printed("a", "x\n"), text("Two.")]),
    ]);
    let expected = json!([
        user(vec![text("go")]),
        assistant(vec![text("One."), plain_bash("a", "ls")]),
        user(vec![plain_result("a", "x\n")]),
        assistant(vec![text("Two.")]),
    ]);
    assert_eq!(lowered(&sent), expected);
}

#[test]
fn calls_made_by_code_are_left_out() {
    // wire.md §10.5: two pauses, then the result.
    let code = json!({"type": "server_tool_use", "id": "srvtoolu_c", "name": "code_execution",
        "input": {"code": "await q({})"}, "caller": {"type": "direct"}});
    let by_code = |id: &str| {
        let mut call = client_call(id);
        call["caller"] = json!({"type": "code_execution_20260120", "tool_id": "srvtoolu_c"});
        call
    };
    let sent = json!([
        user("go"),
        assistant(vec![text("One."), code, by_code("P")]),
        user(vec![plain_result("P", "1")]),
        assistant(vec![by_code("Q")]),
        user(vec![plain_result("Q", "2")]),
        assistant(vec![
            json!({"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_c", "content":
                {"type": "code_execution_result", "stdout": "3\n", "stderr": "", "return_code": 0, "content": [],
                 "abort_reason": null}}),
            text("Three."),
        ]),
    ]);
    let call = json!({"type": "tool_use", "id": "toolu_c", "name": "code_execution", "input": {"code": "await q({})"}});
    let expected = json!([
        user(vec![text("go")]),
        assistant(vec![text("One."), call]),
        user(vec![plain_result("c", "3\n")]),
        assistant(vec![text("Three.")]),
    ]);
    assert_eq!(lowered(&sent), expected);
}

#[test]
fn aborted_calls_say_so_and_ids_never_collide() {
    let sent = json!([
        user("go"),
        assistant(vec![client_call("a"), bash("a", "ls")]),
        user(vec![plain_result("a", "found"), text("go on")]),
        assistant(vec![bash("a", "pwd"), printed("a", "/\n"), text("Done.")]),
    ]);
    let expected = json!([
        user(vec![text("go")]),
        assistant(vec![client_call("a"), plain_bash("a_2", "ls")]),
        user(vec![plain_result("a", "found"), aborted("a_2"), text("go on")]),
        assistant(vec![plain_bash("a_3", "pwd")]),
        user(vec![plain_result("a_3", "/\n")]),
        assistant(vec![text("Done.")]),
    ]);
    assert_eq!(lowered(&sent), expected);
}

#[test]
fn odds_and_ends() {
    let ephemeral = json!({"type": "ephemeral"});
    let search = json!({"type": "server_tool_use", "id": "srvtoolu_w", "name": "web_search", "input": {"query": "q"}});
    let found = json!({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_w", "content": []});
    let mut call = bash("a", "ls");
    call["cache_control"] = ephemeral.clone();
    call["extra"] = json!(1);
    let mut result = printed("a", "x");
    result["cache_control"] = ephemeral.clone();
    let sent = json!([
        user(vec![
            json!({"type": "container_upload", "file_id": "file_01named", "cache_control": ephemeral}),
            json!({"type": "container_upload", "file_id": "file_01other"}),
        ]),
        user("go"),
        assistant(vec![search.clone(), found.clone(), call, result]),
        {"role": "system", "content": "be brief"},
        {"role": "system", "content": [], "output_config": {"effort": "low"}},
        {"role": "system", "content": "and kind"},
        user(vec![plain_result("gone", "left over")]),
    ]);
    let mut plain_call = plain_bash("a", "ls");
    plain_call["cache_control"] = ephemeral.clone();
    let mut plain = plain_result("a", "x");
    plain["cache_control"] = ephemeral.clone();
    let mut upload = text("[The user uploaded a file named \"a \\\"b\\\".csv\"; it is in $INPUT_DIR.]");
    upload["cache_control"] = ephemeral;
    let expected = json!([
        user(vec![upload, text("[The user uploaded a file; it is in $INPUT_DIR.]"), text("go")]),
        assistant(vec![search, found, plain_call]),
        user(vec![plain]),
        {"role": "system", "content": [text("be brief")]},
        {"role": "system", "content": [], "output_config": {"effort": "low"}},
        {"role": "system", "content": [text("and kind")]},
        user(vec![text("[Result of a tool call that is no longer in this conversation:]\nleft over")]),
    ]);
    assert_eq!(lowered(&sent), expected);
}

#[test]
fn files_are_shown_where_blocks_name_them() {
    let named = |tag: &str, file_id: &str| json!({"type": tag, "source": {"type": "file", "file_id": file_id}, "cache_control": {"type": "ephemeral"}});
    let listed =
        |item: &Value| json!({"type": "document", "source": {"type": "content", "content": ["x", item, text("b")]}});
    let image = named("image", "file_01image");
    let shown = json!({"type": "image", "cache_control": {"type": "ephemeral"},
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}});
    let document = named("document", "file_01text");
    let read = json!({"type": "document", "cache_control": {"type": "ephemeral"},
        "source": {"type": "text", "media_type": "text/plain", "data": "a\nb"}});
    let unknown = named("image", "file_01other");
    let result = |content: Value| json!({"type": "tool_result", "tool_use_id": "toolu_1", "content": content});
    let sent = json!([
        user(json!([image.clone(), document, unknown.clone(), listed(&image)])),
        assistant(json!([client_call("1")])),
        user(json!([result(json!([image]))])),
    ]);
    assert_eq!(
        lowered(&sent),
        json!([
            user(json!([shown, read, unknown, listed(&shown)])),
            assistant(json!([client_call("1")])),
            user(json!([result(json!([shown]))])),
        ])
    );
}

#[test]
fn results_read_well() {
    let bash = |stdout: &str, stderr: &str, code: i32| json!({"type": "bash_code_execution_result", "stdout": stdout, "stderr": stderr, "return_code": code, "content": []});
    let edit = |tag: &str, members: Value| {
        let mut result = json!({"type": format!("text_editor_code_execution_{tag}")});
        for (key, value) in members.as_object().into_iter().flatten() {
            result[key] = value.clone();
        }
        result
    };
    let cases = [
        (bash("a\n", "", 0), "a\n", false),
        (bash("", "", 0), "[no output; return code 0]", false),
        (bash("a", "b\n", 2), "a\n[stderr]\nb\n[return code 2]", false),
        (bash("", "", 137), "[return code 137]", false),
        (
            json!({"type": "encrypted_code_execution_result", "encrypted_stdout": "Eo4B", "stderr": "w", "return_code": 1,
                "content": []}),
            "[the standard output of this call is encrypted and cannot be read here]\n[stderr]\nw\n[return code 1]",
            false,
        ),
        (
            json!({"type": "bash_code_execution_tool_result_error", "error_code": "unavailable"}),
            "Error: unavailable: the tool is not available right now",
            true,
        ),
        (
            edit("tool_result_error", json!({"error_code": "file_not_found", "error_message": "/tmp/x"})),
            "Error: file_not_found: there is no such file: /tmp/x",
            true,
        ),
        (edit("tool_result_error", json!({"error_code": "new_code", "error_message": null})), "Error: new_code", true),
        (edit("create_result", json!({"is_file_update": false})), "The file has been created.", false),
        (edit("create_result", json!({"is_file_update": true})), "The file was there and has been overwritten.", false),
        (
            edit(
                "view_result",
                json!({"file_type": "text", "content": "a\nb", "num_lines": 2, "start_line": 1, "total_lines": 2}),
            ),
            "a\nb",
            false,
        ),
        (
            edit(
                "view_result",
                json!({"file_type": "text", "content": "b", "num_lines": 1, "start_line": 2, "total_lines": 3}),
            ),
            "[lines 2 to 2 of 3]\nb",
            false,
        ),
        (
            edit(
                "view_result",
                json!({"file_type": "text", "content": "", "num_lines": 0, "start_line": 1, "total_lines": 0}),
            ),
            "[the file is empty]",
            false,
        ),
        (
            edit("view_result", json!({"file_type": "image", "content": "", "num_lines": null})),
            "[a file of type image; it cannot be shown as text]",
            false,
        ),
        (
            edit(
                "str_replace_result",
                json!({"old_start": 1, "old_lines": 1, "new_start": 1, "new_lines": 1, "lines": ["-a", "+b"]}),
            ),
            "The file has been edited.\n@@ -1,1 +1,1 @@\n-a\n+b",
            false,
        ),
        (json!({"type": "from_next_year", "x": [1]}), "{\"type\":\"from_next_year\",\"x\":[1]}", false),
        (
            json!({"type": "bash_code_execution_result", "stdout": 3}),
            "{\"type\":\"bash_code_execution_result\",\"stdout\":3}",
            false,
        ),
    ];
    for (content, expected, is_error) in cases {
        let result =
            json!({"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_a", "content": content});
        let out = lowered(&json!([user("go"), assistant(vec![bash_call(), result])]));
        let mut answer = plain_result("a", expected);
        if is_error {
            answer["is_error"] = json!(true);
        }
        assert_eq!(out[2], user(vec![answer]), "{content}");
    }
}

fn bash_call() -> Value {
    bash("a", "x")
}

/// What the model says in one go, and what becomes of it.
#[derive(Clone, Debug)]
enum Said {
    /// Server calls; the second list says which get results. A pause may part them.
    Server { ids: Vec<u8>, answered: Vec<bool>, paused: bool },
    /// Server and client calls in one batch.
    Mixed { server: Vec<u8>, client: Vec<u8> },
    /// Code that calls client tools, pausing each time.
    Code { id: u8, calls: Vec<u8> },
    /// Text alone.
    Text,
}

fn said() -> impl Strategy<Value = Said> {
    let ids = || proptest::collection::vec(0..6_u8, 1..4);
    prop_oneof![
        (ids(), proptest::collection::vec(any::<bool>(), 4), any::<bool>())
            .prop_map(|(ids, answered, paused)| Said::Server { ids, answered, paused }),
        (ids(), ids()).prop_map(|(server, client)| Said::Mixed { server, client }),
        (0..6_u8, ids()).prop_map(|(id, calls)| Said::Code { id, calls }),
        Just(Said::Text),
    ]
}

fn deduplicated(ids: &[u8]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| id.to_string()).collect()
}

/// One turn as a client would replay it: messages, the last of which is the assistant's.
fn turn(said: &[Said]) -> Vec<Value> {
    let mut done = Vec::new();
    let mut open: Vec<Value> = Vec::new();
    for said in said {
        open.push(text("I say."));
        match said {
            Said::Text => {}
            Said::Server { ids, answered, paused } => {
                let ids = deduplicated(ids);
                open.extend(ids.iter().map(|id| bash(id, "x")));
                if *paused {
                    done.push(assistant(std::mem::take(&mut open)));
                }
                let ids = ids.iter().zip(answered).filter(|(_, answered)| **answered);
                open.extend(ids.map(|(id, _)| printed(id, "out")));
            }
            Said::Mixed { server, client } => {
                let (server, client) = (deduplicated(server), deduplicated(client));
                open.extend(server.iter().map(|id| bash(id, "x")));
                open.extend(client.iter().map(|id| client_call(id)));
                done.push(assistant(std::mem::take(&mut open)));
                let results: Vec<Value> = client.iter().map(|id| plain_result(id, "r")).collect();
                done.push(user(results));
                open.extend(server.iter().map(|id| printed(id, "out")));
            }
            Said::Code { id, calls } => {
                open.push(json!({"type": "server_tool_use", "id": format!("srvtoolu_c{id}"), "name": "code_execution",
                    "input": {"code": "x"}}));
                for call in calls {
                    let mut made = client_call(&format!("p{call}"));
                    made["caller"] = json!({"type": "code_execution_20260120", "tool_id": format!("srvtoolu_c{id}")});
                    open.push(made);
                    done.push(assistant(std::mem::take(&mut open)));
                    done.push(user(vec![plain_result(&format!("p{call}"), "r")]));
                }
                let mut result = printed("x", "out");
                result["tool_use_id"] = json!(format!("srvtoolu_c{id}"));
                open.push(result);
            }
        }
    }
    open.push(text("Done."));
    done.push(assistant(open));
    done
}

/// Every block with its role.
fn blocks(messages: &[Value]) -> Vec<(Value, Value)> {
    let of = |message: &Value| -> Vec<(Value, Value)> {
        let blocks = message["content"].as_array().cloned().unwrap_or_default();
        blocks.into_iter().map(|block| (message["role"].clone(), block)).collect()
    };
    messages.iter().flat_map(of).collect()
}

#[test]
fn a_history_with_calls_keeps_their_tools() {
    let mut request = SamplingRequest {
        model: "m".to_owned(),
        max_tokens: 1,
        system: None,
        messages: read(&json!([user("go"), assistant(vec![bash("a", "ls"), printed("a", "x")]), user("thanks")])),
        tools: Vec::new(),
        tool_choice: None,
        stop_sequences: Vec::new(),
        temperature: None,
        top_p: None,
        top_k: None,
        thinking: None,
        user_id: None,
        rest: serde_json::Map::new(),
        betas: Vec::new(),
    };
    let plain = lower(&request, &KnownFiles::default());
    let expected = json!([{"name": "bash_code_execution", "description": "Not available any more.",
        "input_schema": {"type": "object"}}]);
    assert_eq!(serde_json::to_value(&plain.tools).expect("tools serialize"), expected);
    assert!(plain.tools_are_history);

    request.tools = vec![ModelTool::Vendor(VendorTool {
        tag: "bash_20250124".to_owned(),
        name: "bash".to_owned(),
        allowed_callers: Some(vec![AllowedCaller::Direct]),
        rest: json!({"cache_control": {}}).as_object().cloned().unwrap_or_default(),
    })];
    let plain = lower(&request, &KnownFiles::default());
    let expected = json!([{"type": "bash_20250124", "name": "bash", "cache_control": {}}]);
    assert_eq!(serde_json::to_value(&plain.tools).expect("tools serialize"), expected);
    assert!(!plain.tools_are_history);
}

proptest! {
    #[test]
    fn every_history_keeps_the_vendors_rules(
        turns in proptest::collection::vec(proptest::collection::vec(said(), 0..5), 1..4),
    ) {
        let mut conversation = Vec::new();
        let mut before: Vec<(Value, Value)> = Vec::new();
        for said in &turns {
            conversation.push(user("go"));
            conversation.extend(turn(said));
            let out = lowered(&Value::from(conversation.clone()));
            let out = out.as_array().expect("a list").clone();
            prop_assert_eq!(support::check::messages(&out), Ok(()));
            // What was lowered once stays as it is, so that the upstream's prompt cache holds.
            let out = blocks(&out);
            prop_assert_eq!(&out[..before.len()], &before[..]);
            before = out;
        }
    }
}
