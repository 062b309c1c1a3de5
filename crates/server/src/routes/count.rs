//! `POST /v1/messages/count_tokens` (wire.md §17.1).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use belljar_ids::RequestId;
use belljar_model::{SamplingHints, TokenCount};
use belljar_wire::container::ContainerParam;
use belljar_wire::request::MessagesRequest;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::app::Shared;
use crate::asked::Asked;
use crate::driver;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::files::shown;
use crate::routes::uploads::{self, Earlier};
use crate::routes::{body, messages};

/// Says that a count is ours, not the upstream's.
const ESTIMATED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("belljar-token-count"), HeaderValue::from_static("estimated"));

/// Counts what the first sampling would read, the tools that this server adds included.
pub async fn count_tokens(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let bytes = body::read_json(&headers, body, app.serving.request_bytes_max).await?;
    let mut request = MessagesRequest::read_to_count(&bytes)?;
    drop(bytes);
    // A request that counts has no such field, so it cannot be blamed for naming none while code waits (wire.md §19 row 7).
    request.container = Some(ContainerParam { id: Some(String::new()), skills: Vec::new() });
    let asked = Asked::of(&headers);
    messages::refuse_model(&principal, &request.model)?;
    let plan = messages::plan(&app, &asked, request, app.serving.samplings_max, &[])?;
    let upstream = messages::route(&app, &plan.model)?;
    let uploads = uploads::find_all(&app, &principal, &plan, &Earlier::default()).await?;
    let mut hints = SamplingHints::new(request_id);
    let contents = shown::read_all(&app, &principal, &plan.shown).await?;
    hints.files = Arc::new(driver::known_files(&uploads, contents));
    let counted = upstream.count_tokens(plan.into_sampling(), hints).await.map_err(|error| {
        tracing::warn!(upstream = upstream.name(), error = error.operator, "counting failed");
        Failure::from(error.client).retry_after(error.kind.retry_after())
    })?;
    Ok(match counted {
        TokenCount::Counted(tokens) => Json(json!({ "input_tokens": tokens })).into_response(),
        TokenCount::Estimated(tokens) => ([ESTIMATED], Json(json!({ "input_tokens": tokens }))).into_response(),
    })
}
