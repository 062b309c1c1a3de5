//! Contents, opened: from the disk at once, from an object store by a request.

use super::threads::{self, Found, FoundCheckpoint, FoundContent};
use super::{Content, Inner};
use crate::blobs::{Attempt, ContentReader, Objects};
use crate::writer::blocking;
use crate::{CheckpointRecord, ContentDigest, FileRecord, StoreError, WorkspaceId};
use belljar_ids::{CheckpointId, ContainerId, FileId};
use sha2::Digest as _;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;

/// What is read, hashed and written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// See [`super::Store::open_content`].
pub(super) async fn content(
    inner: &Inner,
    workspace: &WorkspaceId,
    id: &FileId,
) -> Result<Option<Content>, StoreError> {
    let now = inner.limits.clock.now();
    let mut missing = None;
    loop {
        let (workspace, id) = (workspace.clone(), id.clone());
        let found = inner.reader.call(move |reader| reader.open_content(&workspace, &id, now)).await?;
        let (record, objects, name) = match found {
            None => return Ok(None),
            Some(Found::Expired(record)) => return Ok(Some(Content::Expired { record })),
            Some(Found::Open(record, file)) => {
                return Ok(Some(Content::Open { record, file: ContentReader::disk(file) }));
            }
            Some(Found::Object(record, objects, name)) => (record, objects, name),
        };
        match objects.open(&name, record.size_bytes).await? {
            Attempt::Found(file) => return Ok(Some(Content::Open { record, file })),
            Attempt::Resized(there) => return Err(resized(record.content, there, record.size_bytes)),
            // Rightly so if the file was deleted, or its content put elsewhere, since its row was read.
            Attempt::Missing if missing.as_ref() == Some(&name) => return Err(gone(record.content)),
            Attempt::Missing => missing = Some(name),
        }
    }
}

fn shown(digest: Option<ContentDigest>) -> String {
    digest.map_or_else(|| "without a digest".to_owned(), |digest| digest.to_string())
}

fn gone(digest: Option<ContentDigest>) -> StoreError {
    StoreError::Corrupt { what: format!("blob {} is missing", shown(digest)) }
}

fn resized(digest: Option<ContentDigest>, there: u64, kept: u64) -> StoreError {
    StoreError::Corrupt { what: format!("blob {} has {there} bytes instead of {kept}", shown(digest)) }
}

/// Reads a file's content and holds it against its digest.
pub(super) async fn check(record: &FileRecord, file: ContentReader) -> Result<(), StoreError> {
    match &record.content {
        Some(kept) => compare(kept, file).await,
        None => Ok(()),
    }
}

/// Reads a content and holds it against the digest that it was kept with.
async fn compare(kept: &ContentDigest, mut file: ContentReader) -> Result<(), StoreError> {
    let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0_u8; CHUNK_BYTES]);
    loop {
        let count = file.read(&mut buffer).await.map_err(StoreError::io("reading a blob"))?;
        if count == 0 {
            break;
        }
        (hasher, buffer) = blocking(move || {
            hasher.update(&buffer[..count]);
            Ok((hasher, buffer))
        })
        .await?;
    }
    threads::compare(kept, hasher)
}

/// See [`super::Store::check_named_checkpoint`].
pub(super) async fn check_named(
    inner: &Inner,
    workspace: &WorkspaceId,
    container: &ContainerId,
    id: &CheckpointId,
) -> Result<Option<CheckpointRecord>, StoreError> {
    let (workspace, container, id) = (workspace.clone(), container.clone(), id.clone());
    let found = inner.reader.call(move |reader| reader.open_named_checkpoint(&workspace, &container, &id)).await?;
    let Some(FoundCheckpoint { record, content }) = found else { return Ok(None) };
    let file = match content {
        FoundContent::File(file) => ContentReader::disk(file),
        FoundContent::Object(objects, name) => layer(&objects, &name, &record).await?,
    };
    compare(&record.content, file).await?;
    Ok(Some(record))
}

/// See [`super::Store::open_checkpoint`].
pub(super) async fn checkpoint(
    inner: &Inner,
    workspace: &WorkspaceId,
    container: &ContainerId,
) -> Result<Option<(CheckpointRecord, tokio::fs::File)>, StoreError> {
    let (workspace, container) = (workspace.clone(), container.clone());
    let found = inner.reader.call(move |reader| reader.open_checkpoint(&workspace, &container)).await?;
    let Some(FoundCheckpoint { record, content }) = found else { return Ok(None) };
    let file = match content {
        FoundContent::File(mut file) => {
            let digest = record.content;
            let checked = blocking(move || {
                threads::check(&digest, &file)?;
                file.rewind().map_err(StoreError::io("reading a blob again"))?;
                Ok(file)
            });
            checked.await?
        }
        FoundContent::Object(objects, name) => fetched(&objects, &name, &record).await?,
    };
    Ok(Some((record, tokio::fs::File::from_std(file))))
}

/// A checkpoint's content in an object store, at its beginning.
async fn layer(objects: &Arc<Objects>, name: &str, record: &CheckpointRecord) -> Result<ContentReader, StoreError> {
    match objects.open(name, record.size_bytes).await? {
        Attempt::Found(object) => Ok(object),
        Attempt::Resized(there) => Err(resized(Some(record.content), there, record.size_bytes)),
        Attempt::Missing => Err(gone(Some(record.content))),
    }
}

/// A checkpoint's content as a file, checked: what is not what was written must not be unpacked, not even its beginning.
async fn fetched(objects: &Arc<Objects>, name: &str, record: &CheckpointRecord) -> Result<std::fs::File, StoreError> {
    let mut object = layer(objects, name, record).await?;
    let (spool, size_bytes) = (Arc::clone(objects), record.size_bytes);
    let mut file = blocking(move || spool.spool(size_bytes)).await?;
    let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0_u8; CHUNK_BYTES]);
    loop {
        let count = object.read(&mut buffer).await.map_err(StoreError::io("reading a blob"))?;
        if count == 0 {
            break;
        }
        (file, hasher, buffer) = blocking(move || {
            file.write_all(&buffer[..count]).map_err(StoreError::io("writing a content to disk"))?;
            hasher.update(&buffer[..count]);
            Ok((file, hasher, buffer))
        })
        .await?;
    }
    threads::compare(&record.content, hasher)?;
    file.rewind().map_err(StoreError::io("reading a blob again"))?;
    Ok(file)
}
