//! Stream events (wire.md §11): the one form in which a reply is produced.

use belljar_ids::{RequestId, ServerToolUseId};
use serde::Serialize;
use serde_json::Value;

use crate::block::ContentBlock;
use crate::container::ContainerInfo;
use crate::error::ApiError;
use crate::message::{CacheCreation, Message, OutputTokensDetails, ServerToolUsage, StopReason};

/// One event of a reply.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// The head of the reply, with empty content.
    MessageStart {
        /// The head.
        message: Box<Message>,
    },
    /// A block begins. Results of server tools are whole here.
    ContentBlockStart {
        /// Contiguous from 0 over the whole reply.
        index: usize,
        /// The block, empty unless it comes whole. Rare and large: what is frequent is to stay small.
        content_block: Box<ContentBlock>,
    },
    /// A piece of the open block.
    ContentBlockDelta {
        /// The open block.
        index: usize,
        /// The piece.
        delta: Delta,
    },
    /// The open block is complete.
    ContentBlockStop {
        /// The block.
        index: usize,
    },
    /// Why the reply ends, its container, and cumulative usage.
    MessageDelta {
        /// Changes to the message.
        delta: Box<MessageDelta>,
        /// Usage over all samplings.
        usage: Box<DeltaUsage>,
    },
    /// The last event.
    MessageStop,
    /// Keeps the connection alive; may stand anywhere.
    Ping,
    /// What running code has just written: an extension of ours, for clients that ask for it. Stands between a call's end and its
    /// result, which has all of it again.
    BelljarOutput {
        /// The call whose code writes.
        tool_use_id: ServerToolUseId,
        /// Where to.
        stream: OutputStream,
        /// Bytes that the code had written there before this piece.
        offset: u64,
        /// The piece.
        text: String,
    },
    /// The reply failed after its first byte (wire.md §11.8).
    Error {
        /// What went wrong.
        error: ApiError,
        /// The request's id.
        request_id: RequestId,
    },
}

impl StreamEvent {
    /// Whether it has an `event:` line. Our own event has none: by that the official SDKs pass over it, while the newer ones hand
    /// out every event that has one.
    pub const fn is_named(&self) -> bool {
        !matches!(self, Self::BelljarOutput { .. })
    }

    /// The value of the `event:` line, which repeats `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
            Self::BelljarOutput { .. } => "belljar_output",
            Self::Error { .. } => "error",
        }
    }
}

/// One of the two streams of running code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a block.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delta {
    /// Text.
    TextDelta {
        /// The piece.
        text: String,
    },
    /// A piece of a tool input's JSON text; boundaries are arbitrary, even mid-escape.
    InputJsonDelta {
        /// The piece.
        partial_json: String,
    },
    /// Thinking.
    ThinkingDelta {
        /// The piece.
        thinking: String,
    },
    /// A signature of thinking.
    SignatureDelta {
        /// The signature.
        signature: String,
    },
    /// One citation.
    CitationsDelta {
        /// The citation.
        citation: Value,
    },
}

/// `message_delta.delta`. The container rides here, not in `message_start` (wire.md §1.6).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessageDelta {
    /// Why the reply ends.
    pub stop_reason: StopReason,
    /// The stop sequence that was hit.
    pub stop_sequence: Option<String>,
    /// Details of a refusal.
    pub stop_details: Option<Value>,
    /// Absent when no container was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerInfo>,
}

/// `message_delta.usage`: cumulative, and overwrites the fields of `message_start.usage` that it contains.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeltaUsage {
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens written to the cache.
    pub cache_creation_input_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// Thinking tokens among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_details: Option<OutputTokensDetails>,
    /// Present, with zeros, when a server tool took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_tool_use: Option<ServerToolUsage>,
    /// What a plain reply says besides. A stream says it in its head, as far as it is known then, and not again.
    #[serde(skip)]
    pub settled: SettledUsage,
}

/// The part of a reply's usage that is not in its last events, as of the end: over all samplings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettledUsage {
    /// Cache writes by life.
    pub cache_creation: Option<CacheCreation>,
    /// `standard`, as the upstream said.
    pub service_tier: Option<String>,
    /// As the upstream said.
    pub inference_geo: Option<String>,
    /// As the upstream said.
    pub speed: Option<String>,
}
