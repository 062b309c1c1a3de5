//! Reads how many checks passed, failed and were skipped from what a program printed.

/// Why a check did not run. Only what the machine cannot help is forgiven in CI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// Something is not installed or not set up: CI must not be green without it.
    Missing(String),
    /// The running Linux kernel has no such feature.
    Kernel(String),
    /// A service on the network did not answer (the advisory database).
    Network(String),
}

impl Skip {
    /// Reads `SKIP: why`, `SKIP(kernel): why` or `SKIP(network): why`, the forms every suite prints.
    pub fn from_line(line: &str) -> Option<Skip> {
        let line = line.trim_start();
        let reason = |prefix: &str| line.strip_prefix(prefix).map(|rest| rest.trim().to_owned());
        if let Some(why) = reason("SKIP(kernel):") {
            return Some(Skip::Kernel(why));
        }
        if let Some(why) = reason("SKIP(network):") {
            return Some(Skip::Network(why));
        }
        reason("SKIP:").map(Skip::Missing)
    }

    /// The line as the suites print it.
    pub fn line(&self) -> String {
        match self {
            Skip::Missing(why) => format!("SKIP: {why}"),
            Skip::Kernel(why) => format!("SKIP(kernel): {why}"),
            Skip::Network(why) => format!("SKIP(network): {why}"),
        }
    }

    /// Whether CI fails because of it.
    pub fn fails_ci(&self) -> bool {
        match self {
            Skip::Missing(_) => true,
            Skip::Kernel(_) | Skip::Network(_) => false,
        }
    }
}

/// What one stage came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Checks that ran and held.
    pub passed: usize,
    /// Checks that ran and did not hold.
    pub failed: usize,
    /// Checks that did not run, each with its reason.
    pub skips: Vec<Skip>,
    /// What was printed of checks that did not hold, a line each, for the end of the run: a log that was cut shows its end.
    pub failures: Vec<String>,
}

impl Counts {
    /// One check that held or did not.
    pub fn one(held: bool) -> Counts {
        Counts { passed: usize::from(held), failed: usize::from(!held), ..Counts::default() }
    }

    /// One check that did not hold, told at once and again in the end.
    pub fn failure(line: String) -> Counts {
        println!("{line}");
        Counts { failed: 1, failures: vec![line], ..Counts::default() }
    }

    /// Both.
    pub fn add(&mut self, other: Counts) {
        let Counts { passed, failed, skips, failures } = other;
        self.passed += passed;
        self.failed += failed;
        self.skips.extend(skips);
        self.failures.extend(failures);
    }
}

/// The last line of our Python runners: `N passed, N failed, N skipped`.
pub fn from_runner(output: &str) -> Option<Counts> {
    let skips: Vec<Skip> = output.lines().filter_map(Skip::from_line).collect();
    let last = output.lines().rev().find(|line| !line.trim().is_empty())?;
    let mut numbers = last.trim().split(", ").map(|part| {
        let (number, what) = part.split_once(' ')?;
        Some((number.parse::<usize>().ok()?, what))
    });
    let (passed, failed, skipped) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let named = passed.1 == "passed" && failed.1 == "failed" && skipped.1 == "skipped";
    // A skip without its reason is a broken runner, not a skip.
    (named && skipped.0 == skips.len()).then_some(Counts {
        passed: passed.0,
        failed: failed.0,
        skips,
        failures: lines_of(output, |line| line.starts_with("FAILED ")),
    })
}

/// The chosen lines, each once, in order.
fn lines_of(output: &str, chosen: fn(&str) -> bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in output.lines().map(str::trim).filter(|line| chosen(line)) {
        if !lines.iter().any(|known| known == line) {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// nextest's summary line: `Summary [ 0.1s] 12 tests run: 11 passed (1 slow), 1 failed, 3 skipped`.
/// Its "skipped" are tests that the filter left to another stage.
pub fn from_nextest(output: &str, junit: &str) -> Option<Counts> {
    let line = output.lines().rev().find(|line| line.trim_start().starts_with("Summary [") && line.contains("run:"))?;
    let (_, tail) = line.split_once("run:")?;
    let number_before = |word: &str| -> usize {
        tail.split(',')
            .filter_map(|part| part.trim().split_once(' '))
            .find(|(_, what)| what.starts_with(word))
            .and_then(|(number, _)| number.parse().ok())
            .unwrap_or(0)
    };
    let skips: Vec<Skip> = junit.lines().filter_map(skip_in_junit).collect();
    let failed = number_before("failed") + number_before("timed out") + number_before("exec failed");
    let failures = lines_of(output, |line| {
        ["FAIL [", "TIMEOUT [", "ABORT ["].iter().any(|word| line.starts_with(word)) || line.starts_with("SIG")
    });
    Some(Counts { passed: number_before("passed").saturating_sub(skips.len()), failed, skips, failures })
}

/// A test that cannot run prints its skip line on standard output, which the JUnit file keeps, escaped, first line glued to a tag.
fn skip_in_junit(line: &str) -> Option<Skip> {
    let text = line.rsplit('>').next().filter(|rest| !rest.is_empty());
    Skip::from_line(text.unwrap_or(line))
}

/// The `test result:` lines of plain `cargo test`.
pub fn from_cargo_test(output: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut seen = false;
    for line in output.lines() {
        let Some(rest) = line.trim().strip_prefix("test result:") else {
            continue;
        };
        seen = true;
        for part in rest.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => counts.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => counts.failed += number.parse().unwrap_or(0),
                Some(_) | None => {}
            }
        }
    }
    counts.failures = lines_of(output, |line| line.starts_with("test ") && line.ends_with("... FAILED"));
    seen.then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runner_totals_are_read_from_the_last_line() {
        let output = "ok a\nSKIP(kernel): no Landlock\nFAILED  suite b: got 1\n\n3 passed, 1 failed, 1 skipped\n";
        let counts = from_runner(output).expect("a totals line");
        assert_eq!((counts.passed, counts.failed), (3, 1));
        assert_eq!(counts.skips, [Skip::Kernel("no Landlock".into())]);
        assert_eq!(counts.failures, ["FAILED  suite b: got 1"]);
    }

    #[test]
    fn a_runner_that_hides_a_skip_is_refused() {
        assert_eq!(from_runner("3 passed, 0 failed, 1 skipped\n"), None);
    }

    #[test]
    fn a_runner_that_died_has_no_totals() {
        assert_eq!(from_runner("Traceback (most recent call last):\n"), None);
    }

    #[test]
    fn nextest_summary_and_skips_are_read() {
        let failed = "        FAIL [   0.1s] ( 9/12) belljar-turn a_case\n";
        let output = "     Summary [   0.02s] 12 tests run: 11 passed (1 slow), 1 failed, 3 skipped\n";
        let junit = "<system-out>SKIP: no mkfs.erofs\nmore\n</system-out>";
        let output = format!("{failed}{output}{failed}");
        let counts = from_nextest(&output, junit).expect("a summary line");
        assert_eq!(counts.failures, [failed.trim()]);
        assert_eq!((counts.passed, counts.failed), (10, 1));
        assert_eq!(counts.skips, [Skip::Missing("no mkfs.erofs".into())]);
    }

    #[test]
    fn cargo_test_results_are_added_up() {
        let output = "test a ... ok\ntest b ... FAILED\ntest result: ok. 5 passed; 0 failed; 0 ignored\ntest result: FAILED. 1 passed; 2 failed; 0 ignored\n";
        let counts = from_cargo_test(output).expect("result lines");
        assert_eq!((counts.passed, counts.failed), (6, 2));
        assert_eq!(counts.failures, ["test b ... FAILED"]);
    }

    #[test]
    fn only_a_missing_tool_fails_ci() {
        assert!(Skip::Missing(String::new()).fails_ci());
        assert!(!Skip::Kernel(String::new()).fails_ci());
        assert!(!Skip::Network(String::new()).fails_ci());
    }
}
