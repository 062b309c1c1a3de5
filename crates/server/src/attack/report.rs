//! The table for people and the document for machines.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::attack::canary;
use crate::attack::catalogue::{Catalogue, SECTIONS};
use crate::attack::judge::shortened;
use crate::attack::runner::{Row, Setting, Verdict};

/// Characters of a case's name and of what it tries that a line has room for.
const NAME_CHARS: usize = 52;
const TRIED_CHARS: usize = 44;

/// How often each verdict was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Denied or contained.
    pub held: usize,
    /// Something else came of it.
    pub escaped: usize,
    /// A canary died.
    pub canary_dead: usize,
    /// Could not be judged.
    pub broken: usize,
    /// Not run.
    pub skipped: usize,
}

impl Counts {
    /// Of some rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut counts = Self::default();
        for row in rows {
            let count = match row.verdict {
                Verdict::Held => &mut counts.held,
                Verdict::Escaped => &mut counts.escaped,
                Verdict::CanaryDead => &mut counts.canary_dead,
                Verdict::Broken => &mut counts.broken,
                Verdict::Skipped => &mut counts.skipped,
            };
            *count += 1;
        }
        counts
    }

    /// As every suite ends: `N passed, N failed, N skipped`.
    pub fn line(self) -> String {
        let failed = self.escaped + self.canary_dead + self.broken;
        format!("{} passed, {failed} failed, {} skipped", self.held, self.skipped)
    }
}

/// One line of the table, and one more for each thing that is wrong.
pub fn line(row: &Row) -> String {
    let verdict = match row.verdict {
        Verdict::Held => "held",
        Verdict::Escaped => "ESCAPED",
        Verdict::CanaryDead => "CANARY",
        Verdict::Broken => "BROKEN",
        Verdict::Skipped => "SKIP",
    };
    let (name, tried) = (shortened(&row.name, NAME_CHARS - 1), shortened(&row.tried, TRIED_CHARS - 1));
    let seconds = format!("{}.{:02}", row.took_ms / 1000, row.took_ms % 1000 / 10);
    let mut text = format!(
        "{:<2} {verdict:<8} {seconds:>6} s  {name:<NAME_CHARS$} {tried:<TRIED_CHARS$} {}",
        row.section, row.how
    );
    text.truncate(text.trim_end().len());
    text.extend(row.wrong.iter().map(|wrong| format!("\n   -> {wrong}")));
    text.extend(row.dead.iter().map(|dead| format!("\n   -> canary \"{}\": {}", dead.canary, dead.what)));
    if row.verdict == Verdict::Skipped {
        text += &format!("\nSKIP: attack {}: {}", row.name, row.how);
    }
    text
}

/// What the columns are.
pub fn head() -> String {
    let (name, tried) = ("case", "what was tried");
    format!("§  verdict    time    {name:<NAME_CHARS$} {tried:<TRIED_CHARS$} how it was refused")
}

/// The sums, by section and in all.
pub fn summary(setting: &Setting, rows: &[Row]) -> String {
    let mut text =
        format!("\n{}, {:?}, limits {:?}, image {}\n", setting.user, setting.isolation, setting.limits, setting.image);
    text += "section                       held  escaped  canary  broken  skipped\n";
    for (section, counts) in by_section(rows) {
        let title = SECTIONS.iter().find(|(name, _)| *name == section).map_or("in the end", |(_, title)| title);
        let Counts { held, escaped, canary_dead, broken, skipped } = counts;
        text += &format!("{section} {title:<26} {held:>5} {escaped:>8} {canary_dead:>7} {broken:>7} {skipped:>8}\n");
    }
    text + &Counts::of(rows).line()
}

fn by_section(rows: &[Row]) -> BTreeMap<&str, Counts> {
    let sections = rows.iter().map(|row| row.section.as_str());
    let of = |section| (section, Counts::of(rows.iter().filter(|row| row.section == section)));
    sections.map(of).collect()
}

/// The whole report.
pub fn document(setting: &Setting, catalogue: &Catalogue, rows: &[Row], took_ms: u64) -> Value {
    json!({
        "setting": setting,
        "held": !rows.iter().any(|row| row.verdict.fails()),
        "counts": Counts::of(rows),
        "sections": by_section(rows),
        "canaries": canary::names(),
        "took_ms": took_ms,
        "cases": rows,
        "not_applicable": catalogue.not_applicable().collect::<Vec<_>>(),
    })
}

/// Cases and what does not apply, without running anything.
pub fn list(catalogue: &Catalogue) -> String {
    let mut text = String::new();
    for case in &catalogue.cases {
        text += &format!("{}  {:<NAME_CHARS$} {}\n", case.section(), case.name, catalogue.tried(case));
    }
    text += "\nnot applicable:\n";
    for item in catalogue.not_applicable() {
        text += &format!("{:<28} {}: {}\n", item.name, item.text, item.not_applicable.as_deref().unwrap_or_default());
    }
    text
}

/// The same for machines.
pub fn list_document(catalogue: &Catalogue) -> Value {
    let cases: Vec<Value> = catalogue
        .cases
        .iter()
        .map(|case| json!({ "section": case.section(), "name": case.name, "items": case.items, "tried": catalogue.tried(case) }))
        .collect();
    json!({ "cases": cases, "not_applicable": catalogue.not_applicable().collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::canary::Dead;

    fn row(verdict: Verdict) -> Row {
        Row {
            section: "A".to_owned(),
            name: "a case".to_owned(),
            tried: "a thing".to_owned(),
            verdict,
            how: "EPERM".to_owned(),
            wrong: vec!["stdout is \"\"".to_owned()],
            dead: vec![Dead { canary: "file", what: "gone".to_owned() }],
            took_ms: 1234,
        }
    }

    #[test]
    fn what_is_wrong_stands_under_its_line() {
        let text = line(&row(Verdict::CanaryDead));
        assert!(text.starts_with("A  CANARY     1.23 s  a case "), "{text}");
        assert!(text.ends_with("EPERM\n   -> stdout is \"\"\n   -> canary \"file\": gone"), "{text}");
        assert!(line(&row(Verdict::Skipped)).contains("\nSKIP: attack a case: EPERM"));
    }

    #[test]
    fn every_verdict_is_counted_as_what_it_is() {
        use Verdict::{Broken, CanaryDead, Escaped, Held, Skipped};
        let rows: Vec<Row> = [Held, Held, Escaped, CanaryDead, Broken, Skipped].into_iter().map(row).collect();
        assert_eq!(Counts::of(&rows).line(), "2 passed, 3 failed, 1 skipped");
        let failing: Vec<bool> = rows.iter().map(|row| row.verdict.fails()).collect();
        assert_eq!(failing, [false, false, true, true, true, false]);
    }
}
