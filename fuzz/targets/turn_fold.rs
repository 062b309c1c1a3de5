//! The loop under a model that says anything: the events of its reply are folded twice, by the product and as the official
//! clients do it, over the JSON that goes over the wire. Both must say the same.
#![no_main]

use arbitrary::Arbitrary;
use belljar_ids::{RequestId, SeededIds};
use belljar_turn::{CodeCall, Effect, Input, ModelTraits, PlanContext, ToolLimits, ToolTexts, Turn, TurnEnd, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::container::ContainerInfo;
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::fold::fold;
use belljar_wire::host_tool::HostToolAnswer;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::request::MessagesRequest;
use belljar_wire::result::{BashResult, CodeResult, CreateResult, ErrorCode, ResultContent};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use belljar_wire::sse;
use belljar_wire::tool::SubTool;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
enum Step {
    Text(Vec<String>),
    Thinking(String, String),
    Call {
        name: u8,
        pieces: Vec<String>,
    },
    End {
        reason: u8,
        tokens: u64,
    },
    /// Events out of place.
    Started,
    BlockEnded,
    Delta(String),
    CellEnded {
        stdout: String,
    },
    /// Code calls tools: those that it may call, and one that it may not.
    CellCalled(Vec<(u64, u8, String)>),
    /// Tools of ours answer, as many as were asked or not.
    Answered(Vec<Result<String, String>>),
    Stopping,
    ClientGone,
}

const NAMES: [&str; 6] =
    ["bash_code_execution", "text_editor_code_execution", "code_execution", "get_time", "query_db", "made_up"];
const REASONS: [StopReason; 7] = [
    StopReason::ToolUse,
    StopReason::EndTurn,
    StopReason::MaxTokens,
    StopReason::StopSequence,
    StopReason::PauseTurn,
    StopReason::Refusal,
    StopReason::ModelContextWindowExceeded,
];
const REQUEST: &str = r#"{"model":"claude-opus-5-5","max_tokens":1000,"stream":true,
    "messages":[{"role":"user","content":"hi"}],
    "tools":[{"type":"code_execution_20260521","name":"code_execution"},
             {"name":"get_time","input_schema":{"type":"object"}},
             {"type":"belljar_files_20261129","name":"belljar_files"},
             {"name":"query_db","input_schema":{"type":"object"},"allowed_callers":["code_execution_20260120"]}]}"#;

/// A turn, what came of it, and what it waits for.
struct Played {
    turn: Turn,
    events: Vec<StreamEvent>,
    end: Option<Effect>,
    cell: Option<(belljar_ids::ServerToolUseId, SubTool)>,
}

impl Played {
    fn new() -> Self {
        let request = MessagesRequest::read(REQUEST.as_bytes()).expect("a request");
        let context = PlanContext {
            api_version: ApiVersion::V20261021,
            betas: &Betas::default(),
            samplings_max: 3,
            limits: ToolLimits::default(),
            texts: ToolTexts::hosted(),
            model: ModelTraits::of("claude-opus-5-5"),
            hosted: None,
            lost_cells: &[],
        };
        let plan = plan(request, &context).expect("a plan");
        let id: RequestId = "req_01R".parse().expect("an id");
        let (turn, effects) = Turn::start(plan, id, Box::new(SeededIds::new(1)));
        let mut played = Self { turn, events: Vec::new(), end: None, cell: None };
        played.account(effects);
        played
    }

    fn input(&mut self, input: Input) {
        let effects = self.turn.step(input);
        self.account(effects);
    }

    fn sampled(&mut self, event: SamplingEvent) {
        self.input(Input::Sampled(event));
    }

    fn account(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert_eq!(self.end, None, "{effect:?} after the end");
            match effect {
                Effect::Emit(event) => self.events.push(event),
                Effect::RunCell { id, call } => self.cell = Some((id, call.sub_tool())),
                Effect::ResumeCell { id, sub_tool, .. } => self.cell = Some((id, sub_tool)),
                Effect::CancelCell(_) | Effect::Park { .. } => self.cell = None,
                Effect::Sample(_)
                | Effect::CancelSampling
                | Effect::CallHostTools { .. }
                | Effect::AnswerCell { .. } => {}
                end @ (Effect::Fail(_) | Effect::Finish(_)) => self.end = Some(end),
            }
        }
    }

    fn block(&mut self, start: SampledBlock, deltas: Vec<Delta>) {
        self.sampled(SamplingEvent::BlockStarted(start));
        for delta in deltas {
            self.sampled(SamplingEvent::BlockDelta(delta));
        }
        self.sampled(SamplingEvent::BlockEnded);
    }

    fn step(&mut self, number: usize, step: Step) {
        match step {
            Step::Text(pieces) => {
                self.block(SampledBlock::Text, pieces.into_iter().map(|text| Delta::TextDelta { text }).collect());
            }
            Step::Thinking(thinking, signature) => self.block(
                SampledBlock::Thinking,
                vec![Delta::ThinkingDelta { thinking }, Delta::SignatureDelta { signature }],
            ),
            Step::Call { name, pieces } => {
                let id = format!("toolu_{number}").parse().expect("an id");
                let name = NAMES[usize::from(name) % NAMES.len()].to_owned();
                let deltas = pieces.into_iter().map(|partial_json| Delta::InputJsonDelta { partial_json }).collect();
                self.block(SampledBlock::ToolUse { id, name }, deltas);
            }
            Step::End { reason, tokens } => self.sampled(SamplingEvent::Ended {
                stop_reason: REASONS[usize::from(reason) % REASONS.len()],
                stop_sequence: None,
                stop_details: None,
                usage: Usage { output_tokens: tokens, ..Usage::default() },
            }),
            Step::Started => self.sampled(SamplingEvent::Started { usage: Usage::default() }),
            Step::BlockEnded => self.sampled(SamplingEvent::BlockEnded),
            Step::Delta(text) => self.sampled(SamplingEvent::BlockDelta(Delta::TextDelta { text })),
            Step::CellEnded { stdout } => self.cell_ended(stdout),
            Step::CellCalled(calls) => self.cell_called(calls),
            Step::Answered(answers) => self.answered(answers),
            Step::Stopping => self.input(Input::Stopping),
            Step::ClientGone => self.input(Input::ClientGone),
        }
    }

    fn cell_called(&mut self, calls: Vec<(u64, u8, String)>) {
        let Some((id, _)) = self.cell.clone() else { return };
        let call = |(number, tool, text): (u64, u8, String)| {
            let tool = match tool % 16 {
                // Only the model may call it.
                0 => "get_time",
                1..8 => "belljar_files",
                _ => "query_db",
            };
            let input = serde_json::Map::from_iter([("text".to_owned(), json!(text))]);
            CodeCall { number, tool: tool.to_owned(), input }
        };
        let container = ContainerInfo {
            id: "container_01A".parse().expect("an id"),
            expires_at: "2026-11-20T18:54:08.960841Z".to_owned(),
        };
        self.input(Input::CellCalled { id, calls: calls.into_iter().map(call).collect(), container });
    }

    fn answered(&mut self, answers: Vec<Result<String, String>>) {
        let Some((id, _)) = self.cell.clone() else { return };
        let answers = answers.into_iter().map(|answer| match answer {
            Ok(text) => HostToolAnswer::Text(text),
            Err(error_message) => HostToolAnswer::Error { error_code: ErrorCode::Unavailable, error_message },
        });
        self.input(Input::HostToolsAnswered { id, answers: answers.collect() });
    }

    fn cell_ended(&mut self, stdout: String) {
        let Some((id, sub_tool)) = self.cell.take() else { return };
        let result = match sub_tool {
            SubTool::BashCodeExecution => ResultContent::BashCodeExecutionResult(BashResult {
                stdout,
                stderr: String::new(),
                return_code: 0,
                content: Vec::new(),
            }),
            SubTool::CodeExecution => ResultContent::CodeExecutionResult(CodeResult {
                stdout,
                stderr: String::new(),
                return_code: 0,
                content: Vec::new(),
                abort_reason: None,
            }),
            SubTool::TextEditorCodeExecution => {
                ResultContent::TextEditorCodeExecutionCreateResult(CreateResult { is_file_update: false })
            }
        };
        self.input(Input::CellEnded { id, result, container: None });
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut played = Played::new();
    played.sampled(SamplingEvent::Started { usage: Usage::default() });
    for (number, step) in steps.into_iter().enumerate() {
        played.step(number, step);
    }
    let over_the_wire = client_events(&played.events);
    let folded = fold(played.events);
    match played.end {
        Some(Effect::Finish(TurnEnd::Completed(_))) => {
            let message = serde_json::to_value(folded.expect("a complete reply folds")).expect("JSON");
            assert_eq!(client_fold(over_the_wire), message);
        }
        Some(Effect::Finish(TurnEnd::Failed(_)) | Effect::Fail(_)) => assert!(folded.is_err()),
        _ => {}
    }
});

/// The events as a client reads them from the stream.
fn client_events(events: &[StreamEvent]) -> Vec<Value> {
    let mut stream = BytesMut::new();
    events.iter().for_each(|event| sse::encode(event, &mut stream));
    let text = std::str::from_utf8(&stream).expect("UTF-8");
    text.split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect()
}

/// What the official clients' stream helpers accumulate.
fn client_fold(events: Vec<Value>) -> Value {
    let mut message = Value::Null;
    let mut input = String::new();
    for mut event in events {
        let index = event["index"].as_u64().map(|index| usize::try_from(index).expect("small"));
        match event["type"].as_str().expect("a type") {
            "message_start" => message = event["message"].take(),
            "content_block_start" => {
                let block = event["content_block"].take();
                message["content"].as_array_mut().expect("content").push(block);
                input.clear();
            }
            "content_block_delta" => {
                let block = &mut message["content"][index.expect("an index")];
                add(block, &event["delta"], &mut input);
            }
            "content_block_stop" if !input.is_empty() => {
                message["content"][index.expect("an index")]["input"] = serde_json::from_str(&input).expect("an input");
            }
            "message_delta" => {
                for (key, value) in event["delta"].as_object().expect("a delta") {
                    message[key] = value.clone();
                }
                for (key, value) in event["usage"].as_object().expect("usage") {
                    message["usage"][key] = value.clone();
                }
            }
            _ => {}
        }
    }
    message
}

fn add(block: &mut Value, delta: &Value, input: &mut String) {
    let mut append = |key: &str| {
        let joined = format!("{}{}", block[key].as_str().unwrap_or_default(), delta[key].as_str().unwrap_or_default());
        block[key] = json!(joined);
    };
    match delta["type"].as_str().expect("a type") {
        "text_delta" => append("text"),
        "thinking_delta" => append("thinking"),
        "signature_delta" => block["signature"] = delta["signature"].clone(),
        "input_json_delta" => input.push_str(delta["partial_json"].as_str().expect("text")),
        other => panic!("a delta of type {other}"),
    }
}
