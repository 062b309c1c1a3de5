//! One request of a batch: run as a request of its own would be, and what it came to kept.

use std::time::Duration;

use belljar_ids::{BatchId, RequestId};
use belljar_store::{BatchItem, BatchOutcome, BatchRecord, UserId};
use belljar_wire::batch::BatchResult;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::message::{Message, StopReason};
use belljar_wire::request::MessagesRequest;
use tokio_util::sync::CancellationToken;

use crate::app::Shared;
use crate::asked::AskedOfBatch;
use crate::driver::reply;
use crate::failure::Failure;
use crate::principal::{Principal, isolation_of};
use crate::random::OsIds;
use crate::routes::messages::{self, Order};
use crate::tenants::Pace;
use crate::tenants::permit::ModelPermit;

/// How often a request is tried whose failure may pass by itself, but is no sign of a server that is busy.
const ATTEMPTS_MAX: u32 = 3;
/// The longest wait before a request is tried again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The wait before a result that could not be kept is written again.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

/// Stands for a result that has no text.
const UNWRITABLE: &str =
    r#"{"type":"errored","error":{"type":"error","error":{"type":"api_error","message":"Internal server error"}}}"#;

/// How one attempt at a request ended.
#[derive(Debug)]
pub enum End {
    /// What it came to is kept; the batch as it was then, unless the request was gone.
    Kept(Option<Box<BatchRecord>>),
    /// It failed for a reason that may pass: to be tried again after this long.
    Again(Duration),
    /// Its batch or the server ends.
    Interrupted,
    /// It panicked.
    Broken,
}

/// Runs a request once.
pub async fn run(app: &Shared, batch: &BatchRecord, item: &BatchItem, attempts: u32, stop: &CancellationToken) -> End {
    let request_id = RequestId::mint(&mut OsIds);
    tracing::info!(batch = %batch.id, position = item.position, attempts, %request_id, "request of a batch runs");
    let replied = tokio::select! {
        biased;
        () = stop.cancelled() => return End::Interrupted,
        replied = ask(app, batch, item, &request_id) => replied,
    };
    let outcome = match replied {
        // The turn paused because the server stops, not because it had to: the next server runs it from its beginning.
        Ok(message) if app.stopping.is_cancelled() && message.stop_reason == Some(StopReason::PauseTurn) => {
            return End::Interrupted;
        }
        Ok(message) => told(&BatchResult::Succeeded { message: Box::new(message) }),
        Err(failure) => match wait_after(&failure, attempts) {
            Some(_) if app.stopping.is_cancelled() => return End::Interrupted,
            Some(wait) => return End::Again(wait),
            None => errored_as(failure, &request_id),
        },
    };
    keep(app, &batch.id, item.position, outcome).await
}

async fn ask(app: &Shared, batch: &BatchRecord, item: &BatchItem, request_id: &RequestId) -> Result<Message, Failure> {
    let AskedOfBatch { asked, models } =
        serde_json::from_str(&batch.asked).map_err(|error| Failure::internal("batch", &error))?;
    let principal = Principal {
        workspace: batch.workspace.clone(),
        isolation: batch.isolation.map(isolation_of),
        models: ModelPermit::of(models),
        key: None,
    };
    let request = MessagesRequest::read(&item.params)?;
    refuse_attended(&request)?;
    refuse_other_user(&principal, request.user_id.as_deref())?;
    let tokens = app.tenants.estimate(&principal.workspace, Pace::Batch, &item.params);
    let order = Order { pace: Pace::Batch, tokens };
    let turn = messages::begin(app, &principal, request_id.clone(), &asked, request, order).await?;
    reply::message(turn).await
}

/// What makes no sense without a client that waits (wire.md §17.3). Threads are refused by the reader.
fn refuse_attended(request: &MessagesRequest) -> Result<(), ApiError> {
    if request.stream {
        return Err(ApiError::invalid("stream: Streaming is not supported in message batches"));
    }
    if request.rest.contains_key("speed") {
        return Err(ApiError::invalid("speed: not supported in message batches"));
    }
    Ok(())
}

/// A batch is one end user's: a request in it that names another would otherwise see things that are not that one's.
fn refuse_other_user(principal: &Principal, user_id: Option<&str>) -> Result<(), ApiError> {
    let (scope, whole) = (&principal.workspace, principal.workspace.whole());
    let Some(text) = user_id.filter(|_| *scope != whole) else { return Ok(()) };
    match text.parse::<UserId>() {
        Ok(user) if whole.scope_of(&user) == *scope => Ok(()),
        Ok(_) | Err(_) => {
            Err(ApiError::invalid("metadata.user_id: this is not the end user that the batch was made for"))
        }
    }
}

/// How long to wait before a failed request is tried again; none when that would not help.
fn wait_after(failure: &Failure, attempts: u32) -> Option<Duration> {
    let tries_left = failure.may_retry() && attempts + 1 < ATTEMPTS_MAX;
    let again = match failure.kind() {
        // As long as the batch lives: there is nobody who could wait better.
        ErrorKind::RateLimit | ErrorKind::Overloaded => true,
        ErrorKind::Conflict | ErrorKind::Api | ErrorKind::Timeout => tries_left,
        ErrorKind::InvalidRequest
        | ErrorKind::Authentication
        | ErrorKind::Billing
        | ErrorKind::Permission
        | ErrorKind::NotFound
        | ErrorKind::RequestTooLarge => false,
    };
    let doubled = Duration::from_secs(1).saturating_mul(1 << attempts.min(8)).min(WAIT_MAX);
    again.then(|| failure.wait().unwrap_or_default().max(doubled))
}

/// An error that no request had.
pub fn errored(failure: Failure) -> BatchOutcome {
    errored_as(failure, &RequestId::mint(&mut OsIds))
}

fn errored_as(failure: Failure, request_id: &RequestId) -> BatchOutcome {
    told(&BatchResult::Errored { error: Box::new(failure.body(request_id)) })
}

/// A result as it is kept: its text as it is told.
fn told(result: &BatchResult) -> BatchOutcome {
    match (serde_json::to_string(result), result) {
        (Ok(text), BatchResult::Succeeded { .. }) => BatchOutcome::Succeeded(text),
        (Ok(text), BatchResult::Errored { .. } | BatchResult::Canceled | BatchResult::Expired) => {
            BatchOutcome::Errored(text)
        }
        // Never: every key of these types is a string, and every number finite.
        (Err(error), _) => {
            tracing::error!(%error, "a result cannot be written");
            BatchOutcome::Errored(UNWRITABLE.to_owned())
        }
    }
}

/// Keeps what a request came to, as long as it takes: work that is done is not thrown away because the disk is full for a while.
pub async fn keep(app: &Shared, batch: &BatchId, position: u32, outcome: BatchOutcome) -> End {
    loop {
        match app.store.finish_batch_item(batch, position, outcome.clone()).await {
            Ok(record) => return End::Kept(record.map(Box::new)),
            Err(error) => tracing::error!(%batch, position, %error, "a result cannot be kept"),
        }
        tokio::select! {
            () = app.stopping.cancelled() => return End::Interrupted,
            () = tokio::time::sleep(KEEP_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let seconds =
            |kind, attempts| wait_after(&Failure::from(ApiError::new(kind, "no")), attempts).map(|wait| wait.as_secs());
        let cases = [
            (ErrorKind::RateLimit, 0, Some(1)),
            (ErrorKind::Overloaded, 3, Some(8)),
            (ErrorKind::Overloaded, 300, Some(60)),
            (ErrorKind::Api, 1, Some(2)),
            (ErrorKind::Api, 2, None),
            (ErrorKind::Conflict, 2, None),
            (ErrorKind::InvalidRequest, 0, None),
            (ErrorKind::NotFound, 0, None),
        ];
        for (kind, attempts, expected) in cases {
            assert_eq!(seconds(kind, attempts), expected, "{kind:?} after {attempts}");
        }
        let told = Failure::from(ApiError::new(ErrorKind::RateLimit, "no")).retry_after(Some(Duration::from_secs(90)));
        assert_eq!(wait_after(&told, 0), Some(Duration::from_secs(90)));
        let for_good = Failure::from(ApiError::new(ErrorKind::Conflict, "no")).do_not_retry();
        assert_eq!(wait_after(&for_good, 0), None);
    }
}
