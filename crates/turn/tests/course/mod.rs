//! What happens to a turn: strategies for whole courses of events, well-behaved and not.

use belljar_turn::CodeCall;
use belljar_wire::container::ContainerInfo;
use belljar_wire::event::Delta;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::result::{BashResult, CodeResult, CreateResult, ResultContent};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use proptest::prelude::*;
use serde_json::json;

pub const NAMES: [&str; 7] = [
    "bash_code_execution",
    "text_editor_code_execution",
    "get_time",
    "code_execution",
    "made_up",
    // Of these two, code alone may call the second.
    "query_db",
    "find-it",
];

pub const INPUTS: [&str; 9] = [
    r#"{"command":"ls"}"#,
    r#"{"code":"await find_it({})"}"#,
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
pub enum Block {
    Text(String),
    Thinking(String),
    Redacted,
    Call { name: usize, input: usize, pieces: usize },
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Block(Block),
    End(StopReason),
    /// An event out of place, perhaps.
    Stray(SamplingEvent),
    StrayCell(ResultContent),
    StrayCalls,
    /// Code that runs calls that many tools; nothing where no code runs.
    Called(usize),
    /// Code that runs calls a tool of ours, and that many of the client's beside it.
    HostCalled(usize),
    /// A cell that calls tools, all of it: left to chance, it is rare.
    Pause(usize),
    Failed,
    Gone,
    Stopping,
}

pub fn stop_reason() -> impl Strategy<Value = StopReason> {
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

pub fn block() -> impl Strategy<Value = Block> {
    prop_oneof![
        2 => "\\PC{0,8}".prop_map(Block::Text),
        1 => "\\PC{0,8}".prop_map(Block::Thinking),
        1 => Just(Block::Redacted),
        8 => (0..NAMES.len(), 0..INPUTS.len(), 1_usize..5)
            .prop_map(|(name, input, pieces)| Block::Call { name, input, pieces }),
    ]
}

pub fn bash() -> ResultContent {
    ResultContent::BashCodeExecutionResult(BashResult {
        stdout: "out".to_owned(),
        stderr: String::new(),
        return_code: 0,
        content: Vec::new(),
    })
}

pub fn python() -> ResultContent {
    ResultContent::CodeExecutionResult(CodeResult {
        stdout: "out\n".to_owned(),
        stderr: String::new(),
        return_code: 0,
        content: Vec::new(),
        abort_reason: None,
    })
}

pub fn container() -> ContainerInfo {
    ContainerInfo { id: "container_01A".parse().unwrap(), expires_at: "2026-11-20T18:54:08.960841Z".to_owned() }
}

/// Calls of code, of both tools that it may call.
pub fn calls(count: usize) -> Vec<CodeCall> {
    let calls = (0..count as u64).map(|number| {
        let tool = if number % 2 == 0 { "query_db" } else { "find-it" };
        let input = json!({ "n": number }).as_object().cloned().unwrap();
        CodeCall { number: 100 + number, tool: tool.to_owned(), input }
    });
    calls.collect()
}

pub fn created() -> ResultContent {
    ResultContent::TextEditorCodeExecutionCreateResult(CreateResult { is_file_update: false })
}

pub fn stray() -> impl Strategy<Value = SamplingEvent> {
    prop_oneof![
        Just(SamplingEvent::Started { usage: Usage::default() }),
        Just(SamplingEvent::BlockEnded),
        Just(SamplingEvent::BlockStarted(SampledBlock::Text)),
        Just(SamplingEvent::BlockDelta(Delta::TextDelta { text: "x".to_owned() })),
        Just(SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json: "{".to_owned() })),
    ]
}

pub fn steps(strays: bool) -> impl Strategy<Value = Vec<Step>> {
    let weight = u32::from(strays);
    let step = prop_oneof![
        40 => block().prop_map(Step::Block),
        20 => stop_reason().prop_map(Step::End),
        2 => Just(Step::Stopping),
        16 => prop_oneof![3 => (1_usize..4).prop_map(Step::Called), 1 => (1_usize..4).prop_map(Step::Pause)],
        6 => (0_usize..3).prop_map(Step::HostCalled),
        weight => stray().prop_map(Step::Stray),
        weight => prop_oneof![Just(bash()), Just(created())].prop_map(Step::StrayCell),
        weight => Just(Step::StrayCalls),
        weight => Just(Step::Failed),
        weight => Just(Step::Gone),
    ];
    prop::collection::vec(step, 0..60)
}
