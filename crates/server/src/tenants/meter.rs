//! The tokens of one turn: taken beforehand as far as they are known, settled by what was used.

use std::sync::Arc;

use belljar_store::{Day, WorkspaceId};
use belljar_wire::message::Usage;
use belljar_wire::sampling::SamplingEvent;

use super::Tenants;
use super::rates::Tokens;
use crate::clock;

/// Counts one turn. Dropped, it settles what is not settled yet.
pub struct Meter {
    tenants: Arc<Tenants>,
    workspace: WorkspaceId,
    /// What stands on disk for this turn, where tokens are counted by the day.
    day: Option<Counted>,
    /// Input tokens that the bucket has given for this turn, where limits by the minute hold.
    minute: Option<Minute>,
    /// Of samplings that have ended.
    ended: Tokens,
    /// Of the one that runs, as far as it has said.
    running: Tokens,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    day: Day,
    tokens: u64,
}

/// What the buckets have given; a turn's first settlement puts the estimate right.
#[derive(Clone, Copy, Debug)]
struct Minute {
    input: u64,
    output: u64,
}

impl Meter {
    /// A turn for which so many tokens stand on disk.
    pub(super) fn new(tenants: Arc<Tenants>, workspace: WorkspaceId, day: Option<Day>, tokens: u64) -> Self {
        let day = day.map(|day| Counted { day, tokens });
        Self { tenants, workspace, day, minute: None, ended: Tokens::default(), running: Tokens::default() }
    }

    /// The turn has been given so many input tokens by its workspace's bucket.
    pub(super) fn counts_by_the_minute(&mut self, input: u64) {
        self.minute = Some(Minute { input, output: 0 });
    }

    /// Notes what an event of a sampling says of usage.
    pub fn note(&mut self, event: &SamplingEvent) {
        match event {
            SamplingEvent::Started { usage } => self.running = tokens(usage),
            SamplingEvent::Ended { usage, .. } => {
                let Tokens { input, output } = tokens(usage);
                self.ended.input = self.ended.input.saturating_add(input);
                self.ended.output = self.ended.output.saturating_add(output);
                self.running = Tokens::default();
                // At once: a turn may sample many times, and others are to see what it has written.
                self.settle_minute();
            }
            SamplingEvent::BlockStarted(_) | SamplingEvent::BlockDelta(_) | SamplingEvent::BlockEnded => {}
        }
    }

    /// Puts what was used so far on record: before the client is told of it.
    pub async fn settle(&mut self) {
        self.settle_minute();
        if let Some((before, used)) = self.unsettled() {
            put_down(&self.tenants, &self.workspace, before, used).await;
        }
    }

    fn used(&self) -> Tokens {
        let Tokens { input, output } = self.running;
        Tokens { input: self.ended.input.saturating_add(input), output: self.ended.output.saturating_add(output) }
    }

    fn settle_minute(&mut self) {
        let used = self.used();
        let Some(minute) = &mut self.minute else { return };
        let more = Tokens { input: used.input, output: used.output.saturating_sub(minute.output) };
        let limits = self.tenants.limits(&self.workspace);
        self.tenants.rates.settle(&self.workspace, &limits, minute.input, more, clock::instant_now());
        *minute = Minute { input: used.input, output: minute.output.max(used.output) };
    }

    /// What stands on disk and what should, where that is something else; from then on it does.
    fn unsettled(&mut self) -> Option<(Counted, u64)> {
        let Tokens { input, output } = self.used();
        let used = input.saturating_add(output);
        let counted = self.day.as_mut().filter(|counted| counted.tokens != used)?;
        let before = *counted;
        counted.tokens = used;
        Some((before, used))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle_minute();
        let Some((before, used)) = self.unsettled() else { return };
        // A turn that was let go of, or failed. Without a runtime the server has ended, and what was taken beforehand stays.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (tenants, workspace) = (Arc::clone(&self.tenants), self.workspace.clone());
            runtime.spawn(async move { put_down(&tenants, &workspace, before, used).await });
        }
    }
}

async fn put_down(tenants: &Tenants, workspace: &WorkspaceId, before: Counted, used: u64) {
    if let Err(error) = tenants.store.settle_tokens(workspace, before.day, before.tokens, used).await {
        tracing::error!(%workspace, used, %error, "tokens could not be counted");
    }
}

fn tokens(usage: &Usage) -> Tokens {
    Tokens { input: usage.input_tokens.saturating_add(usage.cache_creation_input_tokens), output: usage.output_tokens }
}
