//! What the hosted API has and this server has not yet: refused, with what to do about it.

use belljar_wire::block::{Content, ContentBlock};
use belljar_wire::error::ApiError;
use serde_json::Value;

use super::Draft;

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
