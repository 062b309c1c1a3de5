//! The models endpoints' shapes (wire.md §17.2).

use serde::Serialize;

/// One model, as `GET /v1/models` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// Always `model`.
    #[serde(rename = "type")]
    pub tag: ModelTag,
    /// The name to send as `model`.
    pub id: String,
    /// A name for people.
    pub display_name: String,
    /// RFC 3339.
    pub created_at: String,
    /// Where the model stands in its life.
    pub lifecycle: Lifecycle,
    /// `opus`, `sonnet`, …; null for a model that is no hosted one.
    pub line: Option<&'static str>,
    /// RFC 3339; null where it is not known.
    pub deprecated_at: Option<String>,
    /// RFC 3339; null where it is not known.
    pub retires_at: Option<String>,
    /// Null where it is not known.
    pub max_input_tokens: Option<u64>,
    /// Null where it is not known.
    pub max_tokens: Option<u64>,
    /// What the model can do through this server.
    pub capabilities: Capabilities,
}

/// Where a model stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It is served.
    Active,
}

impl Lifecycle {
    /// As it is written on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
        }
    }
}

/// The constant `model`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelTag {
    /// `model`.
    #[default]
    Model,
}

/// Whether one thing is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Supported {
    /// True when it works.
    pub supported: bool,
}

/// The capabilities that this server can tell about; what else a model can do, only its upstream knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Message batches.
    pub batch: Supported,
    /// Programmatic tool calling.
    pub code_execution: Supported,
    /// The server tools.
    pub server_tools: ServerTools,
    /// Images; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_input: Option<Supported>,
    /// PDFs; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pdf_input: Option<Supported>,
    /// Thinking; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Supported>,
}

/// `capabilities.server_tools`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTools {
    /// True when any server tool is offered.
    pub supported: bool,
    /// The code execution tool itself.
    pub code_execution: Supported,
    /// Web search.
    pub web_search: Supported,
}

/// One page of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelPage {
    /// The models.
    pub data: Vec<ModelInfo>,
    /// Whether another page follows.
    pub has_more: bool,
    /// Id of the first one, or null.
    pub first_id: Option<String>,
    /// Id of the last one, or null.
    pub last_id: Option<String>,
}
