//! From what was sent to what will be done: every rule checked before the first sampling.

mod history;
mod rules;

use std::collections::HashSet;

use belljar_ids::ServerToolUseId;
use belljar_wire::block::{ContentBlock, ServerToolUseBlock};
use belljar_wire::error::ApiError;
use belljar_wire::request::{MessagesRequest, Role};
use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::{SubTool, ToolChoice, ToolChoiceMode, ToolVersion};

use crate::call::{InvalidInput, ServerCall};
use crate::context::PlanContext;
use crate::tools::{lower, offered};
use history::{History, Stretch};
use rules::Draft;

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
    let history = History::of(&request.messages);
    let draft = Draft { request: &request, context, history: &history };
    rules::check(&draft)?;
    let has_code_execution = draft.code_execution().map(|tool| tool.version);
    let container = request.container.as_ref();
    let container = container.and_then(|container| container.id.clone());
    let uploads = match (has_code_execution, &container) {
        (None, _) => Vec::new(),
        (Some(_), None) => uploads(&history.stretches),
        (Some(_), Some(_)) => uploads(history.current_turn()),
    };
    let deferred = history.pending.iter().filter_map(|call| deferred(call));
    let deferred = deferred.collect();
    Ok(TurnPlan {
        model: request.model.clone(),
        stream: request.stream,
        container,
        uploads,
        has_code_execution,
        samplings_max: context.samplings_max,
        deferred,
        sampling: sampling(request, context, has_code_execution),
    })
}

/// File ids of the uploads in these stretches, each once, in order.
fn uploads(stretches: &[Stretch<'_>]) -> Vec<String> {
    let mut seen = HashSet::new();
    let users = stretches.iter().filter(|stretch| stretch.role == Role::User);
    let files = users.flat_map(|stretch| stretch.blocks()).filter_map(|(_, block)| {
        let ContentBlock::ContainerUpload(upload) = block else {
            return None;
        };
        Some(&upload.file_id)
    });
    files.filter(|file_id| seen.insert(*file_id)).cloned().collect()
}

/// A waiting call, read again from what the client sent back: it may have been edited. The rules have made sure that it is one of
/// ours.
fn deferred(call: &ServerToolUseBlock) -> Option<DeferredCall> {
    let sub_tool = SubTool::from_name(&call.name)?;
    Some(DeferredCall { id: call.id.clone(), sub_tool, call: ServerCall::read(sub_tool, &call.input) })
}

fn sampling(request: MessagesRequest, context: &PlanContext<'_>, version: Option<ToolVersion>) -> SamplingRequest {
    SamplingRequest {
        model: request.model,
        max_tokens: request.max_tokens,
        system: request.system,
        messages: request.messages,
        tools: lower(request.tools, &context.limits),
        tool_choice: request.tool_choice.map(|choice| lower_choice(choice, version)),
        stop_sequences: request.stop_sequences,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        thinking: request.thinking,
        user_id: request.user_id,
        rest: request.rest,
        betas: context.betas.values().to_vec(),
    }
}

/// A choice of the code execution tool itself becomes one of its first sub-tool, which is what the model sees.
fn lower_choice(choice: ToolChoice, version: Option<ToolVersion>) -> ToolChoice {
    let first = version.and_then(|version| offered(version).first());
    let mode = match (choice.mode, first) {
        (ToolChoiceMode::Tool(name), Some(sub_tool)) if name == "code_execution" => {
            ToolChoiceMode::Tool(sub_tool.name().to_owned())
        }
        (mode, _) => mode,
    };
    ToolChoice { mode, ..choice }
}
