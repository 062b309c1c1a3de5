//! What stands between the server and its upstreams, whatever they speak: names, capabilities, the time of a whole sampling, rest
//! after failures, and the next upstream when one fails before its first word.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use belljar_wire::hosted_tool::{HostedFamily, HostedTools};
use belljar_wire::sampling::{ModelTool, SamplingEvent, SamplingRequest};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::sleep;

use crate::breaker::Breaker;
use crate::capability::unfit;
use crate::config::Capabilities;
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::recording::Dialect;
use crate::upstream::{CountFuture, SamplingHints, SamplingStream, Upstream};

/// One upstream as the configuration has it.
pub(crate) struct Member {
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) capabilities: Capabilities,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) output_tokens_max: Option<u64>,
    /// What of the vendor's own server tools it passes on; none where it has no such tools.
    pub(crate) server_tools: Option<HostedTools>,
    pub(crate) whole_max: Option<Duration>,
    /// None for what has no network to fail.
    pub(crate) breaker: Option<Breaker>,
}

/// A member, and what it calls the model that is asked for.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) member: Arc<Member>,
    pub(crate) sent_model: String,
}

/// The upstreams that serve one name, in order. There is at least one.
pub(crate) struct Chain {
    first: Candidate,
    others: Vec<Candidate>,
}

impl Chain {
    pub(crate) fn new(first: Candidate, others: Vec<Candidate>) -> Self {
        Self { first, others }
    }
}

impl Upstream for Chain {
    fn name(&self) -> &str {
        self.first.member.upstream.name()
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        // Kept only while another may have to be asked: it can be large.
        let mut kept = Some(request);
        let others = self.others.iter().filter(|other| kept.as_ref().is_some_and(|request| other.passes_on(request)));
        let candidates: Vec<Candidate> = std::iter::once(&self.first).chain(others).cloned().collect();
        Box::pin(stream! {
            let last = candidates.len() - 1;
            for (index, candidate) in candidates.into_iter().enumerate() {
                let mut begun = false;
                let mut failed = None;
                let request = if index < last { kept.clone() } else { kept.take() };
                let Some(request) = request else {
                    return;
                };
                let mut sampling = candidate.sample(request, &hints);
                while let Some(event) = sampling.next().await {
                    match event {
                        Err(error) if !begun && index < last && goes_on(error.kind) => {
                            failed = Some(error);
                            break;
                        }
                        event => {
                            begun = true;
                            yield event;
                        }
                    }
                }
                match failed {
                    None => return,
                    Some(error) => tracing::warn!(
                        request_id = %hints.request_id,
                        error = error.operator,
                        "asking the next upstream"
                    ),
                }
            }
        })
    }

    fn count_tokens(&self, mut request: SamplingRequest, hints: SamplingHints) -> CountFuture {
        request.model.clone_from(&self.first.sent_model);
        self.first.member.upstream.count_tokens(request, hints)
    }

    fn models(&self) -> Vec<String> {
        self.first.member.upstream.models()
    }
}

/// Whether another upstream may do better. What this one refuses of a request is the client's to know.
const fn goes_on(kind: UpstreamErrorKind) -> bool {
    match kind {
        UpstreamErrorKind::Overloaded { .. }
        | UpstreamErrorKind::RateLimited { .. }
        | UpstreamErrorKind::Authentication
        | UpstreamErrorKind::ModelNotFound
        | UpstreamErrorKind::NoSuchEndpoint
        | UpstreamErrorKind::NotRecorded
        | UpstreamErrorKind::Unavailable
        | UpstreamErrorKind::TimedOut { .. }
        | UpstreamErrorKind::Protocol
        | UpstreamErrorKind::Cut => true,
        UpstreamErrorKind::Rejected { .. } | UpstreamErrorKind::TooLarge => false,
    }
}

impl Candidate {
    /// Whether it has the vendor's tools that a request was admitted with. One that has not is no help when another fails: what the
    /// client is told then is how that one failed.
    fn passes_on(&self, request: &SamplingRequest) -> bool {
        let passed = self.member.server_tools.as_ref();
        let tools = request.tools.iter().all(|tool| match tool {
            ModelTool::Hosted(tool) => passed.is_some_and(|passed| passed.has(tool.kind)),
            ModelTool::Custom(_) | ModelTool::Vendor(_) | ModelTool::Server { .. } => true,
        });
        let connects =
            request.rest.get("mcp_servers").and_then(Value::as_array).is_some_and(|servers| !servers.is_empty());
        tools && (!connects || passed.is_some_and(|passed| passed.has_of(HostedFamily::Mcp)))
    }

    /// Asks this one alone.
    fn sample(&self, mut request: SamplingRequest, hints: &SamplingHints) -> SamplingStream {
        let name = self.member.upstream.name();
        if let Some(reason) = unfit(&self.member.capabilities, &request, hints) {
            let operator = format!("upstream `{name}`: refused before it was asked: {reason}");
            let error = UpstreamError::new(UpstreamErrorKind::Rejected { status: 400 }, operator).telling(reason);
            return failed(error);
        }
        if let Some(Err(left)) = self.member.breaker.as_ref().map(Breaker::admit) {
            let operator = format!("upstream `{name}`: it has failed too often and rests for another {left:?}");
            let kind = UpstreamErrorKind::Overloaded { retry_after: Some(left) };
            return failed(UpstreamError::new(kind, operator));
        }
        request.model.clone_from(&self.sent_model);
        let sampling = self.member.upstream.sample(request, hints.clone());
        watched(Arc::clone(&self.member), sampling)
    }
}

fn failed(error: UpstreamError) -> SamplingStream {
    Box::pin(futures_util::stream::iter([Err(error)]))
}

/// The same events, within the time that a whole sampling may take; the breaker learns what came of it.
fn watched(member: Arc<Member>, mut sampling: SamplingStream) -> SamplingStream {
    Box::pin(stream! {
        let whole = member.whole_max;
        let mut end = std::pin::pin!(async move {
            match whole {
                Some(limit) => {
                    sleep(limit).await;
                    limit
                }
                None => std::future::pending().await,
            }
        });
        loop {
            let event = tokio::select! {
                biased;
                event = sampling.next() => event,
                limit = &mut end => Some(Err(UpstreamError::timed_out(member.upstream.name(), Phase::Whole, limit))),
            };
            let Some(event) = event else {
                return;
            };
            if let Some(breaker) = &member.breaker {
                match &event {
                    Ok(SamplingEvent::Ended { .. }) => breaker.worked(),
                    Ok(_) => {}
                    Err(error) => breaker.failed(error.kind),
                }
            }
            let over = event.is_err();
            yield event;
            if over {
                return;
            }
        }
    })
}
