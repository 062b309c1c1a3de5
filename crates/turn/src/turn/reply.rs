//! The reply as it goes out: the order of events, and nothing of what they are for.

use std::sync::Arc;

use belljar_ids::{MessageId, RequestId, ServerToolUseId};
use belljar_wire::block::{ContentBlock, ServerToolUseBlock, ToolUseBlock};
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::{Delta, DeltaUsage, MessageDelta, SettledUsage, StreamEvent};
use belljar_wire::message::{Message, ServerToolUsage, StopReason, Usage};
use serde_json::Value;

use crate::call::{CodeTool, ServerCall};
use crate::effect::{Effect, TurnEnd};
use crate::plan::Resume;

/// Bytes of text, thinking and tool input that one reply may have. No model writes as much; an upstream or code gone wild might.
pub(crate) const REPLY_BYTES_MAX: usize = 64 << 20;

/// What a block costs besides its text, so that endless empty blocks come to an end, too.
const BLOCK_BYTES: usize = 256;

/// Why a reply ends, as the model or the loop said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) stop_reason: StopReason,
    pub(crate) stop_sequence: Option<String>,
    pub(crate) stop_details: Option<Value>,
}

impl Ending {
    /// An ending that the loop decided.
    pub(crate) fn because(stop_reason: StopReason) -> Self {
        Self { stop_reason, stop_sequence: None, stop_details: None }
    }
}

/// A reply under way, and the effects of the current step.
pub(crate) struct Reply {
    pub(crate) message_id: MessageId,
    model: String,
    request_id: RequestId,
    started: bool,
    blocks_begun: usize,
    bytes: usize,
    server_tool_took_part: bool,
    cells_run: u64,
    effects: Vec<Effect>,
    /// Over all samplings so far.
    pub(crate) usage: Usage,
    /// As of the last cell.
    pub(crate) container: Option<ContainerInfo>,
}

impl Reply {
    pub(crate) fn new(message_id: MessageId, model: String, request_id: RequestId) -> Self {
        Self {
            message_id,
            model,
            request_id,
            started: false,
            blocks_begun: 0,
            bytes: 0,
            server_tool_took_part: false,
            cells_run: 0,
            effects: Vec::new(),
            usage: Usage::default(),
            container: None,
        }
    }

    /// Asks the driver for something.
    pub(crate) fn ask(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// A cell is started; it counts in the usage of this reply.
    pub(crate) fn run_cell(&mut self, id: ServerToolUseId, call: ServerCall) {
        self.cells_run += 1;
        self.server_tool_took_part = true;
        self.ask(Effect::RunCell { id, call });
    }

    /// A cell goes on; it was counted where it was started.
    pub(crate) fn resume_cell(&mut self, resume: Resume, tools: Arc<[CodeTool]>) {
        self.server_tool_took_part = true;
        let Resume { id, sub_tool, results } = resume;
        self.ask(Effect::ResumeCell { id, sub_tool, results, tools });
    }

    /// The effects since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn emit(&mut self, event: StreamEvent) {
        self.effects.push(Effect::Emit(event));
    }

    /// `message_start`, unless it went out before.
    pub(crate) fn start(&mut self, mut usage: Usage) {
        if self.started {
            return;
        }
        self.started = true;
        // Absent here even when a server tool is going to take part (wire.md §23).
        usage.server_tool_use = None;
        let message = Message {
            model: self.model.clone(),
            id: self.message_id.clone(),
            tag: Default::default(),
            role: Default::default(),
            content: Vec::new(),
            container: None,
            stop_reason: None,
            stop_sequence: None,
            stop_details: None,
            usage,
        };
        self.emit(StreamEvent::MessageStart { message: Box::new(message) });
    }

    /// Begins a block; the first one of a reply is followed by a ping (wire.md §23), that of a tool by an empty piece of its input
    /// (wire.md §11.2).
    pub(crate) fn begin(&mut self, content_block: ContentBlock) -> Result<(), ApiError> {
        self.charge(BLOCK_BYTES)?;
        let tool = match &content_block {
            ContentBlock::ServerToolUse(_) | ContentBlock::ToolUse(_) => true,
            ContentBlock::Passive(block) => block.takes_input(),
            ContentBlock::Text(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ToolResult(_)
            | ContentBlock::CodeExecutionToolResult(_)
            | ContentBlock::BashCodeExecutionToolResult(_)
            | ContentBlock::TextEditorCodeExecutionToolResult(_)
            | ContentBlock::ContainerUpload(_) => false,
        };
        self.open(content_block);
        if tool {
            self.delta(Delta::InputJsonDelta { partial_json: String::new() });
        }
        Ok(())
    }

    /// Begins a block of a tool that the vendor runs: a call, or one that comes whole and counts in full.
    pub(crate) fn begin_hosted(&mut self, content_block: ContentBlock) -> Result<(), ApiError> {
        let whole = match &content_block {
            ContentBlock::Passive(block) if !block.takes_input() => {
                Value::Object(block.members.clone()).to_string().len()
            }
            _ => 0,
        };
        self.charge(whole)?;
        self.server_tool_took_part = true;
        self.begin(content_block)
    }

    fn open(&mut self, content_block: ContentBlock) {
        let server_tool = matches!(
            content_block,
            ContentBlock::ServerToolUse(_)
                | ContentBlock::BashCodeExecutionToolResult(_)
                | ContentBlock::CodeExecutionToolResult(_)
                | ContentBlock::TextEditorCodeExecutionToolResult(_)
        );
        self.server_tool_took_part |= server_tool;
        let index = self.blocks_begun;
        self.blocks_begun += 1;
        self.emit(StreamEvent::ContentBlockStart { index, content_block: Box::new(content_block) });
        if index == 0 {
            self.emit(StreamEvent::Ping);
        }
    }

    /// A piece of the open block.
    pub(crate) fn delta(&mut self, delta: Delta) {
        let index = self.blocks_begun.saturating_sub(1);
        self.emit(StreamEvent::ContentBlockDelta { index, delta });
    }

    /// Ends the open block.
    pub(crate) fn end(&mut self) {
        let index = self.blocks_begun.saturating_sub(1);
        self.emit(StreamEvent::ContentBlockStop { index });
    }

    /// A block that comes whole, as results do (wire.md §11.2) and calls that code made (wire.md §11.4).
    pub(crate) fn whole(&mut self, content_block: ContentBlock) {
        self.open(content_block);
        self.end();
    }

    /// A block that comes whole and was written by code: counted like what a model writes.
    pub(crate) fn whole_from_code(&mut self, call: ToolUseBlock) -> Result<(), ApiError> {
        self.charge_call(&call.name, &call.input)?;
        self.whole(ContentBlock::ToolUse(call));
        Ok(())
    }

    /// As [`Reply::whole_from_code`], for a call of a tool of ours.
    pub(crate) fn host_call(&mut self, call: ServerToolUseBlock) -> Result<(), ApiError> {
        self.charge_call(&call.name, &call.input)?;
        self.whole(ContentBlock::ServerToolUse(call));
        Ok(())
    }

    /// What a tool of ours answered, as long as it may be.
    pub(crate) fn host_result(&mut self, result: ContentBlock, text: &str) -> Result<(), ApiError> {
        self.charge(text.len().saturating_add(BLOCK_BYTES))?;
        self.whole(result);
        Ok(())
    }

    fn charge_call(&mut self, name: &str, input: &Value) -> Result<(), ApiError> {
        let bytes = name.len().saturating_add(input.to_string().len());
        self.charge(bytes.saturating_add(BLOCK_BYTES))
    }

    /// Counts what an upstream or a container sends against [`REPLY_BYTES_MAX`].
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > REPLY_BYTES_MAX {
            return Err(ApiError::new(ErrorKind::Api, "The model's reply is longer than this server passes on"));
        }
        Ok(())
    }

    /// What the vendor's tools did and what ran here; none when neither had a part in the reply.
    fn server_tools_used(&self) -> Option<ServerToolUsage> {
        let of_vendor = self.usage.server_tool_use.unwrap_or_default();
        let took_part = self.server_tool_took_part || of_vendor != ServerToolUsage::default();
        took_part.then_some(ServerToolUsage { code_execution_requests: self.cells_run, ..of_vendor })
    }

    /// The end of a complete reply.
    pub(crate) fn complete(&mut self, ending: Ending) {
        let stop_reason = ending.stop_reason;
        let usage = DeltaUsage {
            input_tokens: self.usage.input_tokens,
            cache_creation_input_tokens: self.usage.cache_creation_input_tokens,
            cache_read_input_tokens: self.usage.cache_read_input_tokens,
            output_tokens: self.usage.output_tokens,
            output_tokens_details: self.usage.output_tokens_details,
            server_tool_use: self.server_tools_used(),
            settled: SettledUsage {
                cache_creation: self.usage.cache_creation,
                service_tier: self.usage.service_tier.clone(),
                inference_geo: self.usage.inference_geo.clone(),
                speed: self.usage.speed.clone(),
            },
        };
        let delta = MessageDelta {
            stop_reason,
            stop_sequence: ending.stop_sequence,
            stop_details: ending.stop_details,
            container: self.container.clone(),
        };
        self.emit(StreamEvent::MessageDelta { delta: Box::new(delta), usage: Box::new(usage) });
        self.emit(StreamEvent::MessageStop);
        self.ask(Effect::Finish(TurnEnd::Completed(stop_reason)));
    }

    /// The end of a reply that broke off (wire.md §11.8).
    pub(crate) fn fail(&mut self, error: ApiError) {
        if !self.started {
            self.ask(Effect::Fail(error));
            return;
        }
        self.emit(StreamEvent::Error { error: error.clone(), request_id: self.request_id.clone() });
        self.ask(Effect::Finish(TurnEnd::Failed(error)));
    }
}
