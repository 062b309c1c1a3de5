//! The two forms of a reply: the events as they come, or what they fold into.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use belljar_ids::RequestId;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::StreamEvent;
use belljar_wire::fold::{Fold, FoldError};
use belljar_wire::message::Message;
use belljar_wire::sse;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::driver::Sent;
use crate::failure::Failure;

/// Events that are ready are written together, up to this many bytes.
const WRITE_BYTES: usize = 8 * 1024;

/// The reply of a turn that ended without a word; always a fault of ours.
fn silent() -> Failure {
    Failure::internal("turn", &"it ended without an event")
}

/// A stream. The status is decided by the first thing that the turn sends: until then, a failure is a plain error.
pub async fn streamed(mut reply: mpsc::Receiver<Sent>, request_id: RequestId) -> Result<Response, Failure> {
    let first = match reply.recv().await {
        Some(Sent::Event(event)) => event,
        Some(Sent::Failed(failure)) => return Err(failure),
        None => return Err(silent()),
    };
    let outgoing = Outgoing { first: Some(first), reply, request_id, complete: false };
    let events = stream::unfold(outgoing, |mut outgoing| async move {
        let bytes = outgoing.next_bytes().await?;
        Some((Ok::<Bytes, Infallible>(bytes), outgoing))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// A stream on its way to the client. It ends with `message_stop` or with an `error` event, whatever becomes of its turn: a client
/// that only sees the end of the body takes half a reply for a whole one (wire.md §11.8).
struct Outgoing {
    first: Option<StreamEvent>,
    reply: mpsc::Receiver<Sent>,
    request_id: RequestId,
    complete: bool,
}

impl Outgoing {
    /// What is ready, at least one event; none when there will be no more.
    async fn next_bytes(&mut self) -> Option<Bytes> {
        let mut sent = match self.first.take() {
            Some(event) => Some(Sent::Event(event)),
            None => self.reply.recv().await,
        };
        let mut bytes = BytesMut::with_capacity(1024);
        loop {
            let over = sent.is_none();
            if let Some(event) = self.event(sent) {
                sse::encode(&event, &mut bytes);
            }
            if over || self.complete || bytes.len() >= WRITE_BYTES {
                break;
            }
            let Some(more) = self.soon().await else { break };
            sent = more;
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    /// What is sent next, or none if that has to be waited for: all other tasks that could run have had their turn. Of what a token of a fast
    /// stream costs, writing it alone is the largest part; a slow stream waits for nothing here.
    async fn soon(&mut self) -> Option<Option<Sent>> {
        tokio::select! {
            biased;
            sent = self.reply.recv() => Some(sent),
            () = yield_now() => None,
        }
    }

    /// The event that goes out for what the turn sent, or for its silence. Behind the last event there is none.
    fn event(&mut self, sent: Option<Sent>) -> Option<StreamEvent> {
        if self.complete {
            return None;
        }
        let event = match sent {
            Some(Sent::Event(event)) => event,
            Some(Sent::Failed(failure)) => self.error(failure.into_error()),
            None => {
                tracing::error!(request_id = %self.request_id, "a turn ended in the middle of its reply");
                self.error(ApiError::new(ErrorKind::Api, "The reply broke off"))
            }
        };
        self.complete = matches!(event, StreamEvent::MessageStop | StreamEvent::Error { .. });
        Some(event)
    }

    fn error(&self, error: ApiError) -> StreamEvent {
        StreamEvent::Error { error, request_id: self.request_id.clone() }
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::random::OsIds;

    /// The names of the events that a client sees of what a turn sends, and what the last one says.
    async fn seen(sent: Vec<Sent>) -> (Vec<String>, String) {
        let (sink, reply) = mpsc::channel(8);
        for sent in sent {
            sink.send(sent).await.expect("it fits");
        }
        drop(sink);
        let response = streamed(reply, RequestId::mint(&mut OsIds)).await.expect("a stream");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        let names = text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect();
        (names, text.lines().rfind(|line| line.starts_with("data: ")).unwrap_or_default().to_owned())
    }

    /// A turn that has to be woken for each event is heard out before anything is written; one that waits for its model is not waited for.
    #[tokio::test]
    async fn what_comes_together_is_written_together() {
        let (sink, reply) = mpsc::channel(8);
        let (wake, mut woken) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(()) = woken.recv().await {
                sink.send(Sent::Event(StreamEvent::Ping)).await.expect("it is read");
            }
        });
        wake.send(()).await.expect("it listens");
        let response = streamed(reply, RequestId::mint(&mut OsIds)).await.expect("a stream");
        let mut written = response.into_body().into_data_stream();
        let mut pings = async || {
            let bytes = written.next().await.expect("more").expect("no error");
            String::from_utf8_lossy(&bytes).matches("event: ping").count()
        };
        // The first has been read for the status; nothing more comes.
        assert_eq!(pings().await, 1);
        for _ in 0..3 {
            wake.send(()).await.expect("it listens");
        }
        assert_eq!(pings().await, 3);
    }

    #[tokio::test]
    async fn a_stream_that_began_never_ends_without_a_word() {
        let ping = || Sent::Event(StreamEvent::Ping);
        let failed = Sent::Failed(ApiError::new(ErrorKind::RateLimit, "later").into());
        let (names, last) = seen(vec![ping(), failed, ping()]).await;
        assert_eq!(names, ["ping", "error"]);
        assert!(last.contains("rate_limit_error") && last.contains("later"), "{last}");
        let (names, last) = seen(vec![ping()]).await;
        assert_eq!(names, ["ping", "error"]);
        assert!(last.contains("api_error"), "{last}");
        assert_eq!(seen(vec![ping(), Sent::Event(StreamEvent::MessageStop)]).await.0, ["ping", "message_stop"]);
    }
}
