//! The loop: sample, run what the model called, sample again, until the reply ends.

mod host;
mod hosted;
mod reply;
mod sampling;
mod transcript;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use belljar_ids::{IdSource, MessageId, RequestId, ServerToolUseId, ToolUseId};
use belljar_wire::block::{ContentBlock, ResultBody, ServerResultBlock, ToolUseBlock};
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::read::Brief;
use belljar_wire::result::{ErrorCode, NoAbort, ResultContent};
use belljar_wire::sampling::{ModelTool, SamplingEvent, SamplingRequest};
use belljar_wire::tool::{SubTool, ToolChoiceMode};
use serde_json::{Map, Value};

use crate::call::{AnsweredBy, CodeTool, Interpreter, code_of, error_result, sub_tool_of};
use crate::context::CALLS_AT_ONCE_MAX;
use crate::effect::{CodeCall, Effect, Input, PendingCall, TurnEnd};
use crate::input_text::Verdict;
use crate::plan::{DeferredCall, Resume, TurnPlan};
use crate::runtime::Runtime;
use host::Asked;
use hosted::Hosted;
use reply::{Ending, Reply};
use sampling::{Calls, Sampled, Sampling, Sinks};
use transcript::Transcript;

/// The least that the vendor's models accept as `thinking.budget_tokens`.
const THINKING_TOKENS_MIN: u64 = 1024;

/// One reply in the making.
pub struct Turn {
    phase: Phase,
    reply: Reply,
    transcript: Transcript,
    /// What every sampling of the turn has in common; its messages are the transcript's.
    template: SamplingRequest,
    /// What code runs with.
    runtime: Option<Runtime>,
    /// What the vendor runs.
    hosted: Hosted,
    tokens_max: u64,
    rounds_max: u32,
    rounds: u32,
    pausing: bool,
    ids: Box<dyn IdSource + Send>,
}

/// What the turn waits for.
enum Phase {
    /// The model.
    Sampling(Sampling),
    /// A cell, with others of its batch behind it.
    RunningCells(Batch),
    /// Nothing.
    Over,
}

/// Server calls being run, in the model's order, one at a time (wire.md §6).
struct Batch {
    running: ServerToolUseId,
    sub_tool: SubTool,
    waiting: VecDeque<DeferredCall>,
    nobody: Vec<(ToolUseId, String)>,
    /// Calls of its code that are being answered here.
    asked: Vec<Asked>,
}

impl Turn {
    /// Starts a turn. `request_id` stands in an `error` event, should one be needed; `ids` names the reply and its server calls.
    pub fn start(plan: TurnPlan, request_id: RequestId, mut ids: Box<dyn IdSource + Send>) -> (Self, Vec<Effect>) {
        let message_id = MessageId::mint(ids.as_mut());
        let mut template = plan.sampling;
        let hosted = Hosted::of(&template);
        let messages = std::mem::take(&mut template.messages);
        let mut turn = Self {
            phase: Phase::Sampling(Sampling::default()),
            reply: Reply::new(message_id, plan.model, request_id),
            transcript: Transcript::new(messages),
            tokens_max: template.max_tokens,
            template,
            runtime: plan.runtime,
            hosted,
            rounds_max: plan.samplings_max,
            rounds: 0,
            pausing: false,
            ids,
        };
        let waiting = VecDeque::from(plan.deferred);
        // With cells to run, the head goes out at once, though no model was asked: results are to be seen when they are there.
        match plan.resume {
            Some(resume) => {
                turn.resume(resume, waiting);
                turn.reply.start(Usage::default());
            }
            None if waiting.is_empty() => turn.sample(),
            None => {
                turn.reply.start(Usage::default());
                turn.go_on(waiting, Vec::new());
            }
        }
        let effects = turn.reply.take_effects();
        (turn, effects)
    }

    /// Takes what happened, and says what to do about it. Empty once the turn is over.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        if self.over() {
            // What was under way when the turn ended may still report.
            return Vec::new();
        }
        match input {
            Input::Sampled(event) => self.sampled(event),
            Input::SamplingFailed(error) => match self.phase {
                Phase::Sampling(_) => {
                    self.phase = Phase::Over;
                    self.reply.fail(error);
                }
                // The connection broke after the sampling's last event: nothing is lost.
                Phase::RunningCells(_) | Phase::Over => {}
            },
            Input::CellEnded { id, result, container } => self.cell_ended(id, result, container),
            Input::CellCalled { id, calls, container } => self.cell_called(id, calls, container),
            Input::HostToolsAnswered { id, answers } => self.host_tools_answered(&id, answers),
            Input::ClientGone => {
                self.cancel();
                self.reply.ask(Effect::Finish(TurnEnd::Abandoned));
            }
            Input::Stopping => self.pausing = true,
        }
        self.reply.take_effects()
    }

    /// Whether the last effect has been handed out.
    pub fn over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The id of the reply.
    pub fn message_id(&self) -> &MessageId {
        &self.reply.message_id
    }

    fn sampled(&mut self, event: SamplingEvent) {
        let Phase::Sampling(sampling) = &mut self.phase else {
            return self.fail(broken("an event of no sampling"));
        };
        let mut sinks = Sinks {
            reply: &mut self.reply,
            transcript: &mut self.transcript,
            tools: &self.template.tools,
            runtime: self.runtime.as_ref(),
            hosted: &mut self.hosted,
            ids: self.ids.as_mut(),
        };
        match sampling.take(event, &mut sinks) {
            Ok(None) => {}
            Ok(Some(sampled)) => self.sampling_ended(sampled),
            Err(error) => self.fail(error),
        }
    }

    fn sampling_ended(&mut self, sampled: Sampled) {
        let Sampled { ending, usage, calls } = sampled;
        self.reply.usage.add(&usage);
        match ending.stop_reason {
            StopReason::EndTurn | StopReason::ToolUse | StopReason::PauseTurn => self.model_paused(ending, calls),
            StopReason::MaxTokens
            | StopReason::StopSequence
            | StopReason::Refusal
            | StopReason::ModelContextWindowExceeded => self.cut_off(ending, calls.server),
        }
    }

    /// The model was stopped in the middle. Nothing runs, not even a call that looks whole; each call is answered in this very
    /// reply, so that no continuation takes a truncated command for one that waits to be run.
    fn cut_off(&mut self, ending: Ending, server: Vec<DeferredCall>) {
        for DeferredCall { id, sub_tool, call } in server {
            let result = match call {
                Ok(_) => error_result(sub_tool, ErrorCode::Unavailable, "not run: the reply was cut off"),
                Err(invalid) => error_result(sub_tool, ErrorCode::InvalidToolInput, &invalid.to_string()),
            };
            self.answer(id, sub_tool, result);
        }
        self.complete(ending);
    }

    /// The model stopped of its own accord. What it called decides how it goes on, whatever it said about its reason.
    fn model_paused(&mut self, ending: Ending, calls: Calls) {
        let Calls { mut server, client, nobody, hosted_spoilt } = calls;
        if hosted_spoilt {
            // What the vendor runs is not what would stand in the conversation.
            return self.fail_over(ApiError::new(
                ErrorKind::Api,
                "The model called a tool of its vendor with an input that is not a JSON object",
            ));
        }
        let run_max = server.len().min(CALLS_AT_ONCE_MAX);
        for DeferredCall { id, sub_tool, .. } in server.split_off(run_max) {
            let text = format!("not run: at most {CALLS_AT_ONCE_MAX} calls are run at once");
            self.answer(id, sub_tool, error_result(sub_tool, ErrorCode::TooManyRequests, &text));
        }
        if !client.is_empty() {
            return self.hand_over(server, &client);
        }
        if server.is_empty() && nobody.is_empty() {
            return match ending.stop_reason {
                // A promise without a call: the client would wait for nothing.
                StopReason::ToolUse => self.complete(Ending::because(StopReason::EndTurn)),
                StopReason::EndTurn
                | StopReason::PauseTurn
                | StopReason::MaxTokens
                | StopReason::StopSequence
                | StopReason::Refusal
                | StopReason::ModelContextWindowExceeded => self.complete(ending),
            };
        }
        self.pausing |= self.rounds >= self.rounds_max;
        self.rounds = self.rounds.saturating_add(1);
        if server.is_empty() && self.pausing {
            // A pause would have nothing that a continuation could go on from.
            return self.complete(Ending::because(StopReason::EndTurn));
        }
        self.go_on(server.into(), nobody);
    }

    /// Client tools were called: the reply ends. Server calls wait until the client's results are there (wire.md §13.2), except for
    /// those that can never run: their input on the wire is not what the model wrote, so they are answered now.
    fn hand_over(&mut self, server: Vec<DeferredCall>, client: &[(String, Verdict)]) {
        let spoilt = client.iter().find(|(_, verdict)| *verdict != Verdict::Whole);
        if let Some((name, _)) = spoilt {
            // Its closed prefix must not be taken for a call that the model made.
            return self.fail_over(ApiError::new(
                ErrorKind::Api,
                format!("The model called `{}` with an input that is not a JSON object", Brief(name)),
            ));
        }
        for DeferredCall { id, sub_tool, call } in server {
            if let Err(invalid) = call {
                let result = error_result(sub_tool, ErrorCode::InvalidToolInput, &invalid.to_string());
                self.answer(id, sub_tool, result);
            }
        }
        self.complete(Ending::because(StopReason::ToolUse));
    }

    /// Runs the next of `waiting`; when none is left, asks the model again. A turn that pauses leaves its calls to the continuation.
    fn go_on(&mut self, mut waiting: VecDeque<DeferredCall>, nobody: Vec<(ToolUseId, String)>) {
        while let Some(DeferredCall { id, sub_tool, call }) = waiting.pop_front() {
            match call {
                Err(invalid) => {
                    let message = invalid.to_string();
                    let result = error_result(sub_tool, ErrorCode::InvalidToolInput, &message);
                    self.answer(id, sub_tool, result);
                }
                Ok(_) if self.pausing => {}
                Ok(call) => {
                    self.phase = Phase::RunningCells(Batch {
                        running: id.clone(),
                        sub_tool,
                        waiting,
                        nobody,
                        asked: Vec::new(),
                    });
                    return self.reply.run_cell(id, call);
                }
            }
        }
        if self.pausing {
            return self.complete(Ending::because(StopReason::PauseTurn));
        }
        for (id, name) in nobody {
            let text = no_such_tool(&name, &self.template.tools);
            self.transcript.refused(&id, text);
        }
        self.relax_tool_choice();
        self.sample();
    }

    /// Goes on with a cell of an earlier reply; what waited behind it still does.
    fn resume(&mut self, resume: Resume, waiting: VecDeque<DeferredCall>) {
        let Resume { id, sub_tool, .. } = &resume;
        self.phase = Phase::RunningCells(Batch {
            running: id.clone(),
            sub_tool: *sub_tool,
            waiting,
            nobody: Vec::new(),
            asked: Vec::new(),
        });
        let tools = self.callable();
        self.reply.resume_cell(resume, tools);
    }

    /// What code may call.
    fn callable(&self) -> Arc<[CodeTool]> {
        self.runtime.as_ref().map(|runtime| Arc::clone(&runtime.tools)).unwrap_or_default()
    }

    /// Code called tools. Ours are answered first, and the code goes on with that; where it waits for the client alone, the cell is parked, and the reply ends with the calls, each of them whole (wire.md §10.3,
    /// §11.4). What waits behind the cell is left to the continuation.
    fn cell_called(&mut self, id: ServerToolUseId, calls: Vec<CodeCall>, container: ContainerInfo) {
        let sub_tool = match &self.phase {
            Phase::RunningCells(batch) if batch.running == id && batch.asked.is_empty() => batch.sub_tool,
            Phase::Sampling(_) | Phase::RunningCells(_) | Phase::Over => {
                return self.fail(broken("calls of no running cell"));
            }
        };
        let calls_tools = match sub_tool {
            SubTool::CodeExecution | SubTool::BashCodeExecution => !calls.is_empty(),
            SubTool::TextEditorCodeExecution => false,
        };
        let tools = self.callable();
        let callable: HashMap<&str, AnsweredBy> =
            tools.iter().map(|tool| (tool.name.as_str(), tool.answered_by)).collect();
        if !calls_tools || !calls.iter().all(|call| callable.contains_key(call.tool.as_str())) {
            return self.fail(broken("a call that the cell cannot have made"));
        }
        let of_host = |call: &CodeCall| callable.get(call.tool.as_str()).is_some_and(|by| *by != AnsweredBy::Client);
        if calls.iter().any(of_host) {
            return self.call_host_tools(id, calls, &callable);
        }
        let Some(cell) = self.transcript.call(&id).cloned() else {
            return self.fail(broken("calls of a cell that the model did not call"));
        };
        let mut pending = Vec::with_capacity(calls.len());
        for CodeCall { number, tool, input } in calls {
            let tool_use_id = ToolUseId::mint_in(&id, self.ids.as_mut());
            pending.push(PendingCall { tool_use_id: tool_use_id.clone(), number });
            if let Err(error) = self.reply.whole_from_code(called_from_code(tool_use_id, tool, input, &id)) {
                return self.fail(error);
            }
        }
        self.reply.container = Some(container);
        self.reply.ask(Effect::Park { call: cell, pending });
        self.complete(Ending::because(StopReason::ToolUse));
    }

    fn cell_ended(&mut self, id: ServerToolUseId, result: ResultContent, container: Option<ContainerInfo>) {
        let batch = match &mut self.phase {
            Phase::RunningCells(batch) if batch.running == id && batch.asked.is_empty() => batch,
            Phase::Sampling(_) | Phase::RunningCells(_) | Phase::Over => {
                return self.fail(broken("a result of no running cell"));
            }
        };
        let sub_tool = batch.sub_tool;
        if sub_tool_of(&result) != sub_tool {
            return self.fail(broken("a result of another sub-tool"));
        }
        let waiting = std::mem::take(&mut batch.waiting);
        let nobody = std::mem::take(&mut batch.nobody);
        if container.is_some() {
            self.reply.container = container;
        }
        let interpreter = self.runtime.as_ref().map(|runtime| runtime.interpreter);
        self.answer(id, sub_tool, in_the_versions_form(result, interpreter));
        self.go_on(waiting, nobody);
    }

    /// A whole result block, for the client and for the model.
    fn answer(&mut self, id: ServerToolUseId, sub_tool: SubTool, result: ResultContent) {
        let block = ServerResultBlock { tool_use_id: id, content: ResultBody::Made(result), rest: Map::new() };
        let block = match sub_tool {
            SubTool::CodeExecution => ContentBlock::CodeExecutionToolResult(block),
            SubTool::BashCodeExecution => ContentBlock::BashCodeExecutionToolResult(block),
            SubTool::TextEditorCodeExecution => ContentBlock::TextEditorCodeExecutionToolResult(block),
        };
        self.transcript.said(block.clone());
        self.reply.whole(block);
    }

    /// Asks the model, if there are tokens left to ask for.
    fn sample(&mut self) {
        let tokens_left = self.tokens_max.saturating_sub(self.reply.usage.output_tokens);
        if tokens_left == 0 || !self.fit_thinking(tokens_left) {
            return self.complete(Ending::because(StopReason::MaxTokens));
        }
        self.template.max_tokens = tokens_left;
        let request = SamplingRequest { messages: self.transcript.messages().to_vec(), ..self.template.clone() };
        self.phase = Phase::Sampling(Sampling::default());
        self.reply.ask(Effect::Sample(Box::new(request)));
    }

    /// A thinking budget must be below the tokens left, which shrink with each sampling. What the client sent is left alone.
    fn fit_thinking(&mut self, tokens_left: u64) -> bool {
        let first = tokens_left == self.tokens_max;
        let thinking = self.template.thinking.as_mut();
        let budget = thinking.and_then(|thinking| thinking.get_mut("budget_tokens"));
        let (Some(budget), false) = (budget, first) else {
            return true;
        };
        match budget.as_u64() {
            Some(tokens) if tokens >= tokens_left => {
                *budget = (tokens_left - 1).into();
                tokens_left > THINKING_TOKENS_MIN
            }
            Some(_) | None => true,
        }
    }

    /// A forced choice is met by the first sampling; kept up, it would never let the model end.
    fn relax_tool_choice(&mut self) {
        if let Some(choice) = &mut self.template.tool_choice {
            choice.mode = match std::mem::replace(&mut choice.mode, ToolChoiceMode::Auto) {
                ToolChoiceMode::Any | ToolChoiceMode::Tool(_) | ToolChoiceMode::Auto => ToolChoiceMode::Auto,
                ToolChoiceMode::None => ToolChoiceMode::None,
            };
        }
    }

    fn complete(&mut self, ending: Ending) {
        self.phase = Phase::Over;
        self.reply.complete(ending);
    }

    /// Fails when nothing is under way.
    fn fail_over(&mut self, error: ApiError) {
        self.phase = Phase::Over;
        self.reply.fail(error);
    }

    fn fail(&mut self, error: ApiError) {
        self.cancel();
        self.reply.fail(error);
    }

    /// Ends what is under way.
    fn cancel(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Sampling(_) => self.reply.ask(Effect::CancelSampling),
            Phase::RunningCells(batch) => self.reply.ask(Effect::CancelCell(batch.running)),
            Phase::Over => {}
        }
    }
}

fn called_from_code(id: ToolUseId, name: String, input: Map<String, Value>, cell: &ServerToolUseId) -> ToolUseBlock {
    let caller = Some(code_of(cell));
    ToolUseBlock { id, name, input: Value::Object(input), caller, rest: Map::new() }
}

/// What a Python cell came to, as its version says it: `abort_reason` stands in each, and of the oldest one's stdout the last newline
/// is lost (wire.md §23).
fn in_the_versions_form(mut result: ResultContent, interpreter: Option<Interpreter>) -> ResultContent {
    if let ResultContent::CodeExecutionResult(result) = &mut result {
        result.abort_reason = Some(NoAbort);
        let loses_its_end = match interpreter {
            Some(Interpreter::Fresh) => true,
            Some(Interpreter::Live) | None => false,
        };
        if loses_its_end && result.stdout.ends_with('\n') {
            result.stdout.pop();
        }
    }
    result
}

/// Whoever drives the turn broke the contract.
fn broken(what: &str) -> ApiError {
    ApiError::new(ErrorKind::Api, format!("Internal server error: {what}"))
}

fn no_such_tool(name: &str, tools: &[ModelTool]) -> String {
    let called = |tool: &&ModelTool| !matches!(tool, ModelTool::Hosted(_));
    let known: Vec<&str> = tools.iter().filter(called).filter_map(ModelTool::name).collect();
    if known.is_empty() {
        return format!("There is no tool named `{}`. There are no tools.", Brief(name));
    }
    format!("There is no tool named `{}`. The tools are: {}.", Brief(name), known.join(", "))
}
