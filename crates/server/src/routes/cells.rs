//! `POST /belljar/v1/containers/{id}/cells`: one cell, whole or live.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use belljar_sandbox::{LiveChunk, SandboxError, Stream};
use belljar_store::WorkspaceId;
use belljar_wire::error::ApiError;
use belljar_wire::read::{Object, Path as JsonPath};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;
use tokio::sync::mpsc;

use crate::app::Shared;
use crate::cell::{self, CellError, CellReport, CellRequest, Language};
use crate::clock;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::{body, containers};
use crate::utf8::Utf8Pieces;

/// Chunks of output that may wait for a slow client.
const CHUNKS_WAITING_MAX: usize = 64;

/// Runs one cell.
pub async fn create(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let bytes = body::read_json(&headers, body, app.serving.request_bytes_max).await?;
    let request = read_request(&bytes, app.serving.cell_wall, app.serving.invocation_wall)?;
    let mut lease = containers::lease(&app, &principal, &id).await?;
    app.tenants.take_execution(&principal.workspace).await?;
    let expires_at = clock::now().saturating_add(app.container_idle).saturating_add(request.wall);
    app.store.touch_live_container(&principal.workspace, lease.container(), expires_at);
    if headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream")) {
        return Ok(live(app, principal.workspace, lease, request));
    }
    let report = cell::run(&app, &principal.workspace, &mut lease, request, None).await.map_err(cell_failure)?;
    Ok(Json(report).into_response())
}

fn read_request(bytes: &[u8], wall_default: Duration, wall_max: Duration) -> Result<CellRequest, ApiError> {
    let mut object = Object::new(belljar_wire::read::parse(bytes)?, JsonPath::Root)?;
    let language = match object.string("language")?.as_str() {
        "python" => Language::Python,
        "bash" => Language::Bash,
        _ => return Err(ApiError::invalid("language: Input should be 'python' or 'bash'")),
    };
    let source = object.string("source")?;
    let wall = match object.take("wall_s_max") {
        None => wall_default,
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds > 0.0 && seconds <= wall_max.as_secs_f64() => Duration::from_secs_f64(seconds),
            _ => {
                let text = format!("wall_s_max: Input should be greater than 0 and at most {}", wall_max.as_secs());
                return Err(ApiError::invalid(text));
            }
        },
    };
    object.finish()?;
    Ok(CellRequest { language, source, wall })
}

fn cell_failure(error: CellError) -> Failure {
    match error {
        CellError::Sandbox(
            error @ (SandboxError::CommandHasNul | SandboxError::CommandTooLong { .. } | SandboxError::FileName { .. }),
        ) => ApiError::invalid(format!("source: {error}")).into(),
        error @ CellError::Sandbox(_) => Failure::internal("cell", &error),
    }
}

/// The live form: events `stdout` and `stderr` as they come, then `outcome`. A client that hangs up ends the cell.
fn live(app: Shared, workspace: WorkspaceId, mut lease: belljar_sandbox::Lease, request: CellRequest) -> Response {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let running = Box::pin(async move { cell::run(&app, &workspace, &mut lease, request, Some(sender)).await });
    let state =
        Live { running: Some(running), chunks: receiver, stdout: Utf8Pieces::default(), stderr: Utf8Pieces::default() };
    let events = stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok::<Bytes, Infallible>(event), state))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

type Running = std::pin::Pin<Box<dyn Future<Output = Result<CellReport, CellError>> + Send>>;

struct Live {
    running: Option<Running>,
    chunks: mpsc::Receiver<LiveChunk>,
    stdout: Utf8Pieces,
    stderr: Utf8Pieces,
}

impl Live {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let running = self.running.as_mut()?;
            let report = tokio::select! {
                biased;
                Some(chunk) = self.chunks.recv() => match self.piece(chunk) {
                    Some(event) => return Some(event),
                    None => continue,
                },
                report = running => report,
            };
            self.running = None;
            return Some(self.last(report));
        }
    }

    fn piece(&mut self, chunk: LiveChunk) -> Option<Bytes> {
        let (name, pieces) = match chunk.stream {
            Stream::Stdout => ("stdout", &mut self.stdout),
            Stream::Stderr => ("stderr", &mut self.stderr),
        };
        let text = pieces.push(&chunk.bytes);
        (!text.is_empty()).then(|| event(name, &json!({ "text": text })))
    }

    /// What is still waiting, then the outcome.
    fn last(&mut self, report: Result<CellReport, CellError>) -> Bytes {
        let mut bytes = Vec::new();
        while let Ok(chunk) = self.chunks.try_recv() {
            bytes.extend(self.piece(chunk).iter().flatten());
        }
        let last = match report {
            Ok(report) => event("outcome", &json!(report)),
            Err(error) => {
                tracing::error!(%error, "a live cell failed");
                event(
                    "error",
                    &json!({ "type": "error", "error": { "type": "api_error", "message": "Internal server error" } }),
                )
            }
        };
        bytes.extend_from_slice(&last);
        bytes.into()
    }
}

fn event(name: &str, data: &serde_json::Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
