//! What an operator does beside a running server, and without one: look, collect, back up, restore.
//!
//! Nothing here holds the data directory while a server runs on it, and nothing brings a schema up to date. What must not come
//! between a server's changes waits its turn in the database, as the server's own changes do.

mod backup;
mod collection;
mod error;
mod manifest;
mod part;
mod pins;
mod records;
mod restore;
mod tree;
mod verify;

pub use backup::{BackupDraft, BackupReport, backup};
pub use collection::{Collected, Collecting, Tally, collect};
pub use error::AdminError;
pub use manifest::ManifestFlaw;
pub(crate) use pins::remove_left;
pub use records::{DayUse, HeldContainer, HeldFile, Records, Usage};
pub use restore::restore;
pub use verify::verify;

#[cfg(fuzzing)]
pub use manifest::read_manifest;

use crate::data_dir::{DataDir, OWNER};
use crate::db;
use crate::{BlobPlace, Database, StoreError};
use std::io::ErrorKind;
use std::path::Path;

/// Opens the database of a store that is there and has this program's schema.
fn open_current(data_dir: &Path, database: &Database) -> Result<db::Connection, AdminError> {
    let none = || AdminError::NoStore { place: data_dir.display().to_string() };
    let place = match database {
        Database::Sqlite => database.place(&DataDir::existing(data_dir)?.ok_or_else(none)?),
        Database::Postgres(place) => db::Place::Postgres(place.config()),
    };
    let connection = db::beside::open(&place)?.ok_or_else(none)?;
    match (db::beside::schema(&connection)?, db::beside::latest()) {
        (0, _) => Err(AdminError::NoStore { place: database.to_string() }),
        (found, known) if found == known => Ok(connection),
        (found, known) => Err(AdminError::OlderSchema { found, known }),
    }
}

/// The directory of a store that is wholly in it.
///
/// # Errors
/// [`AdminError::Elsewhere`], [`AdminError::NoStore`].
fn whole_dir(data_dir: &Path, database: &Database, blobs: &BlobPlace) -> Result<DataDir, AdminError> {
    all_here(database, blobs)?;
    let none = || AdminError::NoStore { place: data_dir.display().to_string() };
    let dir = DataDir::existing(data_dir)?.ok_or_else(none)?;
    if dir.database().is_file() { Ok(dir) } else { Err(none()) }
}

/// Whether both metadata and contents are in the data directory.
///
/// # Errors
/// [`AdminError::Elsewhere`].
fn all_here(database: &Database, blobs: &BlobPlace) -> Result<(), AdminError> {
    let mut places = Vec::new();
    if let Database::Postgres(place) = database {
        places.push(format!("metadata in {place}: `pg_dump`, or what your PostgreSQL is backed up with"));
    }
    if let BlobPlace::Objects(place) = blobs {
        places.push(format!("contents in {place}: the bucket's own versions or replication"));
    }
    if places.is_empty() { Ok(()) } else { Err(AdminError::Elsewhere { places: places.join("; ") }) }
}

/// Sees to it that the contents in the directory are those of this store: to another, all of them would look left over.
/// Contents without an owner are from before there were owners, and of the database beside them.
///
/// # Errors
/// [`StoreError::Foreign`].
fn expect_own(dir: &DataDir, store: Option<&str>, database: &Database) -> Result<(), AdminError> {
    let path = dir.root().join(OWNER);
    let foreign = |owner| Err(StoreError::Foreign { place: dir.blobs().display().to_string(), owner }.into());
    match (std::fs::read_to_string(&path), database) {
        (Ok(owner), _) if Some(owner.trim()) == store => Ok(()),
        (Ok(owner), _) => foreign(Some(owner.trim().to_owned())),
        (Err(error), _) if error.kind() != ErrorKind::NotFound => {
            Err(at(&path, "reading whose contents these are")(error))
        }
        (Err(_), Database::Sqlite) => Ok(()),
        (Err(_), Database::Postgres(_)) if !dir.blobs().exists() => Ok(()),
        (Err(_), Database::Postgres(_)) => foreign(None),
    }
}

/// Makes an IO failure tell its file.
fn at(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> AdminError + use<> {
    let path = path.to_owned();
    move |error| match StoreError::io(doing)(error) {
        StoreError::DiskFull { doing } => AdminError::DiskFull { path, doing },
        StoreError::Broken { source, .. } => AdminError::Io { path, doing, source },
        other => AdminError::Store(other),
    }
}
