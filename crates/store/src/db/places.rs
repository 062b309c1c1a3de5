//! Where what was deleted stood, for a while: whoever deletes while paging through a list by `after_id` names what is gone.

use super::sql::Transaction;
use crate::{StoreError, Timestamp};

/// A table for each kind of thing that is listed so.
const TABLES: [&str; 2] = ["deleted_files", "deleted_batches"];

/// Forgets the places of up to `limit` of each kind that were deleted by `deleted_by`; answers how many of the kind that had most.
pub(crate) fn forget(change: &Transaction<'_>, deleted_by: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let mut most = 0;
    for table in TABLES {
        let sql =
            format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE deleted_at_us <= ?1 LIMIT ?2)");
        let forgotten = change.prepare_cached(&sql)?.execute((deleted_by.as_micros(), limit))?;
        most = most.max(forgotten as u64);
    }
    Ok(most)
}
