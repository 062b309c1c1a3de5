//! Places in lists, also of what was deleted a while ago: whoever deletes while paging by `after_id` names what is gone.

use super::sql::{Connection, OptionalExtension as _, Transaction};
use crate::{PageCursor, StoreError, Timestamp, WorkspaceId};

/// What is listed so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    /// As an error names one.
    name: &'static str,
    table: &'static str,
    /// Of the table's rows, those that are listed.
    condition: &'static str,
    /// The table of those that were deleted.
    deleted: &'static str,
}

pub(crate) const FILES: Listed = Listed { name: "File", table: "files", condition: "1 = 1", deleted: "deleted_files" };

pub(crate) const BATCHES: Listed =
    Listed { name: "Message batch", table: "batches", condition: "is_whole = 1", deleted: "deleted_batches" };

/// Where it stands, or stood until it was deleted.
///
/// # Errors
/// [`StoreError::AnchorNotFound`] when that is not known in this workspace.
pub(crate) fn anchor(
    connection: &Connection,
    listed: Listed,
    workspace: &WorkspaceId,
    id: &str,
) -> Result<PageCursor, StoreError> {
    let Listed { name, table, condition, deleted } = listed;
    let sql = format!(
        "SELECT created_at_us, number FROM {table} WHERE id = ?1 AND workspace = ?2 AND {condition}
         UNION ALL
         SELECT created_at_us, number FROM {deleted} WHERE id = ?1 AND workspace = ?2
         LIMIT 1"
    );
    connection
        .prepare_cached(&sql)?
        .query_row((id, workspace.as_str()), |row| Ok(PageCursor { created_at_us: row.get(0)?, number: row.get(1)? }))
        .optional()?
        .ok_or_else(|| StoreError::AnchorNotFound { what: name, id: id.to_owned() })
}

/// Notes where one stands that is about to be deleted in the same change.
pub(crate) fn note(
    change: &Transaction<'_>,
    listed: Listed,
    workspace: &WorkspaceId,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Listed { table, deleted, .. } = listed;
    let sql = format!(
        "INSERT INTO {deleted} (id, workspace, created_at_us, number, deleted_at_us)
         SELECT id, workspace, created_at_us, number, CAST(?3 AS BIGINT) FROM {table} WHERE id = ?1 AND workspace = ?2
         ON CONFLICT (id) DO UPDATE SET workspace = excluded.workspace, created_at_us = excluded.created_at_us,
         number = excluded.number, deleted_at_us = excluded.deleted_at_us"
    );
    change.prepare_cached(&sql)?.execute((id, workspace.as_str(), now.as_micros()))?;
    Ok(())
}

/// Forgets the places of up to `limit` of each kind that were deleted by `deleted_by`; answers how many of the kind that had most.
pub(crate) fn forget(change: &Transaction<'_>, deleted_by: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let mut most = 0;
    for Listed { deleted: table, .. } in [FILES, BATCHES] {
        let sql =
            format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE deleted_at_us <= ?1 LIMIT ?2)");
        let forgotten = change.prepare_cached(&sql)?.execute((deleted_by.as_micros(), limit))?;
        most = most.max(forgotten as u64);
    }
    Ok(most)
}
