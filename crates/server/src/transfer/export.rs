//! A container's files as an archive.

use std::io;

use async_compression::tokio::bufread::ZstdDecoder;
use belljar_sandbox::{Lease, LeaseError};
use belljar_store::ContainerRecord;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tar::{Archive, Builder, Header};
use tokio::io::{AsyncRead, BufReader};
use tokio_util::io::SyncIoBridge;

use crate::app::Shared;
use crate::checkpoints::{CheckpointError, is_live};
use crate::clock;
use crate::principal::key_isolation;
use crate::transfer::archive::{ArchiveError, Members};
use crate::transfer::manifest::{Draft, FORMAT, Head};
use crate::transfer::{CHUNK_BYTES, FILES, MANIFEST, pieces};

/// How often a container that changes between live and kept is looked at again.
const ATTEMPTS_MAX: u32 = 3;

/// What the stream is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The archive that can be imported.
    Tar,
    /// The layer alone, as OCI images have it.
    Oci,
}

/// A container's files on their way out. One that is live is held until the stream's end.
pub struct Outgoing {
    head: Head,
    layer: Box<dyn AsyncRead + Send + Unpin>,
    hold: Option<Lease>,
}

/// Begins an export.
///
/// # Errors
/// [`CheckpointError`]; what fails later ends the stream early.
pub async fn begin(app: &Shared, record: &ContainerRecord) -> Result<Outgoing, CheckpointError> {
    let head = |image: &str, isolation: belljar_store::KeyIsolation| Head {
        format: FORMAT.to_owned(),
        container_id: record.id.to_string(),
        image: image.to_owned(),
        isolation: isolation.as_str().to_owned(),
        created_at: record.created_at.to_string(),
        exported_at: clock::now().to_string(),
    };
    for _attempt in 0..ATTEMPTS_MAX {
        let change = app.changes.of(&record.id).await;
        if !is_live(app, &record.id) {
            let kept = app.store.open_checkpoint(&record.workspace, &record.id).await?;
            let (kept, file) = kept.ok_or(CheckpointError::Unknown)?;
            let layer = ZstdDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
            return Ok(Outgoing { head: head(&kept.image, kept.isolation), layer: Box::new(layer), hold: None });
        }
        drop(change);
        match app.sandbox.lease(&record.id, app.serving.lease_wait).await {
            Ok(mut lease) => {
                let head = head(&app.image_digest, key_isolation(lease.isolation()));
                return Ok(Outgoing { head, layer: Box::new(lease.checkpoint()?), hold: Some(lease) });
            }
            Err(LeaseError::Busy(_)) => return Err(CheckpointError::Busy),
            Err(LeaseError::Unknown(_) | LeaseError::Dead { .. }) => {}
        }
    }
    Err(CheckpointError::Busy)
}

impl Outgoing {
    /// The bytes. A stream that ends with an error is no export.
    pub fn stream(self, form: Form) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let (writer, sender, receiver) = pieces();
        let Self { head, layer, hold } = self;
        let layer = SyncIoBridge::new(layer);
        tokio::task::spawn_blocking(move || {
            let done = match form {
                Form::Tar => archive(layer, writer, &head),
                Form::Oci => relay(layer, writer),
            };
            // Free again before whoever has read to the end asks for it.
            drop(hold);
            if let Err(error) = done {
                tracing::warn!(%error, container = %head.container_id, "an export ended early");
                let _unless_it_went_away = sender.blocking_send(Err(io::Error::other(error)));
            }
        });
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }
}

fn relay(mut layer: impl io::Read, mut sink: impl io::Write) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match layer.read(&mut buffer)? {
            0 => return Ok(sink.flush()?),
            count => sink.write_all(&buffer[..count])?,
        }
    }
}

/// A layer as an archive: each entry again, below `files/`, and the manifest.
pub fn archive(layer: impl io::Read, sink: impl io::Write, head: &Head) -> Result<(), ArchiveError> {
    let mut builder = Builder::new(sink);
    let mut draft = Draft::new()?;
    draft.push(head)?;
    let mut layer = Archive::new(layer);
    let mut members = Members::new(&mut layer)?;
    while let Some((member, content)) = members.next()? {
        let path = [FILES, &member.path].concat();
        let target = match member.kind {
            crate::transfer::manifest::Kind::Hardlink => member.target.as_ref().map(|target| [FILES, target].concat()),
            _ => member.target.clone(),
        };
        let line = member.write(&mut builder, &path, target.as_deref(), content, &member.path)?;
        draft.push(&line)?;
    }
    // A layer that ends with an error is not whole, and says so only there.
    io::copy(&mut layer.into_inner(), &mut io::sink())?;
    let (bytes, file) = draft.finish()?;
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes);
    builder.append_data(&mut header, MANIFEST, file)?;
    Ok(builder.into_inner()?.flush()?)
}
