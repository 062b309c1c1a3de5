//! Statements about contents, whoever refers to them.

use super::files::{UNREFERENCED, drop_if_unreferenced};
use super::sql::{Connection, Row, Transaction};
use super::unsigned;
use crate::{ContentDigest, StoreError};

/// A content as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptContent {
    pub(crate) digest: ContentDigest,
    pub(crate) size_bytes: u64,
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<KeptContent> {
    Ok(KeptContent { digest: ContentDigest(row.get("digest")?), size_bytes: unsigned(row, "size_bytes")? })
}

/// Up to `limit` contents in the order of their digests, from behind one on.
pub(crate) fn after(
    connection: &Connection,
    digest: Option<&ContentDigest>,
    limit: u32,
) -> Result<Vec<KeptContent>, StoreError> {
    let from: &[u8] = digest.map_or(&[], |digest| digest.as_bytes().as_slice());
    let mut statement =
        connection.prepare_cached("SELECT digest, size_bytes FROM blobs WHERE digest > ?1 ORDER BY digest LIMIT ?2")?;
    Ok(statement.query_map((from, limit), from_row)?.collect::<Result<_, _>>()?)
}

/// Up to `limit` contents that nothing refers to any more. Whoever drops the last reference drops the row, so there are none.
pub(crate) fn unreferenced(connection: &Connection, limit: u32) -> Result<Vec<KeptContent>, StoreError> {
    let sql = format!("SELECT digest, size_bytes FROM blobs WHERE {UNREFERENCED} LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map([limit], from_row)?.collect::<Result<_, _>>()?)
}

/// Drops the row of a content if nothing refers to it.
pub(crate) fn drop_row(change: &Transaction<'_>, digest: &ContentDigest) -> Result<bool, StoreError> {
    drop_if_unreferenced(change, digest)
}

/// Up to `limit` ids of files whose content this is.
pub(crate) fn files_of(connection: &Connection, digest: &ContentDigest, limit: u32) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id FROM files WHERE blob = ?1 ORDER BY id LIMIT ?2")?;
    Ok(statement.query_map((digest.as_bytes(), limit), |row| row.get("id"))?.collect::<Result<_, _>>()?)
}
