//! The task that owns one container from its start to its last trace. Leases talk to it; nobody else touches the
//! guest, so a lease can be dropped at any point and the container is still in good hands.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cell::{self, Cell, UnderWay};
use crate::container::Container;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation};
use crate::error::{DeathReason, SandboxError};
use crate::frame::{Failure, FromGuest, ToGuest};
use crate::guest::{Guest, LAYER_WAIT_MAX};
use crate::handover::HandedContainer;
use crate::host::SharedHost;
use crate::kill;
use crate::outcome::{CellOutcome, InterpreterEnd};
use crate::state::{Life, Obituary};

/// For the guest to say that a file stands, once the last byte is in its pipe.
const WRITTEN_WAIT_MAX: Duration = Duration::from_secs(30);

/// An answer of the guest, under an error that says who survived.
pub type Answer<T> = Result<T, SandboxError>;

/// What a lease may ask of a keeper.
pub enum Request {
    Cell {
        cell: Cell,
        reply: oneshot::Sender<Answer<CellOutcome>>,
    },
    /// A cell that was handed over.
    GoOn {
        cell: Box<UnderWay>,
        cancel: CancellationToken,
        reply: oneshot::Sender<Answer<CellOutcome>>,
    },
    /// This process is about to become another program: the keeper tells what it has, and does nothing more.
    HandOver {
        reply: oneshot::Sender<Answer<HandedContainer>>,
    },
    Open {
        path: String,
        reply: oneshot::Sender<Answer<Result<OwnedFd, Failure>>>,
    },
    /// The guest writes a layer into `sink` from the moment it has been asked.
    Pack {
        sink: OwnedFd,
        reply: oneshot::Sender<Answer<Result<u64, Failure>>>,
    },
    /// The guest takes a layer out of `source`.
    Unpack {
        source: OwnedFd,
        /// What the next cell is told of its interpreter.
        lost: InterpreterEnd,
        reply: oneshot::Sender<Answer<Result<u64, Failure>>>,
    },
    Write {
        path: String,
        size: u64,
        source: OwnedFd,
        /// Completes, one way or the other, when no more comes through `source`.
        fed: oneshot::Receiver<()>,
        reply: oneshot::Sender<Answer<Result<bool, Failure>>>,
    },
}

/// Keeps a container from the moment it is somebody's to its last trace.
pub async fn keep(
    mut guest: Guest,
    host: SharedHost,
    reapers: Arc<Semaphore>,
    container: Arc<Container>,
    mut inbox: mpsc::Receiver<Request>,
) {
    let _obituary = Obituary(Arc::clone(&container.life));
    let reason = loop {
        let survives = tokio::select! {
            // What an interpreter says between two cells is no part of the second.
            biased;
            disturbance = guest.disturbed() => see_to(&mut guest, &container, disturbance).await,
            request = inbox.recv() => match request {
                None => Err(DeathReason::Removed),
                Some(request) => serve(&mut guest, &host, &container, request).await,
            },
        };
        if let Err(reason) = survives {
            break guest.explain(reason);
        }
    };
    match &reason {
        DeathReason::Removed => tracing::debug!(container = %container.id, "container removed"),
        reason => tracing::warn!(container = %container.id, %reason, "container died"),
    }
    container.life.die(reason);
    drop(inbox);
    bury(guest, &reapers, &container.life).await;
}

/// Clears away what is left of a dead container. Not more at once than there are reapers.
pub async fn bury(guest: Guest, reapers: &Semaphore, life: &Life) {
    // Where many end at once, most stand in line here.
    guest.reins().close_accounts();
    // Never closed; without a permit it would only be less orderly.
    let _permit = reapers.acquire().await;
    if let Err(error) = tokio::task::spawn_blocking(move || drop(guest)).await {
        tracing::error!(%error, "a container was not cleared away");
    }
    life.cleared();
}

/// A REPL that ends between two cells is missed by the next.
async fn see_to(
    guest: &mut Guest,
    container: &Container,
    disturbance: Result<InterpreterEnd, DeathReason>,
) -> Result<(), DeathReason> {
    let end = disturbance?;
    tracing::info!(container = %container.id, %end, "a REPL ended between cells");
    kill::lose(guest, end).await
}

/// Tells whoever asked, but not before a death is known: nobody who has heard of it gets a lease again.
fn tell<T>(
    container: &Container,
    survives: Result<(), DeathReason>,
    reply: oneshot::Sender<T>,
    answer: T,
) -> Result<(), DeathReason> {
    if let Err(reason) = &survives {
        container.life.die(reason.clone());
    }
    if reply.send(answer).is_err() {
        tracing::debug!(container = %container.id, "nobody waited for an answer");
    }
    survives
}

async fn serve(
    guest: &mut Guest,
    host: &SharedHost,
    container: &Container,
    request: Request,
) -> Result<(), DeathReason> {
    if !matches!(request, Request::Cell { .. }) {
        guest.first = None;
    }
    match request {
        Request::Cell { cell, mut reply } => {
            let done = cell::run(guest, host, cell, reply.closed()).await;
            tell(container, done.survives, reply, done.answer)
        }
        Request::GoOn { cell, cancel, mut reply } => {
            let done = cell::go_on(guest, host, *cell, cancel, reply.closed()).await;
            tell(container, done.survives, reply, done.answer)
        }
        Request::HandOver { reply } => {
            let handed = guest.hand_over().map(|guest| HandedContainer { guest, cell: None });
            let whole = handed.is_ok();
            let _asked_for = reply.send(handed.map_err(SandboxError::io("hand a container over")));
            if !whole {
                return Ok(());
            }
            // What ends this is the end of the program.
            std::future::pending().await
        }
        Request::Open { path, reply } => {
            let (survives, answer) = sorted(open(&mut guest.talk, path).await);
            tell(container, survives, reply, answer)
        }
        Request::Pack { sink, reply } => {
            let (survives, answer) = sorted(guest.pack(sink).await);
            tell(container, survives, reply, answer)
        }
        Request::Unpack { source, lost, reply } => {
            let (survives, answer) = sorted(unpack(&mut guest.talk, source).await);
            guest.lost = Some(lost);
            tell(container, survives, reply, answer)
        }
        Request::Write { path, size, source, fed, reply } => {
            let (survives, answer) = sorted(write(&mut guest.talk, path, size, source, fed).await);
            tell(container, survives, reply, answer)
        }
    }
}

fn sorted<T>(answer: Result<T, DeathReason>) -> (Result<(), DeathReason>, Answer<T>) {
    match answer {
        Ok(answer) => (Ok(()), Ok(answer)),
        Err(reason) => (Err(reason.clone()), Err(SandboxError::Dead(reason))),
    }
}

async fn open(talk: &mut Conversation, path: String) -> Result<Result<OwnedFd, Failure>, DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Open { id, path }, &[]).await?;
    let (frame, mut fds) = talk.answer(ANSWER_WAIT_MAX).await?;
    match (frame, fds.pop(), fds.is_empty()) {
        (FromGuest::Opened { id: of }, Some(file), true) if of == id => Ok(Ok(file)),
        (FromGuest::Failed { id: of, failure }, None, true) if of == id => Ok(Err(failure)),
        _ => Err(DeathReason::Protocol("out of turn while opening a file")),
    }
}

async fn unpack(talk: &mut Conversation, source: OwnedFd) -> Result<Result<u64, Failure>, DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Unpack { id }, &[source.as_fd()]).await?;
    drop(source);
    match talk.answer(LAYER_WAIT_MAX).await? {
        (FromGuest::Unpacked { id: of, entries }, fds) if of == id && fds.is_empty() => Ok(Ok(entries)),
        (FromGuest::Failed { id: of, failure }, fds) if of == id && fds.is_empty() => Ok(Err(failure)),
        _ => Err(DeathReason::Protocol("out of turn while unpacking a layer")),
    }
}

async fn write(
    talk: &mut Conversation,
    path: String,
    size: u64,
    source: OwnedFd,
    fed: oneshot::Receiver<()>,
) -> Result<Result<bool, Failure>, DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Write { id, path, size }, &[source.as_fd()]).await?;
    // The reading end is the guest's alone now: when it gives up, the writer hears of it.
    drop(source);
    let (frame, fds) = tokio::select! {
        received = talk.frame() => received?,
        _ = fed => talk.answer(WRITTEN_WAIT_MAX).await?,
    };
    match frame {
        FromGuest::Written { id: of, existed } if of == id && fds.is_empty() => Ok(Ok(existed)),
        FromGuest::Failed { id: of, failure } if of == id && fds.is_empty() => Ok(Err(failure)),
        _ => Err(DeathReason::Protocol("out of turn while writing a file")),
    }
}
