//! The table at the end of a run, and whether the run passed.

use crate::counts::{Counts, Skip};
use crate::stage::{Finished, Stage};

/// Everything that ran.
pub struct Report {
    strict: bool,
    rows: Vec<(Stage, Finished)>,
}

impl Report {
    /// `strict`: a skip that the machine could have avoided fails the run.
    pub fn new(strict: bool) -> Report {
        Report { strict, rows: Vec::new() }
    }

    /// Adds one finished stage.
    pub fn add(&mut self, stage: Stage, finished: Finished) {
        self.rows.push((stage, finished));
    }

    /// Nothing failed, and nothing was skipped that must not be.
    pub fn passed(&self) -> bool {
        let held = self.rows.iter().all(|(_, row)| row.counts.failed == 0);
        held && !(self.strict && self.skips().any(Skip::fails_ci))
    }

    fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.rows.iter().flat_map(|(_, row)| &row.counts.skips)
    }

    /// The table, the reasons of the skips, and the totals as the very last line.
    pub fn print(&self) {
        println!();
        println!("{:<12} {:>8} {:>7} {:>7} {:>8}", "stage", "seconds", "passed", "failed", "skipped");
        for (stage, row) in &self.rows {
            let Counts { passed, failed, skips, .. } = &row.counts;
            println!("{:<12} {:>8.1} {passed:>7} {failed:>7} {:>8}", stage.name(), row.took.as_secs_f64(), skips.len());
        }
        for skip in self.skips() {
            println!("{}", skip.line());
        }
        for (stage, row) in &self.rows {
            for line in &row.counts.failures {
                println!("{}: {line}", stage.name());
            }
        }
        if self.strict && self.skips().any(Skip::fails_ci) {
            println!("CI=true: a check was skipped that this machine could have run, so the run fails");
        }
        println!("{}", self.totals());
    }

    fn totals(&self) -> String {
        let sum = |of: fn(&Counts) -> usize| self.rows.iter().map(|(_, row)| of(&row.counts)).sum::<usize>();
        format!(
            "{} passed, {} failed, {} skipped",
            sum(|counts| counts.passed),
            sum(|counts| counts.failed),
            sum(|counts| counts.skips.len())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report(strict: bool, counts: Counts) -> Report {
        let mut report = Report::new(strict);
        let took = Duration::ZERO;
        report.add(Stage::Unit, Finished { counts, took });
        report
    }

    fn skipped(skip: Skip) -> Counts {
        Counts { passed: 1, skips: vec![skip], ..Counts::default() }
    }

    #[test]
    fn totals_are_plain() {
        let report = report(false, skipped(Skip::Missing("x".into())));
        assert_eq!(report.totals(), "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_failure_fails() {
        assert!(!report(false, Counts::one(false)).passed());
    }

    #[test]
    fn ci_forgives_only_what_the_machine_lacks() {
        assert!(report(false, skipped(Skip::Missing("x".into()))).passed());
        assert!(!report(true, skipped(Skip::Missing("x".into()))).passed());
        assert!(report(true, skipped(Skip::Kernel("x".into()))).passed());
    }
}
