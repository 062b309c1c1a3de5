//! What goes into the loop and what comes out of it.

use std::sync::Arc;

use belljar_ids::{ServerToolUseId, ToolUseId};
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::ApiError;
use belljar_wire::event::StreamEvent;
use belljar_wire::host_tool::{HostToolAnswer, HostToolKind};
use belljar_wire::message::StopReason;
use belljar_wire::result::ResultContent;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use belljar_wire::tool::SubTool;
use serde_json::{Map, Value};

use crate::call::{CodeTool, ServerCall};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The upstream streamed an event of the sampling that was last asked for.
    Sampled(SamplingEvent),
    /// The upstream failed; nothing more comes of that sampling.
    SamplingFailed(ApiError),
    /// The cell that was last started came to its end.
    CellEnded {
        /// The call that it answers.
        id: ServerToolUseId,
        /// What it came to. Its kind must be the call's.
        result: ResultContent,
        /// The container as of now; absent when none could be had.
        container: Option<ContainerInfo>,
    },
    /// The code of the cell that was last started, resumed or answered has called tools and can do nothing more until it has
    /// their results (wire.md §10.3). The cell stands still; [`Effect::CallHostTools`] or [`Effect::Park`] follows.
    CellCalled {
        /// The call whose code it is.
        id: ServerToolUseId,
        /// Every call that waits, in the order in which the code made them; never empty. Each names one of the [`CodeTool`]s that
        /// the cell was last given: what runs in a container may ask for anything, so whoever reads its frames refuses the rest.
        calls: Vec<CodeCall>,
        /// The container as of now. A cell that calls has one; it expires when the calls do (wire.md §7.2).
        container: ContainerInfo,
    },
    /// The calls of [`Effect::CallHostTools`] have their answers.
    HostToolsAnswered {
        /// The call whose code made them.
        id: ServerToolUseId,
        /// One for each, in their order.
        answers: Vec<HostToolAnswer>,
    },
    /// The client hung up: nobody will read the reply.
    ClientGone,
    /// The server shuts down: the running step ends, then the turn pauses if it would go on.
    Stopping,
}

/// Something to be done. The last effect of a turn is one of [`Effect::Fail`] and [`Effect::Finish`]; neither comes twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this event to the client.
    Emit(StreamEvent),
    /// Ask the model; answer with [`Input::Sampled`] and [`Input::SamplingFailed`].
    Sample(Box<SamplingRequest>),
    /// Drop the sampling under way; what it still says is ignored.
    CancelSampling,
    /// Run a server tool; answer with [`Input::CellEnded`] or [`Input::CellCalled`]. One at a time.
    RunCell {
        /// The call.
        id: ServerToolUseId,
        /// What to run.
        call: ServerCall,
    },
    /// Give a parked cell the results that it waits for; answer with [`Input::CellEnded`] or [`Input::CellCalled`]. Comes first in
    /// a turn or not at all. A cell that is not there any more has ended: with an error of its sub-tool, or with what it came to
    /// while nobody looked.
    ResumeCell {
        /// The call, of an earlier reply.
        id: ServerToolUseId,
        /// What was called; the result must be of its kind.
        sub_tool: SubTool,
        /// One for each of the calls that it was parked with, in the order of the calls.
        results: Vec<CallResult>,
        /// The tools that its code may call from here on: the definitions sent last are the ones in force (wire.md §10.4).
        tools: Arc<[CodeTool]>,
    },
    /// Answer these calls of the cell that stands still, with [`Input::HostToolsAnswered`] (wire.md §14).
    CallHostTools {
        /// The call whose code made them.
        id: ServerToolUseId,
        /// In the order in which the code made them; never empty.
        calls: Vec<HostToolCall>,
    },
    /// Give the cell that stands still the answers to some of its calls; answer with [`Input::CellEnded`] or
    /// [`Input::CellCalled`]. What it called besides is told again, together with what it calls then.
    AnswerCell {
        /// The call whose code waits.
        id: ServerToolUseId,
        /// Never empty.
        answers: Vec<CallAnswer>,
        /// The tools that its code may call from here on.
        tools: Arc<[CodeTool]>,
    },
    /// Keep the cell that called, and its container, until a continuation names one of these ids. The turn is about to end.
    ///
    /// Comes before the reply's last events, so that the cell is found however soon the client answers.
    Park {
        /// The call whose code waits, as the conversation has it: the client may lose it.
        call: ServerToolUseBlock,
        /// What it waits for, in the order of [`Input::CellCalled`].
        pending: Vec<PendingCall>,
    },
    /// End the cell under way; its result is ignored.
    CancelCell(ServerToolUseId),
    /// The turn failed before `message_start`: answer with a plain HTTP error. The turn is over.
    Fail(ApiError),
    /// The turn is over.
    Finish(TurnEnd),
}

/// How a turn ended, for the audit.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnEnd {
    /// The reply is complete.
    Completed(StopReason),
    /// The reply broke off with an `error` event.
    Failed(ApiError),
    /// The client went away.
    Abandoned,
}

/// A call that code made of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct CodeCall {
    /// The sandbox's own number for it.
    pub number: u64,
    /// The tool, by the name of its declaration.
    pub tool: String,
    /// Its input: the one dict that the function takes.
    pub input: Map<String, Value>,
}

/// A call that code made of a tool of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct HostToolCall {
    /// The tool.
    pub kind: HostToolKind,
    /// Its input, as the code wrote it.
    pub input: Map<String, Value>,
}

/// What a call is answered with, under [`CodeCall::number`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallAnswer {
    /// The call.
    pub number: u64,
    /// What the call returns, or what it raises.
    pub text: String,
    /// It raises.
    pub is_error: bool,
}

/// The two names of a call that waits: the wire's and the sandbox's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// The id under which the client answers.
    pub tool_use_id: ToolUseId,
    /// [`CodeCall::number`].
    pub number: u64,
}

/// What the client said to a call that code made (wire.md §10.2, §10.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResult {
    /// The call.
    pub tool_use_id: ToolUseId,
    /// All that it said, in one text; empty when it said nothing.
    pub text: String,
    /// The client marked it as an error.
    pub is_error: bool,
}
