//! Our own endpoints for a container's files as an archive.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use belljar_wire::error::ApiError;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::app::Shared;
use crate::checkpoints::CheckpointError;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::containers::{self, ContainerObject, find};
use crate::routes::{body, checkpoints};
use crate::transfer::archive::ArchiveError;
use crate::transfer::export::{self, Form};
use crate::transfer::import::{self, ImportError};

/// Query of an export.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    format: Option<String>,
}

/// `GET /belljar/v1/containers/{id}/export?format=tar|oci`.
pub async fn export(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    query: Result<Query<ExportQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let (form, media_type) = match query.format.as_deref() {
        None | Some("tar") => (Form::Tar, "application/x-tar"),
        Some("oci") => (Form::Oci, "application/vnd.oci.image.layer.v1.tar"),
        Some(_) => return Err(ApiError::invalid("format: Input should be 'tar' or 'oci'").into()),
    };
    let (record, _) = find(&app, &principal, &id).await?;
    let outgoing = export::begin(&app, &record).await;
    let outgoing = outgoing.map_err(|error| checkpoints::failure(&app, &record, error))?;
    let mut response = Body::from_stream(outgoing.stream(form)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{}.tar\"", record.id)) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// `POST /belljar/v1/containers/import`: the archive is the body.
pub async fn import(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    body: Body,
) -> Result<Json<ContainerObject>, Failure> {
    let made = import::import(&app, &principal, Box::pin(body::reader(body))).await.map_err(failure)?;
    let (record, state) = find(&app, &principal, made.as_str()).await?;
    Ok(Json(containers::object(&record, state)))
}

fn failure(error: ImportError) -> Failure {
    match error {
        ImportError::Archive(ArchiveError::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            Failure::with_status(ApiError::invalid(error.to_string()), StatusCode::REQUEST_TIMEOUT)
        }
        ImportError::Archive(error) => ApiError::invalid(format!("archive: {error}")).into(),
        ImportError::Checkpoint(CheckpointError::Place(error)) => containers::place_failure(error),
        ImportError::Checkpoint(CheckpointError::Store(error)) => super::files::store_failure(error),
        ImportError::Checkpoint(CheckpointError::Write(error)) => {
            ApiError::invalid(format!("archive: its files could not be put in their places: {error}")).into()
        }
        ImportError::Checkpoint(error) => Failure::internal("import", &error),
    }
}
