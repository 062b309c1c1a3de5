//! Tools of this server's own that code calls and the host answers, with no round trip to the client (wire.md §14).
//!
//! On the wire they look like the hosted API's web tools do when code calls them: a `server_tool_use` and its result, both with
//! the `caller` of the code. The tools themselves are ours (divergence/host-tools.md).

use belljar_ids::ServerToolUseId;
use serde_json::{Map, Value, json};

use crate::block::{ContentBlock, PassiveBlock};
use crate::error::ApiError;
use crate::read::Object;
use crate::result::ErrorCode;
use crate::tool::{AllowedCaller, Caller, ToolVersion};

/// Which tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostToolKind {
    /// `belljar_files_20261129`: lists and reads the files of the caller's workspace.
    Files,
}

impl HostToolKind {
    /// Every tool.
    pub const ALL: [Self; 1] = [Self::Files];

    /// The `type` by which a request declares it.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Files => "belljar_files_20261129",
        }
    }

    /// Its name, in the declaration and in `server_tool_use`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "belljar_files",
        }
    }

    /// The `type` of the block that answers it.
    pub const fn result_tag(self) -> &'static str {
        match self {
            Self::Files => "belljar_files_tool_result",
        }
    }

    /// The `type` of what that block holds; an error's has `_tool_result_error` instead of `_result`.
    const fn content_tags(self) -> (&'static str, &'static str) {
        match self {
            Self::Files => ("belljar_files_result", "belljar_files_tool_result_error"),
        }
    }

    /// The tool whose declaration has this `type`.
    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.tag() == tag)
    }
}

/// The tool as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTool {
    /// Which one.
    pub kind: HostToolKind,
    /// As sent; absent means code alone, as for the hosted API's web tools (wire.md §14).
    pub allowed_callers: Vec<AllowedCaller>,
    /// A cache breakpoint, passed on.
    pub cache_control: Option<Value>,
}

impl HostTool {
    /// Reads a declaration.
    ///
    /// # Errors
    /// 400 for another name, and for members that the tool does not have.
    pub(crate) fn read(mut object: Object<'_>, kind: HostToolKind) -> Result<Self, ApiError> {
        let name = object.string("name")?;
        if name != kind.name() {
            return Err(object.path().key("name").error(format_args!("Input should be '{}'", kind.name())));
        }
        let allowed_callers = object.optional_list("allowed_callers", AllowedCaller::read)?;
        let tool = Self {
            kind,
            allowed_callers: allowed_callers.unwrap_or_else(|| vec![AllowedCaller::Code(ToolVersion::V20260120)]),
            cache_control: object.take("cache_control"),
        };
        object.finish()?;
        Ok(tool)
    }
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostToolAnswer {
    /// The text that the code's call returns.
    Text(String),
    /// The call raises.
    Error {
        /// For programs.
        error_code: ErrorCode,
        /// For the author of the code.
        error_message: String,
    },
}

/// The block that answers the call `id` of `kind`.
pub fn result_block(
    kind: HostToolKind,
    id: &ServerToolUseId,
    caller: &Caller,
    answer: &HostToolAnswer,
) -> ContentBlock {
    let (result, error) = kind.content_tags();
    let content = match answer {
        HostToolAnswer::Text(text) => json!({ "type": result, "text": text }),
        HostToolAnswer::Error { error_code, error_message } => {
            json!({ "type": error, "error_code": error_code, "error_message": error_message })
        }
    };
    let mut members = Map::new();
    members.insert("type".to_owned(), kind.result_tag().into());
    members.insert("tool_use_id".to_owned(), id.as_str().into());
    members.insert("content".to_owned(), content);
    members.insert("caller".to_owned(), json!(caller));
    ContentBlock::Passive(PassiveBlock { members })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Path;
    use crate::tool::Tool;

    fn read(value: Value) -> Result<Tool, String> {
        Tool::read(value, Path::Root.key("tools").index(0)).map_err(|error| error.message)
    }

    #[test]
    fn a_declaration_is_for_code_unless_it_says_otherwise() {
        let declared = json!({ "type": "belljar_files_20261129", "name": "belljar_files" });
        let Ok(Tool::Host(tool)) = read(declared) else { panic!("it is well-formed") };
        assert_eq!(tool.allowed_callers, [AllowedCaller::Code(ToolVersion::V20260120)]);
    }

    #[test]
    fn what_is_no_declaration_is_refused() {
        let cases = [
            (json!({ "type": "belljar_files_20261129", "name": "files" }), "Input should be 'belljar_files'"),
            (json!({ "type": "belljar_files_20261129" }), "Field required"),
            (
                json!({ "type": "belljar_files_20261129", "name": "belljar_files", "max_uses": 3 }),
                "Extra inputs are not permitted",
            ),
        ];
        for (value, expected) in cases {
            let error = read(value).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
