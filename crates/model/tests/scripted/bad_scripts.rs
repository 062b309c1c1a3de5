//! Scripts that are none: the error names the file and the field.

use std::fs;

use belljar_model::ConfigError;

use crate::asked::router;

/// The problem with one script file, its directory left out.
fn problem(file: &str, text: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(file), text).expect("a file");
    let Err(ConfigError::Scripts { upstream, problem }) = router(Some(directory.path().to_owned())) else {
        panic!("{file} should not load");
    };
    assert_eq!(upstream, "built-in");
    problem.replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn problems_name_the_file_and_the_field() {
    let step = |members: &str| format!(r#"[{{"content": [], {members}}}]"#);
    let block = |members: &str| format!(r#"{{"steps": [{{"content": [{{{members}}}]}}]}}"#);
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("[] x".to_owned(), "not valid JSON: trailing characters at line 1 column 4"),
        ("3".to_owned(), "a script is an object with `steps`, or a list of steps"),
        ("[]".to_owned(), "steps: at least one step is required"),
        ("{}".to_owned(), "steps: Field required"),
        (r#"{"steps": 3}"#.to_owned(), "steps: Input should be a valid list"),
        (r#"{"steps": [], "name": "x"}"#.to_owned(), "name: Extra inputs are not permitted"),
        (
            r#"{"match": "", "steps": [{"content": []}]}"#.to_owned(),
            "match: an empty text stands in every message; leave `match` out to play the script by name only",
        ),
        (r#"["x"]"#.to_owned(), "0: Input should be an object"),
        ("[{}]".to_owned(), "0.content: Field required"),
        (step(r#""speed": 1"#), "0.speed: Extra inputs are not permitted"),
        (step(r#""chunk_bytes": 0"#), "0.chunk_bytes: Input should be at least 1"),
        (step(r#""chunk_bytes": -1"#), "0.chunk_bytes: Input should be 0 or a positive integer"),
        (step(r#""delay_ms": 1.5"#), "0.delay_ms: Input should be 0 or a positive integer"),
        (step(r#""delay_ms": "1""#), "0.delay_ms: Input should be a valid number"),
        (
            step(r#""stop_reason": "done""#),
            "0.stop_reason: unknown variant `done`, expected one of `end_turn`, `max_tokens`, `stop_sequence`, `tool_use`, \
             `pause_turn`, `refusal`, `model_context_window_exceeded`",
        ),
        (
            step(r#""usage": {"output_tokens": "many"}"#),
            "0.usage.output_tokens: invalid type: string \"many\", expected u64",
        ),
        (step(r#""usage": {"tokens": 1}"#), "0.usage.tokens: Extra inputs are not permitted"),
        (
            step(r#""fault": {"kind": "flood"}"#),
            "0.fault.kind: Input should be 'error_before_first_byte', 'error_mid_stream' or 'cut_connection'",
        ),
        (step(r#""fault": {"kind": "cut_connection"}"#), "0.fault.after_events: Field required"),
        (
            step(r#""fault": {"kind": "cut_connection", "after_events": 1, "status": 500}"#),
            "0.fault.status: Extra inputs are not permitted",
        ),
        (
            step(r#""fault": {"kind": "error_before_first_byte", "status": 200}"#),
            "0.fault.status: Input should be an HTTP status from 400 to 599",
        ),
        (
            block(r#""type": "image""#),
            "steps.0.content.0: Input tag 'image' found using 'type' does not match any of the expected tags: 'text', \
             'thinking', 'redacted_thinking', 'tool_use'",
        ),
        (block(r#""type": "text""#), "steps.0.content.0.text: Field required"),
        (
            block(r#""type": "text", "text": "", "bold": true"#),
            "steps.0.content.0.bold: Extra inputs are not permitted",
        ),
        (
            block(r#""type": "tool_use", "name": "x", "input": "{}""#),
            "steps.0.content.0.input: Input should be an object",
        ),
        (
            block(r#""type": "tool_use", "name": "x", "input": {}, "id": "a b""#),
            "steps.0.content.0.id: not a tool use id: it has a character that does not belong at byte 1; expected \
             [A-Za-z0-9_-]{1,256}",
        ),
        (
            r#"[{"content": [], "content": []}]"#.to_owned(),
            "not valid JSON: duplicate entry with key \"content\" at line 1 column 26",
        ),
    ];
    for (text, expected) in cases {
        let expected = format!("script `bad.json`: {expected}");
        assert_eq!(problem("bad.json", text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn problems_of_files() {
    let cases: [(&str, &[u8], &str); 4] = [
        (
            "bad.yaml",
            b"steps:\n- content: [",
            "script `bad.yaml`: not valid YAML: did not find expected node content at line 3 column 1, while parsing a flow node",
        ),
        ("bad.yml", b"match: x\n", "script `bad.yml`: steps: Field required"),
        ("bad.yml", b"match: x\nmatch: y\n", "script `bad.yml`: not valid YAML: duplicate entry with key \"match\""),
        ("bad.json", b"\xff", "script `bad.json`: stream did not contain valid UTF-8"),
    ];
    for (file, text, expected) in cases {
        assert_eq!(problem(file, text), expected);
    }
    let large = vec![b' '; (16 << 20) + 1];
    assert_eq!(problem("large.json", &large), "script `large.json`: it is larger than 16777216 bytes");
}

#[test]
fn problems_of_the_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    let script = br#"[{"content": []}]"#;
    for file in ["one.json", "one.yaml", ".hidden.json", "two.txt"] {
        fs::write(path.join(file), script).expect("a file");
    }
    let Err(ConfigError::Scripts { problem, .. }) = router(Some(path.clone())) else {
        panic!("two scripts of one name should not load");
    };
    assert!(problem.ends_with("another script is called `one`"), "{problem}");
    fs::remove_file(path.join("one.yaml")).expect("removed");
    fs::write(path.join(".hidden.json"), "no script").expect("a file");
    assert!(router(Some(path.clone())).is_ok());

    let absent = path.join("absent");
    assert_eq!(
        router(Some(absent.clone())).err(),
        Some(ConfigError::Scripts {
            upstream: "built-in".to_owned(),
            problem: format!("scripts_dir `{}`: No such file or directory (os error 2)", absent.display()),
        })
    );
}
