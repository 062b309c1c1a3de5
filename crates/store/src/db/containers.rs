//! Statements about containers: which workspace owns which.

use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{instant, next_number, parsed};
use crate::{ContainerRecord, PageCursor, Paged, StoreError, Timestamp, WorkspaceId};
use belljar_ids::ContainerId;

const COLUMNS: &str = "id, workspace, number, created_at_us, expires_at_us";

fn from_row(row: &Row<'_>) -> rusqlite::Result<(ContainerRecord, i64)> {
    let record = ContainerRecord {
        id: parsed(row, "id")?,
        workspace: parsed(row, "workspace")?,
        created_at: instant(row, "created_at_us")?,
        expires_at: instant(row, "expires_at_us")?,
    };
    Ok((record, row.get("number")?))
}

/// Adds a container.
pub(crate) fn insert(change: &Transaction<'_>, record: &ContainerRecord) -> Result<(), StoreError> {
    let taken = change.prepare_cached("SELECT 1 FROM containers WHERE id = ?1")?.exists([record.id.as_str()])?;
    if taken {
        return Err(StoreError::IdTaken { id: record.id.to_string() });
    }
    let number = next_number(change, record.workspace.as_str())?;
    let sql = format!("INSERT INTO containers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5)");
    change.prepare_cached(&sql)?.execute((
        record.id.as_str(),
        record.workspace.as_str(),
        number,
        record.created_at.as_micros(),
        record.expires_at.as_micros(),
    ))?;
    Ok(())
}

/// One container.
pub(crate) fn find(
    connection: &Connection,
    workspace: &WorkspaceId,
    id: &ContainerId,
) -> Result<Option<ContainerRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM containers WHERE id = ?1 AND workspace = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row((id.as_str(), workspace.as_str()), from_row).optional()?;
    Ok(found.map(|(record, _)| record))
}

/// Moves a container's end; `false` when there is no such container.
pub(crate) fn touch(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    id: &ContainerId,
    expires_at: Timestamp,
) -> Result<bool, StoreError> {
    let changed = change
        .prepare_cached("UPDATE containers SET expires_at_us = ?3 WHERE id = ?1 AND workspace = ?2")?
        .execute((id.as_str(), workspace.as_str(), expires_at.as_micros()))?;
    Ok(changed > 0)
}

/// A page of containers, newest first.
pub(crate) fn list(
    connection: &Connection,
    workspace: &WorkspaceId,
    after: Option<PageCursor>,
    limit: u16,
) -> Result<Paged<ContainerRecord>, StoreError> {
    let from = after.unwrap_or(PageCursor::START);
    let sql = format!(
        "SELECT {COLUMNS} FROM containers WHERE workspace = ?1 AND (created_at_us, number) < (?2, ?3)
         ORDER BY created_at_us DESC, number DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters = (workspace.as_str(), from.created_at_us, from.number, u32::from(limit) + 1);
    let mut found: Vec<_> = statement.query_map(parameters, from_row)?.collect::<Result<_, _>>()?;
    let has_more = found.len() > usize::from(limit);
    found.truncate(usize::from(limit));
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|(record, number)| PageCursor { created_at_us: record.created_at.as_micros(), number: *number });
    Ok(Paged { entries: found.into_iter().map(|(record, _)| record).collect(), next, has_more })
}

/// Up to `limit` containers of any workspace that expired by `now`, longest expired first.
pub(crate) fn expired(connection: &Connection, now: Timestamp, limit: u16) -> Result<Vec<ContainerRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM containers WHERE expires_at_us <= ?1 ORDER BY expires_at_us LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map((now.as_micros(), limit), |row| Ok(from_row(row)?.0))?.collect::<Result<_, _>>()?;
    Ok(found)
}

/// Removes a container; `false` when there is no such container.
pub(crate) fn delete(change: &Transaction<'_>, workspace: &WorkspaceId, id: &ContainerId) -> Result<bool, StoreError> {
    let removed = change
        .prepare_cached("DELETE FROM containers WHERE id = ?1 AND workspace = ?2")?
        .execute((id.as_str(), workspace.as_str()))?;
    Ok(removed > 0)
}
