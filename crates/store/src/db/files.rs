//! Statements about files and blobs.

use super::places::{self, FILES};
use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{as_integer, instant, next_number, optional_instant, parsed, tenants, unsigned};
use crate::{
    ContentDigest, FileDraft, FilePage, FileQuery, FileRecord, Origin, PageCursor, Paged, StoreError, Timestamp,
    WorkspaceId,
};
use belljar_ids::FileId;
use std::collections::BTreeSet;

const COLUMNS: &str = "id, workspace, number, filename, mime_type, size_bytes, container, created_at_us, \
                       expires_at_us, blob";

/// Of a row of `blobs`: neither a file nor a checkpoint, named or not, refers to it.
pub(super) const UNREFERENCED: &str = "NOT EXISTS (SELECT 1 FROM files WHERE blob = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE blob = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM named_checkpoints WHERE blob = blobs.digest)";

/// A file and the number that, with its creation, is its place.
struct Placed {
    record: FileRecord,
    number: i64,
}

impl Placed {
    fn cursor(&self) -> PageCursor {
        PageCursor { created_at_us: self.record.created_at.as_micros(), number: self.number }
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let container: Option<String> = row.get("container")?;
        let origin = match container {
            None => Origin::Uploaded,
            Some(_) => Origin::Generated { container: parsed(row, "container")? },
        };
        let record = FileRecord {
            id: parsed(row, "id")?,
            workspace: parsed(row, "workspace")?,
            filename: parsed(row, "filename")?,
            mime_type: row.get("mime_type")?,
            size_bytes: unsigned(row, "size_bytes")?,
            origin,
            created_at: instant(row, "created_at_us")?,
            expires_at: optional_instant(row, "expires_at_us")?,
            content: row.get::<_, Option<[u8; 32]>>("blob")?.map(ContentDigest),
        };
        Ok(Self { record, number: row.get("number")? })
    }
}

/// One file.
pub(crate) fn find(
    connection: &Connection,
    workspace: &WorkspaceId,
    id: &FileId,
) -> Result<Option<FileRecord>, StoreError> {
    Ok(find_placed(connection, workspace, id)?.map(|placed| placed.record))
}

fn find_placed(connection: &Connection, workspace: &WorkspaceId, id: &FileId) -> Result<Option<Placed>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM files WHERE id = ?1 AND workspace = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row((id.as_str(), workspace.as_str()), Placed::from_row).optional()?)
}

/// One page of files; see [`FileQuery`].
pub(crate) fn list(
    connection: &Connection,
    workspace: &WorkspaceId,
    query: &FileQuery,
) -> Result<FilePage, StoreError> {
    // One transaction, so that all statements of one answer see the same files.
    let snapshot = connection.snapshot()?;
    match query {
        FileQuery::Page { limit, after } => older(&snapshot, workspace, after.unwrap_or(PageCursor::START), *limit),
        FileQuery::OlderThan { id, limit } => {
            let anchor = places::anchor(&snapshot, FILES, workspace, id.as_str())?;
            older(&snapshot, workspace, anchor, *limit)
        }
        FileQuery::NewerThan { id, limit } => {
            let anchor = places::anchor(&snapshot, FILES, workspace, id.as_str())?;
            newer(&snapshot, workspace, anchor, *limit)
        }
        FileQuery::Ids(ids) => by_ids(&snapshot, workspace, ids),
    }
}

fn older(
    connection: &Connection,
    workspace: &WorkspaceId,
    from: PageCursor,
    limit: u16,
) -> Result<FilePage, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM files WHERE workspace = ?1 AND (created_at_us, number) < (?2, ?3)
         ORDER BY created_at_us DESC, number DESC LIMIT ?4"
    );
    let mut found = walk(connection, &sql, workspace, from, limit)?;
    let has_more = found.len() > usize::from(limit);
    found.truncate(usize::from(limit));
    let next = if has_more { found.last().map(Placed::cursor) } else { None };
    Ok(page(found, next, has_more))
}

fn newer(
    connection: &Connection,
    workspace: &WorkspaceId,
    from: PageCursor,
    limit: u16,
) -> Result<FilePage, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM files WHERE workspace = ?1 AND (created_at_us, number) > (?2, ?3)
         ORDER BY created_at_us ASC, number ASC LIMIT ?4"
    );
    let mut found = walk(connection, &sql, workspace, from, limit)?;
    let has_more = found.len() > usize::from(limit);
    found.truncate(usize::from(limit));
    found.reverse();
    // The anchor itself is older than all of these, unless it was deleted; so look.
    let next = match found.last().map(Placed::cursor) {
        Some(last) if older(connection, workspace, last, 0)?.has_more => Some(last),
        _ => None,
    };
    Ok(page(found, next, has_more))
}

/// Up to `limit` + 1 files, to see whether there are more.
fn walk(
    connection: &Connection,
    sql: &str,
    workspace: &WorkspaceId,
    from: PageCursor,
    limit: u16,
) -> Result<Vec<Placed>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let parameters = (workspace.as_str(), from.created_at_us, from.number, u32::from(limit) + 1);
    let found = statement.query_map(parameters, Placed::from_row)?.collect::<Result<_, _>>()?;
    Ok(found)
}

fn by_ids(connection: &Connection, workspace: &WorkspaceId, ids: &[FileId]) -> Result<FilePage, StoreError> {
    let mut found = Vec::new();
    for id in ids.iter().collect::<BTreeSet<_>>() {
        found.extend(find_placed(connection, workspace, id)?);
    }
    found.sort_by_key(|placed| std::cmp::Reverse((placed.cursor().created_at_us, placed.number)));
    Ok(page(found, None, false))
}

fn page(found: Vec<Placed>, next: Option<PageCursor>, has_more: bool) -> FilePage {
    Paged { entries: found.into_iter().map(|placed| placed.record).collect(), next, has_more }
}

/// Whether the id is in use, in any workspace.
pub(crate) fn is_taken(connection: &Connection, id: &FileId) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM files WHERE id = ?1")?;
    Ok(statement.exists([id.as_str()])?)
}

/// Whether a row stands for this blob.
pub(crate) fn blob_is_known(connection: &Connection, digest: &ContentDigest) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?;
    Ok(statement.exists([digest.as_bytes()])?)
}

/// How many blobs there should be.
pub(crate) fn blobs_known(connection: &Connection) -> Result<u64, StoreError> {
    Ok(connection.query_row("SELECT count(*) AS blobs FROM blobs", (), |row| unsigned(row, "blobs"))?)
}

/// Adds a file whose blob lies in its place.
pub(crate) fn insert(
    change: &Transaction<'_>,
    draft: FileDraft,
    digest: ContentDigest,
    size_bytes: u64,
) -> Result<FileRecord, StoreError> {
    let number = next_number(change, draft.workspace.as_str())?;
    let size = as_integer(size_bytes)?;
    add_blob(change, digest, size_bytes)?;
    let container = match &draft.origin {
        Origin::Uploaded => None,
        Origin::Generated { container } => Some(container.as_str()),
    };
    let sql = format!("INSERT INTO files ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    change.prepare_cached(&sql)?.execute((
        draft.id.as_str(),
        draft.workspace.as_str(),
        number,
        draft.filename.as_str(),
        &draft.mime_type,
        size,
        container,
        draft.created_at.as_micros(),
        draft.expires_at.map(Timestamp::as_micros),
        digest.as_bytes(),
    ))?;
    tenants::add_file(change, &draft.workspace, size_bytes)?;
    Ok(FileRecord {
        id: draft.id,
        workspace: draft.workspace,
        filename: draft.filename,
        mime_type: draft.mime_type,
        size_bytes,
        origin: draft.origin,
        created_at: draft.created_at,
        expires_at: draft.expires_at,
        content: Some(digest),
    })
}

/// What a deletion did.
pub(crate) enum Deleted {
    /// There was no such file.
    Nothing,
    /// It is gone; this blob, if any, has lost its last reference and its row.
    File(Option<ContentDigest>),
}

/// Removes a file, notes where it stood, and drops its blob's row if nothing else refers to it.
pub(crate) fn delete(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    id: &FileId,
    now: Timestamp,
) -> Result<Deleted, StoreError> {
    let Some(placed) = find_placed(change, workspace, id)? else {
        return Ok(Deleted::Nothing);
    };
    places::note(change, FILES, workspace, id.as_str(), now)?;
    change.prepare_cached("DELETE FROM files WHERE id = ?1")?.execute([id.as_str()])?;
    if placed.record.content.is_some() {
        tenants::remove_file(change, workspace, placed.record.size_bytes)?;
    }
    let orphan = match placed.record.content {
        Some(digest) if drop_if_unreferenced(change, &digest)? => Some(digest),
        _ => None,
    };
    Ok(Deleted::File(orphan))
}

/// Adds the row of a blob that lies in its place.
pub(super) fn add_blob(change: &Transaction<'_>, digest: ContentDigest, size_bytes: u64) -> Result<(), StoreError> {
    change
        .prepare_cached("INSERT INTO blobs (digest, size_bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute((digest.as_bytes(), as_integer(size_bytes)?))?;
    Ok(())
}

/// Drops a blob's row if neither a file nor a checkpoint, named or not, refers to it.
pub(super) fn drop_if_unreferenced(change: &Transaction<'_>, digest: &ContentDigest) -> Result<bool, StoreError> {
    let dropped = change
        .prepare_cached(&format!("DELETE FROM blobs WHERE digest = ?1 AND {UNREFERENCED}"))?
        .execute([digest.as_bytes()])?;
    Ok(dropped > 0)
}

/// Releases the contents of up to `limit` files that expired by `now`. Answers how many, and which blobs
/// lost their rows.
pub(crate) fn release_expired(
    change: &Transaction<'_>,
    now: Timestamp,
    limit: u32,
) -> Result<(u64, Vec<ContentDigest>), StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM files WHERE expires_at_us <= ?1 AND blob IS NOT NULL LIMIT ?2");
    let due: Vec<Placed> = change
        .prepare_cached(&sql)?
        .query_map((now.as_micros(), limit), Placed::from_row)?
        .collect::<Result<_, _>>()?;
    let count = due.len() as u64;
    let mut orphans = Vec::new();
    for FileRecord { id, workspace, size_bytes, content, .. } in due.into_iter().map(|placed| placed.record) {
        change.prepare_cached("UPDATE files SET blob = NULL WHERE id = ?1")?.execute([id.as_str()])?;
        tenants::remove_file(change, &workspace, size_bytes)?;
        let Some(digest) = content else { continue };
        if drop_if_unreferenced(change, &digest)? {
            orphans.push(digest);
        }
    }
    Ok((count, orphans))
}

/// Removes the records of up to `limit` released files that expired by `expired_by`.
pub(crate) fn remove_expired(change: &Transaction<'_>, expired_by: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let removed = change
        .prepare_cached(
            "DELETE FROM files WHERE id IN (
               SELECT id FROM files WHERE expires_at_us <= ?1 AND blob IS NULL LIMIT ?2)",
        )?
        .execute((expired_by.as_micros(), limit))?;
    Ok(removed as u64)
}
