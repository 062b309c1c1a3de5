//! The stages of a run: what each one starts, and how its outcome is counted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::counts::{self, Counts, Skip};
use crate::process::{self, Ended};
use crate::{escape, fuzzing, tidy};

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Formatting.
    Fmt,
    /// Clippy.
    Lint,
    /// The architecture's rules.
    Tidy,
    /// Dependencies.
    Deny,
    /// Unit tests.
    Unit,
    /// What runs inside the wall in Python.
    Driver,
    /// The sandbox's tests once more, in gVisor.
    Gvisor,
    /// The store's tests once more, with its state elsewhere.
    Stores,
    /// Fixture tests of the wire and the turn.
    Conformance,
    /// The binary that the last two stages run.
    Build,
    /// Attacks.
    Escape,
    /// Programs that people need.
    Programs,
    /// Fuzz targets.
    Fuzz,
    /// Official SDKs.
    E2e,
    /// Benchmarks, once each.
    BenchSmoke,
}

/// A stage that ran.
pub struct Finished {
    /// What it came to.
    pub counts: Counts,
    /// How long it took.
    pub took: Duration,
}

/// Tests that compare whole exchanges with fixtures: the integration tests of these two crates.
const CONFORMANCE: &str = "(package(belljar-wire) | package(belljar-turn)) & kind(test)";

impl Stage {
    /// What `cargo xtask ci` runs, in this order: cheap before dear.
    pub const CI: &[Stage] = &[
        Stage::Fmt,
        Stage::Tidy,
        Stage::Lint,
        Stage::Deny,
        Stage::Unit,
        Stage::Gvisor,
        Stage::Stores,
        Stage::Conformance,
        Stage::Build,
        Stage::Escape,
        Stage::Programs,
        // After a stage that has made the image, in which it runs too.
        Stage::Driver,
        Stage::E2e,
        Stage::Fuzz,
    ];

    /// The name in the table and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Fmt => "fmt",
            Stage::Lint => "lint",
            Stage::Tidy => "tidy",
            Stage::Deny => "deny",
            Stage::Unit => "unit",
            Stage::Gvisor => "gvisor",
            Stage::Stores => "stores",
            Stage::Driver => "driver",
            Stage::Conformance => "conformance",
            Stage::Build => "build",
            Stage::Escape => "escape",
            Stage::Programs => "programs",
            Stage::Fuzz => "fuzz",
            Stage::E2e => "e2e",
            Stage::BenchSmoke => "bench-smoke",
        }
    }
}

/// Runs one stage to its end. Whatever goes wrong is a failed check, never a silent one.
pub fn run(stage: Stage, root: &Path) -> Finished {
    let started = Instant::now();
    let outcome = match stage {
        Stage::Fmt => whole(cargo(root, &["fmt", "--all", "--check"])),
        Stage::Lint => {
            whole(cargo(root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
        }
        Stage::Tidy => tidy::run(root),
        Stage::Deny => deny(root),
        Stage::Unit => tests(root, &format!("not ({CONFORMANCE})"), &["--workspace"]),
        Stage::Gvisor => gvisor(root),
        Stage::Stores => stores(root),
        Stage::Driver => driver(root),
        Stage::Conformance => tests(root, CONFORMANCE, &["-p", "belljar-wire", "-p", "belljar-turn", "--test", "*"]),
        Stage::Build => whole(cargo(root, &["build", "-p", "belljar-server", "--bin", "belljar"])),
        Stage::Escape => escape::run(&target_dir(root).join("debug/belljar")),
        Stage::Programs => runner(root, "tests/programs/run.py", &[]),
        Stage::Fuzz => fuzzing::run(root),
        Stage::E2e => e2e(root),
        Stage::BenchSmoke => whole(cargo(root, &["bench", "--workspace", "--bench", "*", "--", "--test"])),
    };
    let counts = outcome.unwrap_or_else(|why| {
        println!("FAILED {}: {why}", stage.name());
        Counts::one(false)
    });
    Finished { counts, took: started.elapsed() }
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments);
    command
}

/// A program whose exit status is its whole answer.
fn whole(mut command: Command) -> Result<Counts, String> {
    Ok(Counts::one(process::run(&mut command)?.success))
}

/// Rust tests, through nextest where it is installed.
fn tests(root: &Path, filter: &str, plain: &[&str]) -> Result<Counts, String> {
    if has_nextest(root) {
        return nextest(root, filter, |command| command);
    }
    println!("cargo-nextest is not installed: running cargo test");
    let mut command = cargo(root, &["test", "--no-fail-fast"]);
    let ended = process::run(command.args(plain))?;
    settle(&ended, counts::from_cargo_test(&ended.output))
}

fn has_nextest(root: &Path) -> bool {
    cargo(root, &["nextest", "--version"]).output().is_ok_and(|answer| answer.status.success())
}

/// Always of the whole workspace: a filter leaves out tests, and nothing is built twice for another choice of features.
fn nextest(root: &Path, filter: &str, adjust: fn(&mut Command) -> &mut Command) -> Result<Counts, String> {
    let mut command = cargo(root, &["nextest", "run", "--workspace", "--profile", "ci", "-E", filter]);
    let ended = process::run(adjust(&mut command))?;
    let junit = std::fs::read_to_string(target_dir(root).join("nextest/ci/junit.xml")).unwrap_or_default();
    settle(&ended, counts::from_nextest(&ended.output, &junit))
}

/// The tests of real containers, which the stage before ran in namespaces. `tests/gvisor.rs` is in both.
fn gvisor(root: &Path) -> Result<Counts, String> {
    const TESTS: [&str; 6] = ["bash", "checkpoint", "files", "lifecycle", "limits", "python"];
    if has_nextest(root) {
        let binaries: Vec<String> = TESTS.iter().map(|test| format!("binary({test})")).collect();
        let filter = format!("package(belljar-sandbox) & ({})", binaries.join(" | "));
        return nextest(root, &filter, |command| in_gvisor(command).args(["--test-threads", "1"]));
    }
    let arguments = TESTS.iter().flat_map(|test| ["--test", test]);
    let mut command = cargo(root, &["test", "--no-fail-fast", "-p", "belljar-sandbox"]);
    command.args(arguments).args(["--", "--test-threads=1"]);
    let ended = process::run(in_gvisor(&mut command))?;
    settle(&ended, counts::from_cargo_test(&ended.output))
}

/// The store's tests, which an earlier stage ran on this disk, against a PostgreSQL and an object store; and those that need them.
fn stores(root: &Path) -> Result<Counts, String> {
    /// What `stores.py` ends with when it could not start one of them, and said so.
    const NOT_THERE: i32 = 77;
    let mut command = Command::new("python3");
    command.current_dir(root).args(["-u", "tests/harness/stores.py"]);
    command.arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let with_nextest = has_nextest(root);
    if with_nextest {
        let filter = "package(belljar-store) & kind(test) & not test(child_that_uploads_until_killed)";
        command.args(["nextest", "run", "--workspace", "--profile", "ci", "--run-ignored", "all", "-E", filter]);
    } else {
        command.args(["test", "--no-fail-fast", "-p", "belljar-store", "--test", "store", "--", "--include-ignored"]);
    }
    let ended = process::run(&mut command)?;
    if ended.code == Some(NOT_THERE) {
        let skips: Vec<Skip> = ended.output.lines().filter_map(Skip::from_line).collect();
        return Ok(Counts { skips, ..Counts::default() });
    }
    if !with_nextest {
        return settle(&ended, counts::from_cargo_test(&ended.output));
    }
    let junit = std::fs::read_to_string(target_dir(root).join("nextest/ci/junit.xml")).unwrap_or_default();
    settle(&ended, counts::from_nextest(&ended.output, &junit))
}

fn in_gvisor(command: &mut Command) -> &mut Command {
    command.env("BELLJAR_TEST_ISOLATION", "gvisor")
}

/// The end-to-end suites, and before them the fake upstream that some of them talk to.
///
/// The fake is built by a command of its own: together with it, cargo would give the server the features of its test crates. With the
/// whole workspace selected it gets those of the unit tests, which are built by then.
fn e2e(root: &Path) -> Result<Counts, String> {
    let built = process::run(&mut cargo(root, &["build", "--workspace", "--example", "fake_upstream"]))?;
    let fake = target_dir(root).join("debug/examples/fake_upstream");
    if !built.success || !fake.is_file() {
        return Err(format!("the fake upstream was not built: {}", fake.display()));
    }
    runner(root, "tests/e2e/run.py", &["--fake-upstream".as_ref(), fake.as_os_str()])
}

/// The tests beside the driver, with the Python at hand, and in the image where there is one.
fn driver(root: &Path) -> Result<Counts, String> {
    let ended = process::run(Command::new("python3").current_dir(root).arg("-u").arg("guest/python/tests/run.py"))?;
    settle(&ended, counts::from_runner(&ended.output))
}

/// One of our Python suites, with the binary that the build stage made.
fn runner(root: &Path, script: &str, arguments: &[&OsStr]) -> Result<Counts, String> {
    let binary = target_dir(root).join("debug/belljar");
    let mut command = Command::new("python3");
    command.current_dir(root).arg("-u").arg(script).arg("--belljar").arg(binary).args(arguments);
    let ended = process::run(&mut command)?;
    settle(&ended, counts::from_runner(&ended.output))
}

/// Counts and exit status must tell the same story: a runner that died after printing zeros has failed.
fn settle(ended: &Ended, counts: Option<Counts>) -> Result<Counts, String> {
    let counts = counts.ok_or("it ended without saying how many checks ran")?;
    if !ended.success && counts.failed == 0 {
        return Err("it counted no failure and yet exited with an error".to_owned());
    }
    if counts.passed + counts.failed + counts.skips.len() == 0 {
        return Err("not one check ran".to_owned());
    }
    Ok(counts)
}

fn deny(root: &Path) -> Result<Counts, String> {
    let Some(program) = tool("cargo-deny") else {
        let why = "cargo-deny is not installed (scripts/test installs it)".to_owned();
        return Ok(Counts { skips: vec![Skip::Missing(why)], ..Counts::default() });
    };
    let check = |what: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root).args(["--locked", "check", "--hide-inclusion-graph"]).args(what);
        process::run(&mut command)
    };
    let mut counts = Counts::default();
    for what in ["licenses", "bans", "sources"] {
        match check(&[what])?.success {
            true => counts.passed += 1,
            false => counts.failed += 1,
        }
    }
    let advisories = check(&["advisories"])?;
    match (advisories.success, database_unreachable(&advisories.output)) {
        (true, _) => counts.passed += 1,
        (false, true) => counts.skips.push(Skip::Network(
            "the RustSec advisory database could not be fetched; known vulnerabilities were not looked up".to_owned(),
        )),
        (false, false) => counts.failed += 1,
    }
    Ok(counts)
}

fn database_unreachable(output: &str) -> bool {
    output.contains("failed to fetch advisory database") || output.contains("failed to load advisory database")
}

/// A cargo subcommand that scripts/test installs, or one on the search path.
pub fn tool(name: &str) -> Option<PathBuf> {
    let cached = std::env::var_os("BELLJAR_TOOLS").map(|tools| PathBuf::from(tools).join("bin").join(name));
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|dir| dir.join(name)).collect::<Vec<_>>())
        .unwrap_or_default();
    cached.into_iter().chain(on_path).find(|candidate| candidate.is_file())
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(success: bool) -> Ended {
        Ended { success, code: Some(i32::from(!success)), output: String::new() }
    }

    #[test]
    fn a_run_of_nothing_is_a_failure() {
        assert!(settle(&ended(true), Some(Counts::default())).is_err());
    }

    #[test]
    fn an_error_exit_without_a_counted_failure_is_a_failure() {
        assert!(settle(&ended(false), Some(Counts::one(true))).is_err());
        assert!(settle(&ended(true), None).is_err());
    }

    #[test]
    fn counts_and_status_that_agree_are_kept() {
        assert_eq!(settle(&ended(true), Some(Counts::one(true))), Ok(Counts::one(true)));
        assert_eq!(settle(&ended(false), Some(Counts::one(false))), Ok(Counts::one(false)));
    }

    #[test]
    fn an_unreachable_database_is_told_from_a_finding() {
        assert!(database_unreachable("error: failed to fetch advisory database https://example"));
        assert!(!database_unreachable("error[vulnerability]: RUSTSEC-2020-0001"));
    }
}
