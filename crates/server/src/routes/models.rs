//! `GET /v1/models` (wire.md §17.2).

use axum::extract::{Path, RawQuery, State};
use axum::{Extension, Json};
use belljar_turn::HostedModel;
use belljar_wire::error::ApiError;
use belljar_wire::hosted_tool::HostedFamily;
use belljar_wire::models::{Capabilities, Lifecycle, ModelInfo, ModelPage, ModelTag, ServerTools, Supported};
use belljar_wire::read::Brief;

use crate::access::Caller;
use crate::app::{App, Shared};
use crate::failure::Failure;
use crate::routes::messages::unknown_model;
use crate::routes::page::{ByIds, Part};

/// The models that the configuration names. Globs are not expanded: what stands behind them only the upstream knows.
///
/// A key that may name only some models is told of those, and of each that it spells out and somebody serves.
pub async fn list(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<ModelPage>, Failure> {
    let query = ModelList::read(query.as_deref().unwrap_or_default())?;
    let permit = caller.models();
    let mut names = app.router.models();
    names.retain(|name| permit.allows(name));
    for name in permit.names().filter(|name| app.router.route(name).is_some()) {
        if !names.iter().any(|listed| listed == name) {
            names.push(name.to_owned());
        }
    }
    let all = names.into_iter().map(|id| info(&app, id)).collect();
    Ok(Json(query.page(all)?))
}

/// One model: any name that some upstream answers to.
pub async fn retrieve(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<ModelInfo>, Failure> {
    match app.router.route(&id).filter(|_| is_name(&id) && caller.models().allows(&id)) {
        Some(_) => Ok(Json(info(&app, id))),
        None => Err(unknown_model(&id).into()),
    }
}

/// Which models a client asks for.
#[derive(Debug)]
struct ModelList {
    by_ids: ByIds,
    /// None means all of them.
    lifecycles: Vec<String>,
}

impl ModelList {
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut lifecycles = Vec::new();
        let by_ids = ByIds::read(query, |name, value| match name {
            "lifecycle[]" | "lifecycle" => {
                lifecycles.push(value);
                None
            }
            _ => Some(value),
        })?;
        Ok(Self { by_ids, lifecycles })
    }

    /// The part of `models` that is asked for.
    fn page(&self, mut models: Vec<ModelInfo>) -> Result<ModelPage, ApiError> {
        models.retain(|model| {
            self.lifecycles.is_empty() || self.lifecycles.iter().any(|asked| asked == model.lifecycle.name())
        });
        let at = |name: &str, id: &str| {
            let place = models.iter().position(|model| model.id == id);
            place.ok_or_else(|| ApiError::invalid(format!("{name}: no model has the id {}", Brief(id))))
        };
        let limit = usize::from(self.by_ids.limit);
        let from = |begin: usize| {
            let end = begin.saturating_add(limit).min(models.len());
            (begin..end, end < models.len())
        };
        let (chosen, has_more) = match &self.by_ids.part {
            Part::First => from(0),
            Part::After(after) => from(at("after_id", after)? + 1),
            Part::Before(before) => {
                let end = at("before_id", before)?;
                let begin = end.saturating_sub(limit);
                (begin..end, begin > 0)
            }
        };
        let data: Vec<ModelInfo> = models.drain(chosen).collect();
        let id = |model: Option<&ModelInfo>| model.map(|model| model.id.clone());
        Ok(ModelPage { first_id: id(data.first()), last_id: id(data.last()), has_more, data })
    }
}

/// Whether a text can be a model's name: a glob would let any text pass.
fn is_name(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    id.len() <= 256
        && id.bytes().all(legal)
        && id.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn info(app: &App, id: String) -> ModelInfo {
    let supported = |supported| Supported { supported };
    let hosted = app.router.like(&id).and_then(HostedModel::of);
    // The capability of this name is that code may call tools; the tool itself is among the server tools.
    let served = app.router.served(&id);
    let can = served.map(|served| served.capabilities.clone()).unwrap_or_default();
    let passed = served.and_then(|served| served.server_tools);
    let searches = passed.is_some_and(|passed| passed.has_of(HostedFamily::WebSearch));
    // A model that calls no tools runs no code.
    let tools = can.tools != Some(false);
    let called_from_code = supported(tools && app.traits_of(&id).programmatic_tool_calling);
    ModelInfo {
        tag: ModelTag::Model,
        display_name: hosted.map_or_else(|| id.clone(), |hosted| hosted.display_name.to_owned()),
        id,
        // When the model was made is not known here; the SDKs need a date.
        created_at: "1970-01-01T00:00:00Z".to_owned(),
        lifecycle: Lifecycle::Active,
        line: hosted.map(|hosted| hosted.line),
        deprecated_at: None,
        retires_at: None,
        max_input_tokens: can.context_tokens_max,
        max_tokens: served.and_then(|served| served.output_tokens_max),
        capabilities: Capabilities {
            batch: supported(true),
            code_execution: called_from_code,
            server_tools: ServerTools {
                supported: tools,
                code_execution: supported(tools),
                web_search: supported(tools && searches),
            },
            image_input: can.vision.map(supported),
            pdf_input: can.documents.map(supported),
            thinking: can.thinking.map(supported),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str) -> ModelInfo {
        let no = Supported { supported: false };
        ModelInfo {
            tag: ModelTag::Model,
            id: id.to_owned(),
            display_name: id.to_owned(),
            created_at: String::new(),
            lifecycle: Lifecycle::Active,
            line: None,
            deprecated_at: None,
            retires_at: None,
            max_input_tokens: None,
            max_tokens: None,
            capabilities: Capabilities {
                batch: no,
                code_execution: no,
                server_tools: ServerTools { supported: false, code_execution: no, web_search: no },
                image_input: None,
                pdf_input: None,
                thinking: None,
            },
        }
    }

    /// The ids of a page of the models a to e, and whether there are more; or what is wrong.
    fn asked(query: &str) -> Result<(String, bool), String> {
        let models = ["a", "b", "c", "d", "e"].map(model).to_vec();
        let page = ModelList::read(query).and_then(|list| list.page(models)).map_err(|error| error.message)?;
        let ids: String = page.data.iter().map(|model| model.id.as_str()).collect();
        assert_eq!(page.first_id.as_deref().unwrap_or_default(), ids.get(..1).unwrap_or_default());
        assert_eq!(
            page.last_id.as_deref().unwrap_or_default(),
            ids.get(ids.len().saturating_sub(1)..).unwrap_or_default()
        );
        Ok((ids, page.has_more))
    }

    #[test]
    fn pages_are_what_was_asked_for() {
        let cases = [
            ("", Ok(("abcde", false))),
            ("beta=true&limit=5", Ok(("abcde", false))),
            ("limit=2", Ok(("ab", true))),
            ("limit=2&after_id=b", Ok(("cd", true))),
            ("limit=2&after_id=c", Ok(("de", false))),
            ("after_id=e", Ok(("", false))),
            ("limit=2&before_id=d", Ok(("bc", true))),
            ("limit=2&before_id=c", Ok(("ab", false))),
            ("before_id=a", Ok(("", false))),
            ("lifecycle[]=active&limit=1", Ok(("a", true))),
            ("lifecycle%5B%5D=deprecated", Ok(("", false))),
            ("lifecycle[]=deprecated&lifecycle[]=active", Ok(("abcde", false))),
            ("after_id=x", Err("after_id: no model has the id x")),
            ("before_id=x", Err("before_id: no model has the id x")),
            ("after_id=a&before_id=b", Err("after_id: cannot be combined with `before_id`")),
            ("limit=0", Err("limit: Input should be greater than or equal to 1")),
            ("limit=1001", Err("limit: Input should be less than or equal to 1000")),
            ("limit=x", Err("limit: Input should be a valid integer")),
            ("colour=red", Err("colour: Extra inputs are not permitted")),
        ];
        for (query, expected) in cases {
            let expected = expected.map(|(ids, more)| (ids.to_owned(), more)).map_err(str::to_owned);
            assert_eq!(asked(query), expected, "{query}");
        }
    }
}
