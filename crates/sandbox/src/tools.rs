//! The client's tools that code in a cell may call, the calls, and the answers to them. Whoever started the cell carries
//! them; nothing here knows what a tool does.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Tools of one cell. The driver keeps all of them in memory.
pub const TOOLS_MAX: usize = 1024;
/// Names, descriptions and schemas of a cell's tools together, as JSON.
pub const TOOLS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest name of a function, in bytes: as a command it is the name of a file.
const FUNCTION_BYTES_MAX: usize = 200;

/// A tool that code may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodeTool {
    /// As the client named it; calls bear this name.
    pub name: String,
    /// What code calls: the name of an async function in Python and of a command in bash.
    pub function: String,
    /// For whoever reads `help(function)`.
    pub description: String,
    /// The JSON schema of its one argument; the driver checks calls against it, and nobody else does.
    pub input_schema: Value,
}

/// The tools of one cell, found good. Cheap to clone; equal when the tools are.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeTools(Arc<Checked>);

#[derive(Debug, PartialEq)]
struct Checked {
    tools: Vec<CodeTool>,
    /// As the driver reads them: an array of name, description and schema for each function.
    text: String,
}

/// These tools cannot be offered to code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    /// No code can call a function of this name.
    #[error("{function:?} is no name for a function that code can call")]
    Function {
        /// As given.
        function: String,
    },
    /// Two tools have one function.
    #[error("two tools would be called by the name {function:?}")]
    Twice {
        /// As given.
        function: String,
    },
    /// More than `tools_max`.
    #[error("more than {tools_max} tools")]
    TooMany {
        /// The limit.
        tools_max: usize,
    },
    /// Their definitions are longer than `bytes_max` bytes.
    #[error("the definitions of the tools are longer than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

impl CodeTools {
    /// Checks that code can call each of them, and all of them by different names.
    ///
    /// # Errors
    /// [`ToolsError`], for the first that cannot be called, or for all together.
    pub fn new(tools: Vec<CodeTool>) -> Result<Self, ToolsError> {
        if tools.len() > TOOLS_MAX {
            return Err(ToolsError::TooMany { tools_max: TOOLS_MAX });
        }
        let mut functions = BTreeSet::new();
        for CodeTool { function, .. } in &tools {
            if !callable(function) {
                return Err(ToolsError::Function { function: function.clone() });
            }
            if !functions.insert(function) {
                return Err(ToolsError::Twice { function: function.clone() });
            }
        }
        let told = tools.iter().map(|tool| (&tool.function, &tool.description, &tool.input_schema));
        // Strings and JSON values are always JSON.
        let text = serde_json::to_string(&told.collect::<Vec<_>>()).unwrap_or_default();
        if text.len() > TOOLS_BYTES_MAX {
            return Err(ToolsError::TooLarge { bytes_max: TOOLS_BYTES_MAX });
        }
        Ok(Self(Arc::new(Checked { tools, text })))
    }

    /// Every tool, in the order given.
    #[must_use]
    pub fn all(&self) -> &[CodeTool] {
        &self.0.tools
    }

    /// As the driver reads them.
    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }
}

/// Words that Python keeps for itself (its language reference, section 2.3.1), and `match` and the like are not.
const KEYWORDS: &[&str] = &[
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// An identifier of Python in ASCII, which is a file name too.
fn callable(function: &str) -> bool {
    let mut bytes = function.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && function.len() <= FUNCTION_BYTES_MAX
        // `__name__` and its like are the interpreter's own.
        && !function.starts_with("__")
        && !KEYWORDS.contains(&function)
}

/// A call that code has made and waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// By which it is answered; counted from 1 in each cell.
    pub number: u64,
    /// The name of the tool, as the client named it.
    pub tool: String,
    /// What the code passed.
    pub input: Map<String, Value>,
}

/// The client's answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolAnswer {
    /// That of the [`ToolCall`].
    pub number: u64,
    /// What the call yields to the code, whatever it holds.
    pub text: String,
    /// Whether the tool failed; then the code gets an exception with this text.
    pub is_error: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(function: &str) -> CodeTool {
        CodeTool {
            name: function.to_owned(),
            function: function.to_owned(),
            description: "What it does.".to_owned(),
            input_schema: json!({"type": "object"}),
        }
    }

    #[test]
    fn tools_that_code_can_call_are_told_to_the_driver() {
        let tools = CodeTools::new(vec![tool("query_db"), tool("_x1")]).expect("good");
        let text = r#"[["query_db","What it does.",{"type":"object"}],["_x1","What it does.",{"type":"object"}]]"#;
        assert_eq!(tools.text(), text);
        assert_eq!(CodeTools::new(Vec::new()).expect("none is fine").text(), "[]");
    }

    #[test]
    fn others_are_refused_by_name() {
        for function in ["", "1st", "query-db", "a b", "päth", "class", "None", "__name__", "a/b", &"x".repeat(201)] {
            let refused = CodeTools::new(vec![tool("fine"), tool(function)]);
            assert_eq!(refused, Err(ToolsError::Function { function: function.to_owned() }), "{function}");
        }
        let twice = CodeTools::new(vec![tool("a"), tool("b"), tool("a")]);
        assert_eq!(twice, Err(ToolsError::Twice { function: "a".to_owned() }));
    }

    #[test]
    fn too_many_and_too_large_are_refused() {
        let many = (0..=TOOLS_MAX).map(|number| tool(&format!("t{number}"))).collect();
        assert_eq!(CodeTools::new(many), Err(ToolsError::TooMany { tools_max: TOOLS_MAX }));
        let large = CodeTool { description: "x".repeat(TOOLS_BYTES_MAX), ..tool("large") };
        assert_eq!(CodeTools::new(vec![large]), Err(ToolsError::TooLarge { bytes_max: TOOLS_BYTES_MAX }));
    }
}
