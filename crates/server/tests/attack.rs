//! `belljar attack` must be able to fail: cases that are not held, canaries that die, and nonsense.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const BELLJAR: &str = env!("CARGO_BIN_EXE_belljar");
/// Exit status of a machine that cannot run containers.
const CANNOT: i32 = 3;

fn belljar(arguments: &[&str]) -> Output {
    Command::new(BELLJAR).args(arguments).output().expect("the binary of this build starts")
}

/// Runs these cases: the exit status, and (verdict, canaries that died) by name.
fn attack(directory: &Path, cases: &Value) -> (Option<i32>, Value) {
    let file = directory.join("cases.json");
    std::fs::write(&file, cases.to_string()).expect("written");
    let config = directory.join("belljar.toml");
    std::fs::write(&config, "[sandbox]\nlimits = \"best_effort\"\n").expect("written");
    let [file, config] = [&file, &config].map(|path| path.to_str().expect("text"));
    let ended = belljar(&["attack", "--json", "--cases", file, "--config", config]);
    let code = ended.status.code();
    if code == Some(CANNOT) || String::from_utf8_lossy(&ended.stderr).contains("no image is called") {
        return (code, Value::Null);
    }
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (code, report)
}

fn of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["cases"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"))
}

#[test]
fn what_is_not_held_fails_the_suite() {
    let directory = tempfile::tempdir().expect("tempdir");
    let case = |name: &str, steps: Value| json!({ "name": name, "items": ["A.absolute"], "steps": steps });
    let start = json!({ "name": "a start that is not refused", "items": ["J.control"],
        "start": { "expect": { "exit": 3, "stderr": "refused" } } });
    let cases = json!([
        case(
            "held",
            json!([{ "run": { "bash": "cat /nowhere 2>/dev/null" }, "expect": { "return_code": 1, "stdout": "" } }])
        ),
        case("allowed", json!([{ "run": { "bash": "echo in" }, "expect": { "return_code": 1, "stdout": "" } }])),
        case(
            "another errno",
            json!([{ "run": { "python": "attempt('x', lambda: os.stat('/nowhere'))" },
            "expect": { "stdout": ["x EACCES"] } }])
        ),
        case("a secret comes out", json!([{ "at": "neighbour", "run": { "bash": "cat /tmp/secret.txt" } }])),
        case(
            "a secret comes out in a file",
            json!([{ "at": "neighbour", "run": { "bash": "cp /tmp/secret.txt $OUTPUT_DIR" } }])
        ),
        case("a secret is gone", json!([{ "at": "neighbour", "run": { "bash": "rm /tmp/secret.txt" } }])),
        case("held by a new neighbour", json!([{ "run": { "cell": "print(1)" }, "expect": { "stdout": "1\n" } }])),
        case("a memory is changed", json!([{ "at": "neighbour", "run": { "cell": "KEPT = 1" } }])),
        case("the image looks different", json!([{ "at": "neighbour", "run": { "bash": "echo >> /etc/passwd" } }])),
        start,
    ]);
    let (code, report) = attack(directory.path(), &cases);
    if report.is_null() {
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "containers cannot be run here");
        println!("SKIP: containers cannot be run here, or there is no image");
        return;
    }
    assert_eq!(code, Some(1));
    assert_eq!(report["held"], false);
    let expected = [
        ("held", "held"),
        ("allowed", "escaped"),
        ("another errno", "escaped"),
        ("a secret comes out", "escaped"),
        ("a secret comes out in a file", "escaped"),
        ("a secret is gone", "canary_dead"),
        ("held by a new neighbour", "held"),
        ("a memory is changed", "canary_dead"),
        ("the image looks different", "canary_dead"),
        ("a start that is not refused", "escaped"),
        ("the image is what its digest says", "held"),
    ];
    for (name, verdict) in expected {
        assert_eq!(of(&report, name)["verdict"], verdict, "{}", of(&report, name));
    }
    for name in ["a secret is gone", "a memory is changed", "the image looks different"] {
        assert_eq!(of(&report, name)["dead"][0]["canary"], "neighbour and image", "{}", of(&report, name));
    }
    assert_eq!(report["counts"]["canary_dead"], 3);
}

#[test]
fn nonsense_is_a_usage_error_and_a_missing_mode_is_said() {
    let cases: [(&[&str], i32); 4] = [
        (&["attack", "--only", "no such case"], 2),
        (&["attack", "--cases", "/nonexistent"], 2),
        (&["attack", "--isolation", "nothing"], 2),
        (&["attack", "--list", "--json"], 0),
    ];
    for (arguments, code) in cases {
        assert_eq!(belljar(arguments).status.code(), Some(code), "{arguments:?}");
    }
    // Neither on the path, nor in the cache.
    let nowhere = tempfile::tempdir().expect("tempdir");
    let mut command = Command::new(BELLJAR);
    command.args(["attack", "--isolation", "gvisor"]).env("PATH", "").env("BELLJAR_CACHE_DIR", nowhere.path());
    let ended = command.output().expect("the binary of this build starts");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(CANNOT) && said.contains("runsc is not installed"), "{said}");
}
