//! What the hosted API has and this server has not yet: refused, with what to do about it.

use belljar_wire::error::ApiError;
use serde_json::Value;

use super::Draft;

/// Agent Skills, and tools of MCP servers that the hosted API would call.
pub(super) fn skills_and_connectors(draft: &Draft<'_>) -> Result<(), ApiError> {
    let container = draft.request.container.as_ref();
    if container.is_some_and(|container| !container.skills.is_empty()) {
        return Err(ApiError::invalid("container.skills: skills are not supported yet by this server"));
    }
    let asked = match draft.request.rest.get("mcp_servers") {
        None | Some(Value::Null) => false,
        Some(servers) => servers.as_array().is_none_or(|servers| !servers.is_empty()),
    };
    if asked {
        return Err(ApiError::invalid("mcp_servers: the MCP connector is not supported by this server"));
    }
    Ok(())
}

/// Compaction: its blocks and its stop reason have no place in this server's replies, and a reply that has them fails when it has
/// been paid for (wire.md §12.3).
pub(super) fn compaction(draft: &Draft<'_>) -> Result<(), ApiError> {
    let rest = &draft.request.rest;
    let edits = rest.get("context_management").and_then(|management| management.get("edits")?.as_array());
    let compacts =
        |edit: &Value| edit.get("type").and_then(Value::as_str).is_some_and(|tag| tag.starts_with("compact"));
    let at = if rest.get("compaction").is_some_and(|value| !value.is_null()) {
        "compaction".to_owned()
    } else if let Some(index) = edits.and_then(|edits| edits.iter().position(compacts)) {
        format!("context_management.edits.{index}")
    } else {
        return Ok(());
    };
    Err(ApiError::invalid(format!(
        "{at}: compaction is not supported by this server; `clear_tool_uses` edits are, and so is a shorter history"
    )))
}
