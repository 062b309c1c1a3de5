//! The `fuzz` stage: every fuzz target for a few seconds, from its kept corpus, with what it ran and what it covered.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::counts::{Counts, Skip};
use crate::process;

/// Seconds for one target.
const TARGET_S: u32 = 10;

/// Targets at once; each has one thread.
const AT_ONCE: usize = 2;

/// Seconds that one input may take. A target that waits for something has found something.
const INPUT_S_MAX: u32 = 10;

/// What one target came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ran {
    target: String,
    held: bool,
    /// Inputs that were tried.
    executions: u64,
    /// Edges of the program that were reached, of those that it has.
    covered: u64,
    edges: u64,
}

/// Builds all targets, then runs each. Nothing is skipped but for want of cargo-fuzz.
pub fn run(root: &Path) -> Result<Counts, String> {
    let Some(program) = crate::stage::tool("cargo-fuzz") else {
        let why = "cargo-fuzz is not installed (scripts/test installs it)".to_owned();
        return Ok(Counts { skips: vec![Skip::Missing(why)], ..Counts::default() });
    };
    let fuzz = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        // The stable compiler has no sanitizers; coverage and every check of ours need none.
        command.current_dir(root).args(arguments).env("CARGO_TARGET_DIR", root.join("fuzz/target"));
        command
    };
    if !process::run(&mut fuzz(&["build", "--sanitizer", "none"]))?.success {
        return Err("the targets do not build".to_owned());
    }
    let targets = targets(root)?;
    let waiting = Mutex::new(targets.iter().rev().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(target) = waiting.lock().ok().and_then(|mut waiting| waiting.pop()) {
                    let ran = run_one(root, target);
                    if let Ok(mut done) = done.lock() {
                        done.push(ran);
                    }
                }
            });
        }
    });
    let done = done.into_inner().map_err(|_| "a thread that ran a target died".to_owned())?;
    let ran = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(report(ran, targets.len()))
}

/// The names of the targets: one file each.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/targets");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// The built program itself: cargo-fuzz would hold a lock and build again. New inputs go to a scratch folder: the kept
/// corpus grows by hand (`cargo fuzz cmin`), not by CI.
fn run_one(root: &Path, target: &str) -> Result<Ran, String> {
    let scratch = root.join("fuzz/target/corpus").join(target);
    let findings = root.join("fuzz/artifacts").join(target);
    for folder in [&scratch, &findings] {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut command = Command::new(program(root, target));
    command.current_dir(root.join("fuzz")).args([
        format!("-max_total_time={TARGET_S}"),
        format!("-timeout={INPUT_S_MAX}"),
        "-print_final_stats=1".to_owned(),
        format!("-artifact_prefix={}/", findings.display()),
        scratch.display().to_string(),
    ]);
    let kept = root.join("fuzz/corpus").join(target);
    command.args(kept.is_dir().then_some(kept));
    let output = command.output().map_err(|error| format!("cannot start {target}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let ran = read(target, output.status.success(), &said).ok_or_else(|| format!("{target} did not run:\n{said}"))?;
    if !ran.held {
        println!("{said}");
    }
    Ok(ran)
}

fn program(root: &Path, target: &str) -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    root.join("fuzz/target").join(triple).join("release").join(target)
}

/// libFuzzer's report: `#123 DONE cov: 45 ft: …`, `INFO: Loaded 1 modules (6789 inline 8-bit counters)…`, and the final
/// statistics. A target that ended before it had tried anything has no report.
fn read(target: &str, held: bool, said: &str) -> Option<Ran> {
    let behind = |line: &str, word: &str| -> Option<u64> {
        line.split_once(word)?.1.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
    };
    let last = |word: &str| said.lines().rev().find_map(|line| behind(line, word));
    Some(Ran {
        target: target.to_owned(),
        held,
        executions: last("stat::number_of_executed_units:").or_else(|| last("#"))?,
        covered: last(" cov: ").unwrap_or(0),
        edges: said.lines().find_map(|line| behind(line.split_once("modules")?.1, "(")).unwrap_or(0),
    })
}

fn report(mut ran: Vec<Ran>, expected: usize) -> Counts {
    ran.sort_by(|a, b| a.target.cmp(&b.target));
    println!("{:<18} {:>12} {:>10} {:>10}", "target", "executions", "covered", "edges");
    for Ran { target, held, executions, covered, edges } in &ran {
        let verdict = if *held { "" } else { "  FAILED: the input lies in fuzz/artifacts" };
        println!("{target:<18} {executions:>12} {covered:>10} {edges:>10}{verdict}");
    }
    let passed = ran.iter().filter(|ran| ran.held && ran.executions > 0).count();
    Counts { passed, failed: expected - passed, ..Counts::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "INFO: Loaded 1 modules   (6789 inline 8-bit counters): 6789 [0x1, 0x2),\n\
        #2\tINITED cov: 40 ft: 41 corp: 1/1b exec/s: 0 rss: 50Mb\n\
        #1500\tDONE   cov: 345 ft: 400 corp: 9/90b lim: 4 exec/s: 150 rss: 60Mb\n\
        stat::number_of_executed_units: 1500\n";

    fn ran(held: bool) -> Ran {
        Ran { target: "a".to_owned(), held, executions: 1500, covered: 345, edges: 6789 }
    }

    #[test]
    fn the_report_of_a_run_is_read() {
        assert_eq!(read("a", true, SAID), Some(ran(true)));
        assert_eq!(read("a", false, "error while loading shared libraries\n"), None);
    }

    #[test]
    fn a_finding_and_a_target_that_did_not_run_are_failures() {
        assert_eq!(report(vec![ran(true)], 1), Counts::one(true));
        assert_eq!(report(vec![ran(false)], 1), Counts::one(false));
        assert_eq!(report(vec![ran(true)], 2), Counts { passed: 1, failed: 1, ..Counts::default() });
    }
}
