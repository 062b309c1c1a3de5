//! Contents: on disk, or in an object store.

mod disk;
mod objects;
mod reader;

pub(crate) use objects::{Attempt, Objects};
pub use objects::{ObjectCredentials, ObjectPlace};
pub use reader::ContentReader;

use crate::data_dir::{DataDir, DataDirLock};
use crate::db::{self, Connection, Transaction};
use crate::writer::blocking;
use crate::{ContentDigest, StoreError};
use bytes::Bytes;
use disk::BlobDir;
use std::sync::Arc;

/// Where contents are kept.
#[derive(Clone, Debug, Default)]
pub enum BlobPlace {
    /// In the data directory.
    #[default]
    Disk,
    /// In a bucket of an S3-compatible store.
    Objects(Box<ObjectPlace>),
}

impl BlobPlace {
    /// Asks an object store for what is under our prefix, and changes nothing; none for the disk.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Misconfigured`].
    pub async fn reach(&self) -> Result<Option<String>, StoreError> {
        match self {
            Self::Disk => Ok(None),
            Self::Objects(place) => objects::reach(place).await.map(Some),
        }
    }
}

/// The contents of one store.
#[derive(Debug)]
pub(crate) enum Blobs {
    Disk(Arc<BlobDir>),
    Objects(Arc<Objects>),
}

/// What is to become of contents that no row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweeping {
    Remove,
    /// They are counted as if they had been removed.
    Count,
}

/// What sweeping found when the store was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) temporaries_removed: u64,
    pub(crate) orphans_removed: u64,
    pub(crate) orphan_bytes: u64,
    /// Blobs that have both a row and a content.
    pub(crate) kept: u64,
}

/// How a content came to lie in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It is new there: nothing but the row about to be committed refers to it.
    New,
    /// Others refer to it already.
    Shared,
}

impl Blobs {
    /// Reaches the place, and sees to it that it is this store's. Blocks.
    pub(crate) fn prepare(
        place: &BlobPlace,
        dir: &DataDir,
        lock: DataDirLock,
        disk_free_bytes_min: u64,
        store: &str,
        database: &db::Place,
    ) -> Result<Self, StoreError> {
        match place {
            BlobPlace::Disk => {
                dir.claim(store, matches!(database, db::Place::Sqlite(_)))?;
                Ok(Self::Disk(Arc::new(BlobDir::prepare(dir.blobs(), disk_free_bytes_min, lock)?)))
            }
            BlobPlace::Objects(place) => {
                let objects = Objects::prepare(place, dir.spool()?, disk_free_bytes_min, lock)?;
                objects.claim(store)?;
                Ok(Self::Objects(Arc::new(objects)))
            }
        }
    }

    /// A content that is about to be written. Blocks.
    pub(crate) fn stage(&self) -> Result<Staged, StoreError> {
        match self {
            Self::Disk(dir) => dir.stage().map(Staged::Disk),
            Self::Objects(objects) => Ok(Staged::Object(objects.stage()?)),
        }
    }

    /// Puts a durable content in its place; with an object store, by a row of the change. Only the writer thread calls this.
    ///
    /// `referenced` says that rows refer to this digest already. If their blob is not as it should be, the
    /// one just written, whose digest was computed, takes its place.
    pub(crate) fn place(
        &self,
        change: &Transaction<'_>,
        staged: &mut Staged,
        digest: &ContentDigest,
        size_bytes: u64,
        referenced: bool,
    ) -> Result<Placed, StoreError> {
        match (self, staged) {
            (Self::Disk(dir), Staged::Disk(staged)) => dir.place(staged, digest, size_bytes, referenced),
            (Self::Objects(objects), Staged::Object(staged)) => {
                if referenced
                    && let Some(name) = db::objects::find(change, digest)?
                    && objects.size(&name)? == Some(size_bytes)
                {
                    return Ok(Placed::Shared);
                }
                db::objects::put(change, digest, staged.keep())?;
                Ok(if referenced { Placed::Shared } else { Placed::New })
            }
            (Self::Disk(_), Staged::Object(_)) | (Self::Objects(_), Staged::Disk(_)) => {
                Err(StoreError::broken("placing a content", "it was written for another place"))
            }
        }
    }

    /// Removes a content that was placed as [`Placed::New`] for a change that was undone.
    pub(crate) fn take_back(&self, staged: Staged, digest: &ContentDigest) {
        match (self, staged) {
            (Self::Disk(dir), _) => dir.remove(digest),
            (Self::Objects(objects), Staged::Object(staged)) => objects.remove(staged.name()),
            (Self::Objects(_), Staged::Disk(_)) => {}
        }
    }

    /// Removes a content no row refers to. Only the writer thread calls this, after the commit that dropped the last
    /// reference; so a failure loses nothing but space until the next opening, and is only logged.
    pub(crate) fn remove(&self, connection: &mut Connection, digest: &ContentDigest) {
        match self {
            Self::Disk(dir) => dir.remove(digest),
            Self::Objects(objects) => match forget(connection, digest) {
                Ok(Some(name)) => objects.remove(&name),
                Ok(None) => {}
                Err(error) => tracing::warn!(%digest, %error, "could not be removed; the next start will"),
            },
        }
    }

    /// Waits for removals under way.
    pub(crate) async fn removed(&self) {
        match self {
            Self::Disk(_) => {}
            Self::Objects(objects) => objects.removed().await,
        }
    }

    /// Removes what is unfinished and what no row refers to. Walks all blobs, so opening a store takes time in proportion to
    /// their number; in return, uploads keep no journal of their own. Blocks.
    pub(crate) fn sweep(&self, connection: &mut Connection, sweeping: Sweeping) -> Result<Swept, StoreError> {
        match self {
            Self::Disk(dir) => dir.sweep(sweeping, |digest| db::files::blob_is_known(connection, digest)),
            Self::Objects(objects) => {
                let change = db::begin(connection)?;
                db::objects::forget_orphans(&change)?;
                match sweeping {
                    Sweeping::Remove => {
                        change.commit()?;
                        objects.sweep(sweeping, |from, to| db::objects::between(connection, from, to))
                    }
                    // Undone afterwards.
                    Sweeping::Count => objects.sweep(sweeping, |from, to| db::objects::between(&change, from, to)),
                }
            }
        }
    }
}

fn forget(connection: &mut Connection, digest: &ContentDigest) -> Result<Option<String>, StoreError> {
    let change = db::begin(connection)?;
    let name = db::objects::forget(&change, digest)?;
    change.commit()?;
    Ok(name)
}

/// A content on its way to its place; gone when dropped, unless it was placed.
#[derive(Debug)]
pub(crate) enum Staged {
    Disk(disk::Staged),
    Object(objects::Staged),
}

impl Staged {
    /// Appends a chunk, after `hash` was shown it; answers itself, and gone if that failed.
    pub(crate) async fn write<H: Send + 'static>(
        self,
        mut hasher: H,
        hash: fn(&mut H, &[u8]),
        chunk: Bytes,
    ) -> Result<(Self, H), StoreError> {
        match self {
            Self::Disk(mut staged) => {
                let write = move || {
                    staged.write(&chunk)?;
                    hash(&mut hasher, &chunk);
                    Ok((Self::Disk(staged), hasher))
                };
                blocking(write).await
            }
            Self::Object(staged) => {
                let shown = chunk.clone();
                let hashed = blocking(move || {
                    hash(&mut hasher, &shown);
                    Ok(hasher)
                });
                let hasher = hashed.await?;
                Ok((Self::Object(staged.write(chunk).await?), hasher))
            }
        }
    }

    /// Makes the content durable. It is found once it is placed.
    pub(crate) async fn finish(self) -> Result<Self, StoreError> {
        match self {
            Self::Disk(staged) => {
                let sync = move || {
                    staged.sync()?;
                    Ok(Self::Disk(staged))
                };
                blocking(sync).await
            }
            Self::Object(staged) => Ok(Self::Object(staged.finish().await?)),
        }
    }
}
