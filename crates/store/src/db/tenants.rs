//! Statements about what workspaces hold and use, their end users' parts among it.

use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{as_integer, parsed, unsigned};
use crate::{Day, Holding, Spending, StoreError, Timestamp, UserId, UserIdError, WorkspaceId};
use std::collections::BTreeSet;

/// The workspace of parameter 1 and its scopes.
pub(super) const ALL_OF_IT: &str = "(workspace = ?1 OR workspace IN (SELECT scope FROM scopes WHERE workspace = ?1))";

/// Notes whose a scope is, once.
pub(crate) fn enter_scope(
    change: &Transaction<'_>,
    scope: &WorkspaceId,
    user: &UserId,
    now: Timestamp,
) -> Result<(), StoreError> {
    change
        .prepare_cached(
            "INSERT INTO scopes (scope, workspace, user_id, created_at_us) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (scope) DO NOTHING",
        )?
        .execute((scope.as_str(), scope.whole().as_str(), user.as_str(), now.as_micros()))?;
    Ok(())
}

/// What the files and the named checkpoints of a whole workspace come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Files whose content is kept.
    pub(crate) files: u64,
    /// Their bytes, and those of named checkpoints.
    pub(crate) bytes: u64,
}

/// What the files and the named checkpoints of a whole workspace come to.
pub(crate) fn held(connection: &Connection, whole: &WorkspaceId) -> Result<Held, StoreError> {
    let found = connection
        .prepare_cached("SELECT files, bytes FROM holdings WHERE workspace = ?1")?
        .query_row([whole.as_str()], |row| Ok(Held { files: unsigned(row, "files")?, bytes: unsigned(row, "bytes")? }))
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// What the whole workspace holds, if it has room for so many bytes more.
///
/// # Errors
/// [`StoreError::QuotaExceeded`].
pub(crate) fn held_with_room(
    connection: &Connection,
    workspace: &WorkspaceId,
    size_bytes: u64,
    bytes_max: u64,
) -> Result<Held, StoreError> {
    let held = held(connection, &workspace.whole())?;
    match held.bytes.saturating_add(size_bytes) > bytes_max {
        true => Err(StoreError::QuotaExceeded { bytes_max }),
        false => Ok(held),
    }
}

/// Counts a file whose content is kept from now on.
pub(super) fn add_file(change: &Transaction<'_>, workspace: &WorkspaceId, size_bytes: u64) -> Result<(), StoreError> {
    add(change, workspace, 1, size_bytes)
}

/// Counts the bytes of a named checkpoint from now on. It is no file.
pub(super) fn add_bytes(change: &Transaction<'_>, workspace: &WorkspaceId, size_bytes: u64) -> Result<(), StoreError> {
    add(change, workspace, 0, size_bytes)
}

fn add(change: &Transaction<'_>, workspace: &WorkspaceId, files: u32, size_bytes: u64) -> Result<(), StoreError> {
    change
        .prepare_cached(
            "INSERT INTO holdings (workspace, files, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (workspace) DO UPDATE
             SET files = holdings.files + excluded.files, bytes = holdings.bytes + excluded.bytes",
        )?
        .execute((workspace.whole().as_str(), files, as_integer(size_bytes)?))?;
    Ok(())
}

/// Counts it no more: its content is gone, or it is.
pub(super) fn remove_file(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    size_bytes: u64,
) -> Result<(), StoreError> {
    remove(change, workspace, 1, size_bytes)
}

/// Counts a named checkpoint's bytes no more.
pub(super) fn remove_bytes(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    size_bytes: u64,
) -> Result<(), StoreError> {
    remove(change, workspace, 0, size_bytes)
}

fn remove(change: &Transaction<'_>, workspace: &WorkspaceId, files: u32, size_bytes: u64) -> Result<(), StoreError> {
    change
        .prepare_cached("UPDATE holdings SET files = files - ?2, bytes = bytes - ?3 WHERE workspace = ?1")?
        .execute((workspace.whole().as_str(), files, as_integer(size_bytes)?))?;
    Ok(())
}

/// Counts one more execution, unless that would be more than `max`; whether it was counted.
pub(crate) fn take_execution(
    change: &Transaction<'_>,
    whole: &WorkspaceId,
    day: Day,
    max: u64,
) -> Result<bool, StoreError> {
    begin_day(change, whole, day)?;
    let counted = change
        .prepare_cached(
            "UPDATE usage_by_day SET executions = executions + 1 WHERE workspace = ?1 AND day = ?2 AND executions < ?3",
        )?
        .execute((whole.as_str(), day.number(), capped(max)))?;
    Ok(counted > 0)
}

/// Counts so many tokens, unless that would be more than `max` or all are used up; whether they were counted.
pub(crate) fn take_tokens(
    change: &Transaction<'_>,
    whole: &WorkspaceId,
    day: Day,
    tokens: u64,
    max: u64,
) -> Result<bool, StoreError> {
    begin_day(change, whole, day)?;
    let counted = change
        .prepare_cached(
            "UPDATE usage_by_day SET tokens = tokens + ?3
             WHERE workspace = ?1 AND day = ?2 AND tokens < ?4 AND tokens + ?3 <= ?4",
        )?
        .execute((whole.as_str(), day.number(), as_integer(tokens)?, capped(max)))?;
    Ok(counted > 0)
}

/// Puts the tokens that were used in the place of those that were counted beforehand.
pub(crate) fn settle_tokens(
    change: &Transaction<'_>,
    whole: &WorkspaceId,
    day: Day,
    counted: u64,
    used: u64,
) -> Result<(), StoreError> {
    begin_day(change, whole, day)?;
    let more = as_integer(used)?.saturating_sub(as_integer(counted)?);
    change
        .prepare_cached(
            "UPDATE usage_by_day SET tokens = CASE WHEN tokens + ?3 > 0 THEN tokens + ?3 ELSE 0 END
             WHERE workspace = ?1 AND day = ?2",
        )?
        .execute((whole.as_str(), day.number(), more))?;
    Ok(())
}

fn begin_day(change: &Transaction<'_>, whole: &WorkspaceId, day: Day) -> Result<(), StoreError> {
    change
        .prepare_cached(
            "INSERT INTO usage_by_day (workspace, day, executions, tokens) VALUES (?1, ?2, 0, 0)
             ON CONFLICT (workspace, day) DO NOTHING",
        )?
        .execute((whole.as_str(), day.number()))?;
    Ok(())
}

/// A quota that no counter reaches is none.
fn capped(max: u64) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// What a whole workspace has used on a day.
pub(crate) fn spending(connection: &Connection, whole: &WorkspaceId, day: Day) -> Result<Spending, StoreError> {
    let found = connection
        .prepare_cached("SELECT executions, tokens FROM usage_by_day WHERE workspace = ?1 AND day = ?2")?
        .query_row((whole.as_str(), day.number()), |row| {
            Ok(Spending { executions: unsigned(row, "executions")?, tokens: unsigned(row, "tokens")? })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn spenders(connection: &Connection, day: Day) -> Result<Vec<WorkspaceId>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT workspace FROM usage_by_day WHERE day = ?1")?;
    Ok(statement.query_map([day.number()], |row| parsed(row, "workspace"))?.collect::<Result<_, _>>()?)
}

/// What every workspace and every end user holds.
pub(crate) fn holdings(connection: &Connection, day: Day) -> Result<Vec<Holding>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT w.workspace AS workspace, s.user_id AS user_id, w.bytes_used AS bytes,
           (SELECT count(*) FROM files f WHERE f.workspace = w.workspace AND f.blob IS NOT NULL) AS files,
           (SELECT count(*) FROM containers c WHERE c.workspace = w.workspace) AS containers,
           (SELECT count(*) FROM batches b WHERE b.workspace = w.workspace AND b.ended_at_us IS NULL) AS batches
         FROM workspaces w LEFT JOIN scopes s ON s.scope = w.workspace ORDER BY w.workspace",
    )?;
    let mut holdings: Vec<Holding> = statement.query_map((), holding)?.collect::<Result<_, _>>()?;
    let named: BTreeSet<_> =
        holdings.iter().filter(|held| held.user.is_none()).map(|held| held.workspace.clone()).collect();
    // A workspace of which only end users have anything, or nobody has by now, still has what was used of it.
    let mut all: BTreeSet<_> = holdings.iter().map(|held| held.workspace.clone()).collect();
    all.extend(spenders(connection, day)?);
    holdings.extend(all.difference(&named).cloned().map(Holding::none));
    for held in holdings.iter_mut().filter(|held| held.user.is_none()) {
        held.today = spending(connection, &held.workspace, day)?;
    }
    holdings.sort_by(|one, other| (&one.workspace, &one.user).cmp(&(&other.workspace, &other.user)));
    Ok(holdings)
}

fn holding(row: &Row<'_>) -> rusqlite::Result<Holding> {
    let scope: WorkspaceId = parsed(row, "workspace")?;
    let user: Option<String> = row.get("user_id")?;
    let index = row.index("user_id")?;
    let damaged = |error: UserIdError| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    };
    Ok(Holding {
        workspace: scope.whole(),
        user: user.map(|text| text.parse().map_err(damaged)).transpose()?,
        files: unsigned(row, "files")?,
        bytes: unsigned(row, "bytes")?,
        containers: unsigned(row, "containers")?,
        batches: unsigned(row, "batches")?,
        today: Spending::default(),
    })
}
