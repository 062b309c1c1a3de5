//! Counting a request's input tokens: the upstream's word where it has one.

use bytes::BytesMut;
use serde::Deserialize;

use super::{Shared, body, call, unwritable};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::estimate::estimate;
use crate::link::{self, Answer, Body, Link};
use crate::upstream::{SamplingHints, TokenCount};
use belljar_wire::sampling::SamplingRequest;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Counted {
    input_tokens: u64,
}

/// Asks the upstream. Some that speak the Messages API do not have this part of it: then the count is an estimate.
pub(super) async fn count(
    shared: &Shared,
    request: &SamplingRequest,
    hints: &SamplingHints,
) -> Result<TokenCount, UpstreamError> {
    let Shared { link, way, betas } = shared;
    let Some(place) = way.count() else {
        return Ok(TokenCount::Estimated(estimate(request, &hints.files)));
    };
    let body = body::write_to_count(request, &hints.files, *way).map_err(|error| unwritable(&link.name, &error))?;
    let betas = betas.passed(&request.betas);
    let betas = (!betas.is_empty()).then(|| betas.join(","));
    let call = call(place, body, betas.as_deref(), *way);
    match link::send(link, &call, &hints.request_id).await {
        Ok(answer) => read(link, answer).await.map(TokenCount::Counted),
        Err(error) if error.kind == UpstreamErrorKind::NoSuchEndpoint => {
            Ok(TokenCount::Estimated(estimate(request, &hints.files)))
        }
        Err(error) => Err(error),
    }
}

async fn read(link: &Link, answer: Answer) -> Result<u64, UpstreamError> {
    let mut body = Body::of(link, answer.pieces);
    let mut text = BytesMut::new();
    while let Some(piece) = body.next().await? {
        if text.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(body.too_large(ANSWER_BYTES_MAX));
        }
        text.extend_from_slice(&piece);
    }
    let counted: Result<Counted, _> = serde_json::from_slice(&text);
    counted
        .map(|counted| counted.input_tokens)
        .map_err(|error| body.unreadable(&format!("the count cannot be read: {error}")))
}
