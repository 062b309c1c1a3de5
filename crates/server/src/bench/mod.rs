//! The sandbox measured against its promises and its peers: `belljar bench`.
//!
//! Reading order: [`rows`] is the suite, as data. A row is a race (`race.rs`) between us (`ours.rs`) and peers (`peer.rs`,
//! `jupyter.rs`) at a task (`task.rs`), or one of `crowd.rs`, `burst.rs`, `bomb.rs` and `soak/`; or it is about code that
//! calls tools: `tool_call.rs`, `tool_calls_at_once.rs`, `parked.rs` and `replay.rs`, where a client (`talk.rs`) speaks to
//! a whole server (`served.rs`). `figure.rs` judges, `report.rs` tells. Contestants take turns within a run, because only ratios within one run hold on a noisy machine.

mod account;
mod bomb;
mod burst;
mod census;
mod cgroups;
mod crowd;
mod figure;
mod interpreter;
mod jupyter;
mod lines;
pub mod machine;
mod ours;
mod parked;
pub mod peer;
mod race;
mod replay;
pub mod report;
pub mod rows;
mod served;
mod soak;
pub mod stage;
pub mod stopwatch;
mod talk;
mod task;
mod tool_call;
mod tool_calls_at_once;

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
        How::ToolCall => tool_call::run(stage).await,
        How::ToolCallsAtOnce => tool_calls_at_once::run(stage).await.map(plain),
        How::Parked => parked::run(stage).await,
        How::Replay => replay::run(stage).await.map(plain),
        How::Soak => soak::run(stage, soak).await,
    };
    Measured { row, outcome: outcome.map_err(|error| error.to_string()) }
}
