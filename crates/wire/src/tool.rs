//! Tool definitions, tool choice and callers (wire.md §4, §10.1, §13.3).

use belljar_ids::ServerToolUseId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::host_tool::{HostTool, HostToolKind};
use crate::hosted_tool::{HostedKind, HostedTool};
use crate::read::{Object, Path, string, unknown_tag};

/// The four versions of the code execution tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ToolVersion {
    /// `code_execution_20250522`: one Python tool, behind a beta header.
    V20250522,
    /// `code_execution_20250825`: bash and files.
    V20250825,
    /// `code_execution_20260120`: bash, files, and a REPL for programmatic calls.
    V20260120,
    /// `code_execution_20260521`: the same, with its limits told to the model.
    V20260521,
}

impl ToolVersion {
    /// Every version with its tag.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::V20250522, "code_execution_20250522"),
        (Self::V20250825, "code_execution_20250825"),
        (Self::V20260120, "code_execution_20260120"),
        (Self::V20260521, "code_execution_20260521"),
    ];

    /// The version whose `type` is `tag`.
    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == tag).map(|(version, _)| *version)
    }

    /// The `type` of the tool.
    pub fn tag(self) -> &'static str {
        match self {
            Self::V20250522 => "code_execution_20250522",
            Self::V20250825 => "code_execution_20250825",
            Self::V20260120 => "code_execution_20260120",
            Self::V20260521 => "code_execution_20260521",
        }
    }
}

/// What the model sees of the code execution tool; also `server_tool_use.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubTool {
    /// `code_execution`: a Python cell.
    CodeExecution,
    /// `bash_code_execution`: a bash command.
    BashCodeExecution,
    /// `text_editor_code_execution`: view, create, str_replace.
    TextEditorCodeExecution,
}

impl SubTool {
    /// Every sub-tool.
    pub const ALL: [Self; 3] = [Self::CodeExecution, Self::BashCodeExecution, Self::TextEditorCodeExecution];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CodeExecution => "code_execution",
            Self::BashCodeExecution => "bash_code_execution",
            Self::TextEditorCodeExecution => "text_editor_code_execution",
        }
    }

    /// The sub-tool of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sub_tool| sub_tool.name() == name)
    }
}

/// Who invoked a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Caller {
    /// The model itself: `{"type":"direct"}`.
    Direct(DirectCaller),
    /// Code in a cell.
    Code(CodeCaller),
}

/// `{"type":"direct"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "direct")]
pub struct DirectCaller {}

/// `{"type":"code_execution_20260120","tool_id":"srvtoolu_…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeCaller {
    /// The tool version, as sent.
    #[serde(rename = "type")]
    pub version: String,
    /// The `server_tool_use` whose code made the call.
    pub tool_id: ServerToolUseId,
}

impl Caller {
    /// Reads a `caller` object. It comes from a replay, so versions of the tool that are newer than this server are taken,
    /// and members besides its two are dropped: who called is all that it says.
    ///
    /// # Errors
    /// 400 for another tag, or a `tool_id` that names no server tool's call.
    pub fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        let mut object = Object::new(value, path)?;
        let tag = object.string("type")?;
        if tag == "direct" {
            return Ok(Self::Direct(DirectCaller {}));
        }
        if !is_code_execution(&tag) {
            let expected: Vec<&str> = std::iter::once("direct").chain(ToolVersion::ALL.map(|(_, tag)| tag)).collect();
            return Err(unknown_tag(&path, &tag, &expected));
        }
        let tool_id = object.string("tool_id")?;
        let tool_id = tool_id.parse().map_err(|_| path.key("tool_id").error(SERVER_TOOL_USE_ID_PATTERN))?;
        Ok(Self::Code(CodeCaller { version: tag, tool_id }))
    }
}

/// What is said of an id that names no server tool's call (wire.md §5).
pub(crate) const SERVER_TOOL_USE_ID_PATTERN: &str = "String should match pattern '^srvtoolu_[a-zA-Z0-9_]+$'";

/// `code_execution_20YYMMDD`, whether we know that version or not.
fn is_code_execution(tag: &str) -> bool {
    tag.strip_prefix("code_execution_20")
        .is_some_and(|date| date.len() == "YYMMDD".len() && date.bytes().all(|byte| byte.is_ascii_digit()))
}

/// One entry of `tools`.
#[derive(Clone, Debug, PartialEq)]
pub enum Tool {
    /// Ours.
    CodeExecution(CodeExecutionTool),
    /// The caller's own, with a schema.
    Custom(CustomTool),
    /// Ours, called by code and answered here.
    Host(HostTool),
    /// One that the upstream's vendor runs itself: passed on where the operator allows it.
    Hosted(HostedTool),
    /// One that the upstream's vendor defines and the caller runs (`bash_20250124`, `text_editor_…`): passed on untouched.
    Vendor(VendorTool),
}

impl Tool {
    /// The name under which the model calls it; a set of MCP tools has none of its own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::CodeExecution(_) => Some("code_execution"),
            Self::Custom(tool) => Some(&tool.name),
            Self::Host(tool) => Some(tool.kind.name()),
            Self::Hosted(tool) => tool.kind.name,
            Self::Vendor(tool) => Some(&tool.name),
        }
    }

    /// Its `allowed_callers`, as sent. Code in our containers calls none of the vendor's own tools: what is said there of it is for a
    /// rule to look at.
    pub fn allowed_callers(&self) -> Option<&[AllowedCaller]> {
        match self {
            Self::CodeExecution(tool) => tool.allowed_callers.as_deref(),
            Self::Custom(tool) => tool.allowed_callers.as_deref(),
            Self::Host(tool) => Some(&tool.allowed_callers),
            Self::Hosted(_) => None,
            Self::Vendor(tool) => tool.allowed_callers.as_deref(),
        }
    }

    /// Reads one entry.
    pub fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        let mut object = Object::new(value, path)?;
        let tag = object.optional_string("type")?;
        match tag.as_deref() {
            None | Some("custom") => CustomTool::read(object.at(path.key("custom")), tag).map(Self::Custom),
            Some(tag) => Self::read_tagged(object.at(path.key(tag)), tag, &path),
        }
    }

    fn read_tagged(object: Object<'_>, tag: &str, path: &Path<'_>) -> Result<Self, ApiError> {
        if let Some(version) = ToolVersion::from_tag(tag) {
            return CodeExecutionTool::read(object, version).map(Self::CodeExecution);
        }
        if let Some(kind) = HostToolKind::from_tag(tag) {
            return HostTool::read(object, kind).map(Self::Host);
        }
        if let Some(kind) = HostedKind::from_tag(tag) {
            return HostedTool::read(object, kind).map(Self::Hosted);
        }
        if VENDOR_CLIENT_TOOLS.contains(&tag) {
            return VendorTool::read(object, tag.to_owned()).map(Self::Vendor);
        }
        Err(unknown_tag(path, tag, &expected_tags()))
    }
}

/// Tools that the vendor defines and the client runs (wire.md §10.1); schemas live with the model.
pub const VENDOR_CLIENT_TOOLS: [&str; 10] = [
    "bash_20241022",
    "bash_20250124",
    "computer_20241022",
    "computer_20250124",
    "computer_20251124",
    "memory_20250818",
    "text_editor_20241022",
    "text_editor_20250124",
    "text_editor_20250429",
    "text_editor_20250728",
];

fn expected_tags() -> Vec<&'static str> {
    let ours = ToolVersion::ALL.iter().map(|(_, tag)| *tag);
    let host = HostToolKind::ALL.map(HostToolKind::tag);
    let hosted = HostedKind::all().iter().map(|kind| kind.tag);
    let mut tags: Vec<&str> =
        VENDOR_CLIENT_TOOLS.into_iter().chain(ours).chain(host).chain(hosted).chain(["custom"]).collect();
    tags.sort_unstable();
    tags
}

/// The code execution tool as declared (wire.md §4.1).
#[derive(Clone, Debug, PartialEq)]
pub struct CodeExecutionTool {
    /// Which version.
    pub version: ToolVersion,
    /// Accepted; without documented use.
    pub allowed_callers: Option<Vec<AllowedCaller>>,
    /// A cache breakpoint, passed on.
    pub cache_control: Option<Value>,
    /// Loaded through tool search.
    pub defer_loading: bool,
    /// Accepted; without documented use.
    pub strict: bool,
}

impl CodeExecutionTool {
    fn read(mut object: Object<'_>, version: ToolVersion) -> Result<Self, ApiError> {
        let name = object.string("name")?;
        if name != "code_execution" {
            return Err(object.path().key("name").error("Input should be 'code_execution'"));
        }
        let tool = Self {
            version,
            allowed_callers: object.optional_list("allowed_callers", AllowedCaller::read)?,
            cache_control: object.take("cache_control"),
            defer_loading: object.optional_bool("defer_loading")?.unwrap_or(false),
            strict: object.optional_bool("strict")?.unwrap_or(false),
        };
        object.finish()?;
        Ok(tool)
    }
}

/// One entry of `allowed_callers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedCaller {
    /// The model.
    Direct,
    /// Code run by that version of the tool.
    Code(ToolVersion),
}

impl AllowedCaller {
    /// Reads one entry.
    pub fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        let tag = string(value, &path)?;
        match ToolVersion::from_tag(&tag) {
            _ if tag == "direct" => Ok(Self::Direct),
            Some(version) if version >= ToolVersion::V20250825 => Ok(Self::Code(version)),
            _ => Err(path.error(
                "Input should be 'direct', 'code_execution_20250825', 'code_execution_20260120' or \
                 'code_execution_20260521'",
            )),
        }
    }
}

/// A tool of the caller's own.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomTool {
    /// `^[a-zA-Z0-9_-]{1,128}$`.
    pub name: String,
    /// For the model.
    pub description: Option<String>,
    /// JSON Schema of the input, an object.
    pub input_schema: Value,
    /// Absent means direct only.
    pub allowed_callers: Option<Vec<AllowedCaller>>,
    /// Constrained decoding.
    pub strict: bool,
    /// Loaded through tool search.
    pub defer_loading: bool,
    /// `type`, `cache_control`, `input_examples`, … as sent, for the upstream.
    pub rest: Map<String, Value>,
}

/// A tool's name (wire.md §19 row 30, the wider of its two patterns).
fn read_name(object: &mut Object<'_>) -> Result<String, ApiError> {
    let name = object.string("name")?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 128 || !name.bytes().all(legal) {
        let path = object.path();
        return Err(path.key("name").error("String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"));
    }
    Ok(name)
}

/// Other members that a custom tool may have; they are the upstream's business.
const CUSTOM_TOOL_REST: [&str; 3] = ["cache_control", "input_examples", "eager_input_streaming"];

impl CustomTool {
    fn read(mut object: Object<'_>, tag: Option<String>) -> Result<Self, ApiError> {
        let path = object.path();
        let name = read_name(&mut object)?;
        let input_schema = object.required("input_schema")?;
        if !input_schema.is_object() {
            return Err(path.key("input_schema").error("Input should be an object"));
        }
        let mut tool = Self {
            name,
            description: object.optional_string("description")?,
            input_schema,
            allowed_callers: object.optional_list("allowed_callers", AllowedCaller::read)?,
            strict: object.optional_bool("strict")?.unwrap_or(false),
            defer_loading: object.optional_bool("defer_loading")?.unwrap_or(false),
            rest: tag.map(|tag| ("type".to_owned(), Value::String(tag))).into_iter().collect(),
        };
        for key in CUSTOM_TOOL_REST {
            if let Some(value) = object.take(key) {
                tool.rest.insert(key.to_owned(), value);
            }
        }
        object.finish()?;
        Ok(tool)
    }
}

/// A vendor-defined client tool, kept whole but for who may call it.
#[derive(Clone, Debug, PartialEq)]
pub struct VendorTool {
    /// Its `type`.
    pub tag: String,
    /// Its name.
    pub name: String,
    /// Absent means direct only.
    pub allowed_callers: Option<Vec<AllowedCaller>>,
    /// Everything else, as sent.
    pub rest: Map<String, Value>,
}

impl VendorTool {
    fn read(mut object: Object<'_>, tag: String) -> Result<Self, ApiError> {
        let name = read_name(&mut object)?;
        let allowed_callers = object.optional_list("allowed_callers", AllowedCaller::read)?;
        Ok(Self { tag, name, allowed_callers, rest: object.rest() })
    }
}

/// `tool_choice` (wire.md §13.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolChoice {
    /// What the model must do.
    pub mode: ToolChoiceMode,
    /// At most one call in a batch.
    pub disable_parallel_tool_use: bool,
}

/// The four forms of `tool_choice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoiceMode {
    /// The model decides.
    Auto,
    /// Some tool must be called.
    Any,
    /// This tool must be called.
    Tool(String),
    /// No tool may be called.
    None,
}

impl ToolChoice {
    /// Reads a `tool_choice` object.
    ///
    /// # Errors
    /// 400 for another form (wire.md §19 row 37).
    pub fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        let mut object = Object::new(value, path)?;
        let tag = object.string("type")?;
        let mut object = object.at(path.key(&tag));
        let mode = match tag.as_str() {
            "auto" => ToolChoiceMode::Auto,
            "any" => ToolChoiceMode::Any,
            "none" => ToolChoiceMode::None,
            "tool" => ToolChoiceMode::Tool(object.string("name")?),
            other => return Err(unknown_tag(&path, other, &["auto", "any", "tool", "none"])),
        };
        let disable_parallel_tool_use = object.optional_bool("disable_parallel_tool_use")?.unwrap_or(false);
        object.finish()?;
        Ok(Self { mode, disable_parallel_tool_use })
    }
}
