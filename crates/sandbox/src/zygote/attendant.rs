//! The task behind one zygote: starts it when it is wanted, carries requests to it, starts it again when it has ended.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::{FromZygote, ZYGOTE_VERSION};
use super::ledger::Ledger;
use super::start::{Ended, Event, Running};
use super::{Errand, ForkError, ForkRequest, Wanted, ZygoteStatus};
use crate::host::SharedHost;
use crate::image::Image;
use crate::repl::Warmth;

/// For its imports, on a machine that does much else.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);
/// Longest silence while a fork is under way. It takes milliseconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Forks asked for and not answered yet: enough that the zygote always has the next at hand.
const UNDER_WAY_MAX: usize = 16;
/// After the first end; doubled with each that follows.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// One that has served so long was well.
const TENURE_LONG: Duration = Duration::from_secs(60);

/// What an attendant works with.
pub struct Attendance {
    pub(super) warmth: Warmth,
    pub(super) status: watch::Sender<ZygoteStatus>,
    pub(super) requests: mpsc::Receiver<Errand>,
    pub(super) wanted: watch::Receiver<Wanted>,
}

/// Why a zygote is no more.
enum Outcome {
    Stopped,
    /// There cannot be one.
    Impossible(String),
    /// There can be another.
    Ended(String, Tenure),
}

/// What is wrong with one that served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it ended")]
    Ended,
    #[error("it was silent")]
    Silent,
    #[error("it broke the protocol: {0}")]
    Broke(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tenure {
    Short,
    Long,
}

/// Attends to one zygote of `image` until `stop`. What is left to hear of its children, one of `tasks` hears.
pub async fn attend(
    mut attendance: Attendance,
    host: SharedHost,
    image: Arc<Image>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let wanted = attendance.wanted.wait_for(|wanted| *wanted == Wanted::Now);
    if !matches!(stop.run_until_cancelled(wanted).await, Some(Ok(_))) {
        return;
    }
    let warmth = attendance.warmth;
    let mut back_off = BACK_OFF_MIN;
    loop {
        attendance.status.send_replace(ZygoteStatus::Starting);
        let reason = match attendance.life(&host, &image, &stop, &tasks).await {
            Outcome::Stopped => return,
            Outcome::Impossible(reason) => {
                tracing::warn!(?warmth, %reason, "there is no warm Python: interpreters are started cold");
                attendance.status.send_replace(ZygoteStatus::Impossible { reason });
                return;
            }
            Outcome::Ended(reason, Tenure::Short) => reason,
            Outcome::Ended(reason, Tenure::Long) => {
                back_off = BACK_OFF_MIN;
                reason
            }
        };
        tracing::warn!(?warmth, %reason, retry_after = ?back_off, "a zygote ended");
        attendance.status.send_replace(ZygoteStatus::Down { reason });
        let resting = attendance.declining(tokio::time::sleep(back_off));
        if stop.run_until_cancelled(resting).await.is_none() {
            return;
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

impl Attendance {
    /// One zygote from its start to its end.
    async fn life(
        &mut self,
        host: &SharedHost,
        image: &Arc<Image>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Outcome {
        let mut zygote = match self.declining(Running::start(host, image, self.warmth)).await {
            Ok(zygote) => zygote,
            // Before it was executed: nothing of this passes by itself.
            Err(error) => return Outcome::Impossible(error.to_string()),
        };
        let warming = self.declining(warm(&mut zygote));
        let Some(warmed) = stop.run_until_cancelled(warming).await else {
            zygote.end().await;
            return Outcome::Stopped;
        };
        match warmed {
            Ok(Warmed { python, missing }) => {
                tracing::info!(warmth = ?self.warmth, python, "a zygote is warm");
                if !missing.is_empty() {
                    tracing::warn!(warmth = ?self.warmth, ?missing, "what a zygote forks copies more than it needs: starts are slower");
                }
                self.status.send_replace(ZygoteStatus::Warm { python, missing });
            }
            Err(reason) => {
                let ended = match reason {
                    Unwarmed::Ended => zygote.ended().await,
                    Unwarmed::Late | Unwarmed::Never(_) => zygote.end().await,
                };
                return unwarmed(reason, &ended);
            }
        }
        let mut ledger = Ledger::default();
        let (fault, tenure) = match self.serve(&mut zygote, &mut ledger, stop).await {
            Some(served) => served,
            None => {
                zygote.end().await;
                tasks.spawn(ledger.close());
                return Outcome::Stopped;
            }
        };
        // Nobody asks one that is not warm.
        self.status.send_replace(ZygoteStatus::Down { reason: fault.to_string() });
        let ended = match fault {
            Fault::Ended => zygote.ended().await,
            Fault::Silent | Fault::Broke(_) => zygote.end().await,
        };
        tasks.spawn(ledger.close());
        Outcome::Ended(format!("{fault}: {ended}"), tenure)
    }

    /// Carries requests and answers until something goes wrong, or, with no answer, until `stop`.
    async fn serve(
        &mut self,
        zygote: &mut Running,
        ledger: &mut Ledger,
        stop: &CancellationToken,
    ) -> Option<(Fault, Tenure)> {
        let mut tenure = Tenure::Short;
        let well = tokio::time::sleep(TENURE_LONG);
        tokio::pin!(well);
        loop {
            let under_way = ledger.under_way();
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                event = zygote.event() => match event {
                    Event::Said(frame, fds) => if let Err(rule) = ledger.heard(frame, fds) {
                        return Some((Fault::Broke(rule), tenure));
                    },
                    Event::Broke(rule) => return Some((Fault::Broke(rule), tenure)),
                    Event::Ended => return Some((Fault::Ended, tenure)),
                },
                // Without anybody who could ask, there is nothing to attend to.
                errand = self.requests.recv(), if under_way < UNDER_WAY_MAX => match errand? {
                    Errand::Fork(request) => ask(zygote, ledger, request).await,
                    Errand::HandOver(reply) => {
                        let _asked_for = reply.send(zygote.hand_over(ledger.living()));
                        // What ends this is the end of the program.
                        std::future::pending().await
                    }
                },
                () = tokio::time::sleep(SILENCE_MAX), if under_way > 0 => return Some((Fault::Silent, tenure)),
                () = &mut well, if tenure == Tenure::Short => tenure = Tenure::Long,
            }
        }
    }

    /// Waits for something while there is no zygote: whoever asks for a fork is told so at once.
    async fn declining<T>(&mut self, waiting: impl Future<Output = T>) -> T {
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                biased;
                done = &mut waiting => return done,
                Some(errand) = self.requests.recv() => {
                    // Nothing is handed over of what is not warm.
                    if let Errand::Fork(request) = errand {
                        let _nobody_waits = request.reply.send(Err(ForkError::NotWarm));
                    }
                }
            }
        }
    }
}

async fn ask(zygote: &Running, ledger: &mut Ledger, request: ForkRequest) {
    let ForkRequest { namespace, socket, reply } = request;
    let id = ledger.ask(reply);
    let fds = [namespace.as_fd(), socket.as_fd()];
    // A socket that is full although so little is under way is that of a zygote which reads nothing: no need to wait.
    let sent = tokio::time::timeout(SILENCE_MAX, zygote.ask(id, &fds)).await;
    if !matches!(sent, Ok(Ok(()))) {
        ledger.take_back(id, ForkError::Silent);
    }
}

/// What one that is warm said of itself.
struct Warmed {
    /// Version of its interpreter.
    python: String,
    /// See [`FromZygote::Ready`].
    missing: Vec<String>,
}

/// Waits until it is warm.
async fn warm(zygote: &mut Running) -> Result<Warmed, Unwarmed> {
    let warmed = match tokio::time::timeout(READY_WAIT_MAX, zygote.event()).await {
        Ok(Event::Said(FromZygote::Ready { version: ZYGOTE_VERSION, python, missing }, fds)) if fds.is_empty() => {
            Warmed { python, missing }
        }
        Ok(Event::Said(..)) => return Err(Unwarmed::Never("it was not ready first")),
        Ok(Event::Broke(rule)) => return Err(Unwarmed::Never(rule)),
        Ok(Event::Ended) => return Err(Unwarmed::Ended),
        Err(_elapsed) => return Err(Unwarmed::Late),
    };
    // It waits for the first request, which comes when it is known to be warm.
    zygote.gather_pages().await;
    match zygote.has_one_thread() {
        Ok(true) => Ok(warmed),
        Ok(false) => Err(Unwarmed::Never("it has more than one thread")),
        Err(_gone) => Err(Unwarmed::Ended),
    }
}

/// Why a zygote did not become warm.
enum Unwarmed {
    Ended,
    Late,
    /// The next one would do the same.
    Never(&'static str),
}

/// One that gave up by itself would do so again; one that was killed, or had no time, might not.
fn unwarmed(reason: Unwarmed, ended: &Ended) -> Outcome {
    match (reason, &ended.status) {
        (Unwarmed::Never(rule), _) => Outcome::Impossible(format!("{rule}: {ended}")),
        (Unwarmed::Ended, Ok(status)) if status.code().is_some() => Outcome::Impossible(ended.to_string()),
        (Unwarmed::Ended, _) => Outcome::Ended(ended.to_string(), Tenure::Short),
        (Unwarmed::Late, _) => Outcome::Ended(format!("it was not warm in time: {ended}"), Tenure::Short),
    }
}
