//! The sandbox measured against its promises and its peers: `belljar bench`.
//!
//! Reading order: [`rows`] is the suite, as data. A row is a race (`race.rs`) between us (`ours.rs`) and peers (`peer.rs`,
//! `jupyter.rs`) at a task (`task.rs`), or one of `crowd.rs`, `burst.rs`, `bomb.rs` and `soak/`. `figure.rs` judges,
//! `report.rs` tells. Contestants take turns within a run, because only ratios within one run hold on a noisy machine.

mod bomb;
mod burst;
mod census;
mod cgroups;
mod crowd;
mod figure;
mod jupyter;
pub mod machine;
mod ours;
pub mod peer;
mod race;
pub mod report;
pub mod rows;
mod soak;
pub mod stage;
mod stopwatch;
mod task;

use std::time::Duration;

use serde_json::Value;

use report::{Measured, Yield};
use rows::{How, Row};
use stage::Stage;

/// Anything that keeps a row from being measured: only ever told.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures one row.
pub async fn measure(stage: &Stage, row: &'static Row, soak: Duration) -> Measured {
    let plain = |series| Yield { series, notes: Value::Null };
    let outcome = match row.how {
        How::Race(turns, entrants) => race::run(stage, entrants, turns).await.map(plain),
        How::Crowd => crowd::run(stage).await.map(plain),
        How::Burst => burst::run(stage).await.map(plain),
        How::Bomb => bomb::run(stage).await.map(plain),
        How::Soak => soak::run(stage, soak).await,
    };
    Measured { row, outcome: outcome.map_err(|error| error.to_string()) }
}
