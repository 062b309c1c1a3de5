//! The Files API (wire.md §9), in both dialects of its list.

pub mod part;
pub mod query;
pub mod shown;
pub mod upload;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_ids::FileId;
use belljar_store::{Content, ContentReader, FileRecord, StoreError};
use belljar_wire::error::{ApiError, ErrorCode, ErrorKind};
use belljar_wire::file::{FileDeleted, FileDeletedTag, FileObject, FilePage, FileTag};
use belljar_wire::read::Brief;
use http::header::{ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio_util::io::ReaderStream;

use crate::app::{App, Shared};
use crate::clock;
use crate::failure::Failure;
use crate::principal::Principal;
use part::Part;
use query::{Dialect, FileList};

/// Bytes read at once from a file that is being sent.
const SEND_CHUNK_BYTES: usize = 128 * 1024;

/// When to ask again for what a database or an object store could not be reached for.
const STORE_BACK_AFTER: Duration = Duration::from_secs(2);

/// `GET /v1/files`.
pub async fn list(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Failure> {
    let dialect = Dialect::read(&headers)?;
    let list = FileList::read(query.as_deref().unwrap_or_default(), dialect)?;
    let page = app.store.list_files(&principal.workspace, list.query).await.map_err(store_failure)?;
    let data: Vec<FileObject> = page.entries.iter().map(|record| object(&app, record)).collect();
    let body = match dialect {
        Dialect::Current => {
            let next_page = page.next.map(|cursor| cursor.to_token().to_string());
            serde_json::to_value(FilePage { data, next_page })
        }
        Dialect::Old | Dialect::Both => {
            let id = |file: Option<&FileObject>| file.map(|file| file.id.clone());
            let (first_id, last_id) = (id(data.first()), id(data.last()));
            let mut body = json!({ "data": [], "has_more": page.has_more, "first_id": first_id, "last_id": last_id });
            body["data"] = match dialect {
                Dialect::Old => data.iter().map(old_object).collect(),
                Dialect::Current | Dialect::Both => json!(data),
            };
            if dialect == Dialect::Both {
                body["next_page"] = json!(page.next.map(|cursor| cursor.to_token().to_string()));
            }
            Ok(body)
        }
    };
    body.map(Json).map_err(|error| Failure::internal("files", &error))
}

/// `GET /v1/files/{id}`.
pub async fn retrieve(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let dialect = Dialect::read(&headers)?;
    let record = find(&app, &principal, &id).await?;
    Ok(Json(in_dialect(&app, &record, dialect)))
}

/// `GET /v1/files/{id}/content`: generated files only (wire.md §9.4), unless the operator gives out uploads too.
pub async fn content(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    Dialect::read(&headers)?;
    let record = find(&app, &principal, &id).await?;
    if !downloadable(&app, &record) {
        let text = format!("File `{}` is not downloadable: only files that code made can be downloaded.", record.id);
        return Err(ApiError::invalid(text).with_code(ErrorCode::FileNotDownloadable).into());
    }
    let gone = || {
        Failure::from(
            ApiError::not_found(format!("File `{}` has expired.", record.id)).with_code(ErrorCode::FileExpired),
        )
    };
    if record.expired(clock::now()) {
        return Err(gone());
    }
    let opened = app.store.open_content(&principal.workspace, &record.id).await.map_err(store_failure)?;
    let Some(Content::Open { record, file }) = opened else { return Err(gone()) };
    send(&record, file, &headers).await
}

/// A file's content, or the part of it that was asked for. Its digest is its tag, and says so (RFC 9530).
async fn send(record: &FileRecord, mut file: ContentReader, asked: &HeaderMap) -> Result<Response, Failure> {
    let size = record.size_bytes;
    let tag = record.content.map(|digest| format!("\"{digest}\"")).unwrap_or_default();
    let (first, bytes) = match Part::read(asked, size, &tag) {
        Part::Whole => (None, size),
        Part::Of { first, last } => (Some(first), last - first + 1),
        Part::Unsatisfied => return Err(Failure::unsatisfied_range(size)),
    };
    if let Some(first) = first {
        let sought = file.seek(SeekFrom::Start(first)).await;
        sought.map_err(|error| Failure::internal("file", &error))?;
    }
    let content = ReaderStream::with_capacity(file.take(bytes), SEND_CHUNK_BYTES);
    let mut response = Body::from_stream(content).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let (Some(digest), Ok(tag)) = (record.content, HeaderValue::from_str(&tag)) {
        headers.insert(ETAG, tag);
        let digest = format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes()));
        if let Ok(digest) = HeaderValue::from_str(&digest) {
            headers.insert("repr-digest", digest);
        }
    }
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_str(&record.mime_type).unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    if let Ok(disposition) = HeaderValue::from_str(&disposition(record.filename.as_str())) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    // A generated page or drawing must not run as one of ours in a browser.
    headers.insert("content-security-policy", HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Some(first) = first {
        let range = format!("bytes {first}-{}/{size}", first + bytes - 1);
        if let Ok(range) = HeaderValue::from_str(&range) {
            headers.insert(CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// `DELETE /v1/files/{id}`.
pub async fn delete(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<FileDeleted>, Failure> {
    Dialect::read(&headers)?;
    let parsed: FileId = id.parse().map_err(|_| missing(&id))?;
    match app.store.delete_file(&principal.workspace, &parsed).await.map_err(store_failure)? {
        true => Ok(Json(FileDeleted { id: parsed, tag: FileDeletedTag::FileDeleted })),
        false => Err(missing(&id)),
    }
}

/// A workspace's file, expired or not; what is no id is not found.
pub async fn find(app: &Shared, principal: &Principal, id: &str) -> Result<FileRecord, Failure> {
    let parsed: FileId = id.parse().map_err(|_| missing(id))?;
    app.store.file(&principal.workspace, &parsed).await.map_err(store_failure)?.ok_or_else(|| missing(id))
}

/// 404 (wire.md §19 row 23).
pub fn missing(id: &str) -> Failure {
    ApiError::not_found(format!("File `{}` not found.", Brief(id))).into()
}

/// 400 for a request that names such a file (wire.md §19 row 24).
pub fn expired(record: &FileRecord) -> ApiError {
    ApiError::invalid(format!("File `{}` has expired.", record.id))
}

/// `attachment` with the name in the one form that holds any name (RFC 8187), as recorded (wire.md §23).
fn disposition(filename: &str) -> String {
    let mut text = String::from("attachment; filename*=utf-8''");
    for byte in filename.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'~' => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Whether the client may have it (divergence/uploads-downloadable.md).
fn downloadable(app: &App, record: &FileRecord) -> bool {
    record.downloadable() || app.serving.uploads_downloadable
}

/// A record as the current dialect shows it.
pub fn object(app: &App, record: &FileRecord) -> FileObject {
    FileObject {
        id: record.id.clone(),
        tag: FileTag::File,
        filename: record.filename.as_str().to_owned(),
        mime_type: record.mime_type.clone(),
        size_bytes: record.size_bytes,
        created_at: record.created_at.to_string(),
        downloadable: downloadable(app, record),
        expires_at: record.expires_at.map(|time| time.to_string()),
    }
}

/// The old dialect has no `expires_at` (wire.md §9.6).
fn old_object(file: &FileObject) -> Value {
    let mut value = json!(file);
    if let Some(members) = value.as_object_mut() {
        members.shift_remove("expires_at");
    }
    value
}

/// A record in the dialect that was asked for.
pub fn in_dialect(app: &App, record: &FileRecord, dialect: Dialect) -> Value {
    let file = object(app, record);
    match dialect {
        Dialect::Current | Dialect::Both => json!(file),
        Dialect::Old => old_object(&file),
    }
}

/// The store's refusals as the client sees them.
pub fn store_failure(error: StoreError) -> Failure {
    let text = error.client_text();
    match error {
        StoreError::TooLarge { .. } => ApiError::new(ErrorKind::RequestTooLarge, text).into(),
        StoreError::QuotaExceeded { .. } | StoreError::TooManyFiles { .. } => {
            ApiError::invalid(text).with_code(ErrorCode::StorageQuotaExceeded).into()
        }
        StoreError::AnchorNotFound { .. } => ApiError::not_found(text).into(),
        StoreError::TooManyWaiting { .. } => ApiError::new(ErrorKind::RateLimit, text).into(),
        StoreError::DiskFull { .. } | StoreError::ReadOnly { .. } => {
            tracing::error!(%error, "the store refused");
            ApiError::new(ErrorKind::Overloaded, text).into()
        }
        StoreError::Busy | StoreError::Unreachable { .. } => {
            tracing::error!(%error, "the store refused");
            Failure::from(ApiError::new(ErrorKind::Overloaded, text)).retry_after(Some(STORE_BACK_AFTER))
        }
        error @ (StoreError::IdTaken { .. }
        | StoreError::NoContainer { .. }
        | StoreError::Interrupted
        | StoreError::Corrupt { .. }
        | StoreError::Locked { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Exposed { .. }
        | StoreError::Held { .. }
        | StoreError::Superseded { .. }
        | StoreError::Foreign { .. }
        | StoreError::Misconfigured { .. }
        | StoreError::Broken { .. }) => Failure::internal("store", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_fits_into_the_disposition() {
        assert_eq!(disposition("chart 1.png"), "attachment; filename*=utf-8''chart%201.png");
        assert_eq!(disposition("é\";x"), "attachment; filename*=utf-8''%C3%A9%22%3Bx");
    }
}
