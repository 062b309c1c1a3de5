//! What holds for every turn, whatever the model says and whatever becomes of its cells.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;

use belljar_ids::{RequestId, SeededIds, ServerToolUseId};
use belljar_turn::{Effect, Input, ModelTraits, PlanContext, ServerCall, ToolLimits, Turn, TurnEnd, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::block::ContentBlock;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::fold::fold;
use belljar_wire::message::{Message, StopReason, Usage};
use belljar_wire::request::MessagesRequest;
use belljar_wire::result::{BashResult, CreateResult, ResultContent};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 5] = ["bash_code_execution", "text_editor_code_execution", "get_time", "code_execution", "made_up"];

const INPUTS: [&str; 8] = [
    r#"{"command":"ls"}"#,
    r#"{"command":"create","path":"a","file_text":"b"}"#,
    r#"{"zone":"UTC","n":[1,{"a":"\ud83d\ude00"}]}"#,
    "{}",
    "",
    r#"{"command":"rm -rf /tmp/"#,
    r#"{"command":'x'}"#,
    "[1]",
];

/// One block of a well-behaved model.
#[derive(Clone, Debug)]
enum Block {
    Text(String),
    Thinking(String),
    Redacted,
    Call { name: usize, input: usize, pieces: usize },
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Block(Block),
    End(StopReason),
    /// An event out of place, perhaps.
    Stray(SamplingEvent),
    StrayCell(ResultContent),
    Failed,
    Gone,
    Stopping,
}

fn stop_reason() -> impl Strategy<Value = StopReason> {
    prop_oneof![
        6 => Just(StopReason::ToolUse),
        2 => Just(StopReason::EndTurn),
        1 => Just(StopReason::MaxTokens),
        1 => Just(StopReason::StopSequence),
        1 => Just(StopReason::PauseTurn),
        1 => Just(StopReason::Refusal),
        1 => Just(StopReason::ModelContextWindowExceeded),
    ]
}

fn block() -> impl Strategy<Value = Block> {
    prop_oneof![
        2 => "\\PC{0,8}".prop_map(Block::Text),
        1 => "\\PC{0,8}".prop_map(Block::Thinking),
        1 => Just(Block::Redacted),
        8 => (0..NAMES.len(), 0..INPUTS.len(), 1_usize..5)
            .prop_map(|(name, input, pieces)| Block::Call { name, input, pieces }),
    ]
}

fn bash() -> ResultContent {
    ResultContent::BashCodeExecutionResult(BashResult {
        stdout: "out".to_owned(),
        stderr: String::new(),
        return_code: 0,
        content: Vec::new(),
    })
}

fn created() -> ResultContent {
    ResultContent::TextEditorCodeExecutionCreateResult(CreateResult { is_file_update: false })
}

fn stray() -> impl Strategy<Value = SamplingEvent> {
    prop_oneof![
        Just(SamplingEvent::Started { usage: Usage::default() }),
        Just(SamplingEvent::BlockEnded),
        Just(SamplingEvent::BlockStarted(SampledBlock::Text)),
        Just(SamplingEvent::BlockDelta(Delta::TextDelta { text: "x".to_owned() })),
        Just(SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json: "{".to_owned() })),
    ]
}

fn steps(strays: bool) -> impl Strategy<Value = Vec<Step>> {
    let weight = u32::from(strays);
    let step = prop_oneof![
        40 => block().prop_map(Step::Block),
        20 => stop_reason().prop_map(Step::End),
        2 => Just(Step::Stopping),
        weight => stray().prop_map(Step::Stray),
        weight => prop_oneof![Just(bash()), Just(created())].prop_map(Step::StrayCell),
        weight => Just(Step::Failed),
        weight => Just(Step::Gone),
    ];
    prop::collection::vec(step, 0..60)
}

/// A driver that carries out what it is asked to, and keeps an account.
struct World {
    turn: Turn,
    waiting_cell: Option<(ServerToolUseId, ServerCall)>,
    sampling: bool,
    started: bool,
    calls: usize,
    runs: HashMap<ServerToolUseId, usize>,
    events: Vec<StreamEvent>,
    end: Option<Effect>,
}

impl World {
    fn new(request: &Value, samplings_max: u32, seed: u64) -> Self {
        let request = MessagesRequest::read(request.to_string().as_bytes()).unwrap();
        let context = PlanContext {
            api_version: ApiVersion::V20261021,
            betas: &Betas::default(),
            samplings_max,
            limits: ToolLimits::default(),
            model: ModelTraits::of("claude-opus-5-5"),
        };
        let plan = plan(request, &context).unwrap();
        let request_id: RequestId = "req_01R".parse().unwrap();
        let (turn, effects) = Turn::start(plan, request_id, Box::new(SeededIds::new(seed)));
        let mut world = Self {
            turn,
            waiting_cell: None,
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
                Effect::Sample(_) => {
                    assert!(!self.sampling && self.waiting_cell.is_none());
                    (self.sampling, self.started) = (true, false);
                }
                Effect::RunCell { id, call } => {
                    assert!(!self.sampling && self.waiting_cell.is_none());
                    *self.runs.entry(id.clone()).or_default() += 1;
                    self.waiting_cell = Some((id, call));
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

    /// Whatever is in the way of the model's next word.
    fn make_way(&mut self) {
        while let Some((id, call)) = self.waiting_cell.take() {
            let result = match call {
                ServerCall::Bash { .. } => bash(),
                ServerCall::Edit(_) => created(),
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
        let folded = fold(std::mem::take(&mut self.events));
        match self.end.as_ref().unwrap() {
            Effect::Finish(TurnEnd::Completed(stop_reason)) => {
                let message = folded.unwrap();
                assert_eq!(message.stop_reason, Some(*stop_reason));
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

/// Ids of server calls, with the number of their results.
fn answers(content: &[ContentBlock]) -> Vec<(ServerToolUseId, usize)> {
    let results = |id: &ServerToolUseId| {
        let answers = |block: &&ContentBlock| match block {
            ContentBlock::BashCodeExecutionToolResult(result)
            | ContentBlock::TextEditorCodeExecutionToolResult(result)
            | ContentBlock::CodeExecutionToolResult(result) => result.tool_use_id == *id,
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
        "tools": [
            { "type": "code_execution_20260521", "name": "code_execution" },
            { "name": "get_time", "input_schema": { "type": "object" } },
        ],
    })
}

/// The messages with which a client goes on from `message`, if it can.
fn continuation(mut messages: Vec<Value>, message: &Message) -> Option<Vec<Value>> {
    let content = serde_json::to_value(&message.content).unwrap();
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
        let mut world = World::new(&request(&[json!({ "role": "user", "content": "hi" })]), samplings_max, 1);
        world.play(&steps);
        world.reply();
        prop_assert!(world.runs.values().all(|runs| *runs == 1));
    }

    /// A conversation of several turns: each reply is accepted back, and each call is answered once in all.
    #[test]
    fn every_reply_can_be_gone_on_from(turns in prop::collection::vec(steps(false), 1..4), samplings_max in 0_u32..3) {
        let mut messages = vec![json!({ "role": "user", "content": "hi" })];
        let mut waiting: Vec<ServerToolUseId> = Vec::new();
        for (seed, steps) in (1..).zip(&turns) {
            let mut world = World::new(&request(&messages), samplings_max, seed);
            world.play(steps);
            let runs = world.runs.clone();
            let Some(message) = world.reply() else { break };
            let stop_reason = message.stop_reason.unwrap();
            let mut left = Vec::new();
            for (id, results) in answers(&message.content) {
                if results == 0 {
                    prop_assert!(matches!(stop_reason, StopReason::ToolUse | StopReason::PauseTurn), "{stop_reason:?}");
                    prop_assert!(!runs.contains_key(&id));
                    left.push(id);
                } else {
                    prop_assert_eq!(results, 1);
                }
            }
            // What waited heads this reply, in order, unless the server stopped before it could run.
            let heads = message.content.iter().map_while(|block| match block {
                ContentBlock::BashCodeExecutionToolResult(result)
                | ContentBlock::TextEditorCodeExecutionToolResult(result) => Some(&result.tool_use_id),
                _ => None,
            });
            let heads: Vec<_> = heads.cloned().collect();
            prop_assert!(heads.iter().all(|id| waiting.contains(id)));
            waiting.retain(|id| !heads.contains(id));
            prop_assert!(waiting.is_empty() || stop_reason == StopReason::PauseTurn);
            waiting.extend(left);
            let Some(next) = continuation(messages, &message) else { break };
            messages = next;
        }
    }
}
