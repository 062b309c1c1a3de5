//! What a run came to, as a table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::judge::{Kind, Verdict};

/// One recording.
pub struct Row {
    name: String,
    exchanges: usize,
    played: usize,
    equal: usize,
    but_for_kinds: usize,
    kinds: BTreeSet<String>,
    /// Exchange and reason.
    not_played: Vec<(usize, String)>,
    known: bool,
    pub faults: Vec<String>,
}

impl Row {
    pub fn new(name: &str, verdicts: Vec<Verdict>, known: bool) -> Self {
        let mut row = Self {
            name: name.to_owned(),
            exchanges: verdicts.len(),
            played: 0,
            equal: 0,
            but_for_kinds: 0,
            kinds: BTreeSet::new(),
            not_played: Vec::new(),
            known,
            faults: Vec::new(),
        };
        for (index, verdict) in verdicts.into_iter().enumerate() {
            row.played += usize::from(verdict.played);
            row.equal += usize::from(verdict.equal);
            row.but_for_kinds += usize::from(verdict.played && !verdict.equal && verdict.faults.is_empty());
            row.kinds.extend(verdict.kinds);
            row.not_played.extend(verdict.not_played.map(|why| (index, why)));
            row.faults.extend(verdict.faults.into_iter().map(|fault| format!("{name} {index}: {fault}")));
        }
        row
    }
}

/// The table, and below it what was not played.
pub fn text(rows: &[Row], kinds: &[Kind]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("recording".len());
    let mut text = format!("{:width$}  exchanges  played  equal  but for  faults  differences\n", "recording");
    for row in rows {
        let differences: Vec<String> = row.kinds.iter().map(|kind| with_page(kind, kinds)).collect();
        let unknown = if row.known { "" } else { " (listed nowhere)" };
        let _infallible = writeln!(
            text,
            "{:width$}  {:9}  {:6}  {:5}  {:7}  {:6}  {}{unknown}",
            row.name,
            row.exchanges,
            row.played,
            row.equal,
            row.but_for_kinds,
            row.faults.len(),
            differences.join(", "),
        );
    }
    let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    let _infallible = writeln!(
        text,
        "{} recordings, {} exchanges: {} played, {} of them equal, {} equal but for deliberate differences, {} not played, {} faults",
        rows.len(),
        sum(|row| row.exchanges),
        sum(|row| row.played),
        sum(|row| row.equal),
        sum(|row| row.but_for_kinds),
        sum(|row| row.not_played.len()),
        sum(|row| row.faults.len()),
    );
    for row in rows {
        for (index, why) in &row.not_played {
            let _infallible = writeln!(text, "NOT PLAYED {} {index}: {why}", row.name);
        }
    }
    text
}

fn with_page(kind: &str, kinds: &[Kind]) -> String {
    let page = kinds.iter().find(|known| known.kind == kind).map_or("?", |known| known.page.as_str());
    format!("{kind} ({page})")
}
