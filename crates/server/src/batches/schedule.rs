//! Which batch's request runs next: the batch with the fewest turns running, so that a large one does not keep the others waiting.

use std::time::Instant;

use belljar_ids::BatchId;
use belljar_store::{BatchClosing, BatchItem, BatchRecord, Timestamp};
use tokio_util::sync::CancellationToken;

/// A batch that has not ended, and where it stands.
#[derive(Debug)]
pub struct Open {
    /// As it was when it was taken up.
    pub record: BatchRecord,
    /// The last request that was begun.
    pub cursor: Option<u32>,
    /// All its requests were begun.
    pub exhausted: bool,
    /// Its turns that run now.
    pub running: usize,
    /// Requests that failed for a reason that may pass.
    pub again: Vec<Again>,
    /// Cancelled when its turns are to end.
    pub stop: CancellationToken,
    /// Why it ends before its requests have run, once it is known to.
    closing: Option<BatchClosing>,
}

/// A request that is to run, and when.
#[derive(Debug)]
pub struct Again {
    /// The request.
    pub item: BatchItem,
    /// How often it was tried.
    pub attempts: u32,
    /// Not before.
    pub due: Instant,
}

/// The batches that have not ended, oldest first.
#[derive(Debug, Default)]
pub struct Schedule {
    open: Vec<Open>,
}

impl Schedule {
    /// Takes up what is new, and notes what is to end.
    pub fn take_up(&mut self, records: Vec<BatchRecord>, now: Timestamp) {
        for record in records {
            if self.get(&record.id).is_none() {
                self.open.push(Open {
                    record: record.clone(),
                    cursor: None,
                    exhausted: false,
                    running: 0,
                    again: Vec::new(),
                    stop: CancellationToken::new(),
                    closing: None,
                });
            }
            let closing = match record.cancel_initiated_at {
                Some(_) => Some(BatchClosing::Canceled),
                None => (record.expires_at <= now).then_some(BatchClosing::Expired),
            };
            if let (Some(open), Some(closing)) = (self.get(&record.id), closing)
                && open.closing.is_none()
            {
                open.closing = Some(closing);
                open.stop.cancel();
            }
        }
    }

    /// The batches that are to end and have no turn running.
    pub fn over(&self) -> Vec<(BatchId, BatchClosing)> {
        let idle = self.open.iter().filter(|open| open.running == 0);
        idle.filter_map(|open| Some((open.record.id.clone(), open.closing?))).collect()
    }

    /// The batch whose request runs next; none when nothing waits, or not yet.
    pub fn choose(&mut self, now: Instant) -> Option<&mut Open> {
        let waits = |open: &&mut Open| {
            open.closing.is_none() && (!open.exhausted || open.again.iter().any(|again| again.due <= now))
        };
        self.open.iter_mut().filter(waits).min_by_key(|open| open.running)
    }

    /// When the next request is due again.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.open.iter().filter(|open| open.closing.is_none());
        waiting.flat_map(|open| &open.again).map(|again| again.due).min()
    }

    /// One batch.
    pub fn get(&mut self, id: &BatchId) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.record.id == *id)
    }

    /// A batch has ended.
    pub fn forget(&mut self, id: &BatchId) {
        self.open.retain(|open| open.record.id != *id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record(seed: u64, now: Timestamp) -> BatchRecord {
        BatchRecord {
            id: BatchId::mint(&mut belljar_ids::SeededIds::new(seed)),
            workspace: "local".parse().expect("a workspace"),
            asked: "{}".to_owned(),
            isolation: None,
            items: 9,
            created_at: now,
            expires_at: now.saturating_add(Duration::from_secs(60)),
            cancel_initiated_at: None,
            ended_at: None,
            archived_at: None,
            counts: belljar_store::BatchCounts::default(),
        }
    }

    fn again(due: Instant) -> Again {
        Again { item: BatchItem { position: 0, params: bytes::Bytes::new() }, attempts: 1, due }
    }

    #[test]
    fn batches_take_turns() {
        let (now, at) = (crate::clock::now(), crate::clock::instant_now());
        let (first, second) = (record(1, now), record(2, now));
        let mut schedule = Schedule::default();
        schedule.take_up(vec![first.clone(), second.clone()], now);
        let mut chosen = Vec::new();
        for _ in 0..4 {
            let open = schedule.choose(at).expect("a batch waits");
            open.running += 1;
            chosen.push(open.record.id.clone());
        }
        assert_eq!(chosen, [first.id.clone(), second.id.clone(), first.id.clone(), second.id.clone()]);
        schedule.get(&first.id).expect("it is open").exhausted = true;
        let open = schedule.choose(at).expect("one waits");
        assert_eq!(open.record.id, second.id);
        open.exhausted = true;
        assert!(schedule.choose(at).is_none());
    }

    #[test]
    fn what_failed_runs_again_when_it_is_due() {
        let (now, at) = (crate::clock::now(), crate::clock::instant_now());
        let mut schedule = Schedule::default();
        let batch = record(1, now);
        schedule.take_up(vec![batch.clone()], now);
        let due = at + Duration::from_secs(5);
        let open = schedule.get(&batch.id).expect("it is open");
        open.exhausted = true;
        open.again.push(again(due));
        assert!(schedule.choose(at).is_none());
        assert_eq!(schedule.next_due(), Some(due));
        assert!(schedule.choose(due).is_some());
    }

    #[test]
    fn what_is_canceled_or_expired_starts_nothing_and_closes_when_idle() {
        let (now, at) = (crate::clock::now(), crate::clock::instant_now());
        let (canceled, expired) = (record(1, now), record(2, now));
        let mut schedule = Schedule::default();
        schedule.take_up(vec![canceled.clone(), expired.clone()], now);
        schedule.get(&expired.id).expect("it is open").running = 1;
        let later = now.saturating_add(Duration::from_secs(60));
        let noted = BatchRecord { cancel_initiated_at: Some(now), ..canceled.clone() };
        schedule.take_up(vec![noted, expired.clone()], later);
        assert!(schedule.choose(at).is_none());
        assert_eq!(schedule.over(), [(canceled.id.clone(), BatchClosing::Canceled)]);
        let open = schedule.get(&expired.id).expect("it is open");
        assert!(open.stop.is_cancelled());
        open.running = 0;
        schedule.forget(&canceled.id);
        assert_eq!(schedule.over(), [(expired.id.clone(), BatchClosing::Expired)]);
    }
}
