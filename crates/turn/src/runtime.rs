//! What the code of a request runs with: its sub-tools, its interpreter, and the client's tools that it may call.

use std::sync::Arc;

use belljar_wire::tool::{AllowedCaller, CodeExecutionTool, SubTool, Tool, ToolVersion};

use crate::call::{CodeTool, Interpreter};
use crate::functions;

/// The runtime of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Runtime {
    /// Whose behaviour it has.
    pub(crate) version: ToolVersion,
    /// What the model sees of it.
    pub(crate) offered: &'static [SubTool],
    /// Where Python cells run.
    pub(crate) interpreter: Interpreter,
    /// What code may call.
    pub(crate) tools: Arc<[CodeTool]>,
}

impl Runtime {
    /// The runtime that these tools ask for: the declared one, or, where none is declared but some tool is to be called from
    /// code, one for that code alone (wire.md §23).
    pub(crate) fn of(tools: &[Tool]) -> Option<Self> {
        let from_code: Vec<&Tool> = tools.iter().filter(|tool| callers(tool).code).collect();
        let (version, offered) = match (declared(tools), from_code.is_empty()) {
            (Some(tool), _) => (tool.version, offered(tool.version, !from_code.is_empty())),
            (None, false) => (wanted(&from_code), &[SubTool::CodeExecution][..]),
            (None, true) => return None,
        };
        Some(Self {
            version,
            offered,
            interpreter: interpreter(version),
            tools: functions::code_tools(&from_code).into(),
        })
    }

    /// Whether the model is offered that sub-tool.
    pub(crate) fn offers(&self, sub_tool: SubTool) -> bool {
        self.offered.contains(&sub_tool)
    }

    /// Whether code may call a tool of that name.
    pub(crate) fn lets_code_call(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name == name)
    }
}

/// The code execution tool, if one is declared.
pub(crate) fn declared(tools: &[Tool]) -> Option<&CodeExecutionTool> {
    tools.iter().find_map(|tool| match tool {
        Tool::CodeExecution(tool) => Some(tool),
        Tool::Custom(_) | Tool::Host(_) | Tool::Hosted(_) | Tool::Vendor(_) => None,
    })
}

/// The sub-tools of a version (wire.md §4). Python stands last: its text is the one that changes with the client's tools, and a
/// cache keeps what stands before.
const fn offered(version: ToolVersion, called_from_code: bool) -> &'static [SubTool] {
    match (version, called_from_code) {
        (ToolVersion::V20250522, _) => &[SubTool::CodeExecution],
        (ToolVersion::V20250825 | ToolVersion::V20260120 | ToolVersion::V20260521, false) => {
            &[SubTool::BashCodeExecution, SubTool::TextEditorCodeExecution]
        }
        (ToolVersion::V20250825 | ToolVersion::V20260120 | ToolVersion::V20260521, true) => {
            &[SubTool::BashCodeExecution, SubTool::TextEditorCodeExecution, SubTool::CodeExecution]
        }
    }
}

/// Where the Python cells of a version run (wire.md §4).
const fn interpreter(version: ToolVersion) -> Interpreter {
    match version {
        ToolVersion::V20250522 => Interpreter::Fresh,
        ToolVersion::V20250825 | ToolVersion::V20260120 | ToolVersion::V20260521 => Interpreter::Live,
    }
}

/// The newest version that one of these tools names, and at least the first that has programmatic calls (wire.md §4).
fn wanted(from_code: &[&Tool]) -> ToolVersion {
    let named = from_code.iter().flat_map(|tool| code_versions(tool));
    named.max().unwrap_or(ToolVersion::V20260120).max(ToolVersion::V20260120)
}

/// Who may call a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callers {
    pub(crate) direct: bool,
    pub(crate) code: bool,
}

/// Reads `allowed_callers`; absent means the model only (wire.md §10.1). On the code execution tool itself it has no use, and on tools
/// that the vendor runs it says what it must.
pub(crate) fn callers(tool: &Tool) -> Callers {
    match (tool, tool.allowed_callers()) {
        (Tool::CodeExecution(_) | Tool::Hosted(_), _) | (Tool::Custom(_) | Tool::Host(_) | Tool::Vendor(_), None) => {
            Callers { direct: true, code: false }
        }
        (Tool::Custom(_) | Tool::Host(_) | Tool::Vendor(_), Some(callers)) => Callers {
            direct: callers.contains(&AllowedCaller::Direct),
            code: callers.iter().any(|caller| matches!(caller, AllowedCaller::Code(_))),
        },
    }
}

/// The versions whose code may call a tool.
pub(crate) fn code_versions(tool: &Tool) -> impl Iterator<Item = ToolVersion> + '_ {
    let callers = tool.allowed_callers().unwrap_or_default().iter();
    callers.filter_map(|caller| match caller {
        AllowedCaller::Direct => None,
        AllowedCaller::Code(version) => Some(*version),
    })
}
