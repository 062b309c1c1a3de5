//! Message batches (wire.md §17.3). What runs them is in [`crate::batches`].

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use belljar_ids::BatchId;
use belljar_store::{BatchDraft, BatchItemDraft, BatchOutcome, BatchQuery, BatchRecord, BatchResult};
use belljar_wire::batch::{
    self, BATCH_BYTES_MAX, MessageBatch, MessageBatchDeleted, MessageBatchDeletedTag, MessageBatchPage,
    MessageBatchTag, ProcessingStatus, RequestCounts,
};
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::read::Brief;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName};

use crate::app::Shared;
use crate::asked::{Asked, AskedOfBatch};
use crate::batches::room_for;
use crate::clock;
use crate::failure::Failure;
use crate::principal::{Principal, key_isolation};
use crate::random::OsIds;
use crate::routes::body;
use crate::routes::files::store_failure;
use crate::routes::page::{ByIds, Part};

/// How long a batch may take (wire.md §17.3).
const RUNS_FOR: Duration = Duration::from_hours(24);
/// Bytes of results that are read and sent at once.
const SEND_BYTES: usize = 256 * 1024;
/// Says how a client reached a proxy in front of us.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// `POST /v1/messages/batches`. What its requests ask for is looked at when they run.
pub async fn create(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MessageBatch>, Failure> {
    let asked = Asked::of(&headers);
    asked.read()?;
    body::require_json(&headers)?;
    let room = app.batches.room.acquire_many(room_for(body::announced_bytes(&headers)));
    let held = tokio::time::timeout(app.serving.lease_wait, room).await.ok().and_then(Result::ok);
    let _held =
        held.ok_or_else(|| ApiError::new(ErrorKind::Overloaded, "Too many batches arrive at once. Try again."))?;
    let bytes = body::read(&headers, body, BATCH_BYTES_MAX).await?;
    let read = tokio::task::spawn_blocking(move || items(&bytes)).await;
    let items = read.map_err(|error| Failure::internal("batch", &error))??;
    let draft = BatchDraft {
        id: BatchId::mint(&mut OsIds),
        workspace: principal.workspace.clone(),
        asked: serde_json::to_string(&AskedOfBatch { asked, models: principal.models.globs() })
            .map_err(|error| Failure::internal("batch", &error))?,
        isolation: principal.isolation.map(key_isolation),
        expires_at: clock::now().saturating_add(RUNS_FOR),
        items,
    };
    let record = app.store.create_batch(draft).await.map_err(store_failure)?;
    app.batches.changed();
    tracing::info!(batch = %record.id, items = record.items, "batch made");
    Ok(Json(object(&record, &headers)))
}

/// The requests of a body, each sharing its bytes.
fn items(body: &Bytes) -> Result<Vec<BatchItemDraft>, ApiError> {
    let items = batch::read(body)?
        .into_iter()
        .map(|item| BatchItemDraft { params: body.slice_ref(item.params.as_bytes()), custom_id: item.custom_id });
    Ok(items.collect())
}

/// `GET /v1/messages/batches`: newest first.
pub async fn list(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<MessageBatchPage>, Failure> {
    let (query, limit) = read_query(query.as_deref().unwrap_or_default())?;
    let page = app.store.list_batches(&principal.workspace, query, limit).await.map_err(store_failure)?;
    let id = |record: Option<&BatchRecord>| record.map(|record| record.id.clone());
    Ok(Json(MessageBatchPage {
        first_id: id(page.entries.first()),
        last_id: id(page.entries.last()),
        has_more: page.has_more,
        data: page.entries.iter().map(|record| object(record, &headers)).collect(),
    }))
}

fn read_query(query: &str) -> Result<(BatchQuery, u16), ApiError> {
    let ByIds { limit, part } = ByIds::read(query, |_, value| Some(value))?;
    let query = match part.parse("message batch id")? {
        Part::First => BatchQuery::Newest,
        Part::After(id) => BatchQuery::OlderThan(id),
        Part::Before(id) => BatchQuery::NewerThan(id),
    };
    Ok((query, limit))
}

/// `GET /v1/messages/batches/{id}`.
pub async fn retrieve(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<MessageBatch>, Failure> {
    let record = find(&app, &principal, &id).await?;
    Ok(Json(object(&record, &headers)))
}

/// `POST /v1/messages/batches/{id}/cancel`: requests that have not begun never will, those under way are ended.
pub async fn cancel(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<MessageBatch>, Failure> {
    let canceled = app.store.cancel_batch(&principal.workspace, &read_id(&id)?).await.map_err(store_failure)?;
    let record = canceled.ok_or_else(|| missing(&id))?;
    if record.ended_at.is_some() {
        let text = format!("Message batch `{}` has ended and cannot be canceled.", record.id);
        return Err(ApiError::invalid(text).into());
    }
    app.batches.changed();
    Ok(Json(object(&record, &headers)))
}

/// `DELETE /v1/messages/batches/{id}`: only what has ended.
pub async fn delete(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<MessageBatchDeleted>, Failure> {
    let record = find(&app, &principal, &id).await?;
    if record.ended_at.is_none() {
        let text = format!("Message batch `{}` has not ended: cancel it before it is deleted.", record.id);
        return Err(ApiError::invalid(text).into());
    }
    match app.store.delete_batch(&principal.workspace, &record.id).await.map_err(store_failure)? {
        true => Ok(Json(MessageBatchDeleted { id: record.id, tag: MessageBatchDeletedTag::MessageBatchDeleted })),
        false => Err(missing(&id)),
    }
}

/// `GET /v1/messages/batches/{id}/results`: a line of JSON each, in the order of the requests.
pub async fn results(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let record = find(&app, &principal, &id).await?;
    if record.ended_at.is_none() {
        let text = format!("Message batch `{}` has no results yet: it has not ended.", record.id);
        return Err(ApiError::not_found(text).into());
    }
    if record.archived_at.is_some() {
        let text = format!("The results of message batch `{}` are not kept any more.", record.id);
        return Err(ApiError::not_found(text).into());
    }
    let lines = stream::try_unfold((app, record.id, None), |(app, id, after)| async move {
        let results = app.store.batch_results(&id, after, SEND_BYTES).await.map_err(|error| {
            tracing::error!(batch = %id, %error, "results cannot be read");
            std::io::Error::other("results cannot be read")
        })?;
        let Some(last) = results.last().map(|result| result.position) else { return Ok(None) };
        let text: String = results.iter().map(line).collect();
        Ok::<_, std::io::Error>(Some((Bytes::from(text), (app, id, Some(last)))))
    });
    Ok(([(CONTENT_TYPE, "application/x-jsonl")], Body::from_stream(lines)).into_response())
}

/// One line. A name has no character that JSON would escape, and what a request came to is kept as it is told.
fn line(result: &BatchResult) -> String {
    let told = match &result.outcome {
        BatchOutcome::Succeeded(text) | BatchOutcome::Errored(text) => text.as_str(),
        BatchOutcome::Canceled => r#"{"type":"canceled"}"#,
        BatchOutcome::Expired => r#"{"type":"expired"}"#,
    };
    format!("{{\"custom_id\":\"{}\",\"result\":{told}}}\n", result.custom_id)
}

/// What is no id is not found.
fn read_id(id: &str) -> Result<BatchId, Failure> {
    id.parse().map_err(|_| missing(id))
}

async fn find(app: &Shared, principal: &Principal, id: &str) -> Result<BatchRecord, Failure> {
    app.store.batch(&principal.workspace, &read_id(id)?).await.map_err(store_failure)?.ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Failure {
    ApiError::not_found(format!("Message batch `{}` not found.", Brief(id))).into()
}

fn object(record: &BatchRecord, headers: &HeaderMap) -> MessageBatch {
    let counts = record.counts;
    let (status, request_counts) = match (record.ended_at, record.cancel_initiated_at) {
        (Some(_), _) => {
            let (succeeded, errored) = (counts.succeeded, counts.errored);
            let counts =
                RequestCounts { processing: 0, succeeded, errored, canceled: counts.canceled, expired: counts.expired };
            (ProcessingStatus::Ended, counts)
        }
        (None, canceled) => {
            let counts = RequestCounts { processing: record.items, ..RequestCounts::default() };
            let status = canceled.map_or(ProcessingStatus::InProgress, |_| ProcessingStatus::Canceling);
            (status, counts)
        }
    };
    let has_results = record.ended_at.is_some() && record.archived_at.is_none();
    let time = |time: Option<belljar_store::Timestamp>| time.map(|time| time.to_string());
    MessageBatch {
        id: record.id.clone(),
        tag: MessageBatchTag::MessageBatch,
        processing_status: status,
        request_counts,
        ended_at: time(record.ended_at),
        created_at: record.created_at.to_string(),
        expires_at: record.expires_at.to_string(),
        archived_at: time(record.archived_at),
        cancel_initiated_at: time(record.cancel_initiated_at),
        results_url: has_results.then(|| format!("{}/v1/messages/batches/{}/results", origin(headers), record.id)),
    }
}

/// Where the client reached us, in its own words: the SDKs send their key to this address, so nobody else may choose it.
fn origin(headers: &HeaderMap) -> String {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheme = match text(FORWARDED_PROTO) {
        "https" => "https",
        _ => "http",
    };
    format!("{scheme}://{}", text(HOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_queries_name_their_field() {
        let cases = [
            ("limit=0", "limit: Input should be greater than or equal to 1"),
            ("after_id=file_01a", "after_id: Input should be a message batch id"),
            ("after_id=msgbatch_01a&before_id=msgbatch_01b", "after_id: cannot be combined with `before_id`"),
            ("page=x", "page: Extra inputs are not permitted"),
        ];
        for (query, expected) in cases {
            assert_eq!(read_query(query).map_err(|error| error.message), Err(expected.to_owned()), "{query}");
        }
        let id: BatchId = "msgbatch_01a".parse().expect("an id");
        assert_eq!(read_query("beta=true&after_id=msgbatch_01a&limit=7"), Ok((BatchQuery::OlderThan(id), 7)));
    }

    #[test]
    fn results_are_where_the_client_came() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value))).collect()
        };
        assert_eq!(origin(&headers(&[(HOST, "127.0.0.1:8484")])), "http://127.0.0.1:8484");
        assert_eq!(origin(&headers(&[(HOST, "a.example"), (FORWARDED_PROTO, "https")])), "https://a.example");
        assert_eq!(origin(&headers(&[(HOST, "a.example"), (FORWARDED_PROTO, "ftp")])), "http://a.example");
    }
}
