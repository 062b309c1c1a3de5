//! Zygotes that were handed over: they fork no more, but are the parents of REPLs that live, and alone know how those end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_jail::cgroup::CgroupTree;
use tokio::sync::{mpsc, oneshot};
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
    pub fn attend(self, tasks: &TaskTracker, stop: &CancellationToken) -> Pensions {
        let attended = self.0.into_iter().map(|old| {
            let (errands, requests) = mpsc::channel(1);
            tasks.spawn(old.serve_out(requests, stop.clone()));
            errands
        });
        Pensions(attended.collect())
    }
}

/// How those that are heard are reached.
#[derive(Default)]
pub struct Pensions(Vec<mpsc::Sender<HandOver>>);

type HandOver = oneshot::Sender<io::Result<HandedZygote>>;

impl Pensions {
    /// Those that still have children, for the program that this process is about to become.
    pub async fn hand_over(&self) -> io::Result<Vec<HandedZygote>> {
        let mut handed = Vec::new();
        for errands in &self.0 {
            let (reply, answer) = oneshot::channel();
            if errands.send(reply).await.is_ok() {
                handed.extend(answer.await.ok().transpose()?);
            }
        }
        Ok(handed)
    }
}

impl OldZygote {
    async fn serve_out(self, mut errands: mpsc::Receiver<HandOver>, stop: CancellationToken) {
        let Self { mut running, mut ledger, mut unclaimed } = self;
        while !(ledger.living().is_empty() && unclaimed.is_empty()) {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                Some(reply) = errands.recv() => {
                    let living = ledger.living().into_iter().chain(unclaimed.iter().copied()).collect();
                    let _asked_for = reply.send(running.hand_over(living));
                    // What ends this is the end of the program.
                    return std::future::pending().await;
                }
                event = running.event() => event,
            };
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
