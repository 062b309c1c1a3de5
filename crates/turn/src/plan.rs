//! From what was sent to what will be done: every rule checked before the first sampling.

use belljar_ids::ServerToolUseId;
use belljar_wire::error::ApiError;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::{SubTool, ToolVersion};

use crate::call::{InvalidInput, ServerCall};
use crate::context::PlanContext;

/// A request, resolved: what will be asked of the model and of the container.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnPlan {
    /// The model's name, as the client asked for it.
    pub model: String,
    /// Whether the reply is a stream.
    pub stream: bool,
    /// The container that the client named. Whether it is one of ours is found out where containers live (wire.md §19 row 8).
    pub container: Option<String>,
    /// File ids to be put into the input directory, each once, in the order of the conversation: those that came after the last
    /// completed assistant turn (wire.md §8.1), or all of them when the request names no container, because a fresh container
    /// has none of the earlier ones.
    pub uploads: Vec<String>,
    /// The declared version of the code execution tool.
    pub has_code_execution: Option<ToolVersion>,
    /// See [`PlanContext::samplings_max`].
    pub samplings_max: u32,
    /// The first request to the model; later ones differ in their history and budget.
    pub(crate) sampling: SamplingRequest,
    /// Calls of an earlier reply that are run before the model is asked.
    pub(crate) deferred: Vec<DeferredCall>,
}

/// A server call that an earlier reply left without a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeferredCall {
    pub(crate) id: ServerToolUseId,
    pub(crate) sub_tool: SubTool,
    pub(crate) call: Result<ServerCall, InvalidInput>,
}

impl TurnPlan {
    /// Whether calls of an earlier reply are run before the model is asked.
    pub fn runs_deferred_calls(&self) -> bool {
        !self.deferred.is_empty()
    }
}

/// Resolves a request, or rejects it.
///
/// # Errors
/// What the client is to be told (wire.md §19).
pub fn plan(request: MessagesRequest, context: &PlanContext<'_>) -> Result<TurnPlan, ApiError> {
    Ok(TurnPlan {
        model: request.model.clone(),
        stream: request.stream,
        container: request.container.and_then(|container| container.id),
        uploads: Vec::new(),
        has_code_execution: None,
        samplings_max: context.samplings_max,
        sampling: SamplingRequest {
            model: request.model,
            max_tokens: request.max_tokens,
            system: request.system,
            messages: request.messages,
            tools: Vec::new(),
            tool_choice: request.tool_choice,
            stop_sequences: request.stop_sequences,
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            thinking: request.thinking,
            user_id: request.user_id,
            rest: request.rest,
            betas: context.betas.values().to_vec(),
        },
        deferred: Vec::new(),
    })
}
