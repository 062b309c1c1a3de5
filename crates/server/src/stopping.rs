//! The end that is asked for: what lives is put on disk, so that the next start finds every container's files.
//!
//! Idle containers go first, then those in which code waits for a client's tool, then those that are still in use: one
//! that takes long to let go of keeps none of the others from being kept.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use belljar_ids::ContainerId;
use belljar_sandbox::ContainerState;
use belljar_store::WorkspaceId;
use tokio::task::JoinSet;

use crate::app::{App, Shared};
use crate::checkpoints::{self, CheckpointError};
use crate::exit::Exit;

/// Containers put away at once, per core: while one waits for the disk, or for the last of its processes, another packs.
const AT_ONCE_PER_CORE: usize = 4;
/// For a cell to end that is interrupted: by itself, or else by force after 2 s.
const LET_GO_WAIT: Duration = Duration::from_secs(5);
/// Between two interrupts of what runs in one container.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(100);

/// What became of the containers.
#[derive(Debug, Default)]
pub struct Kept {
    kept: usize,
    lost: Vec<ContainerId>,
    hurried: bool,
}

/// How a live container is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Nobody uses it.
    Idle,
    /// Code waits in it for a client's tool.
    Waits,
    /// Somebody's turn has not ended in time.
    Held,
}

/// A container whose files are to be kept.
#[derive(Clone, Debug)]
struct Live {
    id: ContainerId,
    workspace: WorkspaceId,
    how: Use,
}

/// What one attempt came to.
enum Attempt {
    Kept,
    /// It is nobody's any more, or died: nothing was there to keep.
    Gone,
    Failed(CheckpointError),
}

/// Ends what still runs and keeps every container's files, until `limit` is over or `hurry` completes. To be called when
/// turns have had their time and nothing new is let in.
pub async fn keep_containers(app: &Shared, limit: Duration, hurry: impl Future<Output = ()>) -> Kept {
    keep(app, living(app), limit, hurry).await
}

/// As [`keep_containers`], of containers in use alone: the others go on in another program.
pub async fn keep_used(app: &Shared, limit: Duration, hurry: impl Future<Output = ()>) -> Kept {
    let mut used = living(app);
    used.retain(|one| one.how == Use::Held);
    keep(app, used, limit, hurry).await
}

async fn keep(app: &Shared, mut live: Vec<Live>, limit: Duration, hurry: impl Future<Output = ()>) -> Kept {
    app.time_up.cancel();
    let mut kept = Kept::default();
    if live.is_empty() {
        return kept;
    }
    live.sort_by_key(|one| one.how);
    tracing::info!(containers = live.len(), "the files of live containers are being put on disk");
    let mut left = live.clone();
    tokio::select! {
        biased;
        () = hurry => kept.hurried = true,
        () = keep_all(app, live, &mut left, &mut kept) => {}
        () = tokio::time::sleep(limit) => {
            tracing::warn!(?limit, "containers were still being put away when the time was up");
        }
    }
    kept.lost = left.into_iter().map(|one| one.id).collect();
    kept
}

/// Every container that belongs to somebody and is not dead.
fn living(app: &App) -> Vec<Live> {
    let live = app.sandbox.list().into_iter().filter_map(|status| {
        let workspace = app.owners.of_one(&status.id)?;
        let how = match status.state {
            ContainerState::Dead => return None,
            ContainerState::Ready => Use::Idle,
            ContainerState::Leased if app.parked.waiting_in(&status.id).is_some() => Use::Waits,
            ContainerState::Leased => Use::Held,
        };
        Some(Live { id: status.id, workspace, how })
    });
    live.collect()
}

/// Keeps each, several at once; what is kept, or gone, is no longer `left`.
async fn keep_all(app: &Shared, live: Vec<Live>, left: &mut Vec<Live>, kept: &mut Kept) {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let mut again = Vec::new();
    let mut waiting = live.into_iter();
    let mut under_way = JoinSet::new();
    for one in waiting.by_ref().take(cores * AT_ONCE_PER_CORE) {
        under_way.spawn(keep_one(Shared::clone(app), one));
    }
    while let Some(done) = under_way.join_next().await {
        if let Some(next) = waiting.next() {
            under_way.spawn(keep_one(Shared::clone(app), next));
        }
        match done {
            Ok((one, Attempt::Failed(CheckpointError::Store(_)))) => again.push(one),
            Ok((one, attempt)) => note(&one, attempt, left, kept),
            Err(error) => tracing::error!(%error, "a container was not put away"),
        }
    }
    // One large container on a disk that is nearly full takes the room of the small ones beside it, until it has failed.
    for one in again {
        let (one, attempt) = keep_one(Shared::clone(app), one).await;
        note(&one, attempt, left, kept);
    }
}

fn note(one: &Live, attempt: Attempt, left: &mut Vec<Live>, kept: &mut Kept) {
    match attempt {
        Attempt::Kept => kept.kept += 1,
        Attempt::Gone => {}
        Attempt::Failed(error) => {
            tracing::error!(container = %one.id, %error, "a container could not be put away");
            return;
        }
    }
    left.retain(|other| other.id != one.id);
}

async fn keep_one(app: Shared, one: Live) -> (Live, Attempt) {
    let wait = match one.how {
        Use::Idle => Duration::ZERO,
        Use::Waits | Use::Held => LET_GO_WAIT,
    };
    // Only now, so that never more code runs on at once than containers are put away at once: what is let go of is
    // interrupted, as by Ctrl-C, and may run for that.
    app.parked.forget(&one.id);
    let attempt = match app.store.container(&one.workspace, &one.id).await {
        Ok(None) => Attempt::Gone,
        Err(error) => Attempt::Failed(error.into()),
        Ok(Some(record)) => {
            let put_away = tokio::select! {
                put_away = checkpoints::put_away(&app, &record, wait) => put_away,
                never = interrupt_again_and_again(&app, &one.id) => match never {},
            };
            match put_away {
                Ok(_checkpoint) => Attempt::Kept,
                Err(CheckpointError::Unknown) => Attempt::Gone,
                Err(error) => Attempt::Failed(error),
            }
        }
    };
    (one, attempt)
}

/// The container's cell, and those of requests that have waited in line for it.
async fn interrupt_again_and_again(app: &App, id: &ContainerId) -> Infallible {
    let mut ticks = tokio::time::interval(INTERRUPT_INTERVAL);
    loop {
        ticks.tick().await;
        app.running.interrupt(id);
    }
}

impl Kept {
    /// Says how many were kept and which were not, where nobody waits for an exit status.
    pub fn warn(self) {
        if let Err(exit) = self.told() {
            tracing::error!("{}", exit.message());
        }
    }

    /// Says how many were kept. That some were not is a failed stop, unless somebody was in a hurry.
    ///
    /// # Errors
    /// The end of a server that could not do what was asked.
    pub fn told(self) -> Result<(), Exit> {
        let Self { kept, lost, hurried } = self;
        if kept > 0 {
            tracing::info!(kept, "containers were put on disk and will be there again");
        }
        if lost.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = lost.iter().map(ContainerId::as_str).collect();
        let text = format!(
            "{} of {} live containers were not kept; their files are lost: {}",
            lost.len(),
            kept + lost.len(),
            ids.join(", ")
        );
        if hurried {
            tracing::warn!("{text}");
            return Ok(());
        }
        Err(Exit::failed(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_fails_when_files_are_lost_that_nobody_gave_up() {
        let lost = |hurried| Kept { kept: 2, lost: vec![ContainerId::mint(&mut crate::random::OsIds)], hurried };
        assert!(Kept { kept: 2, ..Kept::default() }.told().is_ok());
        assert!(lost(true).told().is_ok());
        let exit = lost(false).told().expect_err("one is lost");
        assert_eq!(exit.code(), crate::exit::FAILED);
        assert!(exit.message().starts_with("1 of 3 live containers were not kept"), "{}", exit.message());
    }

    #[test]
    fn idle_containers_come_first() {
        let mut found = [Use::Held, Use::Idle, Use::Waits];
        found.sort_unstable();
        assert_eq!(found, [Use::Idle, Use::Waits, Use::Held]);
    }
}
