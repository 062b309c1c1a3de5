//! The data directory: made, closed to others, and held by one process.

use crate::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const DATABASE: &str = "belljar.sqlite";
pub(crate) const LOCK: &str = "lock";
pub(crate) const SECRET: &str = "scope.secret";
/// Holds the id of the store whose contents lie here.
pub(crate) const OWNER: &str = "blobs.owner";
const SPOOL: &str = "spool";
/// How long a command may hold the directory before a server that starts takes it for another server.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_LOOKED_AT: Duration = Duration::from_millis(50);
const OTHERS: u32 = 0o077;

/// A data directory that exists and only its owner may enter.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// The hold on a data directory; let go when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct DataDirLock(#[expect(dead_code, reason = "held, not used")] File);

impl DataDir {
    /// Makes the directory if need be and closes it to others (mode 0700).
    pub(crate) fn prepare(path: &Path) -> Result<Self, StoreError> {
        let doing = "making the data directory";
        let root = std::path::absolute(path).map_err(StoreError::io(doing))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(StoreError::io(doing))?;
        close_to_others(&root)?;
        if let Some(parent) = root.parent() {
            sync_dir(parent)?;
        }
        Ok(Self { root })
    }

    /// One that is there already; nothing is made or changed.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>, StoreError> {
        let root = std::path::absolute(path).map_err(StoreError::io("finding the data directory"))?;
        Ok(root.is_dir().then_some(Self { root }))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Contents that are needed as files for a moment; empty after this. Only for who holds the lock.
    pub(crate) fn spool(&self) -> Result<PathBuf, StoreError> {
        let doing = "making the directory for contents on their way";
        let spool = self.root.join(SPOOL);
        match std::fs::remove_dir_all(&spool) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::io(doing)(error)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&spool).map_err(StoreError::io(doing))?;
        Ok(spool)
    }

    /// Makes the contents in the directory those of a store, or says that they are another's: whose database does not know
    /// them would sweep them. Contents without an owner are from before there were owners: of the database beside them, so
    /// `beside` has to say that this is it.
    pub(crate) fn claim(&self, store: &str, beside: bool) -> Result<(), StoreError> {
        let doing = "noting whose contents these are";
        let path = self.root.join(OWNER);
        match std::fs::read_to_string(&path) {
            Ok(owner) if owner.trim() == store => Ok(()),
            Ok(owner) => {
                let place = self.blobs().display().to_string();
                Err(StoreError::Foreign { place, owner: Some(owner.trim().to_owned()) })
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !beside && self.blobs().exists() => {
                Err(StoreError::Foreign { place: self.blobs().display().to_string(), owner: None })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let new = self.root.join("blobs.owner.new");
                let write = || -> std::io::Result<()> {
                    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
                    writeln!(file, "{store}")?;
                    file.sync_all()?;
                    std::fs::rename(&new, &path)
                };
                write().map_err(StoreError::io(doing))?;
                self.sync()
            }
            Err(error) => Err(StoreError::io(doing)(error)),
        }
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        sync_dir(&self.root)
    }

    /// The secret that is kept here; `candidate` becomes it where there is none yet. Only for who holds the lock.
    pub(crate) fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let doing = "keeping the secret of scopes";
        let path = self.root.join(SECRET);
        match std::fs::read(&path) {
            Ok(kept) => {
                let bytes = kept.len();
                let damaged =
                    move |_| StoreError::Corrupt { what: format!("{SECRET} has {bytes} bytes instead of 32") };
                return kept.try_into().map_err(damaged);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io(doing)(error)),
        }
        // Whole or not at all: written beside, then named.
        let beside = self.root.join(format!("{SECRET}.new"));
        let written = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&candidate)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        written().map_err(StoreError::io(doing))?;
        self.sync()?;
        Ok(candidate)
    }

    /// As [`DataDir::lock`], for a server: waits for a command that holds it for a moment, as `belljar keys` and `belljar admin gc`
    /// do. A restart in place must not fail by that.
    pub(crate) fn lock_to_serve(&self) -> Result<DataDirLock, StoreError> {
        for _ in 0..LOCK_ATTEMPTS {
            match self.lock() {
                Err(StoreError::Locked { .. }) => std::thread::sleep(LOCK_LOOKED_AT),
                taken => return taken,
            }
        }
        self.lock()
    }

    /// Takes hold of the directory, or says who has it.
    pub(crate) fn lock(&self) -> Result<DataDirLock, StoreError> {
        let doing = "locking the data directory";
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.root.join(LOCK))
            .map_err(StoreError::io(doing))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { data_dir: self.root.clone(), pid: noted_pid(&mut file) });
            }
            Err(errno) => return Err(StoreError::broken(doing, errno)),
        }
        file.set_len(0).map_err(StoreError::io(doing))?;
        file.rewind().map_err(StoreError::io(doing))?;
        writeln!(file, "{}", std::process::id()).map_err(StoreError::io(doing))?;
        Ok(DataDirLock(file))
    }
}

/// The pid in a lock file. Its owner writes it just after taking the lock, so it may not be there yet.
fn noted_pid(file: &mut File) -> Option<u32> {
    let mut note = String::new();
    file.take(16).read_to_string(&mut note).ok()?;
    note.trim().parse().ok()
}

/// Takes others' permissions away, unless the directory holds strangers' things: closing `/tmp` because it
/// was named by mistake would be worse than refusing.
fn close_to_others(root: &Path) -> Result<(), StoreError> {
    let doing = "closing the data directory to others";
    let mode = std::fs::metadata(root).map_err(StoreError::io(doing))?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let ours = [DATABASE, OWNER, SPOOL].iter().any(|name| root.join(name).exists())
        || std::fs::read_dir(root).map_err(StoreError::io(doing))?.next().is_none();
    if !ours {
        return Err(StoreError::Exposed { data_dir: root.to_owned(), mode: mode & 0o777 });
    }
    std::fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(StoreError::io(doing))
}

/// Makes the names in a directory durable: fsync(2), "the entry in the directory containing the file".
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("syncing a directory"))
}
