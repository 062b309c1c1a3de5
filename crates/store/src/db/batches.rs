//! Statements about batches and their requests.

use super::places::{self, BATCHES};
use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::tenants::ALL_OF_IT;
use super::{as_integer, instant, next_number, optional_instant, parsed};
use crate::{
    BatchClosing, BatchCounts, BatchDraft, BatchItem, BatchItemDraft, BatchOutcome, BatchQuery, BatchRecord,
    BatchResult, PageCursor, Paged, StoreError, Timestamp, WorkspaceId,
};
use belljar_ids::BatchId;
use rusqlite::types::Type;
use std::ops::ControlFlow;

const COLUMNS: &str = "id, workspace, number, asked, isolation, items, created_at_us, expires_at_us, \
                       cancel_initiated_at_us, ended_at_us, archived_at_us, succeeded, errored, canceled, expired";

fn from_row(row: &Row<'_>) -> rusqlite::Result<BatchRecord> {
    let isolation: Option<String> = row.get("isolation")?;
    Ok(BatchRecord {
        id: parsed(row, "id")?,
        workspace: parsed(row, "workspace")?,
        asked: row.get("asked")?,
        isolation: isolation.map(|_| parsed(row, "isolation")).transpose()?,
        items: row.get("items")?,
        created_at: instant(row, "created_at_us")?,
        expires_at: instant(row, "expires_at_us")?,
        cancel_initiated_at: optional_instant(row, "cancel_initiated_at_us")?,
        ended_at: optional_instant(row, "ended_at_us")?,
        archived_at: optional_instant(row, "archived_at_us")?,
        counts: BatchCounts {
            succeeded: row.get("succeeded")?,
            errored: row.get("errored")?,
            canceled: row.get("canceled")?,
            expired: row.get("expired")?,
        },
    })
}

/// One batch.
pub(crate) fn find(
    connection: &Connection,
    workspace: &WorkspaceId,
    id: &BatchId,
) -> Result<Option<BatchRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM batches WHERE id = ?1 AND workspace = ?2 AND is_whole = 1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row((id.as_str(), workspace.as_str()), from_row).optional()?)
}

/// Every batch of any workspace that has not ended, oldest first.
pub(crate) fn open(connection: &Connection) -> Result<Vec<BatchRecord>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM batches WHERE ended_at_us IS NULL AND is_whole = 1 ORDER BY created_at_us");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((), from_row)?.collect::<Result<_, _>>()?)
}

/// One page of a workspace's batches, newest first.
pub(crate) fn list(
    connection: &Connection,
    workspace: &WorkspaceId,
    query: &BatchQuery,
    limit: u16,
) -> Result<Paged<BatchRecord>, StoreError> {
    let snapshot = connection.snapshot()?;
    let (from, towards, order) = match query {
        BatchQuery::Newest => (PageCursor::START, "<", "DESC"),
        BatchQuery::OlderThan(id) => (places::anchor(&snapshot, BATCHES, workspace, id.as_str())?, "<", "DESC"),
        BatchQuery::NewerThan(id) => (places::anchor(&snapshot, BATCHES, workspace, id.as_str())?, ">", "ASC"),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM batches
         WHERE workspace = ?1 AND is_whole = 1 AND (created_at_us, number) {towards} (?2, ?3)
         ORDER BY created_at_us {order}, number {order} LIMIT ?4"
    );
    let mut statement = snapshot.prepare_cached(&sql)?;
    let parameters = (workspace.as_str(), from.created_at_us, from.number, u32::from(limit) + 1);
    let mut entries: Vec<_> = statement.query_map(parameters, from_row)?.collect::<Result<_, _>>()?;
    let has_more = entries.len() > usize::from(limit);
    entries.truncate(usize::from(limit));
    if order == "ASC" {
        entries.reverse();
    }
    Ok(Paged { entries, next: None, has_more })
}

/// How many requests of a whole workspace's batches have not come to anything yet.
pub(crate) fn items_waiting(connection: &Connection, workspace: &WorkspaceId) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT CAST(coalesce(sum(items - succeeded - errored - canceled - expired), 0) AS BIGINT) AS waiting
         FROM batches WHERE {ALL_OF_IT} AND ended_at_us IS NULL"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([workspace.as_str()], |row| super::unsigned(row, "waiting"))?)
}

/// Adds a batch that exists for nobody yet.
pub(crate) fn insert(change: &Transaction<'_>, draft: &BatchDraft, now: Timestamp) -> Result<(), StoreError> {
    if change.prepare_cached("SELECT 1 FROM batches WHERE id = ?1")?.exists([draft.id.as_str()])? {
        return Err(StoreError::IdTaken { id: draft.id.to_string() });
    }
    let number = next_number(change, draft.workspace.as_str())?;
    change
        .prepare_cached(
            "INSERT INTO batches (id, workspace, number, asked, isolation, items, created_at_us, expires_at_us)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            draft.id.as_str(),
            draft.workspace.as_str(),
            number,
            &draft.asked,
            draft.isolation.map(crate::KeyIsolation::as_str),
            as_integer(draft.items.len() as u64)?,
            now.as_micros(),
            draft.expires_at.as_micros(),
        ))?;
    Ok(())
}

/// Adds some requests of a batch, from a position on.
pub(crate) fn insert_items(
    change: &Transaction<'_>,
    id: &BatchId,
    from: u32,
    items: &[BatchItemDraft],
) -> Result<(), StoreError> {
    let mut statement = change
        .prepare_cached("INSERT INTO batch_items (batch, position, custom_id, params) VALUES (?1, ?2, ?3, ?4)")?;
    for (position, item) in (from..).zip(items) {
        statement.execute((id.as_str(), position, &item.custom_id, item.params.as_ref()))?;
    }
    Ok(())
}

/// All requests are there: from now on the batch exists.
pub(crate) fn complete(change: &Transaction<'_>, id: &BatchId) -> Result<BatchRecord, StoreError> {
    change.prepare_cached("UPDATE batches SET is_whole = 1 WHERE id = ?1")?.execute([id.as_str()])?;
    by_id(change, id)
}

/// Removes a batch that was never completed.
pub(crate) fn take_back(change: &Transaction<'_>, id: &BatchId) -> Result<(), StoreError> {
    change.prepare_cached("DELETE FROM batches WHERE id = ?1 AND is_whole = 0")?.execute([id.as_str()])?;
    Ok(())
}

/// Removes all batches that were never completed. Only for a store that is being opened.
pub(crate) fn remove_incomplete(change: &Transaction<'_>) -> Result<(), StoreError> {
    change.prepare_cached("DELETE FROM batches WHERE is_whole = 0")?.execute(())?;
    Ok(())
}

fn by_id(connection: &Connection, id: &BatchId) -> Result<BatchRecord, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM batches WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([id.as_str()], from_row)?)
}

/// The first request behind a position that has not come to anything; `None` stands for the beginning.
pub(crate) fn next_item(
    connection: &Connection,
    id: &BatchId,
    after: Option<u32>,
) -> Result<Option<BatchItem>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, params FROM batch_items
         WHERE batch = ?1 AND position > ?2 AND outcome IS NULL ORDER BY position LIMIT 1",
    )?;
    let found = statement.query_row((id.as_str(), after.map_or(-1, i64::from)), |row| {
        let params: Vec<u8> = row.get("params")?;
        Ok(BatchItem { position: row.get("position")?, params: params.into() })
    });
    Ok(found.optional()?)
}

/// Keeps what a request came to. Answers its batch, which has ended if that was its last one; none when the request is gone or
/// has come to something already.
pub(crate) fn finish_item(
    change: &Transaction<'_>,
    id: &BatchId,
    position: u32,
    outcome: &BatchOutcome,
    now: Timestamp,
) -> Result<Option<BatchRecord>, StoreError> {
    let result = match outcome {
        BatchOutcome::Succeeded(text) | BatchOutcome::Errored(text) => Some(text.as_bytes()),
        BatchOutcome::Canceled | BatchOutcome::Expired => None,
    };
    let column = column(outcome);
    let finished = change
        .prepare_cached(
            "UPDATE batch_items SET params = NULL, outcome = ?3, result = ?4
             WHERE batch = ?1 AND position = ?2 AND outcome IS NULL",
        )?
        .execute((id.as_str(), position, column, result))?;
    if finished == 0 {
        return Ok(None);
    }
    count(change, id, column, 1)?;
    settle(change, id, now).map(Some)
}

/// Closes up to `limit` requests that have not come to anything. Answers the batch, which has ended when they were the last.
pub(crate) fn close(
    change: &Transaction<'_>,
    id: &BatchId,
    closing: BatchClosing,
    now: Timestamp,
    limit: u32,
) -> Result<BatchRecord, StoreError> {
    let column = column(&match closing {
        BatchClosing::Canceled => BatchOutcome::Canceled,
        BatchClosing::Expired => BatchOutcome::Expired,
    });
    let closed = change
        .prepare_cached(
            "UPDATE batch_items SET params = NULL, outcome = ?2 WHERE batch = ?1 AND position IN (
               SELECT position FROM batch_items WHERE batch = ?1 AND outcome IS NULL LIMIT ?3)",
        )?
        .execute((id.as_str(), column, limit))?;
    count(change, id, column, closed)?;
    settle(change, id, now)
}

fn column(outcome: &BatchOutcome) -> &'static str {
    match outcome {
        BatchOutcome::Succeeded(_) => "succeeded",
        BatchOutcome::Errored(_) => "errored",
        BatchOutcome::Canceled => "canceled",
        BatchOutcome::Expired => "expired",
    }
}

fn count(change: &Transaction<'_>, id: &BatchId, column: &'static str, more: usize) -> Result<(), StoreError> {
    let sql = format!("UPDATE batches SET {column} = {column} + ?2 WHERE id = ?1");
    change.prepare_cached(&sql)?.execute((id.as_str(), as_integer(more as u64)?))?;
    Ok(())
}

/// A batch whose last request has come to something has ended.
fn settle(change: &Transaction<'_>, id: &BatchId, now: Timestamp) -> Result<BatchRecord, StoreError> {
    change
        .prepare_cached(
            "UPDATE batches SET ended_at_us = ?2 WHERE id = ?1 AND ended_at_us IS NULL
             AND items = succeeded + errored + canceled + expired",
        )?
        .execute((id.as_str(), now.as_micros()))?;
    by_id(change, id)
}

/// Notes that a batch is to be canceled, if it still can be; answers it as it is then.
pub(crate) fn cancel(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    id: &BatchId,
    now: Timestamp,
) -> Result<Option<BatchRecord>, StoreError> {
    change
        .prepare_cached(
            "UPDATE batches SET cancel_initiated_at_us = ?3 WHERE id = ?1 AND workspace = ?2 AND is_whole = 1
             AND ended_at_us IS NULL AND cancel_initiated_at_us IS NULL",
        )?
        .execute((id.as_str(), workspace.as_str(), now.as_micros()))?;
    find(change, workspace, id)
}

/// The most results that a PostgreSQL sends at once; each may have some megabytes. SQLite's are read one by one.
const RESULTS_AT_ONCE: i64 = 32;

/// Results behind a position, in order, until they have `bytes_max` bytes together or are many; at least one where there is one.
pub(crate) fn results(
    connection: &Connection,
    id: &BatchId,
    after: Option<u32>,
    bytes_max: usize,
) -> Result<Vec<BatchResult>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, custom_id, outcome, result FROM batch_items
         WHERE batch = ?1 AND position > ?2 AND outcome IS NOT NULL ORDER BY position LIMIT ?3",
    )?;
    let limit = connection.choose(i64::from(u32::MAX), RESULTS_AT_ONCE);
    let mut bytes = 0_usize;
    let found = statement.query_until((id.as_str(), after.map_or(-1, i64::from), limit), |row| {
        let result = result_from_row(row)?;
        bytes += result.custom_id.len() + text_bytes(&result.outcome);
        let flow = if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        Ok((result, flow))
    });
    Ok(found?)
}

fn text_bytes(outcome: &BatchOutcome) -> usize {
    match outcome {
        BatchOutcome::Succeeded(text) | BatchOutcome::Errored(text) => text.len(),
        BatchOutcome::Canceled | BatchOutcome::Expired => 0,
    }
}

fn result_from_row(row: &Row<'_>) -> rusqlite::Result<BatchResult> {
    let outcome: String = row.get("outcome")?;
    let index = row.index("result")?;
    let damaged = |what: String| rusqlite::Error::FromSqlConversionFailure(index, Type::Blob, what.into());
    let text = || {
        let bytes: Vec<u8> = row.get(index)?;
        String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))
    };
    let outcome = match outcome.as_str() {
        "succeeded" => BatchOutcome::Succeeded(text()?),
        "errored" => BatchOutcome::Errored(text()?),
        "canceled" => BatchOutcome::Canceled,
        "expired" => BatchOutcome::Expired,
        other => return Err(damaged(format!("outcome is {other}"))),
    };
    Ok(BatchResult { position: row.get("position")?, custom_id: row.get("custom_id")?, outcome })
}

/// Removes a batch that has ended, with its results, and notes where it stood; `false` when there is none.
pub(crate) fn delete(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    id: &BatchId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let ended = change
        .prepare_cached("SELECT 1 FROM batches WHERE id = ?1 AND workspace = ?2 AND ended_at_us IS NOT NULL")?
        .exists((id.as_str(), workspace.as_str()))?;
    if !ended {
        return Ok(false);
    }
    places::note(change, BATCHES, workspace, id.as_str(), now)?;
    let removed = change.prepare_cached("DELETE FROM batches WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(removed > 0)
}

/// Removes the results of one batch that ended and was made by `made_by`; `false` when there is none.
pub(crate) fn archive_one(change: &Transaction<'_>, made_by: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
    let due: Option<String> = change
        .prepare_cached(
            "SELECT id FROM batches WHERE created_at_us <= ?1 AND archived_at_us IS NULL AND ended_at_us IS NOT NULL
             LIMIT 1",
        )?
        .query_row([made_by.as_micros()], |row| row.get(0))
        .optional()?;
    let Some(id) = due else { return Ok(false) };
    change.prepare_cached("DELETE FROM batch_items WHERE batch = ?1")?.execute([&id])?;
    change.prepare_cached("UPDATE batches SET archived_at_us = ?2 WHERE id = ?1")?.execute((&id, now.as_micros()))?;
    Ok(true)
}
