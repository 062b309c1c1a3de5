//! The database: connections, schema, and every statement. No other module has SQL.

pub(crate) mod batches;
pub(crate) mod beside;
pub(crate) mod checkpoints;
pub(crate) mod containers;
pub(crate) mod contents;
pub(crate) mod files;
pub(crate) mod keys;
mod migrate;
pub(crate) mod named_checkpoints;
pub(crate) mod objects;
pub(crate) mod places;
pub(crate) mod records;
pub(crate) mod snapshot;
mod sql;
pub(crate) mod tenants;
pub(crate) mod whole;

use crate::{StoreError, Timestamp};
use rusqlite::types::Type;
use sql::{Hold, Postgres};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use sql::{Connection, Row, Transaction, place};

/// How long a connection waits for another process (`belljar keys`) to finish its change.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A schema of a PostgreSQL.
    Postgres(Box<postgres::Config>),
}

/// What a connection is for, and so what becomes of a schema older than this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It carries the changes of the one process that serves; that brings the schema up to date. Where SQLite is, the caller
    /// holds the data directory's lock.
    Serve,
    /// It looks things up, beside one that serves. The schema is left alone.
    Beside,
}

/// What [`connect`] found and left.
pub(crate) enum Connected {
    Ready(Connection),
    /// The schema is older and was to be kept.
    Outdated,
}

/// Opens the database, making it if need be.
pub(crate) fn connect(place: &Place, role: Role, now: Timestamp) -> Result<Connected, StoreError> {
    let mut connection = match place {
        Place::Sqlite(path) => open_sqlite(path)?,
        Place::Postgres(config) => {
            let hold = match role {
                Role::Serve => Hold::Exclusive,
                Role::Beside => Hold::Beside,
            };
            Connection::from(Postgres::connect(config, hold)?)
        }
    };
    let current = match role {
        Role::Serve => {
            migrate::migrate(&mut connection, now)?;
            true
        }
        Role::Beside => migrate::is_current(&connection)?,
    };
    Ok(if current { Connected::Ready(connection) } else { Connected::Outdated })
}

fn open_sqlite(path: &Path) -> Result<Connection, StoreError> {
    let connection = rusqlite::Connection::open(path).map_err(sql::Error::from)?;
    let set = || -> rusqlite::Result<String> {
        connection.busy_timeout(BUSY_MAX)?;
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        // FULL syncs the log at each commit; without it a power cut may undo acknowledged commits.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(mode)
    };
    match set().map_err(sql::Error::from)? {
        mode if mode == "wal" => Ok(connection.into()),
        mode => Err(StoreError::broken("turning on the write-ahead log", format!("journal mode is {mode}"))),
    }
}

/// What a PostgreSQL says it is.
pub(crate) fn version(config: &postgres::Config) -> Result<String, StoreError> {
    let connection = Connection::from(Postgres::connect(config, Hold::Beside)?);
    Ok(connection.query_row("SELECT current_setting('server_version') AS version", (), |row| row.get("version"))?)
}

/// Begins a change.
pub(crate) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    Ok(connection.begin()?)
}

/// A place no other file or container of the workspace has had, for ties in listings.
fn next_number(change: &Transaction<'_>, workspace: &str) -> Result<i64, StoreError> {
    let number = change
        .prepare_cached(
            "INSERT INTO workspaces (workspace, next_number) VALUES (?1, 2)
             ON CONFLICT (workspace) DO UPDATE SET next_number = workspaces.next_number + 1
             RETURNING next_number - 1 AS number",
        )?
        .query_row([workspace], |row| row.get(0))?;
    Ok(number)
}

/// Reads a text column into a checked type; what does not fit is reported as damage.
fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let index = row.index(column)?;
    let text: String = row.get(index)?;
    text.parse().map_err(|error: T::Err| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

fn instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let index = row.index(column)?;
    as_instant(index, row.get(index)?)
}

fn optional_instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let index = row.index(column)?;
    row.get::<_, Option<i64>>(index)?.map(|micros| as_instant(index, micros)).transpose()
}

fn as_instant(index: usize, micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_micros(micros)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Integer, Box::new(error)))
}

fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let index = row.index(column)?;
    let value: i64 = row.get(index)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

/// SQLite's integers are signed. Sizes are bounded far below by the quota; this is where that would show.
fn as_integer(bytes: u64) -> Result<i64, StoreError> {
    i64::try_from(bytes).map_err(|error| StoreError::broken("keeping a size", error))
}
