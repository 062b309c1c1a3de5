//! Statements about access keys.

use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{instant, optional_instant, parsed};
use crate::{KeyDraft, KeyHash, KeyIsolation, KeyRecord, Principal, StoreError, Timestamp};
use belljar_ids::KeyId;

const COLUMNS: &str = "id, workspace, label, created_at_us, revoked_at_us, isolation";

fn from_row(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    Ok(KeyRecord {
        id: parsed(row, "id")?,
        workspace: parsed(row, "workspace")?,
        label: row.get("label")?,
        created_at: instant(row, "created_at_us")?,
        revoked_at: optional_instant(row, "revoked_at_us")?,
        isolation: isolation(row)?,
    })
}

/// A word that this program does not know must not open a weaker wall than the one it stands for.
fn isolation(row: &Row<'_>) -> rusqlite::Result<Option<KeyIsolation>> {
    let text: Option<String> = row.get("isolation")?;
    text.map(|_| parsed(row, "isolation")).transpose()
}

/// Adds a key.
pub(crate) fn insert(change: &Transaction<'_>, draft: KeyDraft, now: Timestamp) -> Result<KeyRecord, StoreError> {
    let taken = change
        .prepare_cached("SELECT 1 FROM keys WHERE id = ?1 OR hash = ?2")?
        .exists((draft.id.as_str(), draft.hash.0))?;
    if taken {
        return Err(StoreError::IdTaken { id: draft.id.to_string() });
    }
    change
        .prepare_cached(
            "INSERT INTO keys (id, workspace, label, hash, created_at_us, isolation) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            draft.id.as_str(),
            draft.workspace.as_str(),
            &draft.label,
            draft.hash.0,
            now.as_micros(),
            draft.isolation.map(KeyIsolation::as_str),
        ))?;
    let KeyDraft { id, workspace, label, isolation, .. } = draft;
    Ok(KeyRecord { id, workspace, label, created_at: now, revoked_at: None, isolation })
}

/// All keys, oldest first. The operator makes them one by one, so they are few.
pub(crate) fn list(connection: &Connection) -> Result<Vec<KeyRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM keys ORDER BY created_at_us, id");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((), from_row)?.collect::<Result<_, _>>()?)
}

/// Ends a key; `false` when there is none or it has ended already.
pub(crate) fn revoke(change: &Transaction<'_>, id: &KeyId, now: Timestamp) -> Result<bool, StoreError> {
    let changed = change
        .prepare_cached("UPDATE keys SET revoked_at_us = ?2 WHERE id = ?1 AND revoked_at_us IS NULL")?
        .execute((id.as_str(), now.as_micros()))?;
    Ok(changed > 0)
}

/// Whom a key speaks for; none when it is unknown or revoked.
pub(crate) fn authenticate(connection: &Connection, hash: &KeyHash) -> Result<Option<Principal>, StoreError> {
    connection
        .prepare_cached("SELECT id, workspace, isolation FROM keys WHERE hash = ?1 AND revoked_at_us IS NULL")?
        .query_row([hash.0], |row| {
            let (workspace, key_id) = (parsed(row, "workspace")?, parsed(row, "id")?);
            Ok(Principal { workspace, key_id, isolation: isolation(row)? })
        })
        .optional()
        .map_err(StoreError::from)
}
