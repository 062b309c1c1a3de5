//! A container's files as an archive that leaves the server and comes back: a layer, each name below `files/`, and a manifest of
//! digests at the end (`docs/checkpoints.md`).
//!
//! Both ways, one stream becomes another, entry by entry: neither is ever whole in memory, and no file is made on the host but the
//! manifest's. A layer is written by hostile code and an archive by anybody, so both are read by [`archive`], which bounds what
//! an entry may say. Files appear only inside the wall, where the guest applies a layer as it does for a restore.

pub mod archive;
pub mod export;
pub mod import;
pub mod manifest;

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Below this, in an archive, stands the layer.
pub const FILES: &[u8] = b"files/";
/// The archive's last entry.
pub const MANIFEST: &str = "manifest.jsonl";
/// Chunks that may wait between the thread that makes a stream and whoever takes it.
const CHUNKS_WAITING_MAX: usize = 4;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// Writes from a thread into a channel.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A channel's writing end, in chunks, and its reading end.
fn pieces() -> (io::BufWriter<Pieces>, mpsc::Sender<io::Result<Bytes>>, mpsc::Receiver<io::Result<Bytes>>) {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    (io::BufWriter::with_capacity(CHUNK_BYTES, Pieces(sender.clone())), sender, receiver)
}
