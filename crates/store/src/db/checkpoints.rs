//! Statements about checkpoints: the kept files of containers.

use super::files::{add_blob, drop_if_unreferenced};
use super::sql::{Connection, OptionalExtension as _, Row, Transaction};
use super::{as_integer, instant, parsed, unsigned};
use crate::{CheckpointDraft, CheckpointRecord, ContentDigest, StoreError, Timestamp, WorkspaceId};
use belljar_ids::ContainerId;

fn from_row(row: &Row<'_>) -> rusqlite::Result<CheckpointRecord> {
    Ok(CheckpointRecord {
        image: row.get("image")?,
        isolation: parsed(row, "isolation")?,
        size_bytes: unsigned(row, "size_bytes")?,
        made_at: instant(row, "made_at_us")?,
        content: ContentDigest(row.get("blob")?),
    })
}

/// A container's checkpoint.
pub(crate) fn find(
    connection: &Connection,
    workspace: &WorkspaceId,
    container: &ContainerId,
) -> Result<Option<CheckpointRecord>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT image, isolation, checkpoints.size_bytes, made_at_us, blob FROM checkpoints
         JOIN containers ON containers.id = container WHERE container = ?1 AND workspace = ?2",
    )?;
    Ok(statement.query_row((container.as_str(), workspace.as_str()), from_row).optional()?)
}

/// Puts a checkpoint in the place of the container's former one. Answers the former one's content, if that has lost its
/// last reference and its row.
pub(crate) fn replace(
    change: &Transaction<'_>,
    draft: &CheckpointDraft,
    digest: ContentDigest,
    size_bytes: u64,
    now: Timestamp,
) -> Result<Option<ContentDigest>, StoreError> {
    if super::containers::find(change, &draft.workspace, &draft.container)?.is_none() {
        return Err(StoreError::NoContainer { id: draft.container.to_string() });
    }
    let former = find(change, &draft.workspace, &draft.container)?;
    add_blob(change, digest, size_bytes)?;
    change
        .prepare_cached(
            "INSERT INTO checkpoints (container, image, isolation, size_bytes, made_at_us, blob)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (container) DO UPDATE SET image = excluded.image, isolation = excluded.isolation,
             size_bytes = excluded.size_bytes, made_at_us = excluded.made_at_us, blob = excluded.blob",
        )?
        .execute((
            draft.container.as_str(),
            &draft.image,
            draft.isolation.as_str(),
            as_integer(size_bytes)?,
            now.as_micros(),
            digest.as_bytes(),
        ))?;
    match former {
        Some(former) if drop_if_unreferenced(change, &former.content)? => Ok(Some(former.content)),
        _ => Ok(None),
    }
}

/// Removes a container's checkpoint. Answers its content, if that has lost its last reference and its row.
pub(crate) fn delete(
    change: &Transaction<'_>,
    workspace: &WorkspaceId,
    container: &ContainerId,
) -> Result<Option<ContentDigest>, StoreError> {
    let Some(found) = find(change, workspace, container)? else {
        return Ok(None);
    };
    change.prepare_cached("DELETE FROM checkpoints WHERE container = ?1")?.execute([container.as_str()])?;
    Ok(drop_if_unreferenced(change, &found.content)?.then_some(found.content))
}
