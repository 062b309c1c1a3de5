//! Statements about checkpoints that have an id.

use super::files::{add_blob, drop_if_unreferenced};
use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{as_integer, instant, next_number, parsed, tenants, unsigned};
use crate::{
    CheckpointDraft, CheckpointRecord, ContentDigest, NamedCheckpoint, PageCursor, Paged, StoreError, WorkspaceId,
};
use belljar_ids::{CheckpointId, ContainerId};

const COLUMNS: &str = "id, number, image, isolation, size_bytes, made_at_us, blob";

fn from_row(row: &Row<'_>) -> rusqlite::Result<(NamedCheckpoint, i64)> {
    let record = CheckpointRecord {
        image: row.get("image")?,
        isolation: parsed(row, "isolation")?,
        size_bytes: unsigned(row, "size_bytes")?,
        made_at: instant(row, "made_at_us")?,
        content: ContentDigest(row.get("blob")?),
    };
    Ok((NamedCheckpoint { id: parsed(row, "id")?, record }, row.get("number")?))
}

/// One of a container's.
pub(crate) fn find(
    connection: &Connection,
    workspace: &WorkspaceId,
    container: &ContainerId,
    id: &CheckpointId,
) -> Result<Option<NamedCheckpoint>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM named_checkpoints WHERE id = ?1 AND container = ?2 AND workspace = ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row((id.as_str(), container.as_str(), workspace.as_str()), from_row).optional()?;
    Ok(found.map(|(named, _number)| named))
}

/// A page of a container's, newest first.
pub(crate) fn list(
    connection: &Connection,
    workspace: &WorkspaceId,
    container: &ContainerId,
    after: Option<PageCursor>,
    limit: u16,
) -> Result<Paged<NamedCheckpoint>, StoreError> {
    let from = after.unwrap_or(PageCursor::START);
    let sql = format!(
        "SELECT {COLUMNS} FROM named_checkpoints
         WHERE container = ?1 AND workspace = ?2 AND (made_at_us, number) < (?3, ?4)
         ORDER BY made_at_us DESC, number DESC LIMIT ?5"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters = (container.as_str(), workspace.as_str(), from.created_at_us, from.number, u32::from(limit) + 1);
    let mut found: Vec<_> = statement.query_map(parameters, from_row)?.collect::<Result<_, _>>()?;
    let has_more = found.len() > usize::from(limit);
    found.truncate(usize::from(limit));
    let place = |(named, number): &(NamedCheckpoint, i64)| PageCursor {
        created_at_us: named.record.made_at.as_micros(),
        number: *number,
    };
    let next = found.last().filter(|_| has_more).map(place);
    Ok(Paged { entries: found.into_iter().map(|(named, _number)| named).collect(), next, has_more })
}

/// Adds one whose blob lies in its place, or is another's already. It counts towards the whole workspace's bytes.
pub(crate) fn insert(
    change: &Transaction<'_>,
    draft: &CheckpointDraft,
    named: &NamedCheckpoint,
    workspace_bytes_max: u64,
) -> Result<(), StoreError> {
    let (id, record) = (&named.id, &named.record);
    if super::containers::find(change, &draft.workspace, &draft.container)?.is_none() {
        return Err(StoreError::NoContainer { id: draft.container.to_string() });
    }
    if change.prepare_cached("SELECT 1 FROM named_checkpoints WHERE id = ?1")?.exists([id.as_str()])? {
        return Err(StoreError::IdTaken { id: id.to_string() });
    }
    tenants::held_with_room(change, &draft.workspace, record.size_bytes, workspace_bytes_max)?;
    let number = next_number(change, draft.workspace.as_str())?;
    add_blob(change, record.content, record.size_bytes)?;
    change
        .prepare_cached(
            "INSERT INTO named_checkpoints
             (id, container, workspace, number, image, isolation, size_bytes, made_at_us, blob)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            id.as_str(),
            draft.container.as_str(),
            draft.workspace.as_str(),
            number,
            &record.image,
            record.isolation.as_str(),
            as_integer(record.size_bytes)?,
            record.made_at.as_micros(),
            record.content.as_bytes(),
        ))?;
    change
        .prepare_cached("UPDATE workspaces SET bytes_used = bytes_used + ?2 WHERE workspace = ?1")?
        .execute((draft.workspace.as_str(), as_integer(record.size_bytes)?))?;
    tenants::add_bytes(change, &draft.workspace, record.size_bytes)
}

/// What a deletion did.
pub(crate) enum Deleted {
    /// There was none.
    Nothing,
    /// It is gone; so is this content's row, if that was its last reference.
    Checkpoint(Option<ContentDigest>),
}

/// Removes one.
pub(crate) fn delete(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    container: &ContainerId,
    id: &CheckpointId,
) -> Result<Deleted, StoreError> {
    let Some(found) = find(change, workspace, container, id)? else {
        return Ok(Deleted::Nothing);
    };
    change.prepare_cached("DELETE FROM named_checkpoints WHERE id = ?1")?.execute([id.as_str()])?;
    change
        .prepare_cached("UPDATE workspaces SET bytes_used = bytes_used - ?2 WHERE workspace = ?1")?
        .execute((workspace.as_str(), as_integer(found.record.size_bytes)?))?;
    tenants::remove_bytes(change, workspace, found.record.size_bytes)?;
    let content = found.record.content;
    Ok(Deleted::Checkpoint(drop_if_unreferenced(change, &content)?.then_some(content)))
}

/// Removes all of a container's; answers the contents that have lost their last references and their rows.
pub(crate) fn delete_all(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    container: &ContainerId,
) -> Result<Vec<ContentDigest>, StoreError> {
    let ids: Vec<String> = change
        .prepare_cached("SELECT id FROM named_checkpoints WHERE container = ?1 AND workspace = ?2")?
        .query_map((container.as_str(), workspace.as_str()), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut orphans = Vec::new();
    for text in ids {
        let id = text.parse().map_err(|_| StoreError::Corrupt { what: format!("checkpoint id {text}") })?;
        if let Deleted::Checkpoint(Some(orphan)) = delete(change, workspace, container, &id)? {
            orphans.push(orphan);
        }
    }
    Ok(orphans)
}
