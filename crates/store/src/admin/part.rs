//! A directory that is being made: under another name until it is whole.

use super::{AdminError, at};
use crate::data_dir::sync_dir;
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Removed when dropped before [`Part::become_whole`]. One that a killed process left is removed by the next that wants the name.
pub(super) struct Part {
    path: PathBuf,
    whole: PathBuf,
    hold: Option<File>,
}

/// What may be at the name that a directory is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing.
    Nothing,
    /// Nothing, or an empty directory.
    EmptyDirectory,
}

impl Part {
    /// Makes `WHOLE` + `ending`, beside what it is to become.
    pub(super) fn make(whole: &Path, ending: &str) -> Result<Self, AdminError> {
        let doing = "making the directory";
        let mut name = whole.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        let path = whole.with_file_name(name);
        for _ in 0..2 {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let hold = held(&path)?;
                    return Ok(Self { path, whole: whole.to_owned(), hold: Some(hold) });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let left = held(&path)?;
                    std::fs::remove_dir_all(&path).map_err(at(&path, "removing what a killed process left"))?;
                    drop(left);
                }
                Err(error) => return Err(at(&path, doing)(error)),
            }
        }
        Err(busy(&path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new file of it, only for its owner, and the directories on the way.
    pub(super) fn create(&self, relative: &str) -> Result<(PathBuf, File), AdminError> {
        let path = self.path.join(relative);
        let make = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match (make(), path.parent()) {
            (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(parent)
                    .map_err(at(parent, "making a directory"))?;
                make()
            }
            (made, _) => made,
        };
        let file = file.map_err(at(&path, "making a file"))?;
        Ok((path, file))
    }

    /// Makes all of it durable, and gives it its name.
    pub(super) fn become_whole(mut self, room: Room) -> Result<(), AdminError> {
        let hold = File::open(&self.path).map_err(at(&self.path, "syncing"))?;
        // One call for all files and names on that filesystem: a sync for each of a million files would take hours.
        rustix::fs::syncfs(&hold).map_err(|errno| at(&self.path, "syncing")(errno.into()))?;
        let renamed = match room {
            Room::Nothing => rustix::fs::renameat_with(
                rustix::fs::CWD,
                &self.path,
                rustix::fs::CWD,
                &self.whole,
                RenameFlags::NOREPLACE,
            ),
            Room::EmptyDirectory => rustix::fs::rename(&self.path, &self.whole),
        };
        renamed.map_err(|errno| at(&self.whole, "giving the directory its name")(errno.into()))?;
        self.hold = None;
        if let Some(parent) = self.whole.parent() {
            sync_dir(parent)?;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.hold.take().is_some()
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not be removed; the next attempt will");
        }
    }
}

/// Takes hold of a directory that nobody else works in.
fn held(path: &Path) -> Result<File, AdminError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| at(path, "taking hold of the directory")(errno.into()))?;
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(dir.into()),
        Err(_) => Err(busy(path)),
    }
}

fn busy(path: &Path) -> AdminError {
    AdminError::InTheWay {
        path: path.to_owned(),
        what: "another process is making it; wait for it, or choose another name",
    }
}
