//! Commands of bash that call the client's tools.

mod support;

use std::time::Duration;

use belljar_sandbox::{CellOptions, CellOutcome, CodeTool, CodeTools, Isolation, Progress, SandboxConfig, ToolAnswer};
use serde_json::json;
use support::calls::{answer, called, calls, ended, good, heard, over, resume, resume_with, start_bash, tool, tools};
use support::{Said, config, id, isolation, leased, options, run, said, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_a_command_that_prints_its_answer() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    let command = r#"echo before; query_db '{"sql": "é"}' | tr a-z A-Z; echo '{"n":1}' | anything; anything"#;
    let parked = called(start_bash(lease, command).await);
    assert_eq!(calls(&parked), [(1, "query-db", json!({"sql": "é"}))]);
    let parked = called(resume_with(parked, vec![answer(1, "result\n")]).await);
    assert_eq!(calls(&parked), [(2, "anything", json!({"n": 1}))]);
    let parked = called(resume_with(parked, vec![answer(2, "no line end")]).await);
    assert_eq!(calls(&parked), [(3, "anything", json!({}))]);
    let (mut lease, said) = ended(resume_with(parked, vec![answer(3, "\0\u{1f388}")]).await);
    assert_eq!(said, good("before\nRESULT\nno line end\0\u{1f388}"));
    // Nothing is left of it.
    assert_eq!(
        stdout(&mut lease, "ls -d /run/tools 2>&1 || command -v query_db || echo gone").await.lines().last(),
        Some("gone")
    );
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_call_together_are_one_pause() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let command = r#"seq 8 | xargs -P 8 -I N anything '{"n": N}' | sort -n"#;
    let mut progress = start_bash(lease, command).await;
    let mut waited = Vec::new();
    let (lease, said) = loop {
        match progress {
            Progress::Called(parked) => {
                waited.push(parked.calls().len());
                let text = |n: &serde_json::Value| format!("{n}\n");
                let answers = parked.calls().iter().map(|call| answer(call.number, &text(&call.input["n"]))).collect();
                progress = resume_with(parked, answers).await;
            }
            over => break ended(over),
        }
    };
    assert_eq!(waited.iter().sum::<usize>(), 8, "{waited:?}");
    // In gVisor a process takes so much of the processor to start that they may be told before the last has come.
    assert!(waited == [8] || isolation() == Isolation::Gvisor, "{waited:?}");
    assert_eq!(said, good("1\n2\n3\n4\n5\n6\n7\n8\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_by_text_and_exit_code() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    let parked = called(start_bash(lease, "query_db '{}'; echo $?").await);
    let failed = ToolAnswer { number: 1, text: "no such table".to_owned(), is_error: true };
    let (mut lease, said) = ended(resume_with(parked, vec![failed]).await);
    assert_eq!(said, Said { return_code: 0, stdout: "1\n".to_owned(), stderr: "no such table\n".to_owned() });
    let usage = "query_db '{...}', or the same on standard input\n";
    let long = "query_db: the argument is longer than 1048576 bytes; pass less in one call\n";
    let cases = [
        (
            "query_db 5",
            2,
            format!(
                "query_db: the argument is no JSON object (invalid type: integer `5`, expected a map at line 1 column 1): {usage}"
            ),
        ),
        ("query_db '{}' '{}'", 2, format!("query_db: it takes one argument, a JSON object: {usage}")),
        ("head -c 3000000 /dev/zero | tr '\\0' x | query_db", 2, long.to_owned()),
        ("nothing '{}'", 127, "bash: line 1: nothing: command not found\n".to_owned()),
    ];
    for (command, return_code, stderr) in cases {
        let (back, said) = ended(start_bash(lease, command).await);
        assert_eq!(said, Said { return_code, stdout: String::new(), stderr }, "{command}");
        lease = back;
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_are_told_and_never_sent() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    let query = |schema: serde_json::Value| {
        let query = CodeTool { input_schema: schema, ..tool("query_db") };
        CodeTools::new(vec![query]).expect("good")
    };
    let tools = query(json!({
        "type": "object", "properties": { "sql": { "type": "string" }, "n": { "type": "integer", "minimum": 1 } },
        "required": ["sql"], "additionalProperties": false,
    }));
    let command = r#"for argument in '{}' '{"sql": 5}' '{"sql": "x", "n": 0}' '{"sql": "x", "m": 1}'; do
        query_db "$argument"; echo $?
    done; query_db '{"sql": "x", "n": 1}'; query_db '{"sql": 5}'; query_db '{"sql": "y"}'"#;
    let parked = called(lease.bash_with(command, options(), &tools).await.expect("lives"));
    assert_eq!(calls(&parked), [(1, "query-db", json!({ "sql": "x", "n": 1 }))]);
    // The schema that was sent last counts.
    let changed = query(json!({ "properties": { "sql": { "type": "integer" } } }));
    let parked = called(parked.resume(vec![answer(1, "a\n")], &changed).await.expect("lives"));
    assert_eq!(calls(&parked), [(2, "query-db", json!({ "sql": 5 }))]);
    let (lease, said) = ended(parked.resume(vec![answer(2, "b\n")], &changed).await.expect("lives"));
    let stderr = "query_db: \"sql\" is required\n\
                  query_db: sql must be a string, not 5\n\
                  query_db: n must be at least 1, not 0\n\
                  query_db: unknown key \"m\" (known: sql, n)\n\
                  query_db: sql must be an integer, not \"y\"\n";
    assert_eq!(said, Said { return_code: 2, stdout: "2\n2\n2\n2\na\nb\n".to_owned(), stderr: stderr.to_owned() });
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_in_time_exits_with_124() {
    let sandbox = sandbox!(SandboxConfig { tool_answer_wait_s_max: 1, ..config() });
    let lease = leased(&sandbox, 1).await;
    let (options, heard) = heard();
    let options = CellOptions { wall: Duration::from_millis(900), ..options };
    let parked = called(lease.bash_with("query_db '{}'; exit $?", options, &tools()).await.expect("lives"));
    over(heard).await;
    let (lease, said) = ended(resume(parked).await);
    let stderr = "Calling tool ['query-db'] timed out (no response after 1s).\n".to_owned();
    assert_eq!(said, Said { return_code: 124, stdout: String::new(), stderr });
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_arguments_and_answers_pass() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let command = r#"{ printf '{"a":"'; head -c 1000000 /dev/zero | tr '\0' '\042' | sed 's/"/\\"/g' | head -c 1000000; printf '"}'; } | anything | wc -c"#;
    let parked = called(start_bash(lease, command).await);
    assert_eq!(parked.calls()[0].input["a"].as_str().map(str::len), Some(500_000));
    let (lease, said) = ended(resume_with(parked, vec![answer(1, &"é".repeat(25_000_000))]).await);
    assert_eq!(said, good("50000000\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_sent_last_are_commands() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    let command = "anything; anything 2>/dev/null; echo $?; new";
    let parked = called(start_bash(lease, command).await);
    let others = CodeTools::new(vec![tool("new")]).expect("good");
    let parked = called(parked.resume(vec![answer(1, "a\n")], &others).await.expect("lives"));
    assert_eq!(calls(&parked), [(2, "new", json!({}))]);
    let (lease, said) = ended(parked.resume(vec![answer(2, "b\n")], &others).await.expect("lives"));
    assert_eq!(said, good("a\n127\nb\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_left_behind_can_call_nothing() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    let command = "{ anything; anything; echo; } > /tmp/said 2>&1 &\nsleep 1";
    let (options, heard) = heard();
    let parked = called(lease.bash_with(command, options, &tools()).await.expect("lives"));
    over(heard).await;
    let (mut lease, said) = ended(resume(parked).await);
    assert_eq!(said, good(""));
    let said = "anything: the cell has ended\nanything: no cell is running that was given tools\n\n";
    // Its file is gone too, unless it had been opened before.
    let gone = format!(
        "anything: the cell has ended\nbash: line 1: {}: No such file or directory\n\n",
        "/run/tools/bin/anything"
    );
    let command = "until [ $(wc -l < /tmp/said) = 3 ]; do :; done; cat /tmp/said";
    let found = support::said(&run(&mut lease, command).await).stdout;
    assert!([said, &gone].contains(&found.as_str()), "{found}");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_to_the_socket_by_hand_gets_no_further() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let program = r#"
import socket, sys
def speak(*packets):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect("/run/tools/socket")
    s.settimeout(20)
    try:
        for packet in packets: s.send(packet)
    except OSError: pass  # It was refused before.
    return s
def said(s):
    return s.recv(100)[:1].decode()
print(said(speak(b"other")), said(speak(b"anything", b"q")), said(speak(b"anything", b"l\xff")), sep=",")
print(said(speak(b"anything", b"l" + b"\x01" * 10000)), said(speak(b"anything", b"l" + b"x" * 20000)), sep=",")
print(said(speak(b"anything", *[b"m" + b"x" * 10000] * 200)), said(speak(b"anything", b"l[]")), sep=",")
half = [speak(b"anything", b"m" + b"x" * 10000) for _ in range(400)]
print(len(half))
"#;
    lease.write_file("/tmp/speak.py", program.as_bytes(), program.len() as u64).await.expect("written");
    let progress = start_bash(lease, "python3 /tmp/speak.py; echo over").await;
    let (mut lease, said) = ended(progress);
    assert_eq!(said, good("r,,\ne,\nr,e\n400\nover\n"));
    assert_eq!(stdout(&mut lease, "echo fine").await, "fine\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_parked_command_ends_it() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    drop(called(start_bash(lease, "trap 'echo $? > /tmp/ended' EXIT; anything; echo $? > /tmp/after").await));
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free at once");
    assert_eq!(stdout(&mut lease, "cat /tmp/ended; ls /tmp/after 2>/dev/null; echo over").await, "0\nover\n");
    // And one that is killed with everything.
    drop(called(start_bash(lease, "trap '' INT; while :; do anything; done").await));
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free at once");
    assert_eq!(stdout(&mut lease, "echo over").await, "over\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_spent_waiting_is_not_the_commands() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    let options = CellOptions { wall: Duration::from_secs(1), ..options() };
    let parked = called(lease.bash_with("anything; sleep 5", options, &tools()).await.expect("lives"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let Progress::Ended(lease, outcome) = resume(parked).await else { panic!("it calls no more") };
    let CellOutcome::TimedOut(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(said(output).stdout, "1");
    drop(lease);
    sandbox.close().await;
}
