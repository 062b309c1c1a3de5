//! What the hosted API has and this server has not yet: refused, with what to do about it.

use belljar_wire::error::ApiError;
use serde_json::Value;

use super::Draft;

/// Agent Skills.
pub(super) fn skills(draft: &Draft<'_>) -> Result<(), ApiError> {
    let container = draft.request.container.as_ref();
    if container.is_some_and(|container| !container.skills.is_empty()) {
        return Err(ApiError::invalid("container.skills: skills are not supported yet by this server"));
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
