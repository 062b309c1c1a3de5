//! Reads and plays a scenario.

use std::fmt::Write as _;

use belljar_ids::{FileId, RequestId, SeededIds, ServerToolUseId};
use belljar_turn::{
    CodeCall, CodeTool, Effect, Input, Interpreter, ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ServerCall,
    ToolLimits, ToolTexts, Turn, TurnEnd, error_result, plan,
};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::fold::fold;
use belljar_wire::host_tool::HostToolAnswer;
use belljar_wire::hosted_tool::{HostedBlock, HostedTools};
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::request::MessagesRequest;
use belljar_wire::result::{
    BashOutput, BashResult, CodeOutput, CodeResult, CreateResult, ErrorCode, ExecutionError, ResultContent,
};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use belljar_wire::tool::SubTool;
use serde_json::{Value, json};

/// A scenario being played.
pub struct Script {
    turn: Turn,
    running: Option<ServerToolUseId>,
    events: Vec<StreamEvent>,
    history: usize,
    written: String,
}

impl Script {
    /// Plays `text`, and writes it as it went.
    pub fn play(text: &str) -> String {
        let kept = |line: &&str| !line.starts_with("< ") && !line.starts_with("= ");
        let mut lines = text.lines().filter(kept).peekable();
        let mut written = String::new();
        let mut request = json!({
            "model": "local",
            "max_tokens": 1000,
            "messages": [{ "role": "user", "content": "hi" }],
            "tools": [{ "type": "code_execution_20250825", "name": "code_execution" }],
        });
        let mut samplings_max = SAMPLINGS_MAX_DEFAULT;
        let mut betas = Betas::default();
        let mut lost_cells = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('>')) {
            writeln!(written, "{line}").unwrap();
            if let Some(members) = line.strip_prefix("request ") {
                let members: Value = serde_json::from_str(members).unwrap();
                for (key, value) in members.as_object().unwrap() {
                    request[key] = value.clone();
                }
            } else if let Some(cells) = line.strip_prefix("remembered ") {
                lost_cells.push(remembered(cells));
            } else if let Some(number) = line.strip_prefix("samplings_max ") {
                samplings_max = number.parse().unwrap();
            } else if let Some(header) = line.strip_prefix("betas ") {
                betas = Betas::read([header]).unwrap();
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "{line}");
            }
        }
        let (turn, effects, history) = start(request, samplings_max, &betas, &lost_cells);
        let mut script = Self { turn, running: None, events: Vec::new(), history, written };
        assert_eq!(lines.next(), Some("> start"));
        script.written.push_str("> start\n");
        script.note(effects);
        for line in lines {
            script.line(line);
        }
        script.fold();
        script.written
    }

    fn line(&mut self, line: &str) {
        writeln!(self.written, "{line}").unwrap();
        let Some(input) = line.strip_prefix("> ") else {
            assert!(line.is_empty() || line.starts_with('#'), "{line}");
            return;
        };
        for input in self.inputs(input) {
            let effects = self.turn.step(input);
            self.note(effects);
        }
    }

    /// What one line of input stands for.
    fn inputs(&mut self, line: &str) -> Vec<Input> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let sampled = |events: Vec<SamplingEvent>| events.into_iter().map(Input::Sampled).collect();
        let end = || SamplingEvent::BlockEnded;
        match word {
            "started" => sampled(vec![SamplingEvent::Started { usage: usage(rest) }]),
            "text" => sampled(vec![
                SamplingEvent::BlockStarted(SampledBlock::Text),
                SamplingEvent::BlockDelta(Delta::TextDelta { text: rest.to_owned() }),
                end(),
            ]),
            "thinking" => sampled(vec![
                SamplingEvent::BlockStarted(SampledBlock::Thinking),
                SamplingEvent::BlockDelta(Delta::ThinkingDelta { thinking: rest.to_owned() }),
                SamplingEvent::BlockDelta(Delta::SignatureDelta { signature: "sig".to_owned() }),
                end(),
            ]),
            "redacted" => sampled(vec![
                SamplingEvent::BlockStarted(SampledBlock::RedactedThinking { data: rest.to_owned() }),
                end(),
            ]),
            "text-begin" => sampled(vec![SamplingEvent::BlockStarted(SampledBlock::Text)]),
            "tool-begin" => sampled(vec![tool(rest)]),
            "tool" => {
                let (head, json) = rest.split_once(" {").unwrap();
                sampled(vec![tool(head), piece(&format!("{{{json}")), end()])
            }
            "json" => sampled(vec![piece(rest)]),
            // A block of the vendor's tools in JSON: a call with its input, or what comes whole.
            "hosted" => sampled(hosted(rest)),
            "hosted-begin" => sampled(hosted(rest).drain(..1).collect()),
            "end" => sampled(vec![end()]),
            "ended" => sampled(vec![ended(rest)]),
            "failed" => vec![Input::SamplingFailed(ApiError::new(ErrorKind::Overloaded, rest))],
            "bash" => vec![self.cell(bash(rest, 0, Vec::new()), true)],
            "bash-file" => {
                let file_id: FileId = rest.parse().unwrap();
                vec![self.cell(bash("", 0, vec![BashOutput { file_id }]), true)]
            }
            "bash-unavailable" => vec![self.cell(unavailable(), false)],
            "created" => vec![self.cell(created(), true)],
            "python" => vec![self.cell(python(&format!("{rest}\n"), Vec::new()), true)],
            "python-file" => {
                let file_id: FileId = rest.parse().unwrap();
                vec![self.cell(python("", vec![CodeOutput { file_id }]), true)]
            }
            "python-unavailable" => {
                vec![self.cell(error_result(SubTool::CodeExecution, ErrorCode::Unavailable, ""), false)]
            }
            "called" => {
                let id = self.running.clone().expect("a cell was run");
                vec![Input::CellCalled { id, calls: calls(rest), container: container() }]
            }
            "answered" => {
                let id = self.running.clone().expect("a cell was run");
                vec![Input::HostToolsAnswered { id, answers: host_answers(rest) }]
            }
            "called-stranger" => {
                let id = "srvtoolu_stranger".parse().unwrap();
                vec![Input::CellCalled { id, calls: calls(rest), container: container() }]
            }
            "bash-stranger" => vec![Input::CellEnded {
                id: "srvtoolu_stranger".parse().unwrap(),
                result: bash(rest, 0, Vec::new()),
                container: None,
            }],
            "gone" => vec![Input::ClientGone],
            "stopping" => vec![Input::Stopping],
            other => panic!("unknown input {other}"),
        }
    }

    fn cell(&mut self, result: ResultContent, container: bool) -> Input {
        let container = container.then(self::container);
        Input::CellEnded { id: self.running.clone().expect("a cell was run"), result, container }
    }

    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let line = match effect {
                Effect::Emit(event) => {
                    let line = format!("emit {}", serde_json::to_string(&event).unwrap());
                    self.events.push(event);
                    line
                }
                Effect::Sample(request) => {
                    // Without what code and the client's tools said to each other it may be shorter than what was sent.
                    let (history, new) = request.messages.split_at(self.history.min(request.messages.len()));
                    let mut line = format!(
                        "sample max_tokens={} history={} then {}",
                        request.max_tokens,
                        serde_json::to_string(history.last().unwrap()).unwrap(),
                        serde_json::to_string(new).unwrap()
                    );
                    if let Some(choice) = request.tool_choice {
                        write!(line, " tool_choice={:?}", choice.mode).unwrap();
                    }
                    if let Some(thinking) = request.thinking {
                        write!(line, " thinking={thinking}").unwrap();
                    }
                    line
                }
                Effect::CancelSampling => "cancel-sampling".to_owned(),
                Effect::RunCell { id, call } => {
                    self.running = Some(id.clone());
                    ran(&id, &call)
                }
                Effect::ResumeCell { id, sub_tool, results, tools } => {
                    self.running = Some(id.clone());
                    let results: Vec<Value> = results
                        .iter()
                        .map(|result| json!([result.tool_use_id, result.text, result.is_error]))
                        .collect();
                    format!("resume {id} {} {}{}", sub_tool.name(), Value::from(results), names(&tools))
                }
                Effect::CallHostTools { id, calls } => {
                    let calls: Vec<Value> = calls.iter().map(|call| json!([call.kind.name(), call.input])).collect();
                    format!("call-host {id} {}", Value::from(calls))
                }
                Effect::AnswerCell { id, answers, tools } => {
                    let answers: Vec<Value> =
                        answers.iter().map(|answer| json!([answer.number, answer.text, answer.is_error])).collect();
                    format!("answer {id} {}{}", Value::from(answers), names(&tools))
                }
                Effect::Park { call: ServerToolUseBlock { id, .. }, pending } => {
                    let pending = pending.iter().map(|call| format!(" {}={}", call.number, call.tool_use_id));
                    format!("park {id}{}", pending.collect::<String>())
                }
                Effect::CancelCell(id) => format!("cancel-cell {id}"),
                Effect::Fail(error) => format!("fail {}", serde_json::to_string(&error).unwrap()),
                Effect::Finish(TurnEnd::Completed(reason)) => format!("completed {reason:?}"),
                Effect::Finish(TurnEnd::Failed(error)) => format!("failed {error}"),
                Effect::Finish(TurnEnd::Abandoned) => "abandoned".to_owned(),
            };
            writeln!(self.written, "< {line}").unwrap();
        }
    }

    fn fold(&mut self) {
        assert!(self.turn.over(), "the scenario does not end its turn");
        let message = fold(std::mem::take(&mut self.events));
        let line = match message {
            Ok(message) => serde_json::to_string(&message).unwrap(),
            Err(error) => error.to_string(),
        };
        writeln!(self.written, "= {line}").unwrap();
    }
}

fn ran(id: &ServerToolUseId, call: &ServerCall) -> String {
    match call {
        ServerCall::Bash { command, tools } => format!("run {id} bash {command:?}{}", names(tools)),
        ServerCall::Edit(call) => format!("run {id} {call:?}"),
        ServerCall::Python { code, interpreter, tools } => {
            let interpreter = match interpreter {
                Interpreter::Fresh => "fresh",
                Interpreter::Live => "live",
            };
            format!("run {id} python {interpreter} {code:?}{}", names(tools))
        }
    }
}

/// The tools that code may call, where there are any.
fn names(tools: &[CodeTool]) -> String {
    let names = tools.iter().map(|tool| match tool.name == tool.function {
        true => tool.name.clone(),
        false => format!("{}={}", tool.function, tool.name),
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { String::new() } else { format!(" tools={}", names.join(",")) }
}

/// `NUMBER NAME {…}`, with ` | ` between calls.
fn calls(text: &str) -> Vec<CodeCall> {
    let calls = text.split(" | ").filter(|call| !call.is_empty()).map(|call| {
        let mut words = call.splitn(3, ' ');
        let number = words.next().unwrap().parse().unwrap();
        let tool = words.next().unwrap().to_owned();
        CodeCall { number, tool, input: serde_json::from_str(words.next().unwrap()).unwrap() }
    });
    calls.collect()
}

/// Texts, with ` | ` between them; `!` in front of an error's.
fn host_answers(text: &str) -> Vec<HostToolAnswer> {
    let answers = text.split(" | ").filter(|answer| !answer.is_empty()).map(|answer| match answer.strip_prefix('!') {
        Some(message) => {
            HostToolAnswer::Error { error_code: ErrorCode::FileNotFound, error_message: message.to_owned() }
        }
        None => HostToolAnswer::Text(answer.to_owned()),
    });
    answers.collect()
}

fn container() -> ContainerInfo {
    ContainerInfo { id: "container_01A".parse().unwrap(), expires_at: "2026-11-20T18:54:08.960841Z".to_owned() }
}

fn python(stdout: &str, content: Vec<CodeOutput>) -> ResultContent {
    ResultContent::CodeExecutionResult(CodeResult {
        stdout: stdout.to_owned(),
        stderr: String::new(),
        return_code: 0,
        content,
        abort_reason: None,
    })
}

/// `ID NAME INPUT`.
fn remembered(text: &str) -> ServerToolUseBlock {
    let mut words = text.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (id, name) = (word().parse().unwrap(), word().to_owned());
    let input = serde_json::from_str(word()).unwrap();
    ServerToolUseBlock { id, name, input, caller: None, rest: serde_json::Map::new() }
}

fn start(
    request: Value,
    samplings_max: u32,
    betas: &Betas,
    lost_cells: &[ServerToolUseBlock],
) -> (Turn, Vec<Effect>, usize) {
    let request = MessagesRequest::read(request.to_string().as_bytes()).unwrap();
    let history = request.messages.len();
    let families = ["web_search", "web_fetch", "tool_search", "mcp"].map(str::to_owned);
    let passed = HostedTools::read(&families).unwrap();
    let context = PlanContext {
        api_version: ApiVersion::V20230601,
        betas,
        samplings_max,
        limits: ToolLimits::default(),
        texts: ToolTexts::hosted(),
        model: ModelTraits::default(),
        hosted: Some(&passed),
        lost_cells,
    };
    let plan = plan(request, &context).unwrap();
    let request_id: RequestId = "req_01R".parse().unwrap();
    let (turn, effects) = Turn::start(plan, request_id, Box::new(SeededIds::new(1)));
    (turn, effects, history)
}

/// `IN OUT`, or the whole in JSON.
fn usage(tokens: &str) -> Usage {
    if tokens.starts_with('{') {
        return serde_json::from_str(tokens).unwrap();
    }
    let mut numbers = tokens.split(' ').map(|number| number.parse().unwrap_or(0));
    Usage { input_tokens: numbers.next().unwrap_or(0), output_tokens: numbers.next().unwrap_or(0), ..Usage::default() }
}

/// `NAME ID`.
fn tool(text: &str) -> SamplingEvent {
    let (name, id) = text.split_once(' ').unwrap();
    SamplingEvent::BlockStarted(SampledBlock::ToolUse { id: id.parse().unwrap(), name: name.to_owned() })
}

fn hosted(text: &str) -> Vec<SamplingEvent> {
    let mut members: Value = serde_json::from_str(text).unwrap();
    let input = members.get("input").map(ToString::to_string);
    if input.is_some() {
        members["input"] = json!({});
    }
    let block = HostedBlock::read(members.as_object().unwrap()).unwrap().expect("a block of the vendor's tools");
    let mut events = vec![SamplingEvent::BlockStarted(SampledBlock::Hosted(block))];
    events.extend(input.map(|input| piece(&input)));
    events.push(SamplingEvent::BlockEnded);
    events
}

fn piece(text: &str) -> SamplingEvent {
    SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json: text.to_owned() })
}

/// `REASON IN OUT [STOP_SEQUENCE]`, or `REASON {USAGE}`.
fn ended(text: &str) -> SamplingEvent {
    if let Some((reason, usage)) = text.split_once(" {") {
        return SamplingEvent::Ended {
            stop_reason: serde_json::from_value(Value::from(reason)).unwrap(),
            stop_sequence: None,
            stop_details: None,
            usage: serde_json::from_str(&format!("{{{usage}")).unwrap(),
        };
    }
    let mut words = text.splitn(4, ' ');
    let reason = Value::from(words.next().unwrap());
    let stop_reason: StopReason = serde_json::from_value(reason).unwrap();
    let tokens = format!("{} {}", words.next().unwrap(), words.next().unwrap());
    let refused = stop_reason == StopReason::Refusal;
    SamplingEvent::Ended {
        stop_reason,
        stop_sequence: words.next().map(str::to_owned),
        stop_details: refused.then(|| json!({ "type": "refusal", "category": null })),
        usage: usage(&tokens),
    }
}

fn bash(stdout: &str, return_code: i32, content: Vec<BashOutput>) -> ResultContent {
    ResultContent::BashCodeExecutionResult(BashResult {
        stdout: stdout.to_owned(),
        stderr: String::new(),
        return_code,
        content,
    })
}

fn unavailable() -> ResultContent {
    ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code: ErrorCode::Unavailable })
}

fn created() -> ResultContent {
    ResultContent::TextEditorCodeExecutionCreateResult(CreateResult { is_file_update: false })
}
