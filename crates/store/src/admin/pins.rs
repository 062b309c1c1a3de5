//! Pins: second names of contents, which stay readable under them whatever becomes of their rows.
//!
//! A backup reads contents long after the moment whose database it has. The server may remove a content meanwhile; the pin, a hard
//! link beside it, keeps it until the backup has it. Nobody has to be asked or held up for that, and a backup that was killed
//! leaves a directory that nobody holds: the next one, `gc`, or the server's next start removes it.

use super::collection::{Collecting, Tally};
use super::{AdminError, at};
use crate::data_dir::DataDir;
use crate::{ContentDigest, StoreError};
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Beside the contents, so that it is on their filesystem.
const PINS: &str = "pins";

/// The pins of one backup; removed when dropped.
pub(super) struct Pins {
    root: PathBuf,
    blobs: PathBuf,
    _hold: File,
}

impl Pins {
    pub(super) fn make(dir: &DataDir) -> Result<Self, AdminError> {
        let (blobs, doing) = (dir.blobs(), "making a place for pins");
        let all = blobs.join(PINS);
        DirBuilder::new().mode(0o700).recursive(true).create(&all).map_err(at(&all, doing))?;
        loop {
            let root = all.join(crate::random::name()?);
            DirBuilder::new().mode(0o700).create(&root).map_err(at(&root, doing))?;
            let hold = match File::open(&root) {
                Ok(hold) => hold,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(at(&root, doing)(error)),
            };
            // Somebody who removes what nobody holds may have come in between.
            if flock(&hold, FlockOperation::NonBlockingLockExclusive).is_ok() && root.is_dir() {
                return Ok(Self { root, blobs, _hold: hold });
            }
        }
    }

    /// Gives a content a pin; `false` when it is not there.
    pub(super) fn pin(&self, digest: &ContentDigest) -> Result<bool, AdminError> {
        let (pin, hex) = (self.path(digest), digest.to_string());
        match std::fs::hard_link(self.blobs.join(&hex[..2]).join(&hex[2..]), &pin) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&pin, "giving a content a second name")(error)),
        }
    }

    pub(super) fn path(&self, digest: &ContentDigest) -> PathBuf {
        self.root.join(digest.to_string())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            tracing::warn!(path = %self.root.display(), %error, "could not be removed; `belljar admin gc` will");
        }
    }
}

/// Removes the pins of backups that were killed, or counts them. What a pin holds is counted where it is its content's last name.
pub(super) fn left(blobs: &Path, how: Collecting) -> Result<Tally, AdminError> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Tally::default();
    let all = blobs.join(PINS);
    let doing = "looking through pins";
    let listed = match std::fs::read_dir(&all) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(at(&all, doing)(error)),
    };
    for entry in listed {
        let root = entry.map_err(at(&all, doing))?.path();
        // Gone meanwhile, or held by a backup that runs.
        let Ok(hold) = File::open(&root) else { continue };
        if flock(&hold, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        for pin in std::fs::read_dir(&root).map_err(at(&root, doing))? {
            let pin = pin.map_err(at(&root, doing))?;
            let about = pin.metadata().map_err(at(&root, doing))?;
            found.add(if about.nlink() == 1 { about.len() } else { 0 });
        }
        if how == Collecting::Remove {
            std::fs::remove_dir_all(&root).map_err(at(&root, "removing pins"))?;
        }
    }
    Ok(found)
}

/// Removes the pins of backups that were killed. For a server that starts.
pub(crate) fn remove_left(blobs: &Path) -> Result<(), StoreError> {
    match left(blobs, Collecting::Remove) {
        Ok(_) => Ok(()),
        Err(AdminError::Store(error)) => Err(error),
        Err(error) => Err(StoreError::broken("removing the pins of a killed backup", error)),
    }
}
