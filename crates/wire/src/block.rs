//! Content blocks, as clients send them and as replies hold them (wire.md §5, §6, §8.1).
//!
//! Blocks of earlier assistant messages come back verbatim in later requests (wire.md §1.9): there, members that we do not
//! know are kept in `rest` as they came. In what the client itself writes, they are refused.

use belljar_ids::{ServerToolUseId, ToolUseId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::media;
use crate::read::{Object, Path, list, unknown_tag};
use crate::result::ResultContent;
use crate::tool::{Caller, SERVER_TOOL_USE_ID_PATTERN};

/// One block.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    /// Text.
    Text(TextBlock),
    /// The model's thinking; replayed untouched.
    Thinking(ThinkingBlock),
    /// Thinking that the vendor encrypted; replayed untouched.
    RedactedThinking(RedactedThinkingBlock),
    /// A call of a client tool.
    ToolUse(ToolUseBlock),
    /// A call of a server tool.
    ServerToolUse(ServerToolUseBlock),
    /// The client's answer to a `tool_use`.
    ToolResult(ToolResultBlock),
    /// The answer to a `code_execution` call.
    CodeExecutionToolResult(ServerResultBlock),
    /// The answer to a `bash_code_execution` call.
    BashCodeExecutionToolResult(ServerResultBlock),
    /// The answer to a `text_editor_code_execution` call.
    TextEditorCodeExecutionToolResult(ServerResultBlock),
    /// A file for the container's input directory.
    ContainerUpload(ContainerUploadBlock),
    /// Media, and results of tools that are not ours: passed on, never looked into.
    #[serde(untagged)]
    Passive(PassiveBlock),
}

/// `text`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TextBlock {
    /// The text.
    pub text: String,
    /// Citations, as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub citations: Option<Vec<Value>>,
    /// `cache_control`, and what a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `thinking`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ThinkingBlock {
    /// The thinking.
    pub thinking: String,
    /// The vendor's signature over it.
    pub signature: String,
    /// What a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `redacted_thinking`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RedactedThinkingBlock {
    /// Opaque.
    pub data: String,
    /// What a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `tool_use`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolUseBlock {
    /// `toolu_…`, or whatever the model's vendor calls it.
    pub id: ToolUseId,
    /// The tool.
    pub name: String,
    /// Its input, an object.
    pub input: Value,
    /// Who called; absent means the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// What a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `server_tool_use`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerToolUseBlock {
    /// `srvtoolu_…`.
    pub id: ServerToolUseId,
    /// The server tool; [`crate::tool::SubTool::from_name`] knows ours.
    pub name: String,
    /// Its input, an object.
    pub input: Value,
    /// Who called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// What a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `tool_result`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolResultBlock {
    /// The `tool_use` that it answers.
    pub tool_use_id: String,
    /// What the tool said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The tool failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// `cache_control`.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The result block of a server tool of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerResultBlock {
    /// The `server_tool_use` that it answers.
    pub tool_use_id: ServerToolUseId,
    /// One object (wire.md §6).
    pub content: ResultBody,
    /// `cache_control`, and what a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A result made here, or one that a client replays, perhaps of another server's or another year's shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ResultBody {
    /// Made here.
    Made(ResultContent),
    /// As it came.
    Replayed(Value),
}

/// `container_upload`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContainerUploadBlock {
    /// The file, as sent: whether it exists is found out where files live.
    pub file_id: String,
    /// `cache_control`, and what a replayed block held besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A block kept whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PassiveBlock {
    /// Every member, `type` included, as it came.
    pub members: Map<String, Value>,
}

impl PassiveBlock {
    /// Its `type`.
    pub fn tag(&self) -> &str {
        self.members.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is a call, whose input a stream gives in pieces.
    pub fn takes_input(&self) -> bool {
        self.tag() == "mcp_tool_use"
    }
}

/// Content of a message or of a tool result: the short form is kept, so that a replay is what was sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// A string.
    Text(String),
    /// Blocks.
    Blocks(Vec<ContentBlock>),
}

impl Content {
    /// The blocks; none for the short form.
    pub fn blocks(&self) -> &[ContentBlock] {
        match self {
            Self::Text(_) => &[],
            Self::Blocks(blocks) => blocks,
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Blocks(blocks) => blocks.is_empty(),
        }
    }

    /// Reads a string or a list of blocks.
    pub fn read(value: Value, path: Path<'_>, place: Place) -> Result<Self, ApiError> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            value => list(value, &path, |item, path| ContentBlock::read(item, path, place)).map(Self::Blocks),
        }
    }
}

/// Where a block stands: decides which kinds may stand there and what happens to members that we do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A user message: strict.
    User,
    /// An assistant message, replayed: lenient.
    Assistant,
    /// A system message or prompt: text only, strict.
    System,
    /// Inside a `tool_result`: strict.
    ToolResult,
}

const PASSIVE_IN_USER: [&str; 3] = ["document", "image", "search_result"];
const PASSIVE_IN_TOOL_RESULT: [&str; 4] = ["document", "image", "search_result", "tool_reference"];
const PASSIVE_IN_ASSISTANT: [&str; 13] = [
    "advisor_tool_result",
    "belljar_files_tool_result",
    "compaction",
    "connector_text",
    "document",
    "fallback",
    "image",
    "mcp_tool_listing",
    "mcp_tool_result",
    "mcp_tool_use",
    "tool_search_tool_result",
    "web_fetch_tool_result",
    "web_search_tool_result",
];

impl Place {
    /// The kinds that may stand here: those with a type of their own, and those kept whole.
    fn tags(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::System => (&["text"], &[]),
            Self::ToolResult => (&["text"], &PASSIVE_IN_TOOL_RESULT),
            Self::User => (&["container_upload", "text", "tool_result"], &PASSIVE_IN_USER),
            Self::Assistant => (
                &[
                    "bash_code_execution_tool_result",
                    "code_execution_tool_result",
                    "container_upload",
                    "redacted_thinking",
                    "server_tool_use",
                    "text",
                    "text_editor_code_execution_tool_result",
                    "thinking",
                    "tool_use",
                ],
                &PASSIVE_IN_ASSISTANT,
            ),
        }
    }

    fn allows(self, tag: &str) -> bool {
        let (own, passive) = self.tags();
        own.contains(&tag) || passive.contains(&tag)
    }

    fn expected_tags(self) -> Vec<&'static str> {
        let (own, passive) = self.tags();
        let mut tags: Vec<&str> = own.iter().chain(passive).copied().collect();
        tags.sort_unstable();
        tags
    }

    /// Ends reading an object of this place: unknown members are kept in a replay, refused elsewhere.
    fn rest(self, mut object: Object<'_>, known: &[&str]) -> Result<Map<String, Value>, ApiError> {
        if self == Self::Assistant {
            return Ok(object.rest());
        }
        let mut kept = Map::new();
        for key in known {
            if let Some(value) = object.take(key) {
                kept.insert((*key).to_owned(), value);
            }
        }
        object.finish()?;
        Ok(kept)
    }
}

impl ContentBlock {
    /// A text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(TextBlock { text: text.into(), ..TextBlock::default() })
    }

    /// Reads one block.
    pub fn read(value: Value, path: Path<'_>, place: Place) -> Result<Self, ApiError> {
        let mut object = Object::new(value, path)?;
        let tag = object.string("type")?;
        if !place.allows(&tag) {
            return Err(unknown_tag(&path, &tag, &place.expected_tags()));
        }
        let inner = path.key(&tag);
        let object = object.at(inner);
        match tag.as_str() {
            "text" => read_text(object, place),
            "thinking" => read_thinking(object),
            "redacted_thinking" => read_redacted(object),
            "tool_use" => read_tool_use(object),
            "server_tool_use" => read_server_tool_use(object),
            "tool_result" => read_tool_result(object),
            "container_upload" => read_container_upload(object, place),
            "code_execution_tool_result" => read_server_result(object).map(Self::CodeExecutionToolResult),
            "bash_code_execution_tool_result" => read_server_result(object).map(Self::BashCodeExecutionToolResult),
            "text_editor_code_execution_tool_result" => {
                read_server_result(object).map(Self::TextEditorCodeExecutionToolResult)
            }
            _ => read_passive(object, &tag, place),
        }
    }
}

fn read_text(mut object: Object<'_>, place: Place) -> Result<ContentBlock, ApiError> {
    let text = object.string("text")?;
    let path = object.path();
    let citations = object.take_unless_null("citations");
    let citations =
        citations.map(|value| list(value, &path.key("citations"), |citation, _| Ok(citation))).transpose()?;
    let rest = place.rest(object, &["cache_control", "citations"])?;
    Ok(ContentBlock::Text(TextBlock { text, citations, rest }))
}

fn read_thinking(mut object: Object<'_>) -> Result<ContentBlock, ApiError> {
    let thinking = object.string("thinking")?;
    let signature = object.string("signature")?;
    Ok(ContentBlock::Thinking(ThinkingBlock { thinking, signature, rest: object.rest() }))
}

fn read_redacted(mut object: Object<'_>) -> Result<ContentBlock, ApiError> {
    let data = object.string("data")?;
    Ok(ContentBlock::RedactedThinking(RedactedThinkingBlock { data, rest: object.rest() }))
}

fn read_input(object: &mut Object<'_>) -> Result<Value, ApiError> {
    let input = object.required("input")?;
    if !input.is_object() {
        return Err(object.path().key("input").error("Input should be an object"));
    }
    Ok(input)
}

fn read_caller(object: &mut Object<'_>) -> Result<Option<Caller>, ApiError> {
    let path = object.path();
    object.take_unless_null("caller").map(|value| Caller::read(value, path.key("caller"))).transpose()
}

fn read_tool_use(mut object: Object<'_>) -> Result<ContentBlock, ApiError> {
    let id = object
        .string("id")?
        .parse()
        .map_err(|_| object.path().key("id").error("String should match pattern '^[a-zA-Z0-9_-]+$'"))?;
    let name = object.string("name")?;
    let input = read_input(&mut object)?;
    let caller = read_caller(&mut object)?;
    Ok(ContentBlock::ToolUse(ToolUseBlock { id, name, input, caller, rest: object.rest() }))
}

/// `srvtoolu_…` under `key`.
fn read_server_id(object: &mut Object<'_>, key: &str) -> Result<ServerToolUseId, ApiError> {
    let text = object.string(key)?;
    text.parse().map_err(|_| object.path().key(key).error(SERVER_TOOL_USE_ID_PATTERN))
}

fn read_server_tool_use(mut object: Object<'_>) -> Result<ContentBlock, ApiError> {
    let id = read_server_id(&mut object, "id")?;
    let name = object.string("name")?;
    let input = read_input(&mut object)?;
    let caller = read_caller(&mut object)?;
    Ok(ContentBlock::ServerToolUse(ServerToolUseBlock { id, name, input, caller, rest: object.rest() }))
}

fn read_tool_result(mut object: Object<'_>) -> Result<ContentBlock, ApiError> {
    let tool_use_id = object.string("tool_use_id")?;
    let path = object.path();
    let content = object.take("content");
    let content = content.map(|value| Content::read(value, path.key("content"), Place::ToolResult)).transpose()?;
    let is_error = object.optional_bool("is_error")?;
    let rest = Place::User.rest(object, &["cache_control"])?;
    Ok(ContentBlock::ToolResult(ToolResultBlock { tool_use_id, content, is_error, rest }))
}

fn read_container_upload(mut object: Object<'_>, place: Place) -> Result<ContentBlock, ApiError> {
    let file_id = object.string("file_id")?;
    let rest = place.rest(object, &["cache_control"])?;
    Ok(ContentBlock::ContainerUpload(ContainerUploadBlock { file_id, rest }))
}

fn read_server_result(mut object: Object<'_>) -> Result<ServerResultBlock, ApiError> {
    let tool_use_id = read_server_id(&mut object, "tool_use_id")?;
    let content = object.required("content")?;
    if !content.is_object() {
        return Err(object.path().key("content").error("Input should be an object"));
    }
    Ok(ServerResultBlock { tool_use_id, content: ResultBody::Replayed(content), rest: object.rest() })
}

fn read_passive(mut object: Object<'_>, tag: &str, place: Place) -> Result<ContentBlock, ApiError> {
    let mut members = Map::new();
    members.insert("type".to_owned(), Value::String(tag.to_owned()));
    let known: &[&str] = match tag {
        "image" => &["source", "cache_control"],
        "document" => &["source", "title", "context", "citations", "cache_control"],
        "search_result" => &["source", "title", "content", "citations", "cache_control"],
        "tool_reference" => &["tool_name", "cache_control"],
        _ => &[],
    };
    let path = object.path();
    if let (Some(first), false) = (known.first(), place == Place::Assistant) {
        let value = object.take(first).ok_or_else(|| object.path().key(first).error("Field required"))?;
        members.insert((*first).to_owned(), value);
    }
    members.extend(place.rest(object, known)?);
    if place != Place::Assistant {
        media::check(&members, &path)?;
    }
    Ok(ContentBlock::Passive(PassiveBlock { members }))
}
