//! The scripted model: scripts, the fixed rule, faults, and what it refuses to load.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{
    ConfigError, Router, SamplingHints, Timeouts, UpstreamConfig, UpstreamError, UpstreamErrorKind, UpstreamKind,
};
use belljar_wire::event::Delta;
use belljar_wire::message::StopReason;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SampledBlock, SamplingEvent, SamplingRequest};
use belljar_wire::tool::SubTool;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

fn router(scripts_dir: Option<&Path>) -> Result<Router, ConfigError> {
    Router::new(vec![UpstreamConfig {
        name: "built-in".to_owned(),
        kind: UpstreamKind::Scripted { scripts_dir: scripts_dir.map(Path::to_path_buf) },
        models: vec!["*".to_owned()],
        model: None,
        timeouts: Timeouts::default(),
    }])
}

fn request(conversation: &Value, sub_tools: &[SubTool]) -> SamplingRequest {
    let body = json!({"model": "m", "max_tokens": 9, "messages": conversation}).to_string();
    let read = MessagesRequest::read(body.as_bytes()).expect("the conversation is legal");
    let tool = |sub_tool: &SubTool| ModelTool::Server {
        sub_tool: *sub_tool,
        description: String::new(),
        input_schema: json!({"type": "object"}),
        cache_control: None,
    };
    SamplingRequest {
        model: read.model,
        max_tokens: read.max_tokens,
        system: None,
        messages: read.messages,
        tools: sub_tools.iter().map(tool).collect(),
        tool_choice: None,
        stop_sequences: Vec::new(),
        temperature: None,
        top_p: None,
        top_k: None,
        thinking: None,
        user_id: None,
        rest: serde_json::Map::new(),
        betas: Vec::new(),
    }
}

fn hints(script: Option<&str>) -> SamplingHints {
    let mut hints = SamplingHints::new(RequestId::mint(&mut SeededIds::new(1)));
    hints.script = script.map(str::to_owned);
    hints.uploads.insert("file_01a".to_owned(), "a.csv".to_owned());
    hints
}

async fn events(
    router: &Router,
    request: SamplingRequest,
    script: Option<&str>,
) -> Vec<Result<SamplingEvent, UpstreamError>> {
    let upstream = router.route("m").expect("every model is served");
    upstream.sample(request, hints(script)).collect().await
}

/// The blocks of a sampling, put together, and why it ended.
fn folded(events: Vec<Result<SamplingEvent, UpstreamError>>) -> (Vec<Value>, StopReason) {
    let mut blocks: Vec<Value> = Vec::new();
    let mut json_text = String::new();
    let mut stop = None;
    for event in events {
        match event.expect("no error") {
            SamplingEvent::Started { .. } => {}
            SamplingEvent::BlockStarted(SampledBlock::Text) => blocks.push(json!("")),
            SamplingEvent::BlockStarted(SampledBlock::Thinking) => blocks.push(json!("thinking: ")),
            SamplingEvent::BlockStarted(SampledBlock::RedactedThinking { data }) => {
                blocks.push(json!({"redacted": data}));
            }
            SamplingEvent::BlockStarted(SampledBlock::ToolUse { name, .. }) => {
                blocks.push(json!({"name": name}));
            }
            SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json }) => json_text.push_str(&partial_json),
            SamplingEvent::BlockDelta(Delta::TextDelta { text } | Delta::ThinkingDelta { thinking: text }) => {
                let last = blocks.last_mut().expect("a block is open");
                *last = json!(format!("{}{text}", last.as_str().expect("a text block")));
            }
            SamplingEvent::BlockDelta(_) => {}
            SamplingEvent::BlockEnded => {
                let text = std::mem::take(&mut json_text);
                if !text.is_empty() {
                    let last = blocks.last_mut().expect("a block is open");
                    last["input"] = serde_json::from_str(&text).expect("the input is JSON");
                }
            }
            SamplingEvent::Ended { stop_reason, .. } => stop = Some(stop_reason),
        }
    }
    (blocks, stop.expect("the sampling ended"))
}

const BASH: [SubTool; 2] = [SubTool::BashCodeExecution, SubTool::TextEditorCodeExecution];

fn user(content: impl Into<Value>) -> Value {
    json!({"role": "user", "content": content.into()})
}

fn called(id: &str, stdout: &str) -> Vec<Value> {
    vec![
        json!({"type": "server_tool_use", "id": format!("srvtoolu_{id}"), "name": "bash_code_execution", "input": {}}),
        json!({"type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{id}"), "content":
            {"type": "bash_code_execution_result", "stdout": stdout, "stderr": "", "return_code": 0, "content": []}}),
    ]
}

#[tokio::test]
async fn the_fixed_rule_runs_blocks_in_order_and_quotes_them() {
    let router = router(None).expect("no scripts");
    let text = "a\n```python\nprint(1)\n```\nb\n```bash\necho 2\n```\n";
    let mut history = vec![user("earlier"), json!({"role": "assistant", "content": "hello"}), user(text)];

    let first = folded(events(&router, request(&json!(history), &BASH), None).await);
    let command = "python3 - <<'BELLJAR_PYTHON'\nprint(1)\nBELLJAR_PYTHON\n";
    let expected = vec![
        json!("I run block 1 of 2 (python)."),
        json!({"name": "bash_code_execution", "input": {"command": command}}),
    ];
    assert_eq!(first, (expected, StopReason::ToolUse));

    history.push(json!({"role": "assistant", "content": called("a", "1\n")}));
    let second = folded(events(&router, request(&json!(history), &BASH), None).await);
    let expected = vec![
        json!("I run block 2 of 2 (bash)."),
        json!({"name": "bash_code_execution", "input": {"command": "echo 2\n"}}),
    ];
    assert_eq!(second, (expected, StopReason::ToolUse));

    // The loop may go on in the same message or in a new one.
    for apart in [false, true] {
        let mut history = history.clone();
        if apart {
            history.push(json!({"role": "assistant", "content": called("b", "2\n")}));
        } else {
            let mut both = called("a", "1\n");
            both.extend(called("b", "2\n"));
            history[3] = json!({"role": "assistant", "content": both});
        }
        let third = folded(events(&router, request(&json!(history), &BASH), None).await);
        let answer = "I ran 2 blocks.\n\nBlock 1 (python) gave:\n\n```\n1\n```\n\nBlock 2 (bash) gave:\n\n```\n2\n```";
        assert_eq!(third, (vec![json!(answer)], StopReason::EndTurn));
    }
}

#[tokio::test]
async fn python_goes_to_the_python_tool_where_there_is_one() {
    let router = router(None).expect("no scripts");
    let history = json!([user("```python\nprint(1)\n```")]);
    let (blocks, _) = folded(events(&router, request(&history, &[SubTool::CodeExecution]), None).await);
    assert_eq!(blocks[1], json!({"name": "code_execution", "input": {"code": "print(1)\n"}}));
}

#[tokio::test]
async fn without_a_tool_or_anything_to_run_it_says_what_it_is() {
    let router = router(None).expect("no scripts");
    let cases = [
        (json!([user("hello")]), &BASH[..], "I am Belljar's built-in scripted model, not a language model"),
        (
            json!([user("```bash\nls\n```")]),
            &[][..],
            "I am Belljar's built-in scripted model. There is something to run",
        ),
    ];
    for (history, tools, start) in cases {
        let (blocks, stop) = folded(events(&router, request(&history, tools), None).await);
        assert_eq!(stop, StopReason::EndTurn);
        assert_eq!(blocks.len(), 1);
        assert!(blocks[0].as_str().is_some_and(|text| text.starts_with(start)), "{blocks:?}");
    }
}

#[tokio::test]
async fn an_uploaded_table_is_summarized() {
    let router = router(None).expect("no scripts");
    let upload = json!({"type": "container_upload", "file_id": "file_01a"});
    let mut history = vec![user(vec![upload, json!({"type": "text", "text": "What is in it?"})])];
    let (blocks, stop) = folded(events(&router, request(&json!(history), &[SubTool::CodeExecution]), None).await);
    assert_eq!(stop, StopReason::ToolUse);
    let code = blocks[1]["input"]["code"].as_str().expect("code");
    assert!(code.starts_with("UPLOADS = [\"a.csv\"]\nimport csv\n"), "{code}");

    history.push(json!({"role": "assistant", "content": called("a", "3 rows\n")}));
    let (blocks, stop) = folded(events(&router, request(&json!(history), &BASH), None).await);
    let answer = "The look at the uploaded data gave:\n\n```\n3 rows\n```";
    assert_eq!((blocks, stop), (vec![json!(answer)], StopReason::EndTurn));
}

/// Runs a command as the bash sub-tool would.
fn bash(command: &str) -> (String, Option<i32>) {
    let output = Command::new("bash").args(["-c", command]).stdin(Stdio::null()).output().expect("bash runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[tokio::test]
async fn any_code_survives_the_way_through_the_shell_and_back() {
    let router = router(None).expect("no scripts");
    let python =
        "print('$HOME `id` \\n \"x\"')\nprint('''\nBELLJAR_PYTHON\n''')\nimport sys\nprint(sys.stdin.read() == '')";
    let history = json!([user(format!("````python\n{python}\n````"))]);
    let (blocks, _) = folded(events(&router, request(&history, &BASH), None).await);
    let command = blocks[1]["input"]["command"].as_str().expect("a command");
    assert_eq!(bash(command), ("$HOME `id` \n \"x\"\n\nBELLJAR_PYTHON\n\nTrue\n".to_owned(), Some(0)));

    // And a shell block through Python, for the tool version that offers nothing else.
    let shell = "printf '%s\\n' \"\\\"é\\\\\" '''' \"$((1+1))\"\nexit 3";
    let history = json!([user(format!("```bash\n{shell}\n```"))]);
    let (blocks, _) = folded(events(&router, request(&history, &[SubTool::CodeExecution]), None).await);
    let code = blocks[1]["input"]["code"].as_str().expect("code").to_owned();
    let through_python = tokio::task::spawn_blocking(move || {
        let output = Command::new("python3").args(["-c", &code]).stdin(Stdio::null()).output().expect("python3 runs");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    });
    assert_eq!(through_python.await.expect("no panic"), bash(shell));
}

fn scripts(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("the file is written");
    }
    dir
}

const TWO_STEPS: &str = r#"{"match": "play two", "steps": [
    {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "xyz"},
                 {"type": "tool_use", "name": "look_up", "input": {"q": "é"}}], "chunk_bytes": 1,
     "usage": {"input_tokens": 3, "output_tokens": 4}},
    {"content": [{"type": "text", "text": "found"}], "stop_reason": "max_tokens"}]}"#;

#[tokio::test]
async fn scripts_play_step_by_step() {
    let dir = scripts(&[
        ("two.json", TWO_STEPS),
        ("bare.yaml", "- content:\n  - {type: text, text: hi}\n"),
        ("notes.txt", "?"),
    ]);
    let router = router(Some(dir.path())).expect("the scripts are good");
    let mut history = vec![user("please play two things")];
    let first = events(&router, request(&json!(history), &[]), None).await;
    assert!(matches!(
        first.last(),
        Some(Ok(SamplingEvent::Ended { usage, .. })) if usage.input_tokens == 3 && usage.output_tokens == 4
    ));
    let expected =
        vec![json!("thinking: hm"), json!({"redacted": "xyz"}), json!({"name": "look_up", "input": {"q": "é"}})];
    assert_eq!(folded(first), (expected, StopReason::ToolUse));

    history.push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_a", "name": "look_up", "input": {}}]}));
    history.push(user(vec![json!({"type": "tool_result", "tool_use_id": "toolu_a", "content": "x"})]));
    let second = folded(events(&router, request(&json!(history), &[]), Some("two")).await);
    assert_eq!(second, (vec![json!("found")], StopReason::MaxTokens));

    history.push(json!({"role": "assistant", "content": "found"}));
    let third = folded(events(&router, request(&json!(history), &[]), Some("two")).await);
    assert_eq!(third, (vec![json!("The script `two` has no step 3: it ends after 2.")], StopReason::EndTurn));

    // A new question begins the script again.
    history.push(user("play two"));
    let again = folded(events(&router, request(&json!(history), &[]), Some("bare")).await);
    assert_eq!(again, (vec![json!("hi")], StopReason::EndTurn));
}

#[tokio::test]
async fn an_unknown_script_is_the_clients_mistake() {
    let router = router(None).expect("no scripts");
    let events = events(&router, request(&json!([user("x")]), &[]), Some("nope")).await;
    let [Err(error)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(error.kind, UpstreamErrorKind::Rejected { status: 400 });
    assert_eq!(error.client.kind.status(), 400);
    assert_eq!(error.client.message, "belljar-script: there is no script named `nope`");
}

#[tokio::test(start_paused = true)]
async fn faults_and_pauses_come_where_the_script_says() {
    let step =
        |extra: &str| format!(r#"[{{"content": [{{"type": "text", "text": "abcdef"}}], "chunk_bytes": 2, {extra}}}]"#);
    let dir = scripts(&[
        ("busy.json", &step(r#""fault": {"kind": "error_before_first_byte", "status": 429, "message": "no"}"#)),
        ("wrong.json", &step(r#""fault": {"kind": "error_before_first_byte", "status": 400, "message": "no"}"#)),
        ("broken.json", &step(r#""fault": {"kind": "error_mid_stream", "after_events": 3}"#)),
        ("cut.json", &step(r#""fault": {"kind": "cut_connection", "after_events": 6}"#)),
        ("slow.json", &step(r#""delay_ms": 5000, "chunk_delay_ms": 1000"#)),
    ]);
    let router = router(Some(dir.path())).expect("the scripts are good");
    let cases = [
        ("busy", 0, UpstreamErrorKind::RateLimited { retry_after: None }, 429),
        ("wrong", 0, UpstreamErrorKind::Rejected { status: 400 }, 400),
        ("broken", 3, UpstreamErrorKind::Overloaded, 529),
        ("cut", 6, UpstreamErrorKind::Cut, 500),
    ];
    for (script, good, kind, status) in cases {
        let events = events(&router, request(&json!([user("x")]), &[]), Some(script)).await;
        assert_eq!(events.len(), good + 1, "{script}");
        assert!(events[..good].iter().all(Result::is_ok), "{script}");
        let error = events[good].as_ref().expect_err("the fault");
        assert_eq!((error.kind, error.client.kind.status()), (kind, status), "{script}");
    }
    let start = tokio::time::Instant::now();
    let events = events(&router, request(&json!([user("x")]), &[]), Some("slow")).await;
    assert_eq!(events.len(), 7);
    assert_eq!(start.elapsed(), Duration::from_secs(8));
}

#[test]
fn bad_scripts_are_refused_with_file_and_field() {
    let text = r#"{"type": "text", "text": "x"}"#;
    let cases = [
        ("{", "not JSON: EOF while parsing an object at line 1 column 1".to_owned()),
        (r#"{"steps": [], "steps": []}"#, "a key stands twice in one object".to_owned()),
        (r#"{"match": "x"}"#, "steps: Field required".to_owned()),
        (
            r#"{"match": "", "steps": []}"#,
            "match: an empty text is in every text; leave `match` out instead".to_owned(),
        ),
        (r#"[{}]"#, "0.content: Field required".to_owned()),
        (
            &format!(r#"[{{"content": [{text}], "chunk_bytes": 0}}]"#),
            "0.chunk_bytes: Input should be a whole number from 1 to 1048576".to_owned(),
        ),
        (
            r#"[{"content": [{"type": "tool_use", "name": "x", "input": 3}]}]"#,
            "0.content.0.input: Input should be an object".to_owned(),
        ),
        (
            &format!(r#"[{{"content": [{text}], "fault": {{"kind": "cut_connection"}}}}]"#),
            "0.fault.after_events: Field required".to_owned(),
        ),
        (
            &format!(r#"[{{"content": [{text}], "fault": {{"kind": "cut_connection", "after_events": 5}}}}]"#),
            "steps.0.fault.after_events: the step has 5 events, so the fault would never come".to_owned(),
        ),
    ];
    for (script, problem) in cases {
        let dir = scripts(&[("bad.json", script)]);
        let path = dir.path().join("bad.json");
        let expected = ConfigError::Scripts {
            upstream: "built-in".to_owned(),
            problem: format!("script `{}`: {problem}", path.display()),
        };
        assert_eq!(router(Some(dir.path())).err(), Some(expected), "{script}");
    }
    let dir = scripts(&[("a.json", "[]"), ("a.yml", "[]")]);
    assert!(matches!(router(Some(dir.path())), Err(ConfigError::Scripts { .. })));
}

#[tokio::test]
async fn the_summary_holds_for_odd_tables() {
    let router = router(None).expect("no scripts");
    let upload = json!({"type": "container_upload", "file_id": "file_01a"});
    let history = json!([user(vec![upload])]);
    let (blocks, _) = folded(events(&router, request(&history, &[SubTool::CodeExecution]), None).await);
    let code = blocks[1]["input"]["code"].as_str().expect("code");
    let cases = [
        ("", "a.csv: the file is empty\n"),
        ("x,y\n", "a.csv: 0 rows, 2 columns: x, y\n\n"),
        (
            "day,n,n,\n2026-01-01,1,inf,\n2026-01-02,3\n\n2026-01-03,8,nan,5,6\n",
            "a.csv: 3 rows, 4 columns: day, n, n (3), column 4\n\n\
             day: count 3, distinct 3, first ['2026-01-01']\n\
             n: count 3, min 1, mean 4, median 3, max 8, std 2.94392\n\
             n (3): count 2, distinct 2, first ['inf']\n\
             column 4: count 1, min 5, mean 5, median 5, max 5, std 0\n\n\
             no chart: matplotlib is not installed here\n",
        ),
    ];
    for (table, expected) in cases {
        let dir = scripts(&[("a.csv", table)]);
        // Without site packages, so that the outcome does not depend on what this machine has.
        let output = Command::new("python3")
            .args(["-I", "-S", "-c", code])
            .env("INPUT_DIR", dir.path())
            .env("OUTPUT_DIR", dir.path())
            .output()
            .expect("python3 runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{table:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{table:?}");
    }
}
