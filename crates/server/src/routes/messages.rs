//! `POST /v1/messages`: from bytes to a running turn, and from its events to one of two replies.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use belljar_ids::RequestId;
use belljar_model::Upstream;
use belljar_sandbox::Lease;
use belljar_turn::{PlanContext, TurnPlan};
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::read::Brief;
use belljar_wire::request::MessagesRequest;
use http::HeaderMap;
use tokio::sync::mpsc;

use crate::access::Caller;
use crate::app::{App, Shared};
use crate::asked::Asked;
use crate::continuations::Joined;
use crate::driver::{self, Driver, Sent};
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::resume::{self, Continuation, Found};
use crate::routes::uploads::{self, Earlier};
use crate::routes::{body, containers, files};
use crate::tenants::Pace;

/// Runs one turn.
pub async fn create(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let bytes = body::read_json(&headers, body, app.serving.request_bytes_max).await?;
    let request = MessagesRequest::read(&bytes)?;
    let principal = caller.with_body(&app, request.user_id.as_deref()).await?;
    let tokens = app.tenants.estimate(&principal.workspace, Pace::Attended, &bytes);
    drop(bytes);
    let stream = request.stream;
    let asked = Asked::of(&headers);
    let order = Order { pace: Pace::Attended, tokens };
    let reply = begin(&app, &principal, request_id.clone(), &asked, request, order).await?;
    match stream {
        true => driver::reply::streamed(reply, request_id).await,
        false => driver::reply::plain(reply).await,
    }
}

/// In what way a turn is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Who waits for it.
    pub pace: Pace,
    /// About how many tokens its request has, where anybody counts them.
    pub tokens: u64,
}

/// Plans a turn and begins it; what it sends comes out of the receiver, and dropping that ends it.
pub async fn begin(
    app: &Shared,
    principal: &Principal,
    request_id: RequestId,
    asked: &Asked,
    request: MessagesRequest,
    order: Order,
) -> Result<mpsc::Receiver<Sent>, Failure> {
    let lost_cells = app.calling.of(&principal.workspace, &belljar_turn::lost_cells(&request));
    refuse_model(principal, &request.model)?;
    let samplings_max = match order.pace {
        Pace::Attended => app.serving.samplings_max,
        Pace::Batch => app.serving.batch_samplings_max,
    };
    let earlier = Earlier::of(&request.messages);
    let plan = plan(app, asked, request, samplings_max, &lost_cells)?;
    let upstream = route(app, &plan.model)?;
    let meter = app.tenants.begin_turn(&principal.workspace, order.pace, order.tokens).await?;
    let script = asked.script.clone();
    let told = plan.stream && asked.wants_live_output();
    let driver = |files| {
        let driver = Driver::new(Shared::clone(app), principal.clone(), request_id, upstream, script, files, meter);
        if told { driver.telling_output() } else { driver }
    };
    match &plan.resume {
        Some(resume) => match resume::find(app, principal, &plan, resume).await? {
            Found::Told(told) => Ok(told),
            Found::First(continuation) => {
                let Continuation { files, resumed, teller } = *continuation;
                Ok(driver(files).resume(plan, resumed, teller))
            }
        },
        None => {
            let container = plan.container.as_deref();
            let teller = match plan.deferred_digest() {
                None => None,
                Some(digest) => match app.continuations.join_deferred(&principal.workspace, container, digest) {
                    Joined::First(teller) => Some(teller),
                    Joined::Again(told) => return resume::told_again(app, told),
                },
            };
            match (files_for(app, principal, &plan, &earlier).await, teller) {
                (Ok(files), None) => Ok(driver(files).start(plan)),
                (Ok(files), Some(teller)) => Ok(driver(files).start_telling(plan, teller)),
                (Err(failure), None) => Err(failure),
                (Err(failure), Some(teller)) => Err(teller.refuse(failure)),
            }
        }
    }
}

/// What a turn that begins needs of its container and of the store.
async fn files_for(
    app: &Shared,
    principal: &Principal,
    plan: &TurnPlan,
    earlier: &Earlier,
) -> Result<driver::Files, Failure> {
    resume::refuse_running_twice(app, principal, plan)?;
    let uploads = uploads::find_all(app, principal, plan, earlier).await?;
    let contents = files::shown::read_all(app, principal, &plan.shown).await?;
    // Held for the whole turn: one turn at a time.
    let lease = match &plan.container {
        Some(id) => Some(containers::lease(app, principal, id).await?),
        None => lease_of_attempt(app, principal, plan).await?,
    };
    Ok(driver::Files { lease, uploads, contents })
}

/// The container that an attempt which failed has made for the calls of this plan: the client was not told of it. What ran in one
/// that is gone has gone with it.
async fn lease_of_attempt(app: &Shared, principal: &Principal, plan: &TurnPlan) -> Result<Option<Lease>, Failure> {
    let Some(id) = app.outcomes.container(&principal.workspace, plan.deferred_calls()) else { return Ok(None) };
    match containers::lease(app, principal, id.as_str()).await {
        Ok(lease) => Ok(Some(lease)),
        Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A model that the key may not name is answered as one that nobody serves (wire.md §2.6), before anything else is looked at.
pub fn refuse_model(principal: &Principal, model: &str) -> Result<(), ApiError> {
    match principal.models.allows(model) {
        true => Ok(()),
        false => Err(unknown_model(model)),
    }
}

/// 404 for a model.
pub fn unknown_model(model: &str) -> ApiError {
    ApiError::not_found(format!("model: {}", Brief(model)))
}

/// The upstream that serves a model.
pub fn route(app: &App, model: &str) -> Result<Arc<dyn Upstream>, Failure> {
    app.router.route(model).ok_or_else(|| unknown_model(model).into())
}

/// What a request means. `lost_cells` are calls of code whose callers the client has lost, as far as they are known.
pub fn plan(
    app: &App,
    asked: &Asked,
    request: MessagesRequest,
    samplings_max: u32,
    lost_cells: &[ServerToolUseBlock],
) -> Result<TurnPlan, ApiError> {
    let (api_version, betas) = asked.read()?;
    let context = PlanContext {
        api_version,
        betas: &betas,
        samplings_max,
        limits: app.tool_limits,
        texts: app.texts_of(&request.model),
        model: app.traits_of(&request.model),
        hosted: app.hosted_of(&request.model),
        lost_cells,
    };
    belljar_turn::plan(request, &context)
}
