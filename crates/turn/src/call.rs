//! A call of a sub-tool, read from the input that the model wrote (wire.md §5).

use std::sync::Arc;

use belljar_ids::ServerToolUseId;
use belljar_wire::host_tool::HostToolKind;
use belljar_wire::read::Brief;
use belljar_wire::result::{EditorError, ErrorCode, ExecutionError, ResultContent};
use belljar_wire::tool::{Caller, CodeCaller, SubTool, ToolVersion};
use serde_json::{Map, Value};

use crate::runtime::Runtime;

/// The version in the caller of every call that code makes, whatever version the request declares (wire.md §1.8).
const CALLER_VERSION: ToolVersion = ToolVersion::V20260120;

/// The code of a cell, as the caller of its calls.
pub(crate) fn code_of(cell: &ServerToolUseId) -> Caller {
    Caller::Code(CodeCaller { version: CALLER_VERSION.tag().to_owned(), tool_id: cell.clone() })
}

/// A checked call, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCall {
    /// `bash_code_execution`.
    Bash {
        /// Shell text; one string, perhaps of many lines.
        command: String,
        /// Tools that the command may call: each is a command of its name, at the end of the search path.
        tools: Arc<[CodeTool]>,
    },
    /// `text_editor_code_execution`.
    Edit(EditCall),
    /// `code_execution`.
    Python {
        /// The source of the cell; top-level `await` is allowed in a live interpreter.
        code: String,
        /// Where it runs.
        interpreter: Interpreter,
        /// Tools that the code may call: each is an async function in its globals, which takes one dict and returns a string.
        tools: Arc<[CodeTool]>,
    },
}

/// The interpreter of a Python cell (wire.md §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// A new one, which ends with the cell: of one cell, the next has the files only.
    Fresh,
    /// The container's REPL: names bound in one cell are there in the next.
    Live,
}

/// A tool that code may call (wire.md §10.1, §10.2, §14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeTool {
    /// Its name, as the client declared it and as `tool_use` blocks say it.
    pub name: String,
    /// The Python function that stands for it: an identifier, of no builtin, and no other tool's.
    pub function: String,
    /// What the client says of it.
    pub description: Option<String>,
    /// JSON Schema of the function's dict.
    pub input_schema: Value,
    /// Who answers its calls.
    pub answered_by: AnsweredBy,
}

/// Who answers a call that code makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The client, in a continuation (wire.md §10.4).
    Client,
    /// This server, while the code waits (wire.md §14).
    Host(HostToolKind),
}

/// A command of the text editor sub-tool. Paths are as the model wrote them: relative ones and variables are resolved where files
/// live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditCall {
    /// `view`.
    View {
        /// The file or directory.
        path: String,
        /// First and last line, counted from 1; -1 means the last line of the file.
        view_range: Option<(i64, i64)>,
    },
    /// `create`: writes a file, replacing one that is there.
    Create {
        /// The file.
        path: String,
        /// Its new content.
        file_text: String,
    },
    /// `str_replace`.
    StrReplace {
        /// The file.
        path: String,
        /// Text that is there once.
        old_str: String,
        /// Text to stand in its place.
        new_str: String,
    },
}

/// An input that is no call of its sub-tool. The text is for the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidInput(pub String);

impl ServerCall {
    /// Reads the `input` of a call. Members that the sub-tool does not have are ignored: models add them now and then, and the
    /// call is clear without them.
    ///
    /// # Errors
    /// A member is missing or of the wrong type.
    pub(crate) fn read(sub_tool: SubTool, input: &Value, runtime: &Runtime) -> Result<Self, InvalidInput> {
        let Value::Object(input) = input else {
            return Err(InvalidInput("the input is not an object".to_owned()));
        };
        let tools = Arc::clone(&runtime.tools);
        match sub_tool {
            SubTool::BashCodeExecution => Ok(Self::Bash { command: string(input, "command")?, tools }),
            SubTool::TextEditorCodeExecution => EditCall::read(input).map(Self::Edit),
            SubTool::CodeExecution => {
                Ok(Self::Python { code: string(input, "code")?, interpreter: runtime.interpreter, tools })
            }
        }
    }

    /// Whether another call does the same. What tools its code may call is told anew with each request, and is no part of it.
    pub fn does_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bash { command, tools: _ }, Self::Bash { command: others, tools: _ }) => command == others,
            (Self::Edit(call), Self::Edit(others)) => call == others,
            (
                Self::Python { code, interpreter, tools: _ },
                Self::Python { code: others, interpreter: theirs, tools: _ },
            ) => (code, interpreter) == (others, theirs),
            (Self::Bash { .. } | Self::Edit(_) | Self::Python { .. }, _) => false,
        }
    }

    /// The sub-tool that the call is for.
    pub const fn sub_tool(&self) -> SubTool {
        match self {
            Self::Bash { .. } => SubTool::BashCodeExecution,
            Self::Edit(_) => SubTool::TextEditorCodeExecution,
            Self::Python { .. } => SubTool::CodeExecution,
        }
    }
}

impl EditCall {
    fn read(input: &Map<String, Value>) -> Result<Self, InvalidInput> {
        match string(input, "command")?.as_str() {
            "view" => Ok(Self::View { path: string(input, "path")?, view_range: view_range(input)? }),
            "create" => Ok(Self::Create {
                path: string(input, "path")?,
                file_text: match input.get("file_text") {
                    None | Some(Value::Null) => String::new(),
                    Some(_) => string(input, "file_text")?,
                },
            }),
            "str_replace" => Ok(Self::StrReplace {
                path: string(input, "path")?,
                old_str: string(input, "old_str")?,
                new_str: string(input, "new_str")?,
            }),
            other => Err(InvalidInput(format!(
                "`command` is `{}`; it should be `view`, `create` or `str_replace`",
                Brief(other)
            ))),
        }
    }
}

fn string(input: &Map<String, Value>, key: &str) -> Result<String, InvalidInput> {
    match input.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(InvalidInput(format!("`{key}` is not a string"))),
        None => Err(InvalidInput(format!("`{key}` is missing"))),
    }
}

fn view_range(input: &Map<String, Value>) -> Result<Option<(i64, i64)>, InvalidInput> {
    let range = match input.get("view_range") {
        None | Some(Value::Null) => return Ok(None),
        Some(range) => range,
    };
    let ends = range.as_array().and_then(|ends| <&[Value; 2]>::try_from(ends.as_slice()).ok());
    match ends.map(|[first, last]| (first.as_i64(), last.as_i64())) {
        Some((Some(first), Some(last))) => Ok(Some((first, last))),
        _ => Err(InvalidInput("`view_range` is not a pair of line numbers".to_owned())),
    }
}

/// The result of a call that was not run. Only the editor's error has room for a text (wire.md §6.4).
pub fn error_result(sub_tool: SubTool, error_code: ErrorCode, message: &str) -> ResultContent {
    match sub_tool {
        SubTool::BashCodeExecution => ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code }),
        SubTool::CodeExecution => ResultContent::CodeExecutionToolResultError(ExecutionError { error_code }),
        SubTool::TextEditorCodeExecution => ResultContent::TextEditorCodeExecutionToolResultError(EditorError {
            error_code,
            error_message: Some(message.to_owned()),
        }),
    }
}

/// The sub-tool whose result `content` is.
pub(crate) const fn sub_tool_of(content: &ResultContent) -> SubTool {
    match content {
        ResultContent::BashCodeExecutionResult(_) | ResultContent::BashCodeExecutionToolResultError(_) => {
            SubTool::BashCodeExecution
        }
        ResultContent::CodeExecutionResult(_) | ResultContent::CodeExecutionToolResultError(_) => {
            SubTool::CodeExecution
        }
        ResultContent::TextEditorCodeExecutionViewResult(_)
        | ResultContent::TextEditorCodeExecutionCreateResult(_)
        | ResultContent::TextEditorCodeExecutionStrReplaceResult(_)
        | ResultContent::TextEditorCodeExecutionToolResultError(_) => SubTool::TextEditorCodeExecution,
    }
}
