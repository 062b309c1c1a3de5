//! The contract between the loop and a model: one request for a sampling, and the events that answer it.
//!
//! `turn` asks, `model` answers; neither knows the other. History stays in the wire's own blocks here, server tools included:
//! each upstream lowers them to what its dialect knows.

use belljar_ids::ToolUseId;
use serde_json::{Map, Number, Value};

use crate::event::Delta;
use crate::hosted_tool::{HostedBlock, HostedTool};
use crate::message::{StopReason, Usage};
use crate::request::{InputMessage, System};
use crate::tool::{CustomTool, SubTool, ToolChoice, VendorTool};

/// One call of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingRequest {
    /// The name the client asked for.
    pub model: String,
    /// Tokens this sampling may still produce.
    pub max_tokens: u64,
    /// System prompt, as sent.
    pub system: Option<System>,
    /// The conversation so far, this turn's own blocks at the end. What code and the client's tools said to each other is not in it
    /// (wire.md §10.2).
    pub messages: Vec<InputMessage>,
    /// Tools to offer, in order.
    pub tools: Vec<ModelTool>,
    /// As sent.
    pub tool_choice: Option<ToolChoice>,
    /// As sent.
    pub stop_sequences: Vec<String>,
    /// As sent, for API versions that still have them.
    pub temperature: Option<Number>,
    /// See `temperature`.
    pub top_p: Option<Number>,
    /// See `temperature`.
    pub top_k: Option<Number>,
    /// As sent.
    pub thinking: Option<Value>,
    /// `metadata.user_id`.
    pub user_id: Option<String>,
    /// Other top-level fields that are the upstream's business, as sent.
    pub rest: Map<String, Value>,
    /// Beta values of the request, for upstreams that know them.
    pub betas: Vec<String>,
}

/// A tool as the model is to see it.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelTool {
    /// The caller's own.
    Custom(CustomTool),
    /// The vendor's, run by the caller.
    Vendor(VendorTool),
    /// The vendor's, run by the vendor.
    Hosted(HostedTool),
    /// A sub-tool of the code execution tool, run by this server.
    Server {
        /// Which.
        sub_tool: SubTool,
        /// For the model: directories, limits, how to hand files out.
        description: String,
        /// JSON Schema of the input.
        input_schema: Value,
        /// A cache breakpoint.
        cache_control: Option<Value>,
    },
}

impl ModelTool {
    /// The name under which the model calls it; a set of MCP tools has none of its own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Custom(tool) => Some(&tool.name),
            Self::Vendor(tool) => Some(&tool.name),
            Self::Hosted(tool) => tool.kind.name,
            Self::Server { sub_tool, .. } => Some(sub_tool.name()),
        }
    }
}

/// What a model streams. `Started` first, then blocks one at a time, `Ended` last.
#[derive(Clone, Debug, PartialEq)]
pub enum SamplingEvent {
    /// The upstream accepted the request.
    Started {
        /// Input tokens and labels, where they are known this early.
        usage: Usage,
    },
    /// A block begins; blocks never overlap.
    BlockStarted(SampledBlock),
    /// A piece of the open block, of the kind that the block takes.
    BlockDelta(Delta),
    /// The open block is complete.
    BlockEnded,
    /// The sampling is over.
    Ended {
        /// Why.
        stop_reason: StopReason,
        /// The stop sequence that was hit.
        stop_sequence: Option<String>,
        /// Details of a refusal.
        stop_details: Option<Value>,
        /// Usage of the whole sampling.
        usage: Usage,
    },
}

/// A block as a model begins it.
#[derive(Clone, Debug, PartialEq)]
pub enum SampledBlock {
    /// Text follows in deltas.
    Text,
    /// As [`SampledBlock::Text`], where the upstream has said in advance that it will cite: the block begins with an empty list of
    /// citations.
    CitedText,
    /// Thinking and its signature follow in deltas.
    Thinking,
    /// Whole.
    RedactedThinking {
        /// Opaque.
        data: String,
    },
    /// A tool call; its input follows in deltas.
    ToolUse {
        /// The upstream's id for it.
        id: ToolUseId,
        /// The tool's name, not yet checked against what was offered.
        name: String,
    },
    /// Of a tool that the upstream's vendor runs: a call, whose input follows in deltas, or what comes whole.
    Hosted(HostedBlock),
}
