//! Counting a request's input tokens: the upstream's word where it has one.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::Response;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Shared, body, send, unwritable};
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::estimate::estimate;
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
    model: Option<&str>,
    request: &SamplingRequest,
    hints: &SamplingHints,
) -> Result<TokenCount, UpstreamError> {
    let model = model.unwrap_or(&request.model);
    let body = body::write_to_count(request, model, &hints.files).map_err(|error| unwritable(&shared.name, &error))?;
    let betas = body::betas(&request.betas);
    let call = send::Call { url: &shared.count_url, body: Bytes::from(body), betas: betas.as_deref() };
    match send::send(shared, &call, &hints.request_id).await {
        Ok(response) => read(shared, response).await.map(TokenCount::Counted),
        Err(error) if error.kind == UpstreamErrorKind::NoSuchEndpoint => {
            Ok(TokenCount::Estimated(estimate(request, &hints.files)))
        }
        Err(error) => Err(error),
    }
}

async fn read(shared: &Shared, response: Response) -> Result<u64, UpstreamError> {
    let name = &shared.name;
    let limit = shared.timeouts.between_bytes_max;
    let mut pieces = response.bytes_stream();
    let mut text = BytesMut::new();
    loop {
        let piece = timeout(limit, pieces.next()).await;
        let piece = piece.map_err(|_| UpstreamError::timed_out(name, Phase::BetweenBytes, limit))?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| {
            let how = shared.scrub().clean(&send::causes(&error));
            UpstreamError::new(UpstreamErrorKind::Cut, format!("upstream `{name}`: the count was cut: {how}"))
        })?;
        if text.len() + piece.len() > ANSWER_BYTES_MAX {
            let operator = format!("upstream `{name}`: a count of more than {ANSWER_BYTES_MAX} bytes");
            return Err(UpstreamError::new(UpstreamErrorKind::TooLarge, operator));
        }
        text.extend_from_slice(&piece);
    }
    let answer: Result<Answer, _> = serde_json::from_slice(&text);
    answer.map(|answer| answer.input_tokens).map_err(|error| {
        UpstreamError::new(UpstreamErrorKind::Protocol, format!("upstream `{name}`: the count cannot be read: {error}"))
    })
}
