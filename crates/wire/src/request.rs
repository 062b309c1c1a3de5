//! `POST /v1/messages`: the request as it was sent (wire.md §3). What it means is decided in `turn`.

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::block::{Content, Place};
use crate::container::ContainerParam;
use crate::error::{ApiError, ErrorCode};
use crate::read::{self, Object, Path, list};
use crate::tool::{Tool, ToolChoice};

/// Most messages in one request (wire.md §2.8).
pub const MESSAGES_MAX: usize = 100_000;

/// A request, faithful to what was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct MessagesRequest {
    /// The model's name.
    pub model: String,
    /// Tokens the reply may have, over all samplings.
    pub max_tokens: u64,
    /// The conversation.
    pub messages: Vec<InputMessage>,
    /// The system prompt.
    pub system: Option<System>,
    /// Declared tools.
    pub tools: Vec<Tool>,
    /// `code_execution: true`: the newest version of the tool that the model takes, without a declaration of its own. No hosted
    /// API has it (wire.md §20).
    pub code_execution: bool,
    /// Absent means `auto`.
    pub tool_choice: Option<ToolChoice>,
    /// The container to use.
    pub container: Option<ContainerParam>,
    /// Whether the reply is a stream.
    pub stream: bool,
    /// Texts that end the reply.
    pub stop_sequences: Vec<String>,
    /// Sampling temperature, gone since API version 2026-10-21.
    pub temperature: Option<Number>,
    /// See `temperature`.
    pub top_p: Option<Number>,
    /// See `temperature`.
    pub top_k: Option<Number>,
    /// Extended thinking, for the upstream.
    pub thinking: Option<Value>,
    /// `metadata.user_id`.
    pub user_id: Option<String>,
    /// Other known top-level fields, for the upstream.
    pub rest: Map<String, Value>,
}

/// Known top-level fields that are the upstream's business (wire.md §3).
const UPSTREAM_FIELDS: [&str; 12] = [
    "cache_control",
    "context_management",
    "diagnostics",
    "fallbacks",
    "billing_policy",
    "compaction",
    "inference_geo",
    "mcp_servers",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
];

/// Top-level fields of a request that only counts (wire.md §17.1), and ours.
const COUNTED_FIELDS: [&str; 14] = [
    "cache_control",
    "code_execution",
    "context_management",
    "mcp_servers",
    "messages",
    "model",
    "output_config",
    "output_format",
    "speed",
    "system",
    "thinking",
    "thread",
    "tool_choice",
    "tools",
];

/// What a system message may say beside its content: how much effort the next turns are worth, and how long the text is shown. Both
/// are betas of 2026 (`SDK:types/beta/beta_system_message_param.py`); Claude Code sends the first.
const SYSTEM_MESSAGE_FIELDS: [&str; 2] = ["output_config", "clear_at"];

/// One message of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputMessage {
    /// Who speaks.
    pub role: Role,
    /// What was said and done.
    pub content: Content,
    /// Of a system message: known fields that are the upstream's business. Always empty in the others.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl InputMessage {
    /// A message with nothing but its content.
    pub fn new(role: Role, content: Content) -> Self {
        Self { role, content, rest: Map::new() }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client.
    User,
    /// The model.
    Assistant,
    /// The operator, in the middle of a conversation (wire.md §3).
    System,
}

/// The system prompt: a string, or text blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct System {
    /// Its text.
    pub content: Content,
}

impl MessagesRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What the client is to be told: 400 with the field's path, in the hosted API's voice. `thread` is refused before
    /// anything else is looked at, with the code that makes the SDKs resend without it (wire.md §16).
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        Self::of(read_object(body)?)
    }

    /// Reads the body of `POST /v1/messages/count_tokens`: what the input consists of, and nothing about the reply (wire.md §17.1).
    ///
    /// # Errors
    /// As [`MessagesRequest::read`].
    pub fn read_to_count(body: &[u8]) -> Result<Self, ApiError> {
        let mut members = read_object(body)?.rest();
        if members.get("thread").is_none_or(Value::is_null)
            && let Some(key) = members.keys().find(|key| !COUNTED_FIELDS.contains(&key.as_str()))
        {
            return Err(Path::Root.key(key).error("Extra inputs are not permitted"));
        }
        members.insert("max_tokens".to_owned(), u64::MAX.into());
        Self::of(Object::new(Value::Object(members), Path::Root)?)
    }

    fn of(mut object: Object<'_>) -> Result<Self, ApiError> {
        if object.take("thread").is_some() {
            return Err(ApiError::invalid("thread: message threads are not supported by this server")
                .with_code(ErrorCode::ThreadUnsupportedRequest));
        }
        let request = Self {
            model: read_model(&mut object)?,
            max_tokens: read_max_tokens(&mut object)?,
            messages: read_messages(&mut object)?,
            system: read_system(&mut object)?,
            tools: object.optional_list("tools", Tool::read)?.unwrap_or_default(),
            code_execution: object.optional_bool("code_execution")?.unwrap_or(false),
            tool_choice: read_member(&mut object, "tool_choice", ToolChoice::read)?,
            container: read_member(&mut object, "container", ContainerParam::read)?,
            stream: object.optional_bool("stream")?.unwrap_or(false),
            stop_sequences: read_stop_sequences(&mut object)?,
            temperature: object.optional_number("temperature")?,
            top_p: object.optional_number("top_p")?,
            top_k: object.optional_number("top_k")?,
            thinking: object.take("thinking"),
            user_id: read_user_id(&mut object)?,
            rest: read_rest(&mut object, &UPSTREAM_FIELDS),
        };
        object.finish()?;
        Ok(request)
    }
}

fn read_object(body: &[u8]) -> Result<Object<'static>, ApiError> {
    Object::new(read::parse(body)?, Path::Root)
        .map_err(|_| ApiError::invalid("The request body is not valid JSON: expected an object"))
}

fn read_member<T>(
    object: &mut Object<'_>,
    key: &str,
    read: impl Fn(Value, Path<'_>) -> Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    let path = object.path();
    object.take(key).map(|value| read(value, path.key(key))).transpose()
}

fn read_model(object: &mut Object<'_>) -> Result<String, ApiError> {
    let model = object.string("model")?;
    if model.is_empty() || model.len() > 256 {
        return Err(object.path().key("model").error("String should have between 1 and 256 characters"));
    }
    Ok(model)
}

fn read_max_tokens(object: &mut Object<'_>) -> Result<u64, ApiError> {
    let value = object.required("max_tokens")?;
    let path = object.path();
    let path = path.key("max_tokens");
    match (value.as_u64(), value.as_i64()) {
        (Some(0), _) | (None, Some(_)) => Err(path.error("Input should be greater than or equal to 1")),
        (Some(tokens), _) => Ok(tokens),
        (None, None) => Err(path.error("Input should be a valid integer")),
    }
}

fn read_messages(object: &mut Object<'_>) -> Result<Vec<InputMessage>, ApiError> {
    let value = object.required("messages")?;
    let path = object.path();
    let path = path.key("messages");
    let messages = list(value, &path, InputMessage::read)?;
    if messages.is_empty() {
        return Err(path.error("at least one message is required"));
    }
    if messages.len() > MESSAGES_MAX {
        return Err(path.error(format_args!("at most {MESSAGES_MAX} messages are allowed")));
    }
    Ok(messages)
}

fn read_system(object: &mut Object<'_>) -> Result<Option<System>, ApiError> {
    read_member(object, "system", |value, path| Content::read(value, path, Place::System))
        .map(|content| content.map(|content| System { content }))
}

fn read_stop_sequences(object: &mut Object<'_>) -> Result<Vec<String>, ApiError> {
    let read = |value, path: Path<'_>| read::string(value, &path);
    Ok(object.optional_list("stop_sequences", read)?.unwrap_or_default())
}

fn read_user_id(object: &mut Object<'_>) -> Result<Option<String>, ApiError> {
    let user_id = read_member(object, "metadata", |value, path| {
        let mut metadata = Object::new(value, path)?;
        let user_id = metadata.optional_string("user_id")?;
        metadata.finish()?;
        Ok(user_id)
    })?;
    Ok(user_id.flatten())
}

fn read_rest(object: &mut Object<'_>, fields: &[&str]) -> Map<String, Value> {
    let taken = fields.iter().filter_map(|key| Some(((*key).to_owned(), object.take(key)?)));
    taken.collect()
}

impl InputMessage {
    fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        let mut object = Object::new(value, path)?;
        let (role, place) = match object.string("role")?.as_str() {
            "user" => (Role::User, Place::User),
            "assistant" => (Role::Assistant, Place::Assistant),
            "system" => (Role::System, Place::System),
            _ => {
                return Err(path.key("role").error("Input should be 'user', 'assistant' or 'system'"));
            }
        };
        let content = Content::read(object.required("content")?, path.key("content"), place)?;
        let rest = match role {
            Role::System => read_rest(&mut object, &SYSTEM_MESSAGE_FIELDS),
            Role::User | Role::Assistant => Map::new(),
        };
        object.finish()?;
        Ok(Self { role, content, rest })
    }
}
