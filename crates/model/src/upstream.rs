//! The one trait.

use std::collections::BTreeMap;
use std::pin::Pin;

use belljar_ids::RequestId;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use futures_util::Stream;

use crate::error::UpstreamError;

/// What a sampling yields: events in the order that [`SamplingEvent`] states, or an error, which is the last item.
///
/// Nothing is sent before the first poll. Dropping the stream closes the connection to the upstream.
pub type SamplingStream = Pin<Box<dyn Stream<Item = Result<SamplingEvent, UpstreamError>> + Send>>;

/// A model, or many behind one address.
pub trait Upstream: Send + Sync {
    /// The operator's name for it.
    fn name(&self) -> &str;

    /// Asks for one sampling.
    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream;

    /// The model names that it serves and that are names, not patterns: for `GET /v1/models`.
    fn models(&self) -> Vec<String>;
}

/// What an upstream may know besides the request.
#[derive(Clone, Debug)]
pub struct SamplingHints {
    /// The `belljar-script` header: the script that the scripted model is to play.
    pub script: Option<String>,
    /// The request that the sampling is for.
    pub request_id: RequestId,
    /// Names of uploaded files by file id, so that the model can be told where to find them.
    pub uploads: BTreeMap<String, String>,
}

impl SamplingHints {
    /// Hints that only name the request.
    pub fn new(request_id: RequestId) -> Self {
        Self { script: None, request_id, uploads: BTreeMap::new() }
    }
}
