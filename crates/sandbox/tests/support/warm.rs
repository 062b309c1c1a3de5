//! The same tests once more in REPLs that are forked from a zygote.

use std::process::Command;
use std::time::Duration;

use belljar_sandbox::{Sandbox, Warmth, ZygoteStatus};

/// Set for the second run.
const WARM: &str = "BELLJAR_TEST_WARM";

/// Which zygotes the tests' sandboxes have.
pub fn zygotes() -> Vec<Warmth> {
    if std::env::var_os(WARM).is_some() { vec![Warmth::Core] } else { Vec::new() }
}

/// Waits until the zygotes are warm that there are to be.
pub async fn ready(sandbox: &Sandbox) -> Result<(), String> {
    if zygotes().is_empty() {
        return Ok(());
    }
    let warming = async {
        loop {
            match sandbox.warmth_status().core {
                ZygoteStatus::Warm { .. } => return Ok(()),
                ZygoteStatus::Impossible { reason, .. } => return Err(reason.to_string()),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), warming)
        .await
        .unwrap_or_else(|_| Err("no zygote in 120 s".to_owned()))
}

/// Runs this test program, all but the test named `but`, with a zygote.
pub fn run_all(but: &str) {
    let program = std::env::current_exe().expect("runs");
    let output = Command::new(&program)
        .args(["--test-threads=1", "--nocapture", "--skip", but])
        .env(WARM, "1")
        .env_remove("NEXTEST")
        .output()
        .expect("starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    if let Some(skip) = err.lines().find(|line| line.starts_with("SKIP: ")) {
        crate::skip!(format!("with a zygote: {skip}"));
    }
}

/// Runs one test of this program, by its name, in a process of its own, with a zygote.
pub fn run_one(name: &str) {
    let program = std::env::current_exe().expect("runs");
    let output = Command::new(&program)
        .args(["--exact", name, "--nocapture"])
        .env(WARM, "1")
        .output()
        .expect("it can be started");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
