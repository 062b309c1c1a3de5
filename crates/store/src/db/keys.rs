//! Statements about access keys.

use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{instant, optional_instant, parsed};
use crate::{KeyDraft, KeyEnd, KeyHash, KeyIsolation, KeyRecord, Principal, ShownKey, StoreError, Timestamp};
use belljar_ids::KeyId;

const COLUMNS: &str = "id, workspace, label, created_at_us, revoked_at_us, isolation, expires_at_us, models, scope";

fn from_row(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    Ok(KeyRecord {
        id: parsed(row, "id")?,
        workspace: parsed(row, "workspace")?,
        label: row.get("label")?,
        created_at: instant(row, "created_at_us")?,
        revoked_at: optional_instant(row, "revoked_at_us")?,
        isolation: isolation(row)?,
        expires_at: optional_instant(row, "expires_at_us")?,
        models: row.get::<_, Option<String>>("models")?.map(|text| text.lines().map(str::to_owned).collect()),
        scope: parsed(row, "scope")?,
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
            "INSERT INTO keys (id, workspace, label, hash, created_at_us, isolation, expires_at_us, models, scope)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            draft.id.as_str(),
            draft.workspace.as_str(),
            &draft.label,
            draft.hash.0,
            now.as_micros(),
            draft.isolation.map(KeyIsolation::as_str),
            draft.expires_at.map(Timestamp::as_micros),
            draft.models.as_ref().map(|globs| globs.join("\n")),
            draft.scope.as_str(),
        ))?;
    let KeyDraft { id, workspace, label, isolation, expires_at, models, scope, hash: _ } = draft;
    Ok(KeyRecord { id, workspace, label, created_at: now, revoked_at: None, isolation, expires_at, models, scope })
}

/// All keys, oldest first. The operator makes them one by one, so they are few.
pub(crate) fn list(connection: &Connection) -> Result<Vec<KeyRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM keys ORDER BY created_at_us, id");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((), from_row)?.collect::<Result<_, _>>()?)
}

/// Whether there has ever been a key. Keys that have ended count: a server whose last key has must not open to everybody.
pub(crate) fn exist(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached("SELECT 1 FROM keys LIMIT 1")?.exists(())?)
}

/// Ends a key; `false` when there is none or it has ended already.
pub(crate) fn revoke(change: &Transaction<'_>, id: &KeyId, now: Timestamp) -> Result<bool, StoreError> {
    let changed = change
        .prepare_cached("UPDATE keys SET revoked_at_us = ?2 WHERE id = ?1 AND revoked_at_us IS NULL")?
        .execute((id.as_str(), now.as_micros()))?;
    Ok(changed > 0)
}

/// Whom a key speaks for.
///
/// The index compares hashes byte by byte, and so not in constant time. What that could tell is how long a prefix the SHA-256 of
/// a guess shares with that of some key. A guess says nothing about the hash of another text, so nobody can make a guess
/// with a longer prefix than chance gives; and with all of a hash known, a key of 256 random bits is as far away as before.
pub(crate) fn authenticate(connection: &Connection, hash: &KeyHash, now: Timestamp) -> Result<ShownKey, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM keys WHERE hash = ?1");
    let found = connection.prepare_cached(&sql)?.query_row([hash.0], from_row).optional()?;
    Ok(shown(found, now))
}

/// Whom a key speaks for that somebody has signed for.
pub(crate) fn by_id(connection: &Connection, id: &KeyId, now: Timestamp) -> Result<ShownKey, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM keys WHERE id = ?1");
    let found = connection.prepare_cached(&sql)?.query_row([id.as_str()], from_row).optional()?;
    Ok(shown(found, now))
}

fn shown(found: Option<KeyRecord>, now: Timestamp) -> ShownKey {
    let Some(KeyRecord { id: key_id, workspace, revoked_at, isolation, expires_at, models, scope, .. }) = found else {
        return ShownKey::Unknown;
    };
    let expired = expires_at.filter(|at| *at <= now).map(KeyEnd::Expired);
    match revoked_at.map(KeyEnd::Revoked).or(expired) {
        Some(end) => ShownKey::Ended { key_id, end },
        None => ShownKey::Opens(Principal { workspace, key_id, isolation, expires_at, models, scope }),
    }
}
