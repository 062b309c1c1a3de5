//! `POST /v1/messages`: from bytes to a running turn, and from its events to one of two replies.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use belljar_ids::RequestId;
use belljar_turn::{ModelTraits, PlanContext, TurnPlan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use belljar_wire::request::MessagesRequest;
use http::HeaderMap;

use crate::app::{App, Shared};
use crate::driver::{self, Driver};
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::resume::{self, Continuation, Found};
use crate::routes::{body, containers, files};

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
    let lost_cells = app.calling.of(&principal.workspace, &belljar_turn::lost_cells(&request));
    let plan = plan(&app, &headers, request, &lost_cells)?;
    let upstream = app
        .router
        .route(&plan.model)
        .ok_or_else(|| Failure::from(ApiError::not_found(format!("model: {}", Brief(&plan.model)))))?;
    let stream = plan.stream;
    let script = headers.get("belljar-script").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let driver = |files| Driver::new(Shared::clone(&app), principal.clone(), request_id, upstream, script, files);
    let reply = match &plan.resume {
        Some(resume) => match resume::find(&app, &principal, plan.container.as_deref(), resume).await? {
            Found::Told(told) => told,
            Found::First(continuation) => {
                let Continuation { files, resumed, teller } = *continuation;
                driver(files).resume(plan, resumed, teller)
            }
        },
        None => {
            resume::refuse_running_twice(&app, &principal, &plan)?;
            let uploads = find_uploads(&app, &principal, &plan).await?;
            // Held for the whole turn: one turn at a time.
            let lease = match &plan.container {
                Some(id) => Some(containers::lease(&app, &principal, id).await?),
                None => None,
            };
            driver(driver::Files { lease, uploads }).start(plan)
        }
    };
    match stream {
        true => driver::reply::streamed(reply).await,
        false => driver::reply::plain(reply).await,
    }
}

fn plan(
    app: &App,
    headers: &HeaderMap,
    request: MessagesRequest,
    lost_cells: &[ServerToolUseBlock],
) -> Result<TurnPlan, ApiError> {
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
        lost_cells,
    };
    belljar_turn::plan(request, &context)
}

/// A request that names a missing or expired file fails before the first sampling (wire.md §9.5).
async fn find_uploads(app: &Shared, principal: &Principal, plan: &TurnPlan) -> Result<Vec<driver::Upload>, Failure> {
    let mut uploads = Vec::with_capacity(plan.uploads.len());
    for text in &plan.uploads {
        let record = files::find(app, principal, text).await?;
        if record.expired(crate::clock::now()) {
            return Err(ApiError::invalid(format!("File `{}` has expired.", record.id)).into());
        }
        uploads.push(driver::Upload { filename: record.filename.to_string(), id: record.id });
    }
    Ok(uploads)
}
