//! Our own endpoints for a container's files as they once were, and for other containers with them.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::{Extension, Json};
use belljar_ids::CheckpointId;
use belljar_sandbox::PutError;
use belljar_store::{CheckpointRecord, ContainerRecord, NamedCheckpoint, StoreError};
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use http::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::checkpoints::fork::{self, Source};
use crate::checkpoints::{self, CheckpointError, named};
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::containers::{self, ContainerObject, busy, find, find_with_checkpoints, missing};
use crate::routes::files::store_failure;
use crate::routes::page;

/// One checkpoint, as we show it.
#[derive(Debug, Serialize)]
pub struct CheckpointObject {
    checkpoint_id: CheckpointId,
    container_id: belljar_ids::ContainerId,
    created_at: String,
    size_bytes: u64,
    digest: String,
    image: String,
}

/// One page of a container's checkpoints, newest first.
#[derive(Debug, Serialize)]
pub struct CheckpointPage {
    data: Vec<CheckpointObject>,
    next_page: Option<String>,
}

/// A new container with another's files.
#[derive(Debug, Serialize)]
pub struct ForkObject {
    #[serde(flatten)]
    container: ContainerObject,
    forked_from: belljar_ids::ContainerId,
    checkpoint_id: Option<CheckpointId>,
    /// Memory is not copied (docs/adr/2026-11-29-a-fork-copies-files.md).
    repl: &'static str,
}

/// `POST /belljar/v1/containers/{id}/checkpoint`: keeps the files as they are now, under an id. With `put_away`, the container
/// itself goes to disk, now and not when it has been idle.
pub async fn create(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let mut options = containers::options(&headers, body).await?;
    let put_away = options.optional_bool("put_away")?.unwrap_or(false);
    options.finish()?;
    let (record, _) = find(&app, &principal, &id).await?;
    if put_away {
        return put_away_now(&app, &record).await;
    }
    let named = named::make(&app, &record).await.map_err(|error| failure(&app, &record, error))?;
    Ok(Json(json!(object(&record, named))))
}

async fn put_away_now(app: &Shared, record: &ContainerRecord) -> Result<Json<Value>, Failure> {
    let kept = match checkpoints::put_away(app, record, Duration::ZERO).await {
        Err(CheckpointError::Unknown) => {
            let kept = checkpoints::kept(app, &record.workspace, &record.id).await;
            kept.map_err(store_failure)?.ok_or_else(|| missing(record.id.as_str()))?
        }
        kept => kept.map_err(|error| failure(app, record, error))?,
    };
    let CheckpointRecord { made_at, size_bytes, content, image, .. } = kept;
    Ok(Json(json!({
        "id": record.id,
        "state": "checkpointed",
        "made_at": made_at.to_string(),
        "size_bytes": size_bytes,
        "digest": format!("sha256:{content}"),
        "image": image,
    })))
}

/// `GET /belljar/v1/containers/{id}/checkpoints`.
pub async fn list(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<CheckpointPage>, Failure> {
    let (limit, after) = page::read(query.as_deref().unwrap_or_default())?;
    let record = find_with_checkpoints(&app, &principal, &id).await?;
    let page = app.store.list_named_checkpoints(&record.workspace, &record.id, after, limit).await;
    let page = page.map_err(store_failure)?;
    let next_page = page.next.map(|cursor| cursor.to_token().to_string());
    Ok(Json(CheckpointPage { data: page.entries.into_iter().map(|named| object(&record, named)).collect(), next_page }))
}

/// `DELETE /belljar/v1/containers/{id}/checkpoints/{checkpoint_id}`. Containers that were made from it stay.
pub async fn delete(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let record = find_with_checkpoints(&app, &principal, &id).await?;
    let parsed: CheckpointId = checkpoint.parse().map_err(|_| no_checkpoint(&checkpoint))?;
    match app.store.delete_named_checkpoint(&record.workspace, &record.id, &parsed).await.map_err(store_failure)? {
        true => Ok(Json(json!({ "id": parsed, "type": "checkpoint_deleted" }))),
        false => Err(no_checkpoint(&checkpoint)),
    }
}

/// `POST /belljar/v1/containers/{id}/restore`: makes the files those of a checkpoint, or of the newest one. A container that
/// has none is only brought back from disk, now and not when it is named by the next request.
pub async fn restore(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ContainerObject>, Failure> {
    let asked = read_checkpoint(&headers, body).await?;
    let record = find_with_checkpoints(&app, &principal, &id).await?;
    let chosen = named::choose(&app, &record, asked).await.map_err(|error| failure(&app, &record, error))?;
    if let Some(chosen) = chosen {
        named::go_back(&app, &record, &chosen).await.map_err(|error| match error {
            CheckpointError::NoCheckpoint => no_checkpoint(chosen.as_str()),
            error => failure(&app, &record, error),
        })?;
    }
    containers::bring_back(&app, &principal, &record, &id).await?;
    find(&app, &principal, &id).await.map(|(record, state)| Json(containers::object(&record, state)))
}

/// `POST /belljar/v1/containers/{id}/fork`: another container with its files as they are, or as they were at a checkpoint.
pub async fn fork(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ForkObject>, Failure> {
    let checkpoint_id = read_checkpoint(&headers, body).await?;
    let record = find_with_checkpoints(&app, &principal, &id).await?;
    let source = checkpoint_id.clone().map_or(Source::Now, Source::Checkpoint);
    let made = fork::fork(&app, &principal, &record, source).await.map_err(|error| match (error, &checkpoint_id) {
        (CheckpointError::NoCheckpoint, Some(asked)) => no_checkpoint(asked.as_str()),
        (error, _) => failure(&app, &record, error),
    })?;
    let (fork, state) = find(&app, &principal, made.as_str()).await?;
    let container = containers::object(&fork, state);
    Ok(Json(ForkObject { container, forked_from: record.id, checkpoint_id, repl: "fresh" }))
}

async fn read_checkpoint(headers: &HeaderMap, body: Body) -> Result<Option<CheckpointId>, Failure> {
    let mut options = containers::options(headers, body).await?;
    let asked = options.optional_string("checkpoint_id")?;
    options.finish()?;
    asked.map(|text| text.parse().map_err(|_| no_checkpoint(&text))).transpose()
}

fn object(record: &ContainerRecord, named: NamedCheckpoint) -> CheckpointObject {
    let CheckpointRecord { image, size_bytes, made_at, content, isolation: _ } = named.record;
    CheckpointObject {
        checkpoint_id: named.id,
        container_id: record.id.clone(),
        created_at: made_at.to_string(),
        size_bytes,
        digest: format!("sha256:{content}"),
        image,
    }
}

fn no_checkpoint(id: &str) -> Failure {
    ApiError::not_found(format!("Checkpoint not found: {}", Brief(id))).into()
}

/// What could not be done with a container's files, as the client sees it.
pub fn failure(app: &Shared, record: &ContainerRecord, error: CheckpointError) -> Failure {
    match error {
        CheckpointError::Unknown => missing(record.id.as_str()),
        CheckpointError::NoCheckpoint => no_checkpoint("it was deleted meanwhile"),
        CheckpointError::Busy => busy(app, &record.id),
        CheckpointError::Place(error) => containers::place_failure(error),
        CheckpointError::Store(StoreError::NoContainer { .. }) => missing(record.id.as_str()),
        CheckpointError::Store(error) => store_failure(error),
        error @ (CheckpointError::Sandbox(_) | CheckpointError::Write(PutError::Sandbox(_))) => {
            Failure::internal("checkpoint", &error)
        }
        error @ (CheckpointError::Read(_) | CheckpointError::Write(_) | CheckpointError::OtherImage { .. }) => {
            ApiError::invalid(format!("container: {error}")).into()
        }
    }
}
