//! The reply: message, usage, stop reason (wire.md §12, §23).

use belljar_ids::MessageId;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::block::ContentBlock;
use crate::container::ContainerInfo;

/// A plain reply; also what `message_start` holds. Key order as recorded (wire.md §23).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// The model's name, as the client asked for it.
    pub model: String,
    /// `msg_…`.
    pub id: MessageId,
    /// Always `message`.
    #[serde(rename = "type")]
    pub tag: MessageTag,
    /// Always `assistant`.
    pub role: AssistantRole,
    /// What was said and done.
    pub content: Vec<ContentBlock>,
    /// Absent when no container was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerInfo>,
    /// Null while streaming.
    pub stop_reason: Option<StopReason>,
    /// The stop sequence that was hit.
    pub stop_sequence: Option<String>,
    /// Details of a refusal.
    pub stop_details: Option<Value>,
    /// What it took.
    pub usage: Usage,
}

/// The constant `message`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageTag {
    /// `message`.
    #[default]
    Message,
}

/// The constant `assistant`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssistantRole {
    /// `assistant`.
    #[default]
    Assistant,
}

/// Why a turn ended (wire.md §12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model was done.
    EndTurn,
    /// `max_tokens` was reached.
    MaxTokens,
    /// A stop sequence was hit.
    StopSequence,
    /// Client tools wait for their results.
    ToolUse,
    /// The loop's limit was reached; resend to go on.
    PauseTurn,
    /// The model refused.
    Refusal,
    /// The context is full.
    ModelContextWindowExceeded,
}

/// `usage` (wire.md §12.1), for one sampling or summed over a turn. Absent fields are ones that nobody reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in, without the cached ones.
    pub input_tokens: u64,
    /// Tokens written to the cache.
    #[serde(default, deserialize_with = "zero_for_null")]
    pub cache_creation_input_tokens: u64,
    /// Tokens read from the cache.
    #[serde(default, deserialize_with = "zero_for_null")]
    pub cache_read_input_tokens: u64,
    /// Cache writes by life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<CacheCreation>,
    /// Tokens out.
    pub output_tokens: u64,
    /// Thinking tokens among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_details: Option<OutputTokensDetails>,
    /// `standard`, as the upstream said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// As the upstream said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<String>,
    /// As the upstream said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Present, with zeros, when a server tool took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tool_use: Option<ServerToolUsage>,
}

/// The official types allow null for counts that an upstream does not keep.
fn zero_for_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `usage.cache_creation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCreation {
    /// Five-minute entries.
    #[serde(default)]
    pub ephemeral_5m_input_tokens: u64,
    /// One-hour entries.
    #[serde(default)]
    pub ephemeral_1h_input_tokens: u64,
}

/// `usage.output_tokens_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTokensDetails {
    /// Tokens spent on thinking.
    #[serde(default)]
    pub thinking_tokens: u64,
}

/// `usage.server_tool_use` (wire.md §12.1). The first two are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerToolUsage {
    /// Web searches.
    #[serde(default, deserialize_with = "zero_for_null")]
    pub web_search_requests: u64,
    /// Web fetches.
    #[serde(default, deserialize_with = "zero_for_null")]
    pub web_fetch_requests: u64,
    /// Cells run: documented, in no recording, so absent where it would say nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code_execution_requests: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Usage {
    /// Adds what another sampling of the same turn took; labels of the later one win. Of `server_tool_use`, what the vendor's own tools
    /// did is added; cells run here, and are counted here.
    pub fn add(&mut self, other: &Usage) {
        let Self { input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens, .. } = other;
        self.input_tokens = self.input_tokens.saturating_add(*input_tokens);
        self.cache_creation_input_tokens =
            self.cache_creation_input_tokens.saturating_add(*cache_creation_input_tokens);
        self.cache_read_input_tokens = self.cache_read_input_tokens.saturating_add(*cache_read_input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(*output_tokens);
        if let Some(added) = other.cache_creation {
            let sum = self.cache_creation.get_or_insert_default();
            sum.ephemeral_5m_input_tokens =
                sum.ephemeral_5m_input_tokens.saturating_add(added.ephemeral_5m_input_tokens);
            sum.ephemeral_1h_input_tokens =
                sum.ephemeral_1h_input_tokens.saturating_add(added.ephemeral_1h_input_tokens);
        }
        if let Some(added) = other.output_tokens_details {
            let sum = self.output_tokens_details.get_or_insert_default();
            sum.thinking_tokens = sum.thinking_tokens.saturating_add(added.thinking_tokens);
        }
        if let Some(added) = other.server_tool_use {
            let sum = self.server_tool_use.get_or_insert_default();
            sum.web_search_requests = sum.web_search_requests.saturating_add(added.web_search_requests);
            sum.web_fetch_requests = sum.web_fetch_requests.saturating_add(added.web_fetch_requests);
        }
        if other.service_tier.is_some() {
            self.service_tier.clone_from(&other.service_tier);
        }
        if other.inference_geo.is_some() {
            self.inference_geo.clone_from(&other.inference_geo);
        }
        if other.speed.is_some() {
            self.speed.clone_from(&other.speed);
        }
    }
}
