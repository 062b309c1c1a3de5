//! `POST /v1/files` (wire.md §9.2): streamed into the store, never whole in memory.

use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::{Extension, Json};
use belljar_ids::FileId;
use belljar_store::{FileDraft, FileWriter, Filename, Origin};
use belljar_wire::error::{ApiError, ErrorCode};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::app::Shared;
use crate::clock;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::random::OsIds;
use crate::routes::body::announced_bytes;
use crate::routes::files::query::Dialect;
use crate::routes::files::{in_dialect, store_failure};

/// Least and most of `expires_in_seconds`.
const EXPIRES_IN_SECONDS: std::ops::RangeInclusive<u64> = 3_600..=7_776_000;
/// Bytes of a field that is no file.
const FIELD_BYTES_MAX: usize = 256;
/// Bytes by which a file's type is told.
const SNIFF_BYTES: usize = 4096;
/// What the multipart framing may add to a file.
const FRAMING_BYTES_MAX: u64 = 64 * 1024;
/// Silence after which an upload is given up.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Takes one file.
pub async fn upload(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Json<Value>, Failure> {
    let dialect = Dialect::read(&headers)?;
    let mut multipart = multipart
        .map_err(|_| Failure::from(ApiError::invalid("content-type: expected multipart/form-data with a boundary")))?;
    let bytes_max = app.serving.file_bytes_max;
    if announced_bytes(&headers).is_some_and(|bytes| bytes > bytes_max.saturating_add(FRAMING_BYTES_MAX)) {
        return Err(store_failure(belljar_store::StoreError::TooLarge { bytes_max }));
    }
    let mut writer: Option<FileWriter> = None;
    let mut expires_in: Option<Duration> = None;
    let mut unknown: Option<String> = None;
    while let Some(field) = patiently(multipart.next_field()).await?.map_err(unreadable)? {
        match field.name() {
            Some("file") if writer.is_some() => return Err(ApiError::invalid("file: only one file is allowed").into()),
            Some("file") => writer = Some(take_file(&app, &principal, dialect, field).await?),
            Some("expires_in_seconds") => expires_in = Some(take_expiry(field).await?),
            // OpenAI's field: programs that speak to both through one library send it (divergence/upload-purpose.md).
            Some("purpose") => {}
            // Said only when nothing weightier is wrong: a missing file comes first.
            name => unknown = Some(belljar_wire::read::Brief(name.unwrap_or_default()).to_string()),
        }
    }
    let mut writer = writer.ok_or_else(|| Failure::from(ApiError::invalid("file: Field required")))?;
    if let Some(name) = unknown {
        return Err(ApiError::invalid(format!("{name}: Extra inputs are not permitted")).into());
    }
    writer.expire_at(expires_in.map(|life| clock::now().saturating_add(life)));
    let record = writer.finish().await.map_err(store_failure)?;
    Ok(Json(in_dialect(&app, &record, dialect)))
}

async fn take_file(
    app: &Shared,
    principal: &Principal,
    dialect: Dialect,
    mut field: Field<'_>,
) -> Result<FileWriter, Failure> {
    let given = field.file_name().map(str::to_owned);
    // With a type it is a file, which need not have a name (wire.md §9.2); without either it is a text, as in any form.
    if given.is_none() && field.content_type().is_none() {
        return Err(ApiError::invalid("file: Expected UploadFile, received: <class 'str'>").into());
    }
    let given = given.unwrap_or_default();
    let declared = field.content_type().filter(|text| text.len() <= 255 && text.contains('/')).map(str::to_owned);
    if declared.is_none() && dialect == Dialect::Old {
        return Err(ApiError::invalid("file: the part's Content-Type is required").into());
    }
    let mut head = BytesMut::new();
    while head.len() < SNIFF_BYTES {
        match next_chunk(&mut field).await? {
            Some(chunk) => head.extend_from_slice(&chunk),
            None => break,
        }
    }
    let mime_type = declared.unwrap_or_else(|| detect(&given, &head));
    let filename =
        Filename::of_upload(Some(&given), &mime_type).map_err(|error| ApiError::invalid(format!("file: {error}")))?;
    let draft = FileDraft {
        id: FileId::mint(&mut OsIds),
        workspace: principal.workspace.clone(),
        filename,
        mime_type,
        origin: Origin::Uploaded,
        created_at: clock::now(),
        expires_at: None,
    };
    let mut writer = app.store.begin_file(draft).await.map_err(store_failure)?;
    writer.write(head.freeze()).await.map_err(store_failure)?;
    while let Some(chunk) = next_chunk(&mut field).await? {
        writer.write(chunk).await.map_err(store_failure)?;
    }
    Ok(writer)
}

async fn take_expiry(mut field: Field<'_>) -> Result<Duration, Failure> {
    let mut text = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut field).await? {
        if text.len() + chunk.len() > FIELD_BYTES_MAX {
            return Err(ApiError::invalid("expires_in_seconds: Input should be a valid integer").into());
        }
        text.extend_from_slice(&chunk);
    }
    let seconds: Option<i128> = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    let seconds = seconds.ok_or_else(|| ApiError::invalid("expires_in_seconds: Input should be a valid integer"))?;
    match u64::try_from(seconds) {
        Ok(seconds) if EXPIRES_IN_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => {
            let (least, most) = (EXPIRES_IN_SECONDS.start(), EXPIRES_IN_SECONDS.end());
            let text = format!("expires_in_seconds: Input should be between {least} and {most}");
            Err(ApiError::invalid(text).into())
        }
    }
}

/// By the first bytes, else by the name, else by whether it reads as text.
fn detect(filename: &str, head: &[u8]) -> String {
    if let Some(kind) = infer::get(head) {
        return kind.mime_type().to_owned();
    }
    match mime_guess::from_path(filename).first() {
        Some(mime) => mime.essence_str().to_owned(),
        None if !head.is_empty() && !head.contains(&0) && std::str::from_utf8(head).is_ok() => "text/plain".to_owned(),
        None => "application/octet-stream".to_owned(),
    }
}

async fn next_chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, Failure> {
    patiently(field.chunk()).await?.map_err(unreadable)
}

async fn patiently<T>(waiting: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(UPLOAD_SILENCE_MAX, waiting).await.map_err(|_| {
        let error = ApiError::invalid("The upload stopped coming").with_code(ErrorCode::RequestBodyTimeout);
        Failure::with_status(error, StatusCode::REQUEST_TIMEOUT)
    })
}

fn unreadable(error: MultipartError) -> Failure {
    tracing::debug!(%error, "multipart body refused");
    ApiError::invalid("The multipart body is not valid or ended early").into()
}
