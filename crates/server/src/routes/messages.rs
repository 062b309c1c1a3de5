//! `POST /v1/messages`: from bytes to a running turn, and from its events to one of two replies.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use belljar_ids::{ContainerId, FileId, RequestId};
use belljar_sandbox::{Lease, LeaseError};
use belljar_turn::{ModelTraits, PlanContext, TurnPlan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::read::Brief;
use belljar_wire::request::MessagesRequest;
use http::HeaderMap;

use crate::app::{App, Shared};
use crate::driver::{self, Driver};
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::body;

/// Runs one turn.
pub async fn create(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let bytes = body::read_json(&headers, body, app.serving.request_bytes_max).await?;
    let request = MessagesRequest::read(&bytes)?;
    drop(bytes);
    let plan = plan(&app, &headers, request)?;
    let upstream = app
        .router
        .route(&plan.model)
        .ok_or_else(|| Failure::from(ApiError::not_found(format!("model: {}", Brief(&plan.model)))))?;
    let uploads = find_uploads(&app, &principal, &plan).await?;
    let lease = lease_named(&app, &principal, &plan).await?;
    let stream = plan.stream;
    let script = headers.get("belljar-script").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let driver = Driver::new(app, principal, request_id, upstream, script, driver::Files { lease, uploads });
    let reply = driver.start(plan);
    match stream {
        true => driver::reply::streamed(reply).await,
        false => driver::reply::plain(reply).await,
    }
}

fn plan(app: &App, headers: &HeaderMap, request: MessagesRequest) -> Result<TurnPlan, ApiError> {
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).ok();
    let version = headers.get("anthropic-version").and_then(text);
    let betas: Vec<String> = headers.get_all("anthropic-beta").iter().filter_map(text).collect();
    let betas = Betas::read(betas.iter().map(String::as_str))?;
    let context = PlanContext {
        api_version: ApiVersion::read(version.as_deref())?,
        betas: &betas,
        samplings_max: app.serving.samplings_max,
        limits: app.tool_limits,
        model: ModelTraits::of(&request.model),
    };
    belljar_turn::plan(request, &context)
}

/// A request that names a missing or expired file fails before the first sampling (wire.md §9.5).
async fn find_uploads(app: &App, principal: &Principal, plan: &TurnPlan) -> Result<Vec<driver::Upload>, Failure> {
    let mut uploads = Vec::with_capacity(plan.uploads.len());
    for text in &plan.uploads {
        let missing = || Failure::from(ApiError::not_found(format!("File `{}` not found.", Brief(text))));
        let id: FileId = text.parse().map_err(|_| missing())?;
        let record =
            app.store.file(&principal.workspace, &id).await.map_err(|error| Failure::internal("file", &error))?;
        let record = record.ok_or_else(missing)?;
        if record.expired(crate::clock::now()) {
            return Err(ApiError::invalid(format!("File `{id}` has expired.")).into());
        }
        uploads.push(driver::Upload { id, filename: record.filename.to_string() });
    }
    Ok(uploads)
}

/// The container that the request names, held for the whole turn: one turn at a time.
async fn lease_named(app: &App, principal: &Principal, plan: &TurnPlan) -> Result<Option<Lease>, Failure> {
    let Some(text) = &plan.container else { return Ok(None) };
    // The prefix on which clients drop an id and go on without it (wire.md §23).
    let missing = || Failure::from(ApiError::not_found(format!("Container not found: {}", Brief(text))));
    let id: ContainerId = text.parse().map_err(|_| missing())?;
    let record = app.store.container(&principal.workspace, &id).await;
    if record.map_err(|error| Failure::internal("container", &error))?.is_none() {
        return Err(missing());
    }
    match app.sandbox.lease(&id, app.serving.lease_wait).await {
        Ok(lease) => Ok(Some(lease)),
        Err(LeaseError::Unknown(_) | LeaseError::Dead { .. }) => Err(missing()),
        Err(LeaseError::Busy(_)) => {
            let text = format!("Container {id} is in use by another request");
            Err(Failure::from(ApiError::new(ErrorKind::Conflict, text)).do_not_retry())
        }
    }
}
