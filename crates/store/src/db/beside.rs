//! A database that is there, for a command beside a server: nothing is made, and no schema is changed.

use super::sql::{self, Connection, Hold, Postgres};
use super::{BUSY_MAX, Place, migrate};
use crate::StoreError;
use rusqlite::OpenFlags;
use std::path::Path;

/// The last schema that this program knows.
pub(crate) fn latest() -> u32 {
    migrate::latest()
}

/// The schema of the database; 0 where there is none yet.
///
/// # Errors
/// [`StoreError::NewerSchema`].
pub(crate) fn schema(connection: &Connection) -> Result<u32, StoreError> {
    migrate::version(connection)
}

/// Opens the database if there is one.
pub(crate) fn open(place: &Place) -> Result<Option<Connection>, StoreError> {
    match place {
        Place::Sqlite(path) if !path.exists() => Ok(None),
        Place::Sqlite(path) => Ok(Some(open_sqlite(path)?.into())),
        Place::Postgres(config) => Ok(Some(Postgres::connect(config, Hold::Beside)?.into())),
    }
}

/// Opens a file of SQLite's that is there.
pub(super) fn open_sqlite(path: &Path) -> Result<rusqlite::Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(sql::Error::from)?;
    let set = || -> rusqlite::Result<()> {
        connection.busy_timeout(BUSY_MAX)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)
    };
    set().map_err(sql::Error::from)?;
    Ok(connection)
}
