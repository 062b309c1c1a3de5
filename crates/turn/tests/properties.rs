//! What holds for every turn, whatever the model says and whatever becomes of its cells.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod course;

use std::collections::{HashMap, HashSet};

use belljar_ids::{RequestId, SeededIds, ServerToolUseId, ToolUseId};
use belljar_turn::{
    CallAnswer, CodeCall, Effect, Input, ModelTraits, PlanContext, ToolLimits, ToolTexts, Turn, TurnEnd, plan,
};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::block::{ContentBlock, ServerToolUseBlock};
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::fold::fold;
use belljar_wire::host_tool::HostToolAnswer;
use belljar_wire::message::{Message, StopReason, Usage};
use belljar_wire::request::{InputMessage, MessagesRequest};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use belljar_wire::tool::{Caller, SubTool};
use course::{Block, INPUTS, NAMES, Step, bash, calls, container, created, python, steps};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A driver that carries out what it is asked to, and keeps an account.
struct World {
    turn: Turn,
    waiting_cell: Option<(ServerToolUseId, SubTool)>,
    parked: Option<(ServerToolUseId, Vec<ToolUseId>)>,
    /// The call of that cell, as the server may remember it.
    calling: Option<ServerToolUseBlock>,
    resumed: Option<ServerToolUseId>,
    /// Whose call of a tool of ours is being answered.
    asked: Option<ServerToolUseId>,
    /// Neighbours of one role in what was sent.
    neighbours: usize,
    sampling: bool,
    started: bool,
    calls: usize,
    runs: HashMap<ServerToolUseId, usize>,
    events: Vec<StreamEvent>,
    end: Option<Effect>,
}

impl World {
    fn new(request: &Value, lost_cells: &[ServerToolUseBlock], samplings_max: u32, seed: u64) -> Self {
        let request = MessagesRequest::read(request.to_string().as_bytes()).unwrap();
        let context = PlanContext {
            api_version: ApiVersion::V20261021,
            betas: &Betas::default(),
            samplings_max,
            limits: ToolLimits::default(),
            texts: ToolTexts::hosted(),
            model: ModelTraits::of("claude-opus-5-5"),
            hosted: None,
            lost_cells,
        };
        let neighbours = neighbours(&request.messages);
        let plan = plan(request, &context).unwrap();
        let request_id: RequestId = "req_01R".parse().unwrap();
        let (turn, effects) = Turn::start(plan, request_id, Box::new(SeededIds::new(seed)));
        let mut world = Self {
            turn,
            waiting_cell: None,
            parked: None,
            calling: None,
            resumed: None,
            asked: None,
            neighbours,
            sampling: false,
            started: false,
            calls: 0,
            runs: HashMap::new(),
            events: Vec::new(),
            end: None,
        };
        world.account(effects);
        world
    }

    fn step(&mut self, input: Input) {
        let over = self.turn.over();
        let effects = self.turn.step(input);
        assert!(!over || effects.is_empty(), "{effects:?} after the end");
        self.account(effects);
    }

    fn account(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert_eq!(self.end, None, "{effect:?} after the end");
            match effect {
                Effect::Emit(event) => self.events.push(event),
                Effect::Sample(request) => {
                    assert!(!self.sampling && self.waiting_cell.is_none());
                    (self.sampling, self.started) = (true, false);
                    self.seen_by_the_model(&request.messages);
                }
                Effect::RunCell { id, call } => {
                    assert!(!self.sampling && self.waiting_cell.is_none());
                    *self.runs.entry(id.clone()).or_default() += 1;
                    self.waiting_cell = Some((id, call.sub_tool()));
                }
                Effect::ResumeCell { id, sub_tool, results, tools } => {
                    assert!(self.events.is_empty() && self.waiting_cell.is_none() && self.resumed.is_none());
                    assert!(!results.is_empty() && results.iter().all(|result| result.text == "noon"));
                    assert_eq!(tools.len(), 3);
                    self.resumed = Some(id.clone());
                    self.waiting_cell = Some((id, sub_tool));
                }
                Effect::CallHostTools { id, calls } => {
                    assert!(!self.sampling && self.asked.is_none());
                    assert_eq!(self.waiting_cell.as_ref().map(|(id, _)| id), Some(&id));
                    assert_eq!(calls.len(), 1);
                    self.asked = Some(id);
                }
                Effect::AnswerCell { id, answers, tools } => {
                    assert_eq!(self.asked.take(), Some(id));
                    assert_eq!(answers, [CallAnswer { number: 99, text: "[]".to_owned(), is_error: false }]);
                    assert_eq!(tools.len(), 3);
                }
                Effect::Park { call, pending } => {
                    let id = call.id.clone();
                    self.calling = Some(call);
                    assert_eq!(self.waiting_cell.take().map(|(id, _)| id).as_ref(), Some(&id));
                    let numbers: Vec<u64> = pending.iter().map(|call| call.number).collect();
                    assert_eq!(numbers, (100..100 + pending.len() as u64).collect::<Vec<_>>());
                    self.parked = Some((id, pending.into_iter().map(|call| call.tool_use_id).collect()));
                }
                Effect::CancelSampling => {
                    assert!(self.waiting_cell.is_none());
                    self.sampling = false;
                }
                Effect::CancelCell(id) => {
                    assert_eq!(self.waiting_cell.take().map(|(id, _)| id), Some(id));
                }
                end @ (Effect::Fail(_) | Effect::Finish(_)) => self.end = Some(end),
            }
        }
        assert_eq!(self.turn.over(), self.end.is_some());
    }

    fn sampled(&mut self, event: SamplingEvent) {
        self.step(Input::Sampled(event));
    }

    /// What code and the client's tools said to each other is nowhere in it, and nothing has lost its other half.
    fn seen_by_the_model(&self, messages: &[InputMessage]) {
        assert!(neighbours(messages) <= self.neighbours);
        let mut called: HashSet<&str> = HashSet::new();
        for block in messages.iter().flat_map(|message| message.content.blocks()) {
            match block {
                ContentBlock::ToolUse(call) => {
                    // The model's own are numbered, those of code are minted.
                    assert!(!from_code(block) && !call.id.as_str().starts_with("toolu_01"), "{call:?}");
                    called.insert(call.id.as_str());
                }
                ContentBlock::ServerToolUse(call) => {
                    assert!(!from_code(block), "{call:?}");
                    called.insert(call.id.as_str());
                }
                ContentBlock::Passive(block) => panic!("{block:?}"),
                ContentBlock::ToolResult(result) => assert!(called.remove(result.tool_use_id.as_str())),
                ContentBlock::CodeExecutionToolResult(result)
                | ContentBlock::BashCodeExecutionToolResult(result)
                | ContentBlock::TextEditorCodeExecutionToolResult(result) => {
                    assert!(called.remove(result.tool_use_id.as_str()));
                }
                _ => {}
            }
        }
        assert!(called.is_empty(), "{called:?} have no result");
    }

    /// Code that runs calls tools.
    fn called(&mut self, count: usize) {
        if let Some((id, SubTool::BashCodeExecution | SubTool::CodeExecution)) = self.waiting_cell.clone() {
            self.step(Input::CellCalled { id, calls: calls(count), container: container() });
            assert!(self.turn.over() && self.parked.is_some());
        }
    }

    /// Code that runs calls a tool of ours, which answers; the calls beside it are made again, or not.
    fn host_called(&mut self, count: usize) {
        if let Some((id, SubTool::BashCodeExecution | SubTool::CodeExecution)) = self.waiting_cell.clone() {
            let input = json!({ "command": "list" }).as_object().cloned().unwrap();
            let ours = CodeCall { number: 99, tool: "belljar_files".to_owned(), input };
            let calls = calls(count).into_iter().chain([ours]).collect();
            self.step(Input::CellCalled { id: id.clone(), calls, container: container() });
            assert!(!self.turn.over() && self.asked.is_some());
            self.step(Input::HostToolsAnswered { id, answers: vec![HostToolAnswer::Text("[]".to_owned())] });
            assert!(!self.turn.over() && self.asked.is_none());
        }
    }

    /// Whatever is in the way of the model's next word.
    fn make_way(&mut self) {
        while let Some((id, sub_tool)) = self.waiting_cell.take() {
            let result = match sub_tool {
                SubTool::BashCodeExecution => bash(),
                SubTool::CodeExecution => python(),
                SubTool::TextEditorCodeExecution => created(),
            };
            self.step(Input::CellEnded { id, result, container: None });
        }
        if self.sampling && !self.started {
            self.started = true;
            self.sampled(SamplingEvent::Started { usage: Usage::default() });
        }
    }

    fn block(&mut self, block: &Block) {
        self.make_way();
        let (start, deltas) = match block {
            Block::Text(text) => (SampledBlock::Text, vec![Delta::TextDelta { text: text.clone() }]),
            Block::Thinking(text) => (
                SampledBlock::Thinking,
                vec![
                    Delta::ThinkingDelta { thinking: text.clone() },
                    Delta::SignatureDelta { signature: "s".to_owned() },
                ],
            ),
            Block::Redacted => (SampledBlock::RedactedThinking { data: "d".to_owned() }, Vec::new()),
            Block::Call { name, input, pieces } => {
                self.calls += 1;
                let id = format!("toolu_{}", self.calls).parse().unwrap();
                let start = SampledBlock::ToolUse { id, name: NAMES[*name].to_owned() };
                let bytes = INPUTS[*input].as_bytes();
                let deltas = bytes.chunks(bytes.len().div_ceil(*pieces).max(1));
                let deltas = deltas
                    .map(|piece| Delta::InputJsonDelta { partial_json: String::from_utf8(piece.to_vec()).unwrap() });
                (start, deltas.collect())
            }
        };
        self.sampled(SamplingEvent::BlockStarted(start));
        for delta in deltas {
            self.sampled(SamplingEvent::BlockDelta(delta));
        }
        self.sampled(SamplingEvent::BlockEnded);
    }

    fn end(&mut self, stop_reason: StopReason) {
        self.make_way();
        if !self.turn.over() {
            self.sampling = false;
            self.sampled(SamplingEvent::Ended {
                stop_reason,
                stop_sequence: None,
                stop_details: None,
                usage: Usage { output_tokens: 7, ..Usage::default() },
            });
        }
    }

    fn play(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Block(block) => self.block(block),
                Step::End(stop_reason) => self.end(*stop_reason),
                Step::Stray(event) => self.sampled(event.clone()),
                Step::StrayCell(result) => self.step(Input::CellEnded {
                    id: "srvtoolu_stray".parse().unwrap(),
                    result: result.clone(),
                    container: None,
                }),
                Step::StrayCalls => self.step(Input::CellCalled {
                    id: "srvtoolu_stray".parse().unwrap(),
                    calls: calls(1),
                    container: container(),
                }),
                Step::Called(count) => self.called(*count),
                Step::HostCalled(count) => self.host_called(*count),
                Step::Pause(count) => {
                    self.block(&Block::Call { name: 3, input: 1, pieces: 1 });
                    self.end(StopReason::ToolUse);
                    self.called(*count);
                }
                Step::Failed => {
                    self.sampling = false;
                    let error = ApiError::new(ErrorKind::Overloaded, "Overloaded");
                    self.step(Input::SamplingFailed(error));
                    // Ignored behind a sampling's end, where there is none to lose.
                }
                Step::Gone => self.step(Input::ClientGone),
                Step::Stopping => self.step(Input::Stopping),
            }
        }
        for _ in 0..3 {
            self.end(StopReason::EndTurn);
        }
        assert!(self.turn.over(), "the turn does not end");
        // Late reports change nothing.
        self.sampled(SamplingEvent::BlockEnded);
        self.step(Input::ClientGone);
    }

    /// What the reply came to, checked against what was run.
    fn reply(&mut self) -> Option<Message> {
        let events = std::mem::take(&mut self.events);
        calls_of_code_are_whole(&events);
        let folded = fold(events);
        match self.end.as_ref().unwrap() {
            Effect::Finish(TurnEnd::Completed(stop_reason)) => {
                let message = folded.unwrap();
                assert_eq!(message.stop_reason, Some(*stop_reason));
                self.tells_what_is_parked(&message);
                Some(message)
            }
            Effect::Fail(_) => {
                assert!(folded.is_err());
                None
            }
            Effect::Finish(TurnEnd::Failed(error)) => {
                let failed = belljar_wire::fold::FoldError::Failed(error.clone());
                assert_eq!(folded, Err(failed));
                None
            }
            Effect::Finish(TurnEnd::Abandoned) => None,
            other => panic!("{other:?} ends no turn"),
        }
    }
}

impl World {
    /// The client can find the cell that waits, and knows what it waits for.
    fn tells_what_is_parked(&self, message: &Message) {
        let made: Vec<&ToolUseId> = message
            .content
            .iter()
            .filter(|block| from_code(block))
            .filter_map(|block| match block {
                ContentBlock::ToolUse(call) => Some(&call.id),
                _ => None,
            })
            .collect();
        match &self.parked {
            None => assert!(made.is_empty()),
            Some((_, pending)) => {
                assert_eq!(made, pending.iter().collect::<Vec<_>>());
                assert_eq!(message.stop_reason, Some(StopReason::ToolUse));
                assert_eq!(message.container, Some(container()));
            }
        }
    }
}

/// Calls that code made have their input at their start, and no pieces (wire.md §11.4).
fn calls_of_code_are_whole(events: &[StreamEvent]) {
    let mut whole = None;
    for event in events {
        match event {
            StreamEvent::ContentBlockStart { index, content_block } => {
                whole = from_code(content_block).then_some(*index);
            }
            StreamEvent::ContentBlockDelta { index, .. } => assert_ne!(whole, Some(*index)),
            _ => {}
        }
    }
}

fn from_code(block: &ContentBlock) -> bool {
    let caller = match block {
        ContentBlock::ToolUse(call) => &call.caller,
        ContentBlock::ServerToolUse(call) => &call.caller,
        _ => return false,
    };
    matches!(caller, Some(Caller::Code(_)))
}

fn neighbours(messages: &[InputMessage]) -> usize {
    messages.windows(2).filter(|pair| pair[0].role == pair[1].role).count()
}

/// Ids of server calls, with the number of their results.
fn answers(content: &[ContentBlock]) -> Vec<(ServerToolUseId, usize)> {
    let results = |id: &ServerToolUseId| {
        let answers = |block: &&ContentBlock| match block {
            ContentBlock::BashCodeExecutionToolResult(result)
            | ContentBlock::TextEditorCodeExecutionToolResult(result)
            | ContentBlock::CodeExecutionToolResult(result) => result.tool_use_id == *id,
            ContentBlock::Passive(result) => result.members["tool_use_id"] == id.as_str(),
            _ => false,
        };
        content.iter().filter(answers).count()
    };
    let calls = content.iter().filter_map(|block| match block {
        ContentBlock::ServerToolUse(call) => Some((call.id.clone(), results(&call.id))),
        _ => None,
    });
    calls.collect()
}

fn request(messages: &[Value]) -> Value {
    json!({
        "model": "claude-opus-5-5",
        "max_tokens": 100_000,
        "messages": messages,
        "container": "container_01A",
        "tools": [
            { "type": "code_execution_20260521", "name": "code_execution" },
            { "name": "get_time", "input_schema": { "type": "object" } },
            { "name": "query_db", "input_schema": { "type": "object" },
              "allowed_callers": ["direct", "code_execution_20260521"] },
            { "type": "belljar_files_20261129", "name": "belljar_files" },
            { "name": "find-it", "input_schema": { "type": "object" }, "allowed_callers": ["code_execution_20260120"] },
        ],
    })
}

/// What a client makes of the `caller` of a call when it sends that back (wire.md §19).
#[derive(Clone, Copy, Debug)]
enum SentBack {
    Kept,
    Lost,
    Direct,
    Strange,
    /// And the call of the code that waits is lost, too.
    LostWithTheCell,
}

impl SentBack {
    fn sent_back(self, content: &mut Value) {
        let calls = content.as_array_mut().unwrap().iter_mut();
        for call in calls.filter(|block| block["type"] == "tool_use") {
            match self {
                Self::Kept => {}
                Self::Lost | Self::LostWithTheCell => drop(call.as_object_mut().unwrap().remove("caller")),
                Self::Direct => call["caller"] = json!({ "type": "direct" }),
                Self::Strange if call["id"].as_str().unwrap().starts_with("toolu_01") => {
                    call["caller"] = json!({ "type": "code_execution_20260120", "tool_id": "srvtoolu_stray" });
                }
                Self::Strange => {}
            }
        }
    }
}

/// What a client sends of its messages while a cell waits.
fn sent(messages: &[Value], waiting: Option<&ServerToolUseId>, callers: SentBack) -> Vec<Value> {
    let mut messages = messages.to_vec();
    if let (Some(waiting), SentBack::LostWithTheCell) = (waiting, callers) {
        for content in messages.iter_mut().filter_map(|message| message["content"].as_array_mut()) {
            content.retain(|block| block["type"] != "server_tool_use" || block["id"] != waiting.as_str());
        }
        // A message that had nothing else is not sent.
        messages.retain(|message| message["content"].as_array().is_none_or(|content| !content.is_empty()));
    }
    messages
}

/// The messages with which a client goes on from `message`, if it can.
fn continuation(mut messages: Vec<Value>, message: &Message, callers: SentBack) -> Option<Vec<Value>> {
    let mut content = serde_json::to_value(&message.content).unwrap();
    callers.sent_back(&mut content);
    let calls: Vec<Value> = message
        .content
        .iter()
        .filter_map(|block| match block {
            ContentBlock::ToolUse(call) => Some(json!({
                "type": "tool_result", "tool_use_id": call.id, "content": "noon" })),
            _ => None,
        })
        .collect();
    if message.content.is_empty() {
        return None;
    }
    messages.push(json!({ "role": "assistant", "content": content }));
    match message.stop_reason.unwrap() {
        StopReason::ToolUse => messages.push(json!({ "role": "user", "content": calls })),
        // A pause of the model's own may end in a text, from which this model does not go on.
        StopReason::PauseTurn if answers(&message.content).is_empty() => return None,
        StopReason::PauseTurn
            if matches!(
                message.content.last(),
                Some(ContentBlock::Text(_) | ContentBlock::Thinking(_) | ContentBlock::RedactedThinking(_))
            ) && answers(&message.content).iter().all(|(_, results)| *results == 1) =>
        {
            return None;
        }
        StopReason::PauseTurn => {}
        // A cut-off reply with a client's call in it is the client's to mend.
        _ if !calls.is_empty() => return None,
        _ => messages.push(json!({ "role": "user", "content": "go on" })),
    }
    Some(messages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn every_turn_ends_and_folds(steps in steps(true), samplings_max in 0_u32..4) {
        let mut world = World::new(&request(&[json!({ "role": "user", "content": "hi" })]), &[], samplings_max, 1);
        world.play(&steps);
        world.reply();
        prop_assert!(world.runs.values().all(|runs| *runs == 1));
    }

    /// A conversation of several turns: each reply is accepted back, whatever is left of its callers, and each call is answered once
    /// in all.
    #[test]
    fn every_reply_can_be_gone_on_from(
        turns in prop::collection::vec(steps(false), 1..4),
        samplings_max in 0_u32..3,
        callers in prop::sample::select(&[SentBack::Kept, SentBack::Lost, SentBack::Direct, SentBack::Strange, SentBack::LostWithTheCell][..]),
    ) {
        let mut messages = vec![json!({ "role": "user", "content": "hi" })];
        let mut waiting: Vec<ServerToolUseId> = Vec::new();
        let mut still_parked: Option<ServerToolUseId> = None;
        let mut calling: Vec<ServerToolUseBlock> = Vec::new();
        for (seed, steps) in (1..).zip(&turns) {
            let sent = sent(&messages, still_parked.as_ref(), callers);
            let mut world = World::new(&request(&sent), &calling, samplings_max, seed);
            world.play(steps);
            let runs = world.runs.clone();
            let (was_parked, parked) = (still_parked.take(), world.parked.clone());
            prop_assert_eq!(&world.resumed, &was_parked);
            calling.extend(world.calling.clone());
            let Some(message) = world.reply() else { break };
            let stop_reason = message.stop_reason.unwrap();
            let mut left = Vec::new();
            for (id, results) in answers(&message.content) {
                if results == 0 {
                    prop_assert!(matches!(stop_reason, StopReason::ToolUse | StopReason::PauseTurn), "{stop_reason:?}");
                    let waits = parked.as_ref().is_some_and(|(parked, _)| *parked == id);
                    prop_assert_eq!(runs.contains_key(&id), waits);
                    left.push(id);
                } else {
                    prop_assert_eq!(results, 1);
                }
            }
            // What waited heads this reply, in order, unless the server stopped before it could run.
            let of_code = |block: &&ContentBlock| from_code(block) || matches!(block, ContentBlock::Passive(_));
            let heads = message.content.iter().filter(|block| !of_code(block)).map_while(|block| match block {
                ContentBlock::BashCodeExecutionToolResult(result)
                | ContentBlock::CodeExecutionToolResult(result)
                | ContentBlock::TextEditorCodeExecutionToolResult(result) => Some(&result.tool_use_id),
                _ => None,
            });
            let heads: Vec<_> = heads.cloned().collect();
            prop_assert!(heads.iter().all(|id| waiting.contains(id)));
            waiting.retain(|id| !heads.contains(id));
            prop_assert!(waiting.is_empty() || stop_reason == StopReason::PauseTurn || parked.is_some());
            waiting.extend(left);
            // One that was parked goes on before all others; one that parks now is one that waited or was just called.
            if let Some(was_parked) = &was_parked {
                let again = parked.as_ref().is_some_and(|(parked, _)| parked == was_parked);
                prop_assert!(again || heads.first() == Some(was_parked));
            }
            if let Some((cell, _)) = parked {
                prop_assert!(waiting.contains(&cell));
                still_parked = Some(cell);
            }
            let Some(next) = continuation(messages, &message, callers) else { break };
            messages = next;
        }
    }
}
