//! The plain dialect's shapes: what is left of the wire when this server's own tools are out of it.

use belljar_wire::block::{PassiveBlock, RedactedThinkingBlock, TextBlock, ThinkingBlock};
use belljar_wire::hosted_tool::HostedKind;
use belljar_wire::request::Role;
use serde::Serialize;
use serde_json::{Map, Value};

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlainMessage {
    /// Who speaks.
    pub role: Role,
    /// Empty only in a system message that says something in `rest`.
    pub content: Vec<PlainBlock>,
    /// What a system message says beside its content.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One block. Server tools of ours have no form here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PlainBlock {
    /// Text.
    Text(TextBlock),
    /// Thinking, untouched.
    Thinking(ThinkingBlock),
    /// Thinking, untouched.
    RedactedThinking(RedactedThinkingBlock),
    /// A call.
    ToolUse(PlainToolUse),
    /// The answer to a call of the message before.
    ToolResult(PlainToolResult),
    /// Media, and blocks of other server tools: as they came.
    #[serde(untagged)]
    Passive(PassiveBlock),
}

impl PlainBlock {
    /// A text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(TextBlock { text: text.into(), ..TextBlock::default() })
    }
}

/// `tool_use`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlainToolUse {
    /// Unique in the conversation.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its input.
    pub input: Value,
    /// A cache breakpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
}

/// `tool_result`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlainToolResult {
    /// The call that it answers.
    pub tool_use_id: String,
    /// What the tool said; absent when the client sent none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<PlainContent>,
    /// The tool failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// A cache breakpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
}

/// The content of a tool's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PlainContent {
    /// A string.
    Text(String),
    /// Text and media.
    Blocks(Vec<PlainBlock>),
}

/// One tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PlainTool {
    /// One with a schema.
    Schema {
        /// Its name.
        name: String,
        /// For the model.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// JSON Schema of its input.
        input_schema: Value,
        /// `cache_control`, `strict`, … as sent.
        #[serde(flatten)]
        rest: Map<String, Value>,
    },
    /// One that the upstream's vendor defines and the caller runs.
    Vendor {
        /// Its tag.
        #[serde(rename = "type")]
        tag: String,
        /// Its name.
        name: String,
        /// Everything else, as sent.
        #[serde(flatten)]
        rest: Map<String, Value>,
    },
    /// One that the upstream's vendor runs.
    Hosted {
        /// Of what.
        #[serde(skip)]
        kind: &'static HostedKind,
        /// Every member.
        #[serde(flatten)]
        members: Map<String, Value>,
    },
}

impl PlainTool {
    /// The name under which the model calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Schema { name, .. } | Self::Vendor { name, .. } => name,
            Self::Hosted { kind, .. } => kind.name.unwrap_or(kind.tag),
        }
    }
}
