//! A strict fake of the Messages API, for tests of the whole server: `fake_upstream ANSWERS.json`.
//!
//! The file holds a list of answers (see `tests/support/mod.rs`). The first line on standard output is the address to configure as
//! `base_url`. It runs until standard input ends; then each request that came is a line of JSON on standard output (`headers`,
//! `body`), each broken rule is a line on standard error, and it exits with 1 if a rule was broken.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: fake_upstream ANSWERS.json")?;
    let answers: Vec<support::Answer> = serde_json::from_slice(&std::fs::read(path)?)?;
    let fake = support::Fake::start(answers).await?;
    println!("{}", fake.url);
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    for seen in fake.seen() {
        println!("{}", serde_json::to_string(&seen)?);
    }
    let violations = fake.violations();
    for violation in &violations {
        eprintln!("broken rule: {violation}");
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
