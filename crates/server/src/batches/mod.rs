//! Message batches: requests that run unattended, some at a time, until each has come to something (wire.md §17.3).
//!
//! What is to be done is on disk; this keeps only where it stands. A server that ends and starts again goes on with every request
//! that has not come to anything, from its beginning: what a request did before is not undone.

mod item;
mod schedule;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belljar_ids::BatchId;
use belljar_store::{BatchClosing, BatchItem, BatchOutcome, BatchRecord, StoreError};
use belljar_wire::batch::BATCH_BYTES_MAX;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{Id, JoinError, JoinSet};

use crate::app::Shared;
use crate::clock;
use item::End;
use schedule::{Again, Open, Schedule};

/// How often batches are looked at although nobody said that one has changed: for the ones that expire, and after a failure.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// What bodies of requests that make batches may take in memory together, in units of [`UNIT_BYTES`].
const UNITS_MAX: u32 = 512;
const UNIT_BYTES: u64 = 1024 * 1024;

/// The way to what runs unattended.
#[derive(Debug)]
pub struct Batches {
    changed: Notify,
    /// Room for bodies.
    pub room: Arc<Semaphore>,
}

impl Default for Batches {
    fn default() -> Self {
        Self { changed: Notify::new(), room: Arc::new(Semaphore::new(UNITS_MAX as usize)) }
    }
}

impl Batches {
    /// Some batch was made, or is to be canceled.
    pub fn changed(&self) {
        self.changed.notify_one();
    }
}

/// How much of [`Batches::room`] a body takes: as much as it is announced to, else as much as it may.
pub fn room_for(announced: Option<u64>) -> u32 {
    let bytes = announced.unwrap_or(BATCH_BYTES_MAX as u64).min(BATCH_BYTES_MAX as u64);
    u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(UNITS_MAX)
}

/// Runs every batch, until the server is asked to stop and what runs then has ended.
pub async fn run(app: Shared) {
    let mut runner = Runner { app, schedule: Schedule::default(), turns: JoinSet::new(), running: HashMap::new() };
    let stopping = runner.app.stopping.clone();
    let mut look = true;
    loop {
        let stops = stopping.is_cancelled();
        if stops && runner.turns.is_empty() {
            return;
        }
        if look {
            runner.look().await;
        }
        if !stops {
            runner.close_what_is_over().await;
            runner.start_turns().await;
        }
        let due = runner
            .schedule
            .next_due()
            .map_or(LOOK_INTERVAL, |due| due.saturating_duration_since(clock::instant_now()).min(LOOK_INTERVAL));
        look = tokio::select! {
            Some(ended) = runner.turns.join_next_with_id(), if !runner.turns.is_empty() => {
                runner.ended(ended).await;
                false
            }
            () = runner.app.batches.changed.notified() => true,
            () = stopping.cancelled(), if !stops => false,
            () = tokio::time::sleep(due) => true,
        };
    }
}

struct Runner {
    app: Shared,
    schedule: Schedule,
    turns: JoinSet<End>,
    /// What each turn is for.
    running: HashMap<Id, Turn>,
}

struct Turn {
    batch: BatchId,
    item: BatchItem,
    attempts: u32,
}

impl Runner {
    /// Takes up batches that are new, and notes which are to end before their requests have run.
    async fn look(&mut self) {
        match self.app.store.open_batches().await {
            Ok(open) => self.schedule.take_up(open, clock::now()),
            Err(error) => tracing::error!(%error, "batches cannot be looked at"),
        }
    }

    /// Closes batches that are canceled or expired, once none of their turns runs any more.
    async fn close_what_is_over(&mut self) {
        for (id, closing) in self.schedule.over() {
            match self.app.store.close_batch(&id, closing).await {
                Ok(record) => self.log_end(&record, closing),
                Err(error) => {
                    tracing::error!(batch = %id, %error, "a batch cannot be closed");
                    continue;
                }
            }
            self.schedule.forget(&id);
        }
    }

    fn log_end(&self, record: &BatchRecord, closing: BatchClosing) {
        tracing::info!(batch = %record.id, ?closing, counts = ?record.counts, "batch ended before its requests had run");
    }

    /// Starts as many turns as may run at once.
    async fn start_turns(&mut self) {
        while self.turns.len() < self.app.serving.batch_turns_max {
            let Some(open) = self.schedule.choose(clock::instant_now()) else { return };
            match next(&self.app, open).await {
                Ok(Some(again)) => {
                    let turn = Turn { batch: open.record.id.clone(), item: again.item, attempts: again.attempts };
                    open.running += 1;
                    let (app, record, stop) = (Shared::clone(&self.app), open.record.clone(), open.stop.clone());
                    let (item, attempts) = (turn.item.clone(), turn.attempts);
                    let task = self.turns.spawn(async move { item::run(&app, &record, &item, attempts, &stop).await });
                    self.running.insert(task.id(), turn);
                }
                Ok(None) => open.exhausted = true,
                Err(error) => {
                    tracing::error!(batch = %open.record.id, %error, "a batch's next request cannot be read");
                    return;
                }
            }
        }
    }

    async fn ended(&mut self, ended: Result<(Id, End), JoinError>) {
        let (id, end) = match ended {
            Ok(ended) => ended,
            // The turn's own task is another one; this is the little around it.
            Err(error) => {
                tracing::error!(%error, "a turn of a batch panicked");
                (error.id(), End::Broken)
            }
        };
        let Some(turn) = self.running.remove(&id) else { return };
        let end = match end {
            End::Broken => item::keep(&self.app, &turn.batch, turn.item.position, broken()).await,
            end => end,
        };
        let Some(open) = self.schedule.get(&turn.batch) else { return };
        open.running -= 1;
        match end {
            End::Kept(Some(record)) if record.ended_at.is_some() => {
                tracing::info!(batch = %record.id, counts = ?record.counts, "batch ended");
                self.schedule.forget(&turn.batch);
            }
            End::Again(wait) => {
                let due = clock::instant_now() + wait;
                open.again.push(Again { item: turn.item, attempts: turn.attempts + 1, due });
            }
            // What was interrupted is closed with its batch, or run by the next server.
            End::Kept(_) | End::Interrupted | End::Broken => {}
        }
    }
}

fn broken() -> BatchOutcome {
    item::errored(crate::failure::Failure::internal("batch", &"a turn panicked"))
}

/// The request of a batch that runs next: one that is due again, else the first that has not run.
async fn next(app: &Shared, open: &mut Open) -> Result<Option<Again>, StoreError> {
    let now: Instant = clock::instant_now();
    if let Some(index) = open.again.iter().position(|again| again.due <= now) {
        return Ok(Some(open.again.swap_remove(index)));
    }
    let item = app.store.next_batch_item(&open.record.id, open.cursor).await?;
    Ok(item.map(|item| {
        open.cursor = Some(item.position);
        Again { item, attempts: 0, due: now }
    }))
}
