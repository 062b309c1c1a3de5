//! One sampling: the model's events become the reply's blocks, and the calls it makes are collected.

use belljar_ids::{IdSource, ServerToolUseId, ToolUseId};
use belljar_wire::block::{
    ContentBlock, PassiveBlock, RedactedThinkingBlock, ServerToolUseBlock, TextBlock, ThinkingBlock, ToolUseBlock,
};
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::Delta;
use belljar_wire::hosted_tool::{HostedBlock, HostedCall};
use belljar_wire::message::Usage;
use belljar_wire::sampling::{ModelTool, SampledBlock, SamplingEvent};
use belljar_wire::tool::{Caller, DirectCaller, SubTool};
use serde_json::{Map, Value};

use crate::call::{Interpreter, InvalidInput, ServerCall};
use crate::input_text::{InputText, Verdict};
use crate::plan::DeferredCall;
use crate::runtime::Runtime;
use crate::turn::hosted::{self, Hosted};
use crate::turn::reply::{Ending, Reply};
use crate::turn::transcript::Transcript;

/// Where a sampling's events go.
pub(crate) struct Sinks<'a> {
    pub(crate) reply: &'a mut Reply,
    pub(crate) transcript: &'a mut Transcript,
    pub(crate) tools: &'a [ModelTool],
    pub(crate) runtime: Option<&'a Runtime>,
    pub(crate) hosted: &'a mut Hosted,
    pub(crate) ids: &'a mut dyn IdSource,
}

/// A sampling under way.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    started: bool,
    open: Option<Open>,
    calls: Calls,
}

/// The calls of one sampling, each kind in its order.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Calls of sub-tools.
    pub(crate) server: Vec<DeferredCall>,
    /// Calls of client tools: the name, and whether the input is what the model meant.
    pub(crate) client: Vec<(String, Verdict)>,
    /// Calls of tools that nobody has.
    pub(crate) nobody: Vec<(ToolUseId, String)>,
    /// The input of a call that the vendor runs is not what the model meant.
    pub(crate) hosted_spoilt: bool,
}

/// A sampling that came to its end.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub(crate) ending: Ending,
    pub(crate) usage: Usage,
    pub(crate) calls: Calls,
}

/// The open block, as far as it has come.
#[derive(Debug)]
enum Open {
    Text(TextBlock),
    Thinking(ThinkingBlock),
    RedactedThinking(RedactedThinkingBlock),
    Tool(OpenTool),
    HostedCall(Box<HostedCall>, InputText),
    /// A block of the vendor's tools that came whole.
    HostedWhole(PassiveBlock),
}

#[derive(Debug)]
struct OpenTool {
    callee: Callee,
    name: String,
    text: InputText,
}

/// Who is to answer a call.
#[derive(Debug)]
enum Callee {
    Server { id: ServerToolUseId, sub_tool: SubTool },
    Client(ToolUseId),
    Nobody(ToolUseId),
}

/// The upstream broke the contract of [`SamplingEvent`]; the turn cannot go on.
pub(crate) fn out_of_order(what: &str) -> ApiError {
    ApiError::new(ErrorKind::Api, format!("The model's reply is out of order: {what}"))
}

impl Sampling {
    /// Takes the next event; gives the whole sampling when it was the last.
    pub(crate) fn take(&mut self, event: SamplingEvent, sinks: &mut Sinks<'_>) -> Result<Option<Sampled>, ApiError> {
        match event {
            SamplingEvent::Started { usage } => {
                if self.started {
                    return Err(out_of_order("it starts twice"));
                }
                self.started = true;
                sinks.reply.start(usage);
            }
            _ if !self.started => return Err(out_of_order("it does not begin with its start")),
            SamplingEvent::BlockStarted(block) => {
                if self.open.is_some() {
                    return Err(out_of_order("a block starts inside of a block"));
                }
                self.open = Some(begin(block, sinks)?);
            }
            SamplingEvent::BlockDelta(delta) => {
                let open = self.open.as_mut();
                let open = open.ok_or_else(|| out_of_order("a piece of no block"))?;
                grow(open, delta, sinks.reply)?;
            }
            SamplingEvent::BlockEnded => {
                let open = self.open.take();
                let open = open.ok_or_else(|| out_of_order("no block to end"))?;
                self.end_block(open, sinks);
            }
            SamplingEvent::Ended { stop_reason, stop_sequence, stop_details, usage } => {
                if self.open.is_some() {
                    return Err(out_of_order("it ends inside of a block"));
                }
                return Ok(Some(Sampled {
                    ending: Ending { stop_reason, stop_sequence, stop_details },
                    usage,
                    calls: std::mem::take(&mut self.calls),
                }));
            }
        }
        Ok(None)
    }

    fn end_block(&mut self, open: Open, sinks: &mut Sinks<'_>) {
        let block = match open {
            Open::Text(block) => ContentBlock::Text(block),
            Open::Thinking(block) => ContentBlock::Thinking(block),
            Open::RedactedThinking(block) => ContentBlock::RedactedThinking(block),
            Open::HostedWhole(block) => ContentBlock::Passive(block),
            Open::HostedCall(call, text) => self.end_hosted(&call, text, sinks),
            Open::Tool(tool) => return self.end_tool(tool, sinks),
        };
        sinks.reply.end();
        sinks.transcript.said(block);
    }

    fn end_hosted(&mut self, call: &HostedCall, text: InputText, sinks: &mut Sinks<'_>) -> ContentBlock {
        let read = text.finish();
        if !read.closing.is_empty() {
            sinks.reply.delta(Delta::InputJsonDelta { partial_json: read.closing });
        }
        self.calls.hosted_spoilt |= read.verdict != Verdict::Whole;
        call.with_input(read.input)
    }

    fn end_tool(&mut self, tool: OpenTool, sinks: &mut Sinks<'_>) {
        let OpenTool { callee, name, text } = tool;
        let read = text.finish();
        if !matches!(callee, Callee::Nobody(_)) {
            if !read.closing.is_empty() {
                sinks.reply.delta(Delta::InputJsonDelta { partial_json: read.closing });
            }
            sinks.reply.end();
        }
        let block = match callee {
            Callee::Server { id, sub_tool } => {
                let call = read_call(sub_tool, &read.input, read.verdict, sinks.runtime);
                let block = server_tool_use(id.clone(), sub_tool, read.input, sinks.runtime);
                self.calls.server.push(DeferredCall { id, sub_tool, call });
                block
            }
            Callee::Client(id) => {
                self.calls.client.push((name.clone(), read.verdict));
                tool_use(id, name, read.input, sinks.runtime)
            }
            Callee::Nobody(id) => {
                self.calls.nobody.push((id.clone(), name.clone()));
                tool_use(id, name, read.input, sinks.runtime)
            }
        };
        sinks.transcript.said(block);
    }
}

fn begin(block: SampledBlock, sinks: &mut Sinks<'_>) -> Result<Open, ApiError> {
    let open = match block {
        SampledBlock::Hosted(block) => return begin_hosted(block, sinks),
        SampledBlock::Text => Open::Text(TextBlock::default()),
        SampledBlock::CitedText => Open::Text(TextBlock { citations: Some(Vec::new()), ..TextBlock::default() }),
        SampledBlock::Thinking => Open::Thinking(ThinkingBlock::default()),
        SampledBlock::RedactedThinking { data } => {
            sinks.reply.charge(data.len())?;
            Open::RedactedThinking(RedactedThinkingBlock { data, rest: Map::new() })
        }
        SampledBlock::ToolUse { id, name } => {
            sinks.reply.charge(name.len())?;
            Open::Tool(OpenTool { callee: callee(id, &name, sinks), name, text: InputText::new() })
        }
    };
    match &open {
        Open::Text(block) => sinks.reply.begin(ContentBlock::Text(block.clone()))?,
        Open::Thinking(block) => sinks.reply.begin(ContentBlock::Thinking(block.clone()))?,
        Open::RedactedThinking(block) => sinks.reply.begin(ContentBlock::RedactedThinking(block.clone()))?,
        // Begun where they were read.
        Open::HostedCall(..) | Open::HostedWhole(_) => {}
        Open::Tool(OpenTool { callee, name, .. }) => {
            let (name, input) = (name.clone(), Value::Object(Map::new()));
            match callee {
                Callee::Server { id, sub_tool } => {
                    sinks.reply.begin(server_tool_use(id.clone(), *sub_tool, input, sinks.runtime))?;
                }
                Callee::Client(id) => sinks.reply.begin(tool_use(id.clone(), name, input, sinks.runtime))?,
                Callee::Nobody(_) => sinks.reply.charge(name.len())?,
            }
        }
    }
    Ok(open)
}

fn begin_hosted(block: HostedBlock, sinks: &mut Sinks<'_>) -> Result<Open, ApiError> {
    let (open, begun) = match block {
        HostedBlock::Call(call) => {
            sinks.hosted.called(&call)?;
            let begun = hosted::begun(&call);
            (Open::HostedCall(Box::new(call), InputText::new()), begun)
        }
        HostedBlock::Answer(answer) => {
            sinks.hosted.answered(&answer)?;
            let begun = ContentBlock::Passive(answer.block.clone());
            (Open::HostedWhole(answer.block), begun)
        }
        HostedBlock::Listing(block) => {
            sinks.hosted.listed()?;
            (Open::HostedWhole(block.clone()), ContentBlock::Passive(block))
        }
    };
    sinks.reply.begin_hosted(begun)?;
    Ok(open)
}

/// Who has the tool of that name. A name that nobody has (models make them up, or remember a tool that is no longer declared)
/// never reaches the client, who could do nothing with it: the model is told, and tries again. A tool that is meant for code is the
/// client's all the same (wire.md §10.1).
fn callee(id: ToolUseId, name: &str, sinks: &mut Sinks<'_>) -> Callee {
    match sinks.tools.iter().find(|tool| tool.name() == Some(name)) {
        Some(ModelTool::Server { sub_tool, .. }) => {
            let id = ServerToolUseId::mint(sinks.ids);
            sinks.hosted.is_ours(&id);
            Callee::Server { id, sub_tool: *sub_tool }
        }
        Some(ModelTool::Custom(_) | ModelTool::Vendor(_)) => Callee::Client(id),
        // The vendor runs its tools itself; a call that asks for it to be done elsewhere is a mistake of the model's.
        Some(ModelTool::Hosted(_)) => Callee::Nobody(id),
        None if sinks.runtime.is_some_and(|runtime| runtime.lets_code_call(name)) => Callee::Client(id),
        None => Callee::Nobody(id),
    }
}

fn grow(open: &mut Open, delta: Delta, reply: &mut Reply) -> Result<(), ApiError> {
    match (open, delta) {
        (Open::Text(block), Delta::TextDelta { text }) => {
            reply.charge(text.len())?;
            block.text.push_str(&text);
            reply.delta(Delta::TextDelta { text });
        }
        (Open::Text(block), Delta::CitationsDelta { citation }) => {
            reply.charge(citation.to_string().len())?;
            block.citations.get_or_insert_default().push(citation.clone());
            reply.delta(Delta::CitationsDelta { citation });
        }
        (Open::Thinking(block), Delta::ThinkingDelta { thinking }) => {
            reply.charge(thinking.len())?;
            block.thinking.push_str(&thinking);
            reply.delta(Delta::ThinkingDelta { thinking });
        }
        (Open::Thinking(block), Delta::SignatureDelta { signature }) => {
            reply.charge(signature.len())?;
            block.signature.clone_from(&signature);
            reply.delta(Delta::SignatureDelta { signature });
        }
        (Open::Tool(tool), Delta::InputJsonDelta { partial_json }) => {
            reply.charge(partial_json.len())?;
            let passed = tool.text.push(&partial_json);
            if !passed.is_empty() && !matches!(tool.callee, Callee::Nobody(_)) {
                reply.delta(Delta::InputJsonDelta { partial_json: passed.to_owned() });
            }
        }
        (Open::HostedCall(_, text), Delta::InputJsonDelta { partial_json }) => {
            reply.charge(partial_json.len())?;
            let passed = text.push(&partial_json);
            if !passed.is_empty() {
                reply.delta(Delta::InputJsonDelta { partial_json: passed.to_owned() });
            }
        }
        (
            Open::Text(_)
            | Open::Thinking(_)
            | Open::RedactedThinking(_)
            | Open::Tool(_)
            | Open::HostedCall(..)
            | Open::HostedWhole(_),
            Delta::TextDelta { .. }
            | Delta::CitationsDelta { .. }
            | Delta::ThinkingDelta { .. }
            | Delta::SignatureDelta { .. }
            | Delta::InputJsonDelta { .. },
        ) => return Err(out_of_order("a piece does not fit its block")),
    }
    Ok(())
}

fn read_call(
    sub_tool: SubTool,
    input: &Value,
    verdict: Verdict,
    runtime: Option<&Runtime>,
) -> Result<ServerCall, InvalidInput> {
    match (verdict, runtime) {
        (Verdict::Whole, Some(runtime)) => ServerCall::read(sub_tool, input, runtime),
        // Sub-tools are offered by a runtime only.
        (Verdict::Whole, None) => Err(InvalidInput("there is nothing to run it with".to_owned())),
        (Verdict::Truncated, _) => Err(InvalidInput("the input is cut off".to_owned())),
        (Verdict::Malformed, _) => Err(InvalidInput("the input is not a JSON object".to_owned())),
    }
}

/// Python cells of a live interpreter say who called them; bash, edits and the oldest version say nothing (wire.md §4.2, §23).
fn server_tool_use(id: ServerToolUseId, sub_tool: SubTool, input: Value, runtime: Option<&Runtime>) -> ContentBlock {
    let caller = match (sub_tool, runtime.map(|runtime| runtime.interpreter)) {
        (SubTool::CodeExecution, Some(Interpreter::Live)) => Some(Caller::Direct(DirectCaller {})),
        (SubTool::CodeExecution, Some(Interpreter::Fresh) | None)
        | (SubTool::BashCodeExecution | SubTool::TextEditorCodeExecution, _) => None,
    };
    ContentBlock::ServerToolUse(ServerToolUseBlock {
        id,
        name: sub_tool.name().to_owned(),
        input,
        caller,
        rest: Map::new(),
    })
}

/// Says that the model called where code could have (wire.md §10.3).
fn tool_use(id: ToolUseId, name: String, input: Value, runtime: Option<&Runtime>) -> ContentBlock {
    let tell = runtime.is_some_and(|runtime| !runtime.tools.is_empty());
    let caller = tell.then_some(Caller::Direct(DirectCaller {}));
    ContentBlock::ToolUse(ToolUseBlock { id, name, input, caller, rest: Map::new() })
}
