//! Counting a request's input tokens: the upstream's word where it has one.

use bytes::BytesMut;
use reqwest::Response;
use serde::Deserialize;

use super::{Shared, body, call, unwritable};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::estimate::estimate;
use crate::link::{self, Body, Link};
use crate::upstream::{SamplingHints, TokenCount};
use belljar_wire::sampling::SamplingRequest;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Answer {
    input_tokens: u64,
}

/// Asks the upstream. Some that speak the Messages API do not have this part of it: then the count is an estimate.
pub(super) async fn count(
    shared: &Shared,
    request: &SamplingRequest,
    hints: &SamplingHints,
) -> Result<TokenCount, UpstreamError> {
    let link = &shared.link;
    let Some(url) = shared.way.count_url() else {
        return Ok(TokenCount::Estimated(estimate(request, &hints.files)));
    };
    let form = shared.way.form();
    let body = body::write_to_count(request, &hints.files, form).map_err(|error| unwritable(&link.name, &error))?;
    let betas = shared.betas.passed(&request.betas);
    let betas = (!betas.is_empty()).then(|| betas.join(","));
    let call = call(url, body, betas.as_deref(), form);
    match link::send(link, &call, &hints.request_id).await {
        Ok(response) => read(link, response).await.map(TokenCount::Counted),
        Err(error) if error.kind == UpstreamErrorKind::NoSuchEndpoint => {
            Ok(TokenCount::Estimated(estimate(request, &hints.files)))
        }
        Err(error) => Err(error),
    }
}

async fn read(link: &Link, response: Response) -> Result<u64, UpstreamError> {
    let mut body = Body::of(link, response);
    let mut text = BytesMut::new();
    while let Some(piece) = body.next().await? {
        if text.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(body.too_large(ANSWER_BYTES_MAX));
        }
        text.extend_from_slice(&piece);
    }
    let answer: Result<Answer, _> = serde_json::from_slice(&text);
    answer
        .map(|answer| answer.input_tokens)
        .map_err(|error| body.unreadable(&format!("the count cannot be read: {error}")))
}
