//! What a run found: a table for people, one JSON document for the record.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::figure::{Bound, Promise, Quantile, Series, Verdict};
use super::peer::Found;
use super::rows::Row;

/// What a row yields.
pub struct Yield {
    /// The samples.
    pub series: Vec<Series>,
    /// Whatever else is worth keeping.
    pub notes: Value,
}

/// A row that was measured, or why it could not be.
pub struct Measured {
    /// Which.
    pub row: &'static Row,
    /// What came of it.
    pub outcome: Result<Yield, String>,
}

#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    promise: Promise,
    verdict: Verdict,
}

impl Measured {
    fn judged(&self) -> Vec<Judged> {
        let series = self.outcome.as_ref().map_or(&[][..], |outcome| &outcome.series);
        self.row.promises.iter().map(|promise| Judged { promise: *promise, verdict: promise.judge(series) }).collect()
    }

    /// Whether every promise was measured and holds.
    pub fn kept(&self) -> bool {
        self.judged().iter().all(|judged| matches!(judged.verdict, Verdict::Kept(_)))
    }

    /// For the record.
    pub fn to_json(&self) -> Value {
        let mut document = json!({ "name": self.row.name, "what": self.row.what, "promises": self.judged() });
        match &self.outcome {
            Ok(Yield { series, notes }) => {
                document["series"] = series.iter().map(summary).collect();
                document["notes"] = notes.clone();
            }
            Err(error) => document["error"] = json!(error),
        }
        document
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("\n{}: {}\n", self.row.name, self.row.what);
        match &self.outcome {
            Ok(Yield { series, .. }) => series.iter().for_each(|one| line(&mut text, one)),
            Err(error) => drop(writeln!(text, "  FAILED: {error}")),
        }
        for Judged { promise, verdict } in self.judged() {
            let bound = match promise.bound {
                Bound::AtLeast(least) => format!(">= {least}"),
                Bound::AtMost(most) => format!("<= {most}"),
            };
            let said = match verdict {
                Verdict::Kept(value) => format!("KEPT    {value:.2} ({bound})"),
                Verdict::Missed(value) => format!("MISSED  {value:.2} ({bound})"),
                Verdict::Unmeasured(series) => format!("UNKNOWN {series} was not measured ({bound})"),
            };
            let _infallible = writeln!(text, "  {said}  {}", promise.says);
        }
        text
    }
}

fn line(text: &mut String, series: &Series) {
    let figure = |at| series.at(at).map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let (median, p99) = (figure(Quantile::P50), figure(Quantile::P99));
    let _infallible = match series.samples.len() {
        1 => writeln!(text, "  {:24} {median:>12} {}", series.name, series.unit),
        n => writeln!(text, "  {:24} {median:>12} {}   p99 {p99:>12}   n {n}", series.name, series.unit),
    };
}

fn summary(series: &Series) -> Value {
    let mut document = json!(series);
    for (key, at) in [("p50", Quantile::P50), ("p99", Quantile::P99), ("max", Quantile::Max)] {
        document[key] = json!(series.at(at));
    }
    document
}

/// The peers, each with its version or how to get it.
pub fn peers_text(peers: &[Found]) -> String {
    let line = |peer: &Found| match &peer.found {
        Ok(version) => format!("{}: {version}\n", peer.name),
        Err(absent) => format!("{absent}\n"),
    };
    peers.iter().map(line).collect()
}
