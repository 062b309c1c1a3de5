//! Tools that the model's vendor runs itself: web search, web fetch, tool search, the MCP connector (wire.md §4.2, §14).
//!
//! Of what a request says of them, who may call is all that means something here; the rest is the vendor's, and kept as it came. Their
//! blocks are kept whole for the same reason: the vendor refuses a conversation in which one was changed (wire.md §19 row 39).

use serde_json::{Map, Value};

use crate::block::{ContentBlock, PassiveBlock, Place, ServerToolUseBlock};
use crate::error::ApiError;
use crate::read::{Object, Path};
use crate::tool::{AllowedCaller, Caller};

/// Versions of one tool, under the name by which an operator allows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostedFamily {
    /// `web_search_…`.
    WebSearch,
    /// `web_fetch_…`.
    WebFetch,
    /// `tool_search_tool_…`.
    ToolSearch,
    /// `mcp_toolset` and `mcp_servers`: requests carry tokens of the client's to the vendor.
    Mcp,
}

impl HostedFamily {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::WebSearch, Self::WebFetch, Self::ToolSearch, Self::Mcp];

    /// The operator's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSearch => "web_search",
            Self::WebFetch => "web_fetch",
            Self::ToolSearch => "tool_search",
            Self::Mcp => "mcp",
        }
    }

    /// The beta that switches it, without its date: a cloud may still want to be told.
    pub const fn beta(self) -> &'static str {
        match self {
            Self::WebSearch => "web-search",
            Self::WebFetch => "web-fetch",
            Self::ToolSearch => "tool-search-tool",
            Self::Mcp => "mcp-client",
        }
    }

    /// The `type` of the blocks that answer its calls.
    const fn answer_tag(self) -> &'static str {
        match self {
            Self::WebSearch => "web_search_tool_result",
            Self::WebFetch => "web_fetch_tool_result",
            Self::ToolSearch => "tool_search_tool_result",
            Self::Mcp => "mcp_tool_result",
        }
    }

    fn answered_by(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.answer_tag() == tag)
    }
}

/// One `type` of declaration.
#[derive(Debug, PartialEq, Eq)]
pub struct HostedKind {
    /// The `type`.
    pub tag: &'static str,
    /// What it is a version of.
    pub family: HostedFamily,
    /// Its `name`, in the declaration and in calls. A set of MCP tools has none.
    pub name: Option<&'static str>,
    /// Whether code is who calls it when nothing is said (wire.md §14).
    pub for_code: bool,
}

const fn kind(tag: &'static str, family: HostedFamily, name: &'static str, for_code: bool) -> HostedKind {
    HostedKind { tag, family, name: Some(name), for_code }
}

/// Every kind (`SDK:types/tool_union_param.py`). A later one may change what a declaration means, as those of 2026 did, so it is not
/// taken before it has its row.
static KINDS: [HostedKind; 12] = [
    HostedKind { tag: "mcp_toolset", family: HostedFamily::Mcp, name: None, for_code: false },
    kind("tool_search_tool_bm25", HostedFamily::ToolSearch, "tool_search_tool_bm25", false),
    kind("tool_search_tool_bm25_20251119", HostedFamily::ToolSearch, "tool_search_tool_bm25", false),
    kind("tool_search_tool_regex", HostedFamily::ToolSearch, "tool_search_tool_regex", false),
    kind("tool_search_tool_regex_20251119", HostedFamily::ToolSearch, "tool_search_tool_regex", false),
    kind("web_fetch_20250910", HostedFamily::WebFetch, "web_fetch", false),
    kind("web_fetch_20260209", HostedFamily::WebFetch, "web_fetch", true),
    kind("web_fetch_20260309", HostedFamily::WebFetch, "web_fetch", true),
    kind("web_fetch_20260318", HostedFamily::WebFetch, "web_fetch", true),
    kind("web_search_20250305", HostedFamily::WebSearch, "web_search", false),
    kind("web_search_20260209", HostedFamily::WebSearch, "web_search", true),
    kind("web_search_20260318", HostedFamily::WebSearch, "web_search", true),
];

impl HostedKind {
    /// Every kind.
    pub fn all() -> &'static [Self] {
        &KINDS
    }

    /// The kind whose `type` is `tag`.
    pub fn from_tag(tag: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.tag == tag)
    }
}

/// A declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedTool {
    /// Of what.
    pub kind: &'static HostedKind,
    /// As sent; what absence means is the kind's.
    pub allowed_callers: Option<Vec<AllowedCaller>>,
    /// Every member, `type` included, as sent.
    pub members: Map<String, Value>,
}

impl HostedTool {
    /// Reads a declaration.
    ///
    /// # Errors
    /// 400 for another name than the tool's, and for callers that are none.
    pub(crate) fn read(mut object: Object<'_>, kind: &'static HostedKind) -> Result<Self, ApiError> {
        let path = object.path();
        let named = kind.name.map(|name| object.string("name").map(|said| (name, said))).transpose()?;
        if let Some((name, said)) = &named
            && name != said
        {
            return Err(path.key("name").error(format_args!("Input should be '{name}'")));
        }
        let callers = object.peek("allowed_callers").cloned();
        let allowed_callers = object.optional_list("allowed_callers", AllowedCaller::read)?;
        let mut members = Map::new();
        members.insert("type".to_owned(), kind.tag.into());
        members.extend(named.map(|(name, _)| ("name".to_owned(), name.into())));
        members.extend(callers.map(|callers| ("allowed_callers".to_owned(), callers)));
        members.extend(object.rest());
        Ok(Self { kind, allowed_callers, members })
    }

    /// Whether a call of that name is one of it.
    pub fn answers_to(&self, name: &str) -> bool {
        self.kind.name == Some(name)
    }

    /// Whether a member is set and true.
    pub fn is_set(&self, key: &str) -> bool {
        self.members.get(key) == Some(&Value::Bool(true))
    }
}

/// Which of these tools an upstream passes on, by the operator's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostedTools {
    kinds: Vec<&'static HostedKind>,
}

impl HostedTools {
    /// Reads the operator's list: families, types, and beginnings of types with a `*` behind. The connector is named by its family
    /// alone.
    ///
    /// # Errors
    /// The first entry that names nothing.
    pub fn read(entries: &[String]) -> Result<Self, String> {
        let mut kinds = Vec::new();
        for entry in entries {
            let named = |kind: &&HostedKind| match (kind.family, entry.strip_suffix('*')) {
                (HostedFamily::Mcp, _) => entry == kind.family.name(),
                (_, Some(beginning)) => kind.tag.starts_with(beginning),
                (family, None) => entry == family.name() || entry == kind.tag,
            };
            let before = kinds.len();
            kinds.extend(KINDS.iter().filter(named));
            if kinds.len() == before {
                return Err(entry.clone());
            }
        }
        Ok(Self { kinds })
    }

    /// The types of what is passed on; [`HostedTools::read`] reads them, but for the connector's.
    pub fn tags(&self) -> Vec<String> {
        self.kinds.iter().map(|kind| kind.tag.to_owned()).collect()
    }

    /// Whether nothing is passed on.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether declarations of that kind are passed on.
    pub fn has(&self, kind: &HostedKind) -> bool {
        self.kinds.iter().any(|passed| passed.tag == kind.tag)
    }

    /// Whether something of that family is passed on.
    pub fn has_of(&self, family: HostedFamily) -> bool {
        self.kinds.iter().any(|passed| passed.family == family)
    }
}

/// A block of these tools, as a model's vendor sends it.
#[derive(Clone, Debug, PartialEq)]
pub enum HostedBlock {
    /// A call; its input follows in pieces.
    Call(HostedCall),
    /// What a call came to; whole.
    Answer(HostedAnswer),
    /// What an MCP server has; whole.
    Listing(PassiveBlock),
}

/// A call of such a tool. Its form is that of a `server_tool_use`, or of an `mcp_tool_use`.
#[derive(Clone, Debug, PartialEq)]
pub enum HostedCall {
    /// `server_tool_use`; whether the request has such a tool is not yet known.
    Tool(ServerToolUseBlock),
    /// `mcp_tool_use`, which has ids of its own.
    Mcp {
        /// Its id.
        id: String,
        /// The server that has the tool.
        server: String,
        /// Every member.
        block: PassiveBlock,
    },
}

/// The answer to a call, which may be of an earlier reply (wire.md §13.2).
#[derive(Clone, Debug, PartialEq)]
pub struct HostedAnswer {
    /// What was called.
    pub family: HostedFamily,
    /// The call.
    pub tool_use_id: String,
    /// Every member.
    pub block: PassiveBlock,
}

impl HostedBlock {
    /// Reads a block; none when it is of no such tool.
    ///
    /// # Errors
    /// What it lacks.
    pub fn read(members: &Map<String, Value>) -> Result<Option<Self>, ApiError> {
        let tag = members.get("type").and_then(Value::as_str).unwrap_or_default();
        let hosted = match tag {
            "server_tool_use" | "mcp_tool_use" | "mcp_tool_listing" => true,
            other => HostedFamily::answered_by(other).is_some(),
        };
        if !hosted {
            return Ok(None);
        }
        let block = ContentBlock::read(Value::Object(members.clone()), Path::Root, Place::Assistant)?;
        match Self::of(&block) {
            Some(hosted) => Ok(Some(hosted)),
            None => Err(ApiError::invalid(format!("{tag}: an id or a name is missing, or is no text"))),
        }
    }

    /// What a block of a conversation is among these; none when it is of no such tool, or lacks what makes it one.
    pub fn of(block: &ContentBlock) -> Option<Self> {
        let passive = match block {
            ContentBlock::ServerToolUse(call) => return Some(Self::Call(HostedCall::Tool(call.clone()))),
            ContentBlock::Passive(passive) => passive,
            ContentBlock::Text(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ToolUse(_)
            | ContentBlock::ToolResult(_)
            | ContentBlock::CodeExecutionToolResult(_)
            | ContentBlock::BashCodeExecutionToolResult(_)
            | ContentBlock::TextEditorCodeExecutionToolResult(_)
            | ContentBlock::ContainerUpload(_) => return None,
        };
        let text = |key: &str| passive.members.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(family) = HostedFamily::answered_by(passive.tag()) {
            return Some(Self::Answer(HostedAnswer {
                family,
                tool_use_id: text("tool_use_id")?,
                block: passive.clone(),
            }));
        }
        match passive.tag() {
            "mcp_tool_use" => {
                let (id, server, _name) = (text("id")?, text("server_name")?, text("name")?);
                Some(Self::Call(HostedCall::Mcp { id, server, block: passive.clone() }))
            }
            "mcp_tool_listing" => Some(Self::Listing(passive.clone())),
            _ => None,
        }
    }
}

impl HostedCall {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Tool(call) => call.id.as_str(),
            Self::Mcp { id, .. } => id,
        }
    }

    /// Whether code is said to have made it.
    pub fn is_from_code(&self) -> bool {
        match self {
            Self::Tool(call) => matches!(call.caller, Some(Caller::Code(_))),
            Self::Mcp { .. } => false,
        }
    }

    /// The block with that input.
    pub fn with_input(&self, input: Value) -> ContentBlock {
        match self {
            Self::Tool(call) => ContentBlock::ServerToolUse(ServerToolUseBlock { input, ..call.clone() }),
            Self::Mcp { block, .. } => {
                let mut members = block.members.clone();
                members.insert("input".to_owned(), input);
                ContentBlock::Passive(PassiveBlock { members })
            }
        }
    }
}

/// Whether a block answers a call of such a tool.
pub fn is_answer(block: &PassiveBlock) -> bool {
    HostedFamily::answered_by(block.tag()).is_some()
}
