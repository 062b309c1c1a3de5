//! Contents on disk, named by their digest.

use super::{Placed, Sweeping, Swept};
use crate::data_dir::{DataDirLock, sync_dir};
use crate::{ContentDigest, StoreError};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `blobs/`: one directory for each first byte of a digest, and `tmp/` for what is being written.
#[derive(Debug)]
pub(crate) struct BlobDir {
    root: PathBuf,
    /// Names temporary files; one process at a time uses the directory, and opening empties `tmp/`.
    staged: AtomicU64,
    /// Contents leave this much of the filesystem free, so that on a full disk there is still room for the
    /// database's log, and files can be deleted.
    disk_free_bytes_min: u64,
    lock: Arc<DataDirLock>,
}

impl BlobDir {
    /// Makes the directories that are missing, durably, and removes unfinished uploads.
    pub(crate) fn prepare(root: PathBuf, disk_free_bytes_min: u64, lock: DataDirLock) -> Result<Self, StoreError> {
        make_dir(&root)?;
        make_dir(&root.join("tmp"))?;
        for shard in 0..=u8::MAX {
            make_dir(&root.join(format!("{shard:02x}")))?;
        }
        sync_dir(&root)?;
        Ok(Self { root, staged: AtomicU64::new(0), disk_free_bytes_min, lock: Arc::new(lock) })
    }

    fn path(&self, digest: &ContentDigest) -> PathBuf {
        let hex = digest.to_string();
        self.root.join(&hex[..2]).join(&hex[2..])
    }

    /// A new empty file in `tmp/`, removed when dropped unless it is placed.
    pub(crate) fn stage(&self) -> Result<Staged, StoreError> {
        let name = self.staged.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.root.join("tmp").join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("making a temporary file"))?;
        let staged = Staged {
            file,
            path,
            placed: false,
            disk_free_bytes_min: self.disk_free_bytes_min,
            _lock: Arc::clone(&self.lock),
        };
        staged.expect_room(0)?;
        Ok(staged)
    }

    /// Gives a synced temporary file its final name, durably. Only the writer thread calls this.
    ///
    /// `referenced` says that rows refer to this digest already. If their blob is not as it should be, the
    /// one just written, whose digest was computed, takes its place.
    pub(crate) fn place(
        &self,
        staged: &mut Staged,
        digest: &ContentDigest,
        size_bytes: u64,
        referenced: bool,
    ) -> Result<Placed, StoreError> {
        let path = self.path(digest);
        if referenced && std::fs::metadata(&path).is_ok_and(|there| there.len() == size_bytes) {
            return Ok(Placed::Shared);
        }
        std::fs::rename(&staged.path, &path).map_err(StoreError::io("naming a blob"))?;
        staged.placed = true;
        if let Some(shard) = path.parent() {
            sync_dir(shard)?;
        }
        Ok(if referenced { Placed::Shared } else { Placed::New })
    }

    /// Opens a blob for reading; `None` when there is none.
    pub(crate) fn open(&self, digest: &ContentDigest) -> Result<Option<File>, StoreError> {
        match File::open(self.path(digest)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("opening a blob")(error)),
        }
    }

    /// Removes a blob no row refers to; a failure is only logged.
    pub(crate) fn remove(&self, digest: &ContentDigest) {
        remove_logged(&self.path(digest));
    }

    /// Empties `tmp/` and removes every blob that `is_referenced` denies.
    pub(crate) fn sweep(
        &self,
        sweeping: Sweeping,
        mut is_referenced: impl FnMut(&ContentDigest) -> Result<bool, StoreError>,
    ) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for entry in list(&self.root.join("tmp"))? {
            remove(&entry, sweeping).map_err(StoreError::io("removing an unfinished upload"))?;
            swept.temporaries_removed += 1;
        }
        for shard in 0..=u8::MAX {
            let shard = format!("{shard:02x}");
            for path in list(&self.root.join(&shard))? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
                let Some(digest) = ContentDigest::from_hex(&format!("{shard}{name}")) else {
                    tracing::warn!(path = %path.display(), "left alone: not a blob of ours");
                    continue;
                };
                if is_referenced(&digest)? {
                    swept.kept += 1;
                } else {
                    swept.orphan_bytes += std::fs::metadata(&path).map_or(0, |there| there.len());
                    remove(&path, sweeping).map_err(StoreError::io("removing an orphaned blob"))?;
                    swept.orphans_removed += 1;
                }
            }
        }
        Ok(swept)
    }
}

/// A temporary file on its way to becoming a blob.
#[derive(Debug)]
pub(crate) struct Staged {
    file: File,
    path: PathBuf,
    placed: bool,
    disk_free_bytes_min: u64,
    /// Names in `tmp/` repeat from process to process: nobody may open the directory while this one is in use.
    _lock: Arc<DataDirLock>,
}

impl Staged {
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.expect_room(chunk.len() as u64)?;
        self.file.write_all(chunk).map_err(StoreError::io("writing a file's content"))
    }

    fn expect_room(&self, bytes: u64) -> Result<(), StoreError> {
        expect_room(&self.file, bytes, self.disk_free_bytes_min)
    }

    /// Makes the content durable. The name is made durable by [`BlobDir::place`].
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("syncing a file's content"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            remove_logged(&self.path);
        }
    }
}

/// Whether a filesystem takes so many more bytes, and then still has the least that is to be free.
pub(super) fn expect_room(file: &File, bytes: u64, free_bytes_min: u64) -> Result<(), StoreError> {
    let doing = "looking for room for a file's content";
    let disk = rustix::fs::fstatvfs(file).map_err(|errno| StoreError::io(doing)(errno.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < free_bytes_min.saturating_add(bytes) {
        return Err(StoreError::DiskFull { doing });
    }
    Ok(())
}

/// `belljar admin gc` may be quicker: what is gone is removed.
fn remove(path: &Path, sweeping: Sweeping) -> std::io::Result<()> {
    match sweeping {
        Sweeping::Count => Ok(()),
        Sweeping::Remove => match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

fn remove_logged(path: &Path) {
    // An operator's collection may have come first.
    if let Err(error) = remove(path, Sweeping::Remove) {
        tracing::warn!(path = %path.display(), %error, "could not be removed; the next start will");
    }
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(StoreError::io("making a directory for blobs")(error)),
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let doing = "listing blobs";
    std::fs::read_dir(dir)
        .map_err(StoreError::io(doing))?
        .map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io(doing)))
        .collect()
}
