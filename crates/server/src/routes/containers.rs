//! Our own endpoints for containers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use belljar_ids::ContainerId;
use belljar_sandbox::{ContainerState, Lease, LeaseError, PutError, ReadError};
use belljar_store::ContainerRecord;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::read::{Brief, Object, Path as JsonPath};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use tokio_util::io::ReaderStream;

use crate::app::Shared;
use crate::checkpoints::{self, CheckpointError};
use crate::driver::place::{PlaceError, new_container};
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::files::store_failure;
use crate::routes::{body, page};

/// How often a container that is put away under one's hands is brought back.
const LEASE_ATTEMPTS_MAX: u32 = 3;
/// Bytes of a body that only has options.
const OPTIONS_BYTES_MAX: usize = 64 * 1024;

/// One container, as we show it.
#[derive(Debug, Serialize)]
pub struct ContainerObject {
    id: ContainerId,
    created_at: String,
    expires_at: String,
    state: &'static str,
}

/// One page of containers, newest first.
#[derive(Debug, Serialize)]
pub struct ContainerPage {
    data: Vec<ContainerObject>,
    next_page: Option<String>,
}

/// `POST /belljar/v1/containers`.
pub async fn create(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ContainerObject>, Failure> {
    // There are no options yet.
    options(&headers, body).await?.finish()?;
    let id = new_container(&app, &principal).await.map_err(place_failure)?;
    find(&app, &principal, id.as_str()).await.map(|(record, state)| Json(object(&record, state)))
}

/// What a body asks for. An empty one, of any type, is as good as `{}`.
pub async fn options(headers: &HeaderMap, body: Body) -> Result<Object<'static>, Failure> {
    let bytes = body::read(headers, body, OPTIONS_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(Object::new(serde_json::json!({}), JsonPath::Root)?);
    }
    body::require_json(headers)?;
    Ok(Object::new(belljar_wire::read::parse(&bytes)?, JsonPath::Root)?)
}

/// `GET /belljar/v1/containers`.
pub async fn list(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    RawQuery(query): RawQuery,
) -> Result<Json<ContainerPage>, Failure> {
    let (limit, after) = page::read(query.as_deref().unwrap_or_default())?;
    let page = app.store.list_containers(&principal.workspace, after, limit).await;
    let page = page.map_err(store_failure)?;
    let mut data = Vec::with_capacity(page.entries.len());
    for record in &page.entries {
        if let Some(state) = state(&app, record).await? {
            data.push(object(record, state));
        }
    }
    Ok(Json(ContainerPage { data, next_page: page.next.map(|cursor| cursor.to_token().to_string()) }))
}

/// `GET /belljar/v1/containers/{id}`.
pub async fn retrieve(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<ContainerObject>, Failure> {
    find(&app, &principal, &id).await.map(|(record, state)| Json(object(&record, state)))
}

/// `DELETE /belljar/v1/containers/{id}`.
pub async fn delete(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<serde_json::Value>, Failure> {
    let record = find_with_checkpoints(&app, &principal, &id).await?;
    app.parked.forget(&record.id);
    app.sandbox.remove(&record.id).await;
    app.store.delete_container(&principal.workspace, &record.id).await.map_err(store_failure)?;
    Ok(Json(serde_json::json!({ "id": record.id, "type": "container_deleted" })))
}

/// `POST /belljar/v1/containers/{id}/interrupt`.
pub async fn interrupt(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<serde_json::Value>, Failure> {
    let (record, _) = find(&app, &principal, &id).await?;
    let interrupted = app.running.interrupt(&record.id);
    Ok(Json(serde_json::json!({ "id": record.id, "interrupted": interrupted })))
}

/// `PUT /belljar/v1/containers/{id}/files/{path}`.
pub async fn put_file(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<serde_json::Value>, Failure> {
    let announced = body::announced_bytes(&headers);
    let size = announced.ok_or_else(|| Failure::from(ApiError::invalid("content-length: header is required")))?;
    if size > app.serving.file_bytes_max {
        return Err(body::too_large(usize::try_from(app.serving.file_bytes_max).unwrap_or(usize::MAX)));
    }
    let mut lease = lease(&app, &principal, &id).await?;
    let path = format!("/{path}");
    lease.write_file(&path, Box::pin(body::reader(body)), size).await.map_err(put_failure)?;
    Ok(Json(serde_json::json!({ "path": path, "size_bytes": size })))
}

/// `GET /belljar/v1/containers/{id}/files/{path}`.
pub async fn get_file(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let mut lease = lease(&app, &principal, &id).await?;
    let content = lease.read_file(&format!("/{path}"), app.serving.file_bytes_max).await.map_err(read_failure)?;
    let size = content.size();
    let mut response = Body::from_stream(ReaderStream::new(content)).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// A workspace's live container; what is dead, expired or another's is not found.
pub async fn find(app: &Shared, principal: &Principal, text: &str) -> Result<(ContainerRecord, &'static str), Failure> {
    let id: ContainerId = text.parse().map_err(|_| missing(text))?;
    let record = app.store.container(&principal.workspace, &id).await;
    let record = record.map_err(store_failure)?.ok_or_else(|| missing(text))?;
    let state = state(app, &record).await?.ok_or_else(|| missing(text))?;
    Ok((record, state))
}

/// A workspace's container that is live, kept, or dead with a checkpoint to go back to.
pub async fn find_with_checkpoints(
    app: &Shared,
    principal: &Principal,
    text: &str,
) -> Result<ContainerRecord, Failure> {
    let id: ContainerId = text.parse().map_err(|_| missing(text))?;
    let record = app.store.container(&principal.workspace, &id).await;
    let record = record.map_err(store_failure)?.ok_or_else(|| missing(text))?;
    if state(app, &record).await?.is_some() {
        return Ok(record);
    }
    let newest = checkpoints::named::choose(app, &record, None).await;
    let newest = newest.map_err(|error| super::checkpoints::failure(app, &record, error))?;
    newest.map(|_there| record).ok_or_else(|| missing(text))
}

/// Holds a workspace's container.
pub async fn lease(app: &Shared, principal: &Principal, text: &str) -> Result<Lease, Failure> {
    let (record, _) = find(app, principal, text).await?;
    // Live, it may be put away between the look and the lease; then once more.
    for _attempt in 0..LEASE_ATTEMPTS_MAX {
        bring_back(app, principal, &record, text).await?;
        refuse_weaker(app, principal, &record.id)?;
        match app.sandbox.lease(&record.id, app.serving.lease_wait).await {
            Ok(lease) => return Ok(lease),
            Err(LeaseError::Unknown(_) | LeaseError::Dead { .. }) => {}
            Err(LeaseError::Busy(_)) => return Err(busy(app, &record.id)),
        }
    }
    Err(missing(text))
}

/// The SDKs would ask twice more by themselves, and wait for nothing (wire.md §2.7).
pub fn busy(app: &Shared, id: &ContainerId) -> Failure {
    let text = match app.parked.waiting_in(id) {
        Some(call) => {
            format!("Container {id} is in use: code of {call} waits for the results of tools that it has called")
        }
        None => format!("Container {id} is in use by another request"),
    };
    Failure::from(ApiError::new(ErrorKind::Conflict, text)).do_not_retry()
}

pub async fn bring_back(
    app: &Shared,
    principal: &Principal,
    record: &ContainerRecord,
    text: &str,
) -> Result<(), Failure> {
    checkpoints::bring_back(app, principal, &record.id).await.map_err(|error| match error {
        CheckpointError::Unknown => missing(text),
        error => super::checkpoints::failure(app, record, error),
    })
}

/// A key that asks for an isolation runs nothing in a container that another key of its workspace made with another.
fn refuse_weaker(app: &Shared, principal: &Principal, id: &ContainerId) -> Result<(), Failure> {
    let Some((asked, status)) = principal.isolation.zip(app.sandbox.status(id)) else {
        return Ok(());
    };
    if status.isolation == asked {
        return Ok(());
    }
    let text = format!("Container {id} has isolation \"{}\", and this key asks for \"{asked}\"", status.isolation);
    Err(ApiError::new(ErrorKind::Permission, text).into())
}

/// The prefix on which clients drop an id and go on without it (wire.md §23).
pub fn missing(id: &str) -> Failure {
    ApiError::not_found(format!("Container not found: {}", Brief(id))).into()
}

/// What can be done with a container; nothing when it is dead.
async fn state(app: &Shared, record: &ContainerRecord) -> Result<Option<&'static str>, Failure> {
    match app.sandbox.status(&record.id).map(|status| status.state) {
        Some(ContainerState::Ready) => return Ok(Some("ready")),
        Some(ContainerState::Leased) => return Ok(Some("leased")),
        Some(ContainerState::Dead) | None => {}
    }
    let kept = checkpoints::kept(app, &record.workspace, &record.id).await;
    let kept = kept.map_err(store_failure)?;
    Ok(kept.map(|_checkpoint| "checkpointed"))
}

pub fn object(record: &ContainerRecord, state: &'static str) -> ContainerObject {
    ContainerObject {
        id: record.id.clone(),
        created_at: record.created_at.to_string(),
        expires_at: record.expires_at.to_string(),
        state,
    }
}

/// A container that could not be made.
pub fn place_failure(error: PlaceError) -> Failure {
    match error {
        PlaceError::Full => {
            let text = "All containers are in use. Try again later, or delete some.";
            Failure::from(ApiError::new(ErrorKind::RateLimit, text)).retry_after(Some(Duration::from_secs(5)))
        }
        PlaceError::Quota => {
            let text = "All containers that this workspace may have are in use. Try again later, or delete some.";
            Failure::from(ApiError::new(ErrorKind::RateLimit, text)).retry_after(Some(Duration::from_secs(5)))
        }
        PlaceError::Store(error) => store_failure(error),
        error @ PlaceError::Isolation => ApiError::new(ErrorKind::Api, error.to_string()).into(),
        error @ (PlaceError::Upload(_) | PlaceError::Broken(_)) => Failure::internal("container", &error),
    }
}

fn put_failure(error: PutError) -> Failure {
    match error {
        PutError::Sandbox(error) => Failure::internal("put file", &error),
        PutError::Source(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Failure::with_status(ApiError::invalid(error.to_string()), http::StatusCode::REQUEST_TIMEOUT)
        }
        error @ (PutError::Name(_)
        | PutError::Source(_)
        | PutError::Size { .. }
        | PutError::DiskFull
        | PutError::Refused(_)) => ApiError::invalid(format!("path: {error}")).into(),
    }
}

fn read_failure(error: ReadError) -> Failure {
    match error {
        ReadError::NotFound => ApiError::not_found("path: no such file").into(),
        ReadError::Sandbox(error) => Failure::internal("get file", &error),
        error @ (ReadError::IsDirectory
        | ReadError::NotRegular
        | ReadError::TooLarge { .. }
        | ReadError::Refused(_)) => ApiError::invalid(format!("path: {error}")).into(),
    }
}
