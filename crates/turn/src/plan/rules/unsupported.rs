//! What the hosted API has and this server has not yet: refused, with what to do about it.

use belljar_wire::block::{Content, ContentBlock};
use belljar_wire::error::ApiError;
use belljar_wire::tool::{SubTool, Tool, ToolVersion};
use serde_json::Value;

use super::Draft;
use super::tools::{callers, path};

/// `code_execution_20250522`, whose only sub-tool is a Python cell, and Python cells that wait to be run.
pub(super) fn python_tool(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        match tool {
            Tool::CodeExecution(tool) if tool.version == ToolVersion::V20250522 => {
                return Err(ApiError::invalid(format!(
                    "tools.{index}: `code_execution_20250522` is not supported yet by this server; declare \
                     `code_execution_20250825` or a later version"
                )));
            }
            Tool::CodeExecution(_) | Tool::Custom(_) | Tool::Vendor(_) => {}
        }
    }
    if draft.history.code_is_waiting() {
        return Err(ApiError::invalid(
            "messages: a call made from code waits for its result, and programmatic tool calling is not supported by this \
             version of the server",
        ));
    }
    let pending = draft.history.pending.iter();
    let python = SubTool::CodeExecution.name();
    match pending.into_iter().find(|call| call.name == python) {
        None => Ok(()),
        Some(call) => Err(ApiError::invalid(format!(
            "messages: `{python}` tool use with id `{}` waits to be run, and Python cells are not supported yet by this \
             server",
            call.id
        ))),
    }
}

/// Agent Skills, and tools of MCP servers that the hosted API would call.
pub(super) fn skills_and_connectors(draft: &Draft<'_>) -> Result<(), ApiError> {
    let container = draft.request.container.as_ref();
    if container.is_some_and(|container| !container.skills.is_empty()) {
        return Err(ApiError::invalid("container.skills: skills are not supported yet by this server"));
    }
    let servers = draft.request.rest.get("mcp_servers");
    if servers.and_then(Value::as_array).is_some_and(|servers| !servers.is_empty()) {
        return Err(ApiError::invalid("mcp_servers: the MCP connector is not supported by this server"));
    }
    Ok(())
}

/// Images and documents by file id: the upstream has files of its own, and would look for the id there.
pub(super) fn file_sources(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, message) in draft.request.messages.iter().enumerate() {
        for (place, block) in message.content.blocks().iter().enumerate() {
            let inner = match block {
                ContentBlock::ToolResult(result) => result.content.as_ref().map_or(&[][..], Content::blocks),
                _ => &[],
            };
            if let Some(tag) = std::iter::once(block).chain(inner).find_map(tag_of_file_source) {
                return Err(ApiError::invalid(format!(
                    "messages.{index}.content.{place}: a `{tag}` by file id is not supported yet by this server; send its \
                     content inline, or the file as a `container_upload` block"
                )));
            }
        }
    }
    Ok(())
}

/// The `type` of a block whose source is a file id.
fn tag_of_file_source(block: &ContentBlock) -> Option<&str> {
    let ContentBlock::Passive(passive) = block else { return None };
    let by_file = passive.members.get("source")?.get("type")?.as_str()? == "file";
    by_file.then(|| passive.tag())
}

/// Tools that only code may call. Those that the model may call, too, stay direct.
pub(super) fn programmatic_calls(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        if !callers(tool).direct {
            let path = path(index, tool);
            return Err(ApiError::invalid(format!(
                "{path}.allowed_callers: programmatic tool calling is not supported by this version of the server; add \
                 \"direct\" to let the model call the tool itself"
            )));
        }
    }
    Ok(())
}
