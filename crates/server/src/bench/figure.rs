//! What a row yields and what is promised of it: series of samples, and bounds on them. Pure.

use serde::Serialize;

/// Samples of one contestant, in the order in which they were taken.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Who was measured.
    pub name: &'static str,
    /// `us`, `MiB` or `count`.
    pub unit: &'static str,
    /// What was measured, raw.
    pub samples: Vec<f64>,
}

impl Series {
    /// An empty series of microseconds.
    pub fn times(name: &'static str) -> Self {
        Self { name, unit: "us", samples: Vec::new() }
    }

    /// One figure that is not a time.
    pub fn single(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, samples: vec![value] }
    }

    /// The sample at a quantile; `None` of an empty series.
    pub fn at(&self, quantile: Quantile) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let index = match quantile {
            Quantile::P50 => sorted.len() / 2,
            Quantile::P99 => sorted.len() * 99 / 100,
            Quantile::Max => last,
        };
        sorted.get(index.min(last)).copied()
    }
}

/// Where in a sorted series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantile {
    /// The median, the upper one of two.
    P50,
    /// Of fewer than a hundred samples, the highest.
    P99,
    /// The highest.
    Max,
}

/// One number of a row.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figure {
    /// Whose.
    pub series: &'static str,
    /// Which.
    pub at: Quantile,
}

/// What a promise speaks of.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// One figure over another of the same run.
    Ratio {
        /// Divided.
        over: Figure,
        /// Divides.
        under: Figure,
    },
    /// A figure by itself.
    Plain(Figure),
}

/// Which side of the number is kept.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The number or more.
    AtLeast(f64),
    /// The number or less.
    AtMost(f64),
}

/// A bound on what a row yields.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Promise {
    /// In words.
    pub says: &'static str,
    /// Of what.
    pub of: Measure,
    /// How much.
    pub bound: Bound,
}

/// What became of a promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds, with this value.
    Kept(f64),
    /// It does not.
    Missed(f64),
    /// This series was not measured.
    Unmeasured(&'static str),
}

impl Promise {
    /// Holds the promise against what was measured.
    pub fn judge(&self, series: &[Series]) -> Verdict {
        let value = match self.of {
            Measure::Ratio { over, under } => match (over.of(series), under.of(series)) {
                (Some(over), Some(under)) => over / under,
                (None, _) => return Verdict::Unmeasured(over.series),
                (_, None) => return Verdict::Unmeasured(under.series),
            },
            Measure::Plain(figure) => match figure.of(series) {
                Some(value) => value,
                None => return Verdict::Unmeasured(figure.series),
            },
        };
        let kept = match self.bound {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        };
        if kept { Verdict::Kept(value) } else { Verdict::Missed(value) }
    }
}

impl Figure {
    fn of(self, series: &[Series]) -> Option<f64> {
        series.iter().find(|one| one.name == self.series)?.at(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &'static str, samples: &[f64]) -> Series {
        Series { name, unit: "us", samples: samples.to_vec() }
    }

    #[test]
    fn quantiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let cases: [(&[f64], [Option<f64>; 3]); 4] = [
            (&[], [None; 3]),
            (&[7.0], [Some(7.0); 3]),
            (&[3.0, 1.0, 2.0], [Some(2.0), Some(3.0), Some(3.0)]),
            (&hundred, [Some(51.0), Some(100.0), Some(100.0)]),
        ];
        for (samples, expected) in cases {
            let found = [Quantile::P50, Quantile::P99, Quantile::Max].map(|at| series("a", samples).at(at));
            assert_eq!(found, expected, "{samples:?}");
        }
    }

    #[test]
    fn promises_are_kept_missed_or_unmeasured() {
        let p50 = |series| Figure { series, at: Quantile::P50 };
        let ratio = |over, under| Measure::Ratio { over: p50(over), under: p50(under) };
        let measured = [series("ours", &[2.0]), series("peer", &[200.0])];
        let cases = [
            (ratio("peer", "ours"), Bound::AtLeast(100.0), Verdict::Kept(100.0)),
            (ratio("peer", "ours"), Bound::AtLeast(100.1), Verdict::Missed(100.0)),
            (ratio("ours", "peer"), Bound::AtMost(0.01), Verdict::Kept(0.01)),
            (ratio("peer", "other"), Bound::AtLeast(1.0), Verdict::Unmeasured("other")),
            (Measure::Plain(p50("ours")), Bound::AtMost(1.9), Verdict::Missed(2.0)),
            (Measure::Plain(p50("other")), Bound::AtMost(1.9), Verdict::Unmeasured("other")),
        ];
        for (of, bound, expected) in cases {
            let promise = Promise { says: "", of, bound };
            assert_eq!(promise.judge(&measured), expected, "{promise:?}");
        }
    }
}
