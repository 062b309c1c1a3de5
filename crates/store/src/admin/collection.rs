//! Removing contents that no row refers to, also beside a running server.
//!
//! On disk with SQLite, an upload is renamed to its place inside the very change that commits its row, and SQLite lets one change
//! be under way at a time, of whichever process. So within a change of ours a content without a row is nobody's: not yet
//! uploaded contents are still in `blobs/tmp`, uploaded ones have their row. Contents are looked up without a change first,
//! and only those without a row are looked up again, and removed, within one; a server waits at most for a few
//! hundred of them.
//!
//! What lies in `blobs/tmp` belongs to the process that holds the data directory, if there is one; it removes what it gives
//! up. An object in a bucket has no place of its own before its row, so there only the store's holder can tell what is left
//! over: then this needs the hold, and is refused while a server has it.

use super::{AdminError, at, expect_own, open_current};
use crate::blobs::{Blobs, Sweeping};
use crate::data_dir::DataDir;
use crate::db::{self, Connection, Role};
use crate::key_ring::ready;
use crate::{BlobPlace, Clock, ContentDigest, Database, StoreError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Contents removed within one change.
const REMOVED_AT_ONCE: usize = 256;

/// What is to become of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collecting {
    /// It is removed.
    Remove,
    /// It is counted, and stays.
    Look,
}

/// So many, and their bytes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Contents that no row refers to.
    pub contents: Tally,
    /// Half-made uploads of processes that have ended; `None` where a running server looks after its own.
    pub unfinished: Option<Tally>,
    /// Copies that a killed backup held back from being removed.
    pub pins: Tally,
}

/// Removes contents that no row refers to, and what killed processes have left, or only looks for it.
///
/// # Errors
/// [`AdminError::ServerRuns`] where only the store's holder can tell, and there is one.
pub fn collect(
    data_dir: &Path,
    database: &Database,
    blobs: &BlobPlace,
    how: Collecting,
    clock: &Arc<dyn Clock>,
) -> Result<Collected, AdminError> {
    match (database, blobs) {
        (Database::Sqlite, BlobPlace::Disk) => {
            let connection = open_current(data_dir, database)?;
            let none = || AdminError::NoStore { place: data_dir.display().to_string() };
            let dir = DataDir::existing(data_dir)?.ok_or_else(none)?;
            expect_own(&dir, db::whole::known_identity(&connection)?.as_deref(), database)?;
            Collection { dir, connection, how }.run()
        }
        (Database::Postgres(_), BlobPlace::Disk) => {
            drop(open_current(data_dir, database)?);
            let (dir, lock, connection) = alone(data_dir, database, how, clock)?;
            expect_own(&dir, db::whole::known_identity(&connection)?.as_deref(), database)?;
            let mut collection = Collection { dir, connection, how };
            let collected = collection.beside(Some(collection.unfinished()?));
            drop(lock);
            collected
        }
        (_, BlobPlace::Objects(_)) => {
            drop(open_current(data_dir, database)?);
            objects(data_dir, database, blobs, how, clock)
        }
    }
}

/// Takes hold of the store, as a server does.
fn alone(
    data_dir: &Path,
    database: &Database,
    how: Collecting,
    clock: &Arc<dyn Clock>,
) -> Result<(DataDir, crate::data_dir::DataDirLock, Connection), AdminError> {
    let refused = |error: StoreError| match error {
        held @ (StoreError::Locked { .. } | StoreError::Held { .. }) => AdminError::ServerRuns { why: held },
        other => AdminError::Store(other),
    };
    let dir = DataDir::prepare(data_dir)?;
    let lock = dir.lock().map_err(refused)?;
    let connected = db::connect(&database.place(&dir), Role::Serve, clock.now()).map_err(refused)?;
    let mut connection = ready(connected)?;
    if how == Collecting::Remove {
        // A server that lost its connection and comes back must not commit rows of contents that were taken for left over.
        db::whole::begin_tenure(&mut connection)?;
    }
    Ok((dir, lock, connection))
}

fn objects(
    data_dir: &Path,
    database: &Database,
    place: &BlobPlace,
    how: Collecting,
    clock: &Arc<dyn Clock>,
) -> Result<Collected, AdminError> {
    let (dir, lock, mut connection) = alone(data_dir, database, how, clock)?;
    let change = db::begin(&mut connection)?;
    let store = db::whole::identity(&change, &crate::random::name()?)?;
    change.commit().map_err(StoreError::from)?;
    let blobs = Blobs::prepare(place, &dir, lock, 0, &store, &database.place(&dir))?;
    let swept = blobs.sweep(
        &mut connection,
        match how {
            Collecting::Remove => Sweeping::Remove,
            Collecting::Look => Sweeping::Count,
        },
    )?;
    let contents = Tally { count: swept.orphans_removed, bytes: swept.orphan_bytes };
    Ok(Collected { contents, unfinished: None, pins: Tally::default() })
}

struct Collection {
    dir: DataDir,
    connection: Connection,
    how: Collecting,
}

impl Collection {
    fn run(&mut self) -> Result<Collected, AdminError> {
        // Held only while nobody's uploads are looked through, so that a server which starts meanwhile finds it free.
        let unfinished = match self.dir.lock() {
            Ok(lock) => {
                let found = self.unfinished()?;
                drop(lock);
                Some(found)
            }
            Err(StoreError::Locked { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        self.beside(unfinished)
    }

    fn beside(&mut self, unfinished: Option<Tally>) -> Result<Collected, AdminError> {
        let mut contents = self.drop_rows()?;
        let root = self.dir.blobs();
        for shard in 0..=u8::MAX {
            let found = self.shard(&root, &format!("{shard:02x}"))?;
            contents.count += found.count;
            contents.bytes += found.bytes;
        }
        let pins = super::pins::left(&root, self.how)?;
        Ok(Collected { contents, unfinished, pins })
    }

    /// Half-made uploads. Only for who holds the data directory.
    fn unfinished(&self) -> Result<Tally, AdminError> {
        let mut found = Tally::default();
        let dir = self.dir.blobs().join("tmp");
        for path in entries(&dir)? {
            let path = path?;
            if let Some(bytes) = self.take(&path)? {
                found.add(bytes);
            }
        }
        Ok(found)
    }

    /// Drops rows of contents that nothing refers to. When they are only looked for, they count here: their contents have
    /// a row still.
    fn drop_rows(&mut self) -> Result<Tally, AdminError> {
        let mut found = Tally::default();
        loop {
            let limit = match self.how {
                Collecting::Remove => 256,
                Collecting::Look => u32::MAX,
            };
            let rows = db::contents::unreferenced(&self.connection, limit)?;
            if rows.is_empty() {
                return Ok(found);
            }
            match self.how {
                Collecting::Remove => {
                    let change = db::begin(&mut self.connection)?;
                    for row in &rows {
                        db::contents::drop_row(&change, &row.digest)?;
                    }
                    change.commit().map_err(StoreError::from)?;
                }
                Collecting::Look => {
                    rows.iter().for_each(|row| found.add(row.size_bytes));
                    return Ok(found);
                }
            }
        }
    }

    fn shard(&mut self, root: &Path, shard: &str) -> Result<Tally, AdminError> {
        let (mut found, mut orphans) = (Tally::default(), Vec::new());
        for path in entries(&root.join(shard))? {
            let path = path?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            // What is not named like a content is not ours to remove.
            let Some(digest) = ContentDigest::from_hex(&format!("{shard}{name}")) else { continue };
            if db::files::blob_is_known(&self.connection, &digest)? {
                continue;
            }
            orphans.push((digest, path));
            if orphans.len() == REMOVED_AT_ONCE {
                self.remove(&mut orphans, &mut found)?;
            }
        }
        self.remove(&mut orphans, &mut found)?;
        Ok(found)
    }

    fn remove(&mut self, orphans: &mut Vec<(ContentDigest, PathBuf)>, found: &mut Tally) -> Result<(), AdminError> {
        if orphans.is_empty() {
            return Ok(());
        }
        let how = self.how;
        let change = db::begin(&mut self.connection)?;
        for (digest, path) in orphans.drain(..) {
            if db::files::blob_is_known(&change, &digest)? {
                continue;
            }
            if let Some(bytes) = take(&path, how)? {
                found.add(bytes);
            }
        }
        Ok(change.commit().map_err(StoreError::from)?)
    }

    fn take(&self, path: &Path) -> Result<Option<u64>, AdminError> {
        take(path, self.how)
    }
}

/// Removes a file, or only looks; its size, if it was still there.
fn take(path: &Path, how: Collecting) -> Result<Option<u64>, AdminError> {
    let gone = |error: std::io::Error, doing| match error.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(at(path, doing)(error)),
    };
    let bytes = match std::fs::symlink_metadata(path) {
        Ok(found) => found.len(),
        Err(error) => return gone(error, "looking at a content"),
    };
    match how {
        Collecting::Look => Ok(Some(bytes)),
        Collecting::Remove => match std::fs::remove_file(path) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => gone(error, "removing a content"),
        },
    }
}

/// What is in a directory, as it is read; nothing where there is none.
fn entries(dir: &Path) -> Result<impl Iterator<Item = Result<PathBuf, AdminError>> + use<>, AdminError> {
    let doing = "listing contents";
    let found = match std::fs::read_dir(dir) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(at(dir, doing)(error)),
    };
    let dir = dir.to_owned();
    let named = move |entry: std::io::Result<std::fs::DirEntry>| {
        entry.map(|entry| entry.path()).map_err(|error| at(&dir, doing)(error))
    };
    Ok(found.into_iter().flatten().map(named))
}
