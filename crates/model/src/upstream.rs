//! The one trait.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use belljar_ids::RequestId;
use belljar_wire::media::FileContent;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use futures_util::Stream;

use crate::error::UpstreamError;
use crate::estimate::estimate;

/// What a sampling yields: events in the order that [`SamplingEvent`] states, or an error, which is the last item.
///
/// Nothing is sent before the first poll. Dropping the stream closes the connection to the upstream.
pub type SamplingStream = Pin<Box<dyn Stream<Item = Result<SamplingEvent, UpstreamError>> + Send>>;

/// A request's input tokens, and whose count that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCount {
    /// The upstream's own.
    Counted(u64),
    /// Ours, where the upstream cannot tell.
    Estimated(u64),
}

/// Answers [`Upstream::count_tokens`]. Nothing is sent before the first poll.
pub type CountFuture = Pin<Box<dyn Future<Output = Result<TokenCount, UpstreamError>> + Send>>;

/// A model, or many behind one address.
pub trait Upstream: Send + Sync {
    /// The operator's name for it.
    fn name(&self) -> &str;

    /// Asks for one sampling.
    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream;

    /// Asks how many tokens the input of a sampling has. An upstream that cannot tell has it estimated.
    fn count_tokens(&self, request: SamplingRequest, hints: SamplingHints) -> CountFuture {
        Box::pin(async move { Ok(TokenCount::Estimated(estimate(&request, &hints.files))) })
    }

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
    /// What the request's file ids stand for.
    pub files: Arc<KnownFiles>,
}

/// The files of this server that a request names, by file id: an upstream has others, or none.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles {
    /// Names of uploads, so that the model can be told where to find them.
    pub uploads: BTreeMap<String, String>,
    /// What images and documents show (wire.md §9.5). A file that is not in here stays named, for the upstream to refuse.
    pub contents: BTreeMap<String, FileContent>,
}

impl SamplingHints {
    /// Hints that only name the request.
    pub fn new(request_id: RequestId) -> Self {
        Self { script: None, request_id, files: Arc::default() }
    }
}
