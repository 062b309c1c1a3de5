//! The two forms of a reply: the events as they come, or what they fold into.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use belljar_wire::event::StreamEvent;
use belljar_wire::fold::{Fold, FoldError};
use belljar_wire::message::Message;
use belljar_wire::sse;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::mpsc;

use crate::driver::Sent;
use crate::failure::Failure;

/// Events that are ready are written together, up to this many bytes.
const WRITE_BYTES: usize = 16 * 1024;

/// The reply of a turn that ended without a word; always a fault of ours.
fn silent() -> Failure {
    Failure::internal("turn", &"it ended without an event")
}

/// A stream. The status is decided by the first thing that the turn sends: until then, a failure is a plain error.
pub async fn streamed(mut reply: mpsc::Receiver<Sent>) -> Result<Response, Failure> {
    let first = match reply.recv().await {
        Some(Sent::Event(event)) => event,
        Some(Sent::Failed(failure)) => return Err(failure),
        None => return Err(silent()),
    };
    let events = stream::unfold((Some(first), reply), |(first, mut reply)| async move {
        let event = match first {
            Some(event) => event,
            None => next(&mut reply).await?,
        };
        let mut bytes = BytesMut::with_capacity(1024);
        sse::encode(&event, &mut bytes);
        while bytes.len() < WRITE_BYTES {
            let Ok(Sent::Event(event)) = reply.try_recv() else { break };
            sse::encode(&event, &mut bytes);
        }
        Some((Ok::<Bytes, Infallible>(bytes.freeze()), (None, reply)))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(events)).into_response())
}

async fn next(reply: &mut mpsc::Receiver<Sent>) -> Option<StreamEvent> {
    match reply.recv().await? {
        Sent::Event(event) => Some(event),
        // A failure after the first event is an event itself.
        Sent::Failed(_) => None,
    }
}

/// The plain reply: the fold of the same events.
pub async fn plain(reply: mpsc::Receiver<Sent>) -> Result<Response, Failure> {
    message(reply).await.map(|message| Json(message).into_response())
}

/// The message that a turn's events fold into.
pub async fn message(mut reply: mpsc::Receiver<Sent>) -> Result<Message, Failure> {
    let mut fold = Fold::default();
    while let Some(sent) = reply.recv().await {
        match sent {
            Sent::Failed(failure) => return Err(failure),
            Sent::Event(event) => fold.push(event).map_err(fold_failure)?,
        }
    }
    fold.finish().map_err(fold_failure)
}

fn fold_failure(error: FoldError) -> Failure {
    match error {
        FoldError::Failed(error) => error.into(),
        error => Failure::internal("fold", &error),
    }
}
