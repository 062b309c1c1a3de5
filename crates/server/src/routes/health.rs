//! For machines that watch this one.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::app::Shared;

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// New work is taken.
pub async fn readyz(State(app): State<Shared>) -> Response {
    let counts = app.sandbox.counts();
    let ready = !app.stopping.is_cancelled();
    let containers = counts.starting + counts.ready + counts.leased;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let state = json!({ "ready": ready, "containers": containers, "pooled": counts.pooled, "turns": app.turns.len() });
    (status, Json(state)).into_response()
}
