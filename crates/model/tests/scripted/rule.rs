//! The fixed rule: code is run, tables are described, everything else is told plainly.

use std::process::Command;

use belljar_wire::message::StopReason;
use belljar_wire::sampling::ModelTool;
use belljar_wire::tool::{SubTool, ToolChoice, ToolChoiceMode};
use serde_json::{Value, json};

use crate::asked::{Answer, asked, assistant, call, result, text, user};

const BASH: SubTool = SubTool::BashCodeExecution;
const PYTHON: SubTool = SubTool::CodeExecution;
const CODE: &str = "First\n```python\nprint('hi')\n```\nthen\n```sh\necho $HOME\n```\n```ruby\nputs 1\n```";
const CLOSING: &str = "_Belljar's built-in model ran this by a fixed rule; it is not a language model._";
const ABOUT: &str = include_str!("../../src/scripted/about.md");

fn only_call(answer: &Answer) -> (&str, &Value) {
    assert_eq!(answer.calls.len(), 1, "{answer:?}");
    assert_eq!(answer.stop_reason, Some(StopReason::ToolUse));
    (&answer.calls[0].0, &answer.calls[0].1)
}

#[tokio::test]
async fn code_is_run_block_by_block_and_quoted() {
    let first = asked(json!([user(json!(CODE))])).answer().await;
    assert_eq!(first.text, "Running the python block (1 of 2).");
    let command = "python3 - <<'PYTHON'\nprint('hi')\nPYTHON\n";
    assert_eq!(only_call(&first), ("bash_code_execution", &json!({"command": command})));

    let mut content = vec![call("A"), result("A", "hi\n")];
    let second = asked(json!([user(json!(CODE)), assistant(json!(content))])).answer().await;
    assert_eq!(second.text, "Running the bash block (2 of 2).");
    assert_eq!(only_call(&second), ("bash_code_execution", &json!({"command": "echo $HOME\n"})));

    content.extend([call("B"), result("B", "/root\n")]);
    let last = asked(json!([user(json!(CODE)), assistant(json!(content))])).answer().await;
    assert_eq!(last.stop_reason, Some(StopReason::EndTurn));
    assert_eq!(
        last.text,
        format!(
            "Ran the python block (1 of 2): return code 0.\n\nstdout:\n```text\nhi\n```\n\n\
             Ran the bash block (2 of 2): return code 0.\n\nstdout:\n```text\n/root\n```\n\n{CLOSING}"
        )
    );
}

#[tokio::test]
async fn the_tools_that_are_offered_are_used() {
    let python = "```python\nprint('hi')\n```";
    let bash = "```bash\nexit 3\n```";
    let heredoc = json!({"command": "python3 - <<'PYTHON'\nprint('hi')\nPYTHON\n"});
    let cell = json!({"code": "print('hi')\n"});
    let cases = [
        (python, &[BASH][..], "bash_code_execution", Some(heredoc)),
        (python, &[BASH, PYTHON], "code_execution", Some(cell.clone())),
        (python, &[PYTHON], "code_execution", Some(cell)),
        (bash, &[PYTHON, BASH], "bash_code_execution", Some(json!({"command": "exit 3\n"}))),
        (bash, &[PYTHON], "code_execution", None),
    ];
    for (words, tools, name, input) in cases {
        let answer = asked(json!([user(json!(words))])).tools(tools).answer().await;
        let called = only_call(&answer);
        assert_eq!(called.0, name, "{words} {tools:?}");
        match input {
            Some(input) => assert_eq!(*called.1, input, "{words} {tools:?}"),
            None => {
                let code = called.1["code"].as_str().expect("code");
                let ended = Command::new("python3").args(["-c", code]).status();
                assert_eq!(ended.expect("python3 runs").code(), Some(3));
            }
        }
    }
}

#[tokio::test]
async fn without_a_tool_nothing_is_run() {
    let editor = &[SubTool::TextEditorCodeExecution];
    let hint = "The request offers no tool to run code with.";
    for tools in [&[][..], editor] {
        let answer = asked(json!([user(json!(CODE))])).tools(tools).answer().await;
        assert_eq!(answer.calls, []);
        assert!(answer.text.starts_with(hint), "{}", answer.text);
    }
    let mut forbidden = asked(json!([user(json!(CODE))]));
    forbidden.request.tool_choice = Some(ToolChoice { mode: ToolChoiceMode::None, disable_parallel_tool_use: false });
    assert_eq!(forbidden.answer().await.calls, []);
    for tools in [&[][..], &[BASH]] {
        let answer = asked(json!([user(json!("hello"))])).tools(tools).answer().await;
        assert_eq!(answer.text, ABOUT.trim_end());
        assert_eq!(answer.stop_reason, Some(StopReason::EndTurn));
    }
}

fn uploaded(id: &str, words: &str) -> Value {
    json!([user(json!([{"type": "container_upload", "file_id": id}, text(words)]))])
}

/// What the shell makes of `command` when `python3` is a program that prints its second argument.
fn argument_of(command: &str) -> String {
    let script = format!("python3() {{ printf '%s' \"$2\"; }}\n{command}");
    let ended = Command::new("bash").args(["-c", &script]).env("INPUT_DIR", "/in put").output().expect("bash runs");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    String::from_utf8(ended.stdout).expect("UTF-8")
}

#[tokio::test]
async fn a_table_is_analysed_under_any_name() {
    let names = [
        "co2.csv",
        "it's.CSV",
        "$(touch owned).csv",
        "`id`; exit 3 #.tsv",
        "a\nPYTHON\nb.csv",
        "\"$HOME\"\\.csv.gz",
        "-x.tsv.gz",
        "日本 🐚.csv",
    ];
    for name in names {
        let question = asked(uploaded("file_1", "what is this?")).upload("file_1", name);
        let answer = question.answer().await;
        let (tool, input) = only_call(&answer);
        assert_eq!(tool, "bash_code_execution");
        let command = input["command"].as_str().expect("a command");
        assert_eq!(argument_of(command), format!("/in put/{name}"));

        let answer = question.tools(&[PYTHON]).answer().await;
        let (tool, input) = only_call(&answer);
        assert_eq!(tool, "code_execution");
        let code = input["code"].as_str().expect("code");
        let head: String = code.split_inclusive('\n').take(2).collect();
        let ended = Command::new("python3")
            .args(["-c", &format!("{head}sys.stdout.write(sys.argv[1])")])
            .envs([("INPUT_DIR", "/in put"), ("PYTHONIOENCODING", "utf-8")])
            .output()
            .expect("python3 runs");
        assert_eq!(String::from_utf8(ended.stdout).expect("UTF-8"), format!("/in put/{name}"));
    }
}

#[tokio::test]
async fn the_analysis_is_python() {
    let question = asked(uploaded("file_1", "what?")).upload("file_1", "x.csv").tools(&[PYTHON]);
    let answer = question.answer().await;
    let code = only_call(&answer).1["code"].as_str().expect("code").to_owned();
    let check = "import ast, sys; ast.parse(sys.argv[1])";
    let ended = Command::new("python3").args(["-c", check, &code]).output();
    let ended = ended.expect("python3 runs");
    assert!(ended.status.success(), "{ended:?}");
    // With the few tokens of a first try, the call must leave room for the answer.
    assert_eq!(answer.output_tokens, 125);
}

#[tokio::test]
async fn the_answer_says_whether_a_chart_was_made() {
    let with_chart = json!([{"type": "bash_code_execution_output", "file_id": "file_01chart"}]);
    let cases = [
        (
            with_chart,
            "\n\nFiles: `file_01chart`\n\nA chart was made: `chart.png`, to be had from the Files API as `file_01chart`.",
        ),
        (json!([]), "\n\nNo chart was made."),
    ];
    for (files, expected) in cases {
        let mut done = result("A", "3 rows\n");
        done["content"]["content"] = files;
        let mut messages = uploaded("file_1", "what is this?");
        let messages = messages.as_array_mut().expect("a list");
        messages.push(assistant(json!([call("A"), done])));
        let question = asked(json!(messages)).upload("file_1", "x.csv");
        assert_eq!(
            question.answer().await.text,
            format!(
                "Ran the analysis of `\"x.csv\"`: return code 0.\n\nstdout:\n```text\n3 rows\n```{expected}\n\n{CLOSING}"
            )
        );
    }
}

#[tokio::test]
async fn other_uploads_are_named() {
    let about = ABOUT.trim_end();
    let told = |name: &str| {
        format!(
            "Uploaded to `$INPUT_DIR`, and of no kind that the fixed rule describes: {name}. Send a fenced `bash` or \
             `python` block that reads what you want to know.\n\n{about}"
        )
    };
    let cases = [
        ("report.pdf", "`\"report.pdf\"`"),
        ("`a`\nb.txt", "``\"`a`\\nb.txt\"``"),
        ("../up.csv", "`\"../up.csv\"`"),
        ("nul\0.csv", "`\"nul\\u0000.csv\"`"),
    ];
    for (name, expected) in cases {
        let question = asked(uploaded("file_1", "what?")).upload("file_1", name);
        assert_eq!(question.answer().await.text, told(expected));
    }
    let unknown = asked(uploaded("file_gone", "what?"));
    assert_eq!(unknown.answer().await.text, told("`\"file_gone\"`"));
    // Code goes before tables.
    let both = asked(uploaded("file_1", "```bash\nls\n```")).upload("file_1", "x.csv");
    assert_eq!(only_call(&both.answer().await).1, &json!({"command": "ls\n"}));
}

#[tokio::test]
async fn an_answer_keeps_to_its_tokens() {
    let mut question = asked(json!([user(json!("hello"))]));
    question.request.max_tokens = 5;
    let answer = question.answer().await;
    assert_eq!(answer.text, "I am Belljar's built");
    assert_eq!(answer.stop_reason, Some(StopReason::MaxTokens));
    assert_eq!(answer.output_tokens, 5);
}

#[tokio::test]
async fn hostile_text_is_read_in_little_time() {
    // Each line could have been the end of the here-document.
    let lines: String = (0..100_000).map(|n| format!("PYTHON_{n}\n")).collect();
    let underscores = format!("PYTHON{}", "_".repeat(10_000));
    let words = format!("```python\n'''\n{lines}{underscores}\n'''\n```\n{}", "`".repeat(500_000));
    let answer = asked(json!([user(json!(words))])).answer().await;
    let command = only_call(&answer).1["command"].as_str().expect("a command").to_owned();
    let delimiter = format!("PYTHON{}", "_".repeat(10_001));
    let ends: Vec<&str> = command.lines().filter(|line| *line == delimiter).collect();
    assert_eq!(ends.len(), 1);
    assert!(command.ends_with(&format!("\n{delimiter}\n")));
}

#[tokio::test]
async fn custom_tools_are_never_called() {
    let mut question = asked(json!([user(json!(CODE))]));
    question.request.tools = vec![ModelTool::Custom(belljar_wire::tool::CustomTool {
        name: "bash_code_execution".to_owned(),
        description: None,
        input_schema: json!({"type": "object"}),
        allowed_callers: None,
        strict: false,
        defer_loading: false,
        rest: serde_json::Map::new(),
    })];
    assert_eq!(question.answer().await.calls, []);
}
