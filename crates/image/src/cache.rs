//! Where things lie in the cache directory, and how files come to be there: whole, or not at all.
//!
//! ```text
//! lock                      held (flock) by the one process that builds, imports or extracts
//! images/<hex>.erofs        an image, named by the SHA-256 of its bytes; never changed once there
//! images/<hex>.json         its record: where it came from, how big it is
//! images/<hex>.stamp        when the whole file was last hashed (see stamp.rs)
//! names/<name>              one line: the digest that the name stands for
//! recipes/<hex>             one line: the digest of the image built by that recipe
//! build/                    finished phases of an interrupted build (see build/mod.rs)
//! trees/<hex>/              the image unpacked, for containers made without root
//! log/<operation>.log       output of the programs run by the last build, import or extraction
//! ```
//! Everything may be deleted by hand while no belljar runs; `images/` and `names/` are all that matters.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::{ImageEvent, Monitor};
use crate::name::ImageName;

/// Records and names are small; anything bigger is not ours.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// Holds the cache's lock until dropped.
#[derive(Debug)]
pub(crate) struct CacheLock {
    file: File,
}

impl Cache {
    /// Makes what is missing. Refuses a directory that another user could change: what lies in it gets mounted.
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).doing("making", root)?;
        let meta = fs::metadata(root).doing("reading", root)?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.uid() != geteuid().as_raw() || mode & 0o022 != 0 {
            return Err(ImageError::CacheNotOurs { path: root.to_owned(), owner: meta.uid(), mode });
        }
        let cache = Self { root: fs::canonicalize(root).doing("resolving", root)? };
        for name in ["images", "names", "recipes", "build", "trees", "log"] {
            make_dir(&cache.root.join(name))?;
        }
        Ok(cache)
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, digest: &Digest) -> PathBuf {
        self.images().join(format!("{}.erofs", digest.hex()))
    }

    pub(crate) fn record(&self, digest: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", digest.hex()))
    }

    pub(crate) fn stamp(&self, digest: &Digest) -> PathBuf {
        self.images().join(format!("{}.stamp", digest.hex()))
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(crate) fn name(&self, name: &ImageName) -> PathBuf {
        self.names().join(name.as_str())
    }

    pub(crate) fn recipe(&self, recipe: &Digest) -> PathBuf {
        self.root.join("recipes").join(recipe.hex())
    }

    pub(crate) fn builds(&self) -> PathBuf {
        self.root.join("build")
    }

    pub(crate) fn tree(&self, digest: &Digest) -> PathBuf {
        self.root.join("trees").join(digest.hex())
    }

    pub(crate) fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    pub(crate) fn log(&self, operation: &str) -> PathBuf {
        self.root.join("log").join(format!("{operation}.log"))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Waits for the lock, telling that it waits.
    pub(crate) async fn lock(&self, monitor: &Monitor) -> Result<CacheLock, ImageError> {
        let path = self.root.join("lock");
        let file = open_lock_file(&path)?;
        let mut waiting = false;
        while flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map(|()| false)
            .or_else(|errno| if errno == rustix::io::Errno::WOULDBLOCK { Ok(true) } else { Err(errno) })
            .doing("locking", &path)?
        {
            if !waiting {
                monitor.emit(ImageEvent::Waiting { lock: path.clone() });
                waiting = true;
            }
            // A blocking flock could not be interrupted without a signal handler of our own.
            tokio::select! {
                () = monitor.cancel().cancelled() => return Err(ImageError::Interrupted),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
        // Its time is "now" by the file system's own clock; the age of kept phases is measured against it.
        rustix::fs::futimens(
            &file,
            &rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
                last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            },
        )
        .doing("touching", &path)?;
        Ok(CacheLock { file })
    }
}

impl CacheLock {
    /// When the lock was taken.
    pub(crate) fn taken_at(&self) -> std::io::Result<std::time::SystemTime> {
        self.file.metadata()?.modified()
    }
}

/// Opens a file to be locked, readable and writable by this user only.
pub(crate) fn open_lock_file(path: &Path) -> Result<File, ImageError> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path).doing("opening", path)
}

/// Makes one directory, unless it is there.
pub(crate) fn make_dir(path: &Path) -> Result<(), ImageError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(ImageError::io("making", path, error)),
        _ => Ok(()),
    }
}

/// Writes a small file so that it is found either with all of this content or with its old content.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(parent).doing("making a file in", parent)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).doing("writing", path)?;
    file.persist(path).map_err(|error| error.error).doing("renaming", path)?;
    sync_dir(parent)
}

/// Makes renames in a directory survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|dir| dir.sync_all()).doing("syncing", path)
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::io("opening", path, error)),
    };
    let mut content = Vec::new();
    file.take(RECORD_BYTES_MAX + 1).read_to_end(&mut content).doing("reading", path)?;
    if content.len() as u64 > RECORD_BYTES_MAX {
        return Err(ImageError::BadRecord { path: path.to_owned(), problem: "too big".into() });
    }
    Ok(Some(content))
}

/// Reads a file that holds one digest; `None` if there is none.
pub(crate) fn read_digest(path: &Path) -> Result<Option<Digest>, ImageError> {
    let Some(content) = read_small(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&content);
    let digest = text.trim_end().parse();
    digest
        .map(Some)
        .map_err(|_| ImageError::BadRecord { path: path.to_owned(), problem: "does not hold a digest".into() })
}
