//! Statements about objects: under which name an object store keeps a content.

use super::sql::{Connection, OptionalExtension as _, Transaction};
use crate::{ContentDigest, StoreError};
use std::collections::BTreeSet;

/// The name a content is kept under.
pub(crate) fn find(connection: &Connection, digest: &ContentDigest) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM objects WHERE digest = ?1")?;
    Ok(statement.query_row([digest.as_bytes()], |row| row.get("name")).optional()?)
}

/// Keeps a content's name, in the place of a former one.
pub(crate) fn put(change: &Transaction<'_>, digest: &ContentDigest, name: &str) -> Result<(), StoreError> {
    change
        .prepare_cached(
            "INSERT INTO objects (digest, name) VALUES (?1, ?2) ON CONFLICT (digest) DO UPDATE SET name = excluded.name",
        )?
        .execute((digest.as_bytes(), name))?;
    Ok(())
}

/// Forgets the name of a content that no row stands for any more; none when there is such a row.
pub(crate) fn forget(change: &Transaction<'_>, digest: &ContentDigest) -> Result<Option<String>, StoreError> {
    let mut statement = change.prepare_cached(
        "DELETE FROM objects WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = ?1)
         RETURNING name",
    )?;
    Ok(statement.query_row([digest.as_bytes()], |row| row.get("name")).optional()?)
}

/// Forgets the names of all contents that no row stands for. Only for a store that is being opened.
pub(crate) fn forget_orphans(change: &Transaction<'_>) -> Result<(), StoreError> {
    change.execute(
        "DELETE FROM objects WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = objects.digest)",
        (),
    )?;
    Ok(())
}

/// Which names are in use between two of them, both included.
pub(crate) fn between(connection: &Connection, from: &str, to: &str) -> Result<BTreeSet<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM objects WHERE name >= ?1 AND name <= ?2")?;
    Ok(statement.query_map([from, to], |row| row.get("name"))?.collect::<Result<_, _>>()?)
}
