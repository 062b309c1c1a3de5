//! The database: connections, schema, and every statement. No other module has SQL.

pub(crate) mod batches;
pub(crate) mod checkpoints;
pub(crate) mod containers;
pub(crate) mod files;
pub(crate) mod keys;
mod migrate;
pub(crate) mod named_checkpoints;
pub(crate) mod tenants;

use crate::{StoreError, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// How long a connection waits for another process (`belljar keys`) to finish its change.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// What happens to a schema older than this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldSchema {
    /// It is brought up to date. Only for who holds the data directory's lock.
    Migrate,
    /// It is left alone: somebody serves from it.
    Keep,
}

/// What [`connect`] found and left.
pub(crate) enum Connected {
    Ready(Connection),
    /// The schema is older and was to be kept.
    Outdated,
}

/// Opens the database, making it if need be.
pub(crate) fn connect(path: &Path, old: OldSchema, now: Timestamp) -> Result<Connected, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_MAX)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::broken("turning on the write-ahead log", format!("journal mode is {mode}")));
    }
    // FULL syncs the log at each commit; without it a power cut may undo acknowledged commits.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let current = match old {
        OldSchema::Migrate => {
            migrate::migrate(&mut connection, now)?;
            true
        }
        OldSchema::Keep => migrate::is_current(&connection)?,
    };
    Ok(if current { Connected::Ready(connection) } else { Connected::Outdated })
}

/// Begins a change. `IMMEDIATE`, so that it fails at its beginning or not at all on others' account.
pub(crate) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// A place no other file or container of the workspace has had, for ties in listings.
fn next_number(change: &Transaction<'_>, workspace: &str) -> Result<i64, StoreError> {
    let number = change
        .prepare_cached(
            "INSERT INTO workspaces (workspace, next_number) VALUES (?1, 2)
             ON CONFLICT (workspace) DO UPDATE SET next_number = next_number + 1
             RETURNING next_number - 1",
        )?
        .query_row([workspace], |row| row.get(0))?;
    Ok(number)
}

/// Reads a text column into a checked type; what does not fit is reported as damage.
fn parsed<T>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let index = row.as_ref().column_index(column)?;
    let text: String = row.get(index)?;
    text.parse().map_err(|error: T::Err| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

fn instant(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let index = row.as_ref().column_index(column)?;
    as_instant(index, row.get(index)?)
}

fn optional_instant(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let index = row.as_ref().column_index(column)?;
    row.get::<_, Option<i64>>(index)?.map(|micros| as_instant(index, micros)).transpose()
}

fn as_instant(index: usize, micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_micros(micros)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Integer, Box::new(error)))
}

fn unsigned(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let index = row.as_ref().column_index(column)?;
    let value: i64 = row.get(index)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

/// SQLite's integers are signed. Sizes are bounded far below by the quota; this is where that would show.
fn as_integer(bytes: u64) -> Result<i64, StoreError> {
    i64::try_from(bytes).map_err(|error| StoreError::broken("keeping a size", error))
}
