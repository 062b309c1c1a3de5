//! One moment of an SQLite database, as a file of its own.

use super::beside::open_sqlite;
use super::migrate;
use super::sql::{self, Connection, OptionalExtension as _};
use crate::StoreError;
use rusqlite::OpenFlags;
use rusqlite::backup::{Backup, StepResult};
use std::path::Path;

/// A moment of a database that others go on changing. Ends when dropped.
pub(crate) struct Moment {
    reading: Connection,
    schema: u32,
}

/// Holds off everybody else's changes until dropped. They wait for [`super::BUSY_MAX`], and then fail: be quick.
pub(crate) struct Standstill {
    holding: Connection,
}

impl Standstill {
    /// Waits for a change under way. From then on no content comes to its place and none loses its last reference.
    pub(crate) fn begin(path: &Path) -> Result<Self, StoreError> {
        let holding: Connection = open_sqlite(path)?.into();
        // Undone by the connection's end, whatever becomes of this process.
        holding.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Self { holding })
    }

    /// The moment that this standstill is.
    pub(crate) fn moment(&self, path: &Path) -> Result<Moment, StoreError> {
        let reading: Connection = open_sqlite(path)?.into();
        reading.execute_batch("BEGIN")?;
        // The first statement that reads is what fixes the moment.
        let schema = migrate::version(&reading)?;
        Ok(Moment { reading, schema })
    }

    /// Everybody else goes on.
    pub(crate) fn end(self) -> Result<(), StoreError> {
        Ok(self.holding.execute_batch("ROLLBACK")?)
    }
}

impl Moment {
    /// To look things up.
    pub(crate) fn connection(&self) -> &Connection {
        &self.reading
    }

    /// Its schema; 0 for a database that nobody has used yet.
    pub(crate) fn schema(&self) -> u32 {
        self.schema
    }

    /// The id of the store; older schemas have none.
    pub(crate) fn store(&self) -> Result<Option<String>, StoreError> {
        store(&self.reading)
    }

    /// Writes it to an empty file, whole in itself: without a log beside it.
    pub(crate) fn write(self, to: &Path) -> Result<(), StoreError> {
        let mut copy = open_sqlite(to)?;
        self.reading.copy_to(&mut copy)?;
        let set = || -> rusqlite::Result<()> {
            copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
            Ok(())
        };
        Ok(set().map_err(sql::Error::from)?)
    }
}

/// Copies all pages of one database over another.
pub(super) fn copy(from: &rusqlite::Connection, to: &mut rusqlite::Connection) -> sql::Result<()> {
    match Backup::new(from, to)?.step(-1)? {
        StepResult::Done => Ok(()),
        // Of what is read, there is a moment; of what is written, we are the only one.
        _ => Err(sql::Error::Sqlite(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
            None,
        ))),
    }
}

fn store(connection: &Connection) -> Result<Option<String>, StoreError> {
    let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'store'";
    if !connection.prepare_cached(known)?.exists(())? {
        return Ok(None);
    }
    Ok(connection.query_row("SELECT id FROM store", (), |row| row.get("id")).optional()?)
}

/// A copy of a moment, only to look things up in.
pub(crate) struct Copied {
    connection: Connection,
    schema: u32,
    store: Option<String>,
}

impl Copied {
    /// Opens a file that is not trusted and has no log beside it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(sql::Error::from)?;
        let set = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update(None, "cell_size_check", true)
        };
        set().map_err(sql::Error::from)?;
        let connection = Connection::from(connection);
        let (schema, store) = (migrate::version(&connection)?, store(&connection)?);
        Ok(Self { connection, schema, store })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn schema(&self) -> u32 {
        self.schema
    }

    pub(crate) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// What is wrong with its pages, indexes and references; none when it is whole.
    pub(crate) fn flaw(&self) -> Result<Option<String>, StoreError> {
        let found: String =
            self.connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get("integrity_check"))?;
        if found != "ok" {
            return Ok(Some(found));
        }
        let row = self
            .connection
            .query_row("PRAGMA foreign_key_check", (), |row| {
                Ok((row.get::<_, String>("table")?, row.get::<_, String>("parent")?))
            })
            .optional()?;
        Ok(row.map(|(table, parent)| format!("a row of {table} refers to one of {parent} that is not there")))
    }
}
