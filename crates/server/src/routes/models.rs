//! `GET /v1/models` (wire.md §17.2).

use axum::Json;
use axum::extract::{Path, State};
use belljar_turn::ModelTraits;
use belljar_wire::error::ApiError;
use belljar_wire::models::{Capabilities, ModelInfo, ModelPage, ModelTag, ServerTools, Supported};
use belljar_wire::read::Brief;

use crate::app::Shared;
use crate::failure::Failure;

/// The models that the configuration names. Globs are not expanded: what stands behind them only the upstream knows.
pub async fn list(State(app): State<Shared>) -> Json<ModelPage> {
    let data: Vec<ModelInfo> = app.router.models().into_iter().map(info).collect();
    let id = |model: Option<&ModelInfo>| model.map(|model| model.id.clone());
    Json(ModelPage { first_id: id(data.first()), last_id: id(data.last()), has_more: false, data })
}

/// One model: any name that some upstream answers to.
pub async fn retrieve(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<ModelInfo>, Failure> {
    match app.router.route(&id).filter(|_| is_name(&id)) {
        Some(_) => Ok(Json(info(id))),
        None => Err(ApiError::not_found(format!("model: {}", Brief(&id))).into()),
    }
}

/// Whether a text can be a model's name: a glob would let any text pass.
fn is_name(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    id.len() <= 256
        && id.bytes().all(legal)
        && id.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn info(id: String) -> ModelInfo {
    let supported = Supported { supported: true };
    // The capability of this name is that code may call tools; the tool itself is among the server tools.
    let called_from_code = Supported { supported: ModelTraits::of(&id).programmatic_tool_calling };
    ModelInfo {
        tag: ModelTag::Model,
        display_name: id.clone(),
        id,
        // When the model was made is not known here; the SDKs need a date.
        created_at: "1970-01-01T00:00:00Z".to_owned(),
        lifecycle: "active",
        capabilities: Capabilities {
            batch: supported,
            code_execution: called_from_code,
            server_tools: ServerTools { supported: true, code_execution: supported },
        },
    }
}
