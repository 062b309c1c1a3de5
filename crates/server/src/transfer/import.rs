//! An archive as a new container.

use std::io;

use async_compression::tokio::bufread::ZstdEncoder;
use belljar_ids::ContainerId;
use belljar_store::{CheckpointDraft, CheckpointWriter, KeyIsolation, StoreError};
use bytes::BytesMut;
use futures_util::stream;
use tar::{Archive, Builder};
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::app::Shared;
use crate::checkpoints::{self, CheckpointError, fork};
use crate::principal::Principal;
use crate::transfer::archive::{ArchiveError, Members, refused};
use crate::transfer::manifest::{Draft, Head, Kind, compare};
use crate::transfer::{CHUNK_BYTES, FILES, MANIFEST, pieces};

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive is not what an export is.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It could not be kept or come to life.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Checkpoint(error.into())
    }
}

/// Makes a container out of an archive, and has its files applied inside the wall. All of it or nothing.
///
/// # Errors
/// [`ImportError`]; no container is left.
pub async fn import(
    app: &Shared,
    principal: &Principal,
    source: impl AsyncRead + Send + Unpin + 'static,
) -> Result<ContainerId, ImportError> {
    let container = fork::kept_container(app, &principal.workspace);
    let draft = CheckpointDraft {
        workspace: principal.workspace.clone(),
        container: container.id.clone(),
        image: app.image_digest.clone(),
        // The manifest says it, at the archive's end.
        isolation: KeyIsolation::Namespaces,
    };
    let mut kept = app.store.begin_checkpoint(draft, app.checkpoint_bytes_max).await?;
    let (bytes_max, image) = (app.checkpoint_bytes_max, app.image_digest.clone());
    let (sink, sender, receiver) = pieces();
    drop(sender);
    let reading = tokio::task::spawn_blocking(move || layer(SyncIoBridge::new(source), sink, bytes_max, &image));
    let chunks =
        Box::pin(stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }));
    let written = write(&mut kept, StreamReader::new(chunks)).await;
    // Of a stream that broke off, the reason is the reader's.
    let read = reading.await.map_err(|error| ArchiveError::Io(io::Error::other(error)))?;
    let head = match (written, read) {
        (Ok(()), read) => read?,
        (Err(error), Err(ArchiveError::Io(_)) | Ok(_)) => return Err(error.into()),
        (Err(_), Err(error @ ArchiveError::Refused(_))) => return Err(error.into()),
    };
    let isolation = head.isolation.parse();
    let isolation =
        isolation.map_err(|error| ArchiveError::Refused(format!("{MANIFEST}: line 1: isolation: {error}")))?;
    let id = container.id.clone();
    kept.finish_new(container, isolation).await?;
    let back = checkpoints::bring_back(app, principal, &id).await;
    if back.is_err() {
        app.store.delete_container(&principal.workspace, &id).await?;
    }
    back?;
    Ok(id)
}

async fn write(
    kept: &mut CheckpointWriter,
    layer: impl tokio::io::AsyncBufRead + Unpin,
) -> Result<(), CheckpointError> {
    let mut compressed = ZstdEncoder::new(BufReader::with_capacity(CHUNK_BYTES, layer));
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    while compressed.read_buf(&mut chunk).await? > 0 {
        kept.write(chunk.split().freeze()).await?;
        chunk.reserve(CHUNK_BYTES);
    }
    Ok(())
}

/// An archive as a layer, held against its manifest. What comes out before an error is to be thrown away.
pub fn layer(archive: impl io::Read, sink: impl io::Write, bytes_max: u64, image: &str) -> Result<Head, ArchiveError> {
    let mut builder = Builder::new(sink);
    let mut draft = Draft::new()?;
    let mut archive = Archive::new(archive);
    let mut members = Members::new(&mut archive)?;
    let mut bytes = 0_u64;
    while let Some((member, content)) = members.next()? {
        if member.path == MANIFEST.as_bytes() && member.kind == Kind::File {
            let head = compare(content, draft.finish()?.1)?;
            if head.image != image {
                let text = format!("{MANIFEST}: image: it was made over {}, and this server has {image}", head.image);
                return Err(ArchiveError::Refused(text));
            }
            if let Some((member, _)) = members.next()? {
                return Err(refused(&member.path, "nothing stands behind the manifest"));
            }
            builder.into_inner()?.flush()?;
            return Ok(head);
        }
        let below = |path: &[u8]| path.strip_prefix(FILES).map(<[u8]>::to_vec);
        let path = below(&member.path)
            .ok_or_else(|| refused(&member.path, "it stands neither below files/ nor is it the manifest"))?;
        bytes = bytes.saturating_add(member.size);
        if bytes > bytes_max {
            return Err(refused(&member.path, format!("a container has room for {bytes_max} bytes")));
        }
        let target = match (member.kind, &member.target) {
            (Kind::Hardlink, Some(target)) => {
                Some(below(target).ok_or_else(|| refused(&member.path, "its link leads outward"))?)
            }
            (_, target) => target.clone(),
        };
        let member = member.leading_to(target.clone());
        let line = member.write(&mut builder, &path, target.as_deref(), content, &path)?;
        draft.push(&line)?;
    }
    Err(ArchiveError::Refused(format!("{MANIFEST}: missing: the archive ended early, or is no export")))
}
