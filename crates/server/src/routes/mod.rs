//! Routes: bytes in, bytes out. What a request means is decided elsewhere.

pub mod batches;
pub mod body;
pub mod cells;
pub mod checkpoints;
pub mod containers;
pub mod count;
pub mod files;
pub mod health;
pub mod messages;
pub mod models;
pub mod page;
pub mod resume;
pub mod scopes;
pub mod transfer;
pub mod uploads;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post, put};
use belljar_wire::error::{ApiError, ErrorKind};
use http::{Method, StatusCode, Uri};

use crate::access::{authenticate, identify, settle};
use crate::app::Shared;
use crate::failure::Failure;
use crate::tenants;

/// Every route of the server. What the hosted API has lives under `/v1/`, what is ours under `/belljar/v1/`.
pub fn router(app: Shared) -> Router {
    // What is limited by the minute: what asks a model or runs code, and what makes a batch of such requests.
    let limited = Router::new()
        .route("/v1/messages/batches", post(batches::create))
        .route("/v1/messages/count_tokens", post(count::count_tokens))
        .route("/belljar/v1/containers", post(containers::create))
        .route("/belljar/v1/containers/import", post(transfer::import))
        .route("/belljar/v1/containers/{id}/fork", post(checkpoints::fork))
        .route("/belljar/v1/containers/{id}/cells", post(cells::create))
        .route_layer(from_fn_with_state(app.clone(), tenants::limit));
    let plain = Router::new()
        .route("/v1/messages/batches", get(batches::list))
        .route("/v1/messages/batches/{id}", get(batches::retrieve).delete(batches::delete))
        .route("/v1/messages/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/messages/batches/{id}/results", get(batches::results))
        .route("/v1/files", post(files::upload::upload).get(files::list))
        .route("/v1/files/{id}", get(files::retrieve).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/belljar/v1/containers", get(containers::list))
        .route("/belljar/v1/containers/{id}/export", get(transfer::export))
        .route("/belljar/v1/containers/{id}", get(containers::retrieve).delete(containers::delete))
        .route("/belljar/v1/containers/{id}/interrupt", post(containers::interrupt))
        .route("/belljar/v1/containers/{id}/checkpoint", post(checkpoints::create))
        .route("/belljar/v1/containers/{id}/checkpoints", get(checkpoints::list))
        .route("/belljar/v1/containers/{id}/checkpoints/{checkpoint_id}", delete(checkpoints::delete))
        .route("/belljar/v1/containers/{id}/restore", post(checkpoints::restore))
        .route("/belljar/v1/containers/{id}/files/{*path}", put(containers::put_file).get(containers::get_file));
    // Whose things these are about is said before their bodies.
    let settled = limited.merge(plain).route_layer(from_fn(settle));
    // These find it out themselves, or are about nobody's things.
    let messages = Router::new()
        .route("/v1/messages", post(messages::create))
        .route_layer(from_fn_with_state(app.clone(), tenants::limit));
    let unsettled = Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::retrieve))
        .route("/belljar/v1/scopes", post(scopes::create));
    let plain = settled.merge(messages).merge(unsettled).route_layer(from_fn(body::refuse_compressed));
    let guarded = plain.route_layer(from_fn_with_state(app.clone(), authenticate));
    let open = Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz));
    guarded
        .merge(open)
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(identify))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> Failure {
    ApiError::not_found(format!("Not found: {}", belljar_wire::read::Brief(uri.path()))).into()
}

async fn unknown_method(method: Method) -> Failure {
    let error = ApiError::new(ErrorKind::InvalidRequest, format!("Method {method} is not allowed here"));
    Failure::with_status(error, StatusCode::METHOD_NOT_ALLOWED)
}
