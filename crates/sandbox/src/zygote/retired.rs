//! Zygotes that were handed over: they fork no more, but are the parents of REPLs that live, and alone know how those end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_jail::cgroup::CgroupTree;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ledger::Ledger;
use super::start::{Event, Running};
use crate::frame::Status;

pub use super::start::HandedZygote;

/// The zygotes that the program before this one had.
#[derive(Default)]
pub struct Retired(Vec<OldZygote>);

struct OldZygote {
    running: Running,
    ledger: Ledger,
    /// Its children that nobody has claimed yet.
    unclaimed: Vec<i32>,
}

impl Retired {
    /// Takes all over. Must be called in a runtime.
    pub fn take_over(handed: Vec<HandedZygote>, cgroups: Option<&CgroupTree>) -> io::Result<Self> {
        let old = handed.into_iter().map(|handed| {
            let (running, unclaimed) = Running::take_over(handed, cgroups)?;
            Ok(OldZygote { running, ledger: Ledger::default(), unclaimed })
        });
        old.collect::<io::Result<_>>().map(Self)
    }

    /// A child, by its number on the host: how it will have ended. Nobody tells that of one whose zygote is gone.
    pub fn adopt(&mut self, pid: i32, pidfd: Arc<OwnedFd>) -> oneshot::Receiver<Status> {
        let (told, status) = oneshot::channel();
        if let Some(parent) = self.0.iter_mut().find(|old| old.unclaimed.contains(&pid)) {
            parent.unclaimed.retain(|child| *child != pid);
            parent.ledger.adopt(pid, pidfd, told);
        }
        status
    }

    /// Hears each until its last child has ended, or until `stop`, and ends it.
    pub fn attend(self, tasks: &TaskTracker, stop: &CancellationToken) {
        for old in self.0 {
            tasks.spawn(old.serve_out(stop.clone()));
        }
    }
}

impl OldZygote {
    async fn serve_out(self, stop: CancellationToken) {
        let Self { mut running, mut ledger, mut unclaimed } = self;
        while !(ledger.living().is_empty() && unclaimed.is_empty()) {
            let Some(event) = stop.run_until_cancelled(running.event()).await else { break };
            let heard = match event {
                Event::Said(frame, fds) => ledger.heard_of_old(frame, fds, &mut unclaimed),
                Event::Broke(rule) => Err(rule),
                Event::Ended => Err("it ended"),
            };
            if let Err(reason) = heard {
                tracing::warn!(%reason, "a zygote that was handed over is lost");
                break;
            }
        }
        running.end().await;
        ledger.close().await;
    }
}
