//! What can go wrong between us and a database.

use crate::StoreError;

/// A failed statement.
#[derive(Debug)]
pub(crate) enum Error {
    /// SQLite's, or a value of either database that is not what it should be.
    Sqlite(rusqlite::Error),
    /// PostgreSQL's, with the server still there.
    Postgres(Box<postgres::Error>),
    /// PostgreSQL went away, or cannot be reached.
    Unreachable(String),
    /// Somebody else holds the store in this PostgreSQL.
    Held {
        /// Which database.
        place: String,
    },
    /// Somebody else held it since we did.
    Superseded {
        /// Which database.
        place: String,
    },
    /// A change went on after one of its statements had failed; it was undone.
    Undone,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// No row, as none.
pub(crate) trait OptionalExtension<T> {
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(Error::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

const DOING: &str = "using the database";

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Sqlite(error) => from_sqlite(error),
            Error::Postgres(error) => from_postgres(*error),
            Error::Unreachable(why) => Self::Unreachable { what: "the database", why },
            Error::Held { place } => Self::Held { place },
            Error::Superseded { place } => Self::Superseded { place },
            Error::Undone => Self::broken(DOING, "a change went on after one of its statements had failed"),
        }
    }
}

fn from_sqlite(error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => StoreError::Corrupt { what: error.to_string() },
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StoreError::DiskFull { doing: DOING },
            ErrorCode::ReadOnly => StoreError::ReadOnly { doing: DOING, why: error.to_string() },
            ErrorCode::SystemIoFailure if is_write(failure.extended_code) => {
                StoreError::ReadOnly { doing: DOING, why: error.to_string() }
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt { what: error.to_string() },
            _ => StoreError::broken(DOING, error),
        },
        _ => StoreError::broken(DOING, error),
    }
}

/// A disk that has turned read-only under open files is no `SQLITE_READONLY`: their writes fail.
fn is_write(extended_code: i32) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE};
    [SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_DIR_FSYNC].contains(&extended_code)
}

/// PostgreSQL's own codes: appendix A of its manual.
fn from_postgres(error: postgres::Error) -> StoreError {
    let Some(told) = error.as_db_error() else { return StoreError::broken(DOING, error) };
    let text = format!("{} ({})", told.message(), told.code().code());
    match told.code().code() {
        // disk_full
        "53100" => StoreError::DiskFull { doing: DOING },
        // lock_not_available, serialization_failure, deadlock_detected
        "55P03" | "40001" | "40P01" => StoreError::Busy,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => StoreError::Corrupt { what: text },
        // A replica, or a server that was told to take no changes: it answers, and does not do.
        "25006" => StoreError::Unreachable { what: "the database", why: text },
        _ => StoreError::broken(DOING, text),
    }
}
