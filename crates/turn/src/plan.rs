//! From what was sent to what will be done: every rule checked before the first sampling.

mod code_calls;
mod history;
mod rules;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use belljar_ids::ServerToolUseId;
use belljar_wire::block::{Content, ContentBlock, ServerToolUseBlock, TextBlock};
use belljar_wire::error::ApiError;
use belljar_wire::media::{FileMention, mentions};
use belljar_wire::request::{InputMessage, MessagesRequest, Role, System};
use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::{CodeExecutionTool, SubTool, Tool, ToolChoice, ToolChoiceMode, ToolVersion};
use serde_json::Map;

use crate::call::{InvalidInput, ServerCall};
use crate::context::PlanContext;
use crate::effect::CallResult;
use crate::runtime::{Runtime, declared};
use crate::texts::TextPlace;
use crate::tools::lower;
pub use code_calls::lost_cells;
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
    /// Where images and documents name files that the model is to see, in the order of the conversation. The model has none of our
    /// files, so whoever asks it shows it what is in them; the conversation itself stays as it was sent.
    pub shown: Vec<FileMention>,
    /// The version of the code execution tool: the declared one, or the one that stands in for it where nothing is declared but
    /// tools that code may call (wire.md §23).
    pub has_code_execution: Option<ToolVersion>,
    /// The cell that this request goes on with, parked in [`TurnPlan::container`]. Whether it is still there is found out where
    /// containers live.
    pub resume: Option<Resume>,
    /// See [`PlanContext::samplings_max`].
    pub samplings_max: u32,
    /// What code runs with; none when the request has no use for code.
    pub(crate) runtime: Option<Runtime>,
    /// The first request to the model; later ones differ in their history and budget.
    pub(crate) sampling: SamplingRequest,
    /// Calls of an earlier reply that are run before the model is asked.
    pub(crate) deferred: Vec<DeferredCall>,
}

/// A cell of an earlier reply that waits for what the client sends now (wire.md §10.4).
#[derive(Clone, Debug, PartialEq)]
pub struct Resume {
    /// The call whose code waits.
    pub id: ServerToolUseId,
    /// What was called.
    pub sub_tool: SubTool,
    /// One for each of the calls of its code, in their order.
    pub results: Vec<CallResult>,
}

/// A server call that an earlier reply left without a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeferredCall {
    pub(crate) id: ServerToolUseId,
    pub(crate) sub_tool: SubTool,
    pub(crate) call: Result<ServerCall, InvalidInput>,
}

impl TurnPlan {
    /// Whether cells of an earlier reply come before the model is asked: one that is resumed, or calls that were left to run.
    pub fn begins_with_cells(&self) -> bool {
        self.resume.is_some() || !self.deferred.is_empty()
    }

    /// The first request to the model, for whoever only wants to know how large it is.
    pub fn into_sampling(self) -> SamplingRequest {
        self.sampling
    }

    /// What makes a request that runs calls of an earlier reply the same as another: those calls and the whole conversation. None
    /// when it runs none.
    pub fn deferred_digest(&self) -> Option<u64> {
        if self.deferred.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (&self.model, self.sampling.max_tokens).hash(&mut hasher);
        for call in self.deferred_calls() {
            call.hash(&mut hasher);
        }
        for message in &self.sampling.messages {
            // Never fails: the messages came over the wire.
            serde_json::to_vec(message).unwrap_or_default().hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    /// The calls of earlier replies that will be run, from their beginning.
    pub fn deferred_calls(&self) -> impl Iterator<Item = &ServerToolUseId> {
        self.deferred.iter().map(|call| &call.id)
    }
}

/// Resolves a request, or rejects it.
///
/// # Errors
/// What the client is to be told (wire.md §19).
pub fn plan(mut request: MessagesRequest, context: &PlanContext<'_>) -> Result<TurnPlan, ApiError> {
    declare_code_execution(&mut request, context);
    code_calls::mend(&mut request.messages, context.lost_cells);
    let runtime = Runtime::of(&request.tools);
    let history = History::of(&request.messages);
    rules::check(&Draft { request: &request, context, history: &history, runtime: runtime.as_ref() })?;
    let container = request.container.as_ref();
    let container = container.and_then(|container| container.id.clone());
    let uploads = match (&runtime, &container) {
        (None, _) => Vec::new(),
        (Some(_), None) => uploads(&history.stretches),
        (Some(_), Some(_)) => uploads(history.current_turn()),
    };
    let shown = shown(&request.messages);
    let resume = history.parked.as_ref().and_then(|parked| code_calls::resume(parked, &history));
    let resumed = |call: &ServerToolUseBlock| resume.as_ref().is_some_and(|resume| resume.id == call.id);
    let waiting = history.pending.iter().filter(|call| !resumed(call));
    let deferred = waiting.filter_map(|call| deferred(call, runtime.as_ref()?)).collect();
    Ok(TurnPlan {
        model: request.model.clone(),
        stream: request.stream,
        container,
        uploads,
        shown,
        has_code_execution: runtime.as_ref().map(|runtime| runtime.version),
        resume,
        samplings_max: context.samplings_max,
        deferred,
        sampling: sampling(request, context, runtime.as_ref()),
        runtime,
    })
}

/// `code_execution: true` is the newest version of the tool that the model takes, declared. Beside a declared tool it stays, to be
/// refused.
fn declare_code_execution(request: &mut MessagesRequest, context: &PlanContext<'_>) {
    if !request.code_execution || declared(&request.tools).is_some() {
        return;
    }
    let refused = |tag: &str| context.model.tool_types_refused.contains(&tag);
    let taken = ToolVersion::ALL.into_iter().rev().find(|(_, tag)| !refused(tag));
    // A model that takes none is told so by its rule.
    let version = taken.map_or(ToolVersion::V20260521, |(version, _)| version);
    let tool =
        CodeExecutionTool { version, allowed_callers: None, cache_control: None, defer_loading: false, strict: false };
    request.tools.push(Tool::CodeExecution(tool));
    request.code_execution = false;
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

/// What is shown by file id. Unlike uploads, all of the conversation counts: the model reads it anew each time.
fn shown(messages: &[InputMessage]) -> Vec<FileMention> {
    let blocks = messages.iter().enumerate().flat_map(|(index, message)| {
        let blocks = message.content.blocks().iter().enumerate();
        blocks.map(move |(place, block)| (index, place, block))
    });
    let found =
        blocks.flat_map(|(index, place, block)| mentions(block, &format_args!("messages.{index}.content.{place}")));
    found.collect()
}

/// A waiting call, read again from what the client sent back: it may have been edited. The rules have made sure that it is one of
/// ours.
fn deferred(call: &ServerToolUseBlock, runtime: &Runtime) -> Option<DeferredCall> {
    let sub_tool = SubTool::from_name(&call.name)?;
    Some(DeferredCall { id: call.id.clone(), sub_tool, call: ServerCall::read(sub_tool, &call.input, runtime) })
}

fn sampling(request: MessagesRequest, context: &PlanContext<'_>, runtime: Option<&Runtime>) -> SamplingRequest {
    SamplingRequest {
        model: request.model,
        max_tokens: request.max_tokens,
        system: match runtime {
            Some(_) => told_to_system(request.system, context.texts.text(TextPlace::System)),
            None => request.system,
        },
        messages: code_calls::left_out(request.messages),
        tools: lower(request.tools, runtime, &context.limits, context.texts),
        tool_choice: request.tool_choice.map(|choice| lower_choice(choice, runtime)),
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

/// The system prompt with ours behind it: what a cache keeps of the client's stands before.
fn told_to_system(system: Option<System>, text: &str) -> Option<System> {
    if text.is_empty() {
        return system;
    }
    let content = match system.map(|system| system.content) {
        None => Content::Text(text.to_owned()),
        Some(Content::Text(said)) if said.is_empty() => Content::Text(text.to_owned()),
        Some(Content::Text(said)) => Content::Text(format!("{said}\n\n{text}")),
        Some(Content::Blocks(mut blocks)) => {
            let text = TextBlock { text: text.to_owned(), citations: None, rest: Map::new() };
            blocks.push(ContentBlock::Text(text));
            Content::Blocks(blocks)
        }
    };
    Some(System { content })
}

/// A choice of the code execution tool itself is one of its Python cells where the model sees them, which have its name, else of
/// its first sub-tool.
fn lower_choice(choice: ToolChoice, runtime: Option<&Runtime>) -> ToolChoice {
    let chosen = runtime.filter(|runtime| !runtime.offers(SubTool::CodeExecution));
    let mode = match (choice.mode, chosen.and_then(|runtime| runtime.offered.first())) {
        (ToolChoiceMode::Tool(name), Some(sub_tool)) if name == SubTool::CodeExecution.name() => {
            ToolChoiceMode::Tool(sub_tool.name().to_owned())
        }
        (mode, _) => mode,
    };
    ToolChoice { mode, ..choice }
}
