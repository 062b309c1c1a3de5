//! The files of a backup, opened beneath it: no link is followed, and nothing is a file that is not one.

use super::manifest::{Kept, MANIFEST};
use super::{AdminError, at};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A directory that somebody says is a backup.
pub(super) struct Tree {
    root: PathBuf,
    dir: OwnedFd,
}

impl Tree {
    pub(super) fn open(root: &Path) -> Result<Self, AdminError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|errno| at(root, "opening the backup")(errno.into()))?;
        Ok(Self { root: root.to_owned(), dir })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> AdminError {
        AdminError::Damaged { backup: self.root.clone(), what: what.into() }
    }

    /// Opens a file of it, and says what is wrong if it is none, or not of this size.
    pub(super) fn file(&self, path: &str, bytes: Option<u64>) -> Result<File, AdminError> {
        use rustix::io::Errno;
        // A pipe is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), beneath);
        let file: File = match opened {
            Ok(file) => file.into(),
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(self.damaged(format!("{path} is missing"))),
            Err(Errno::LOOP) => return Err(self.damaged(format!("{path} is, or lies behind, a symbolic link"))),
            Err(Errno::NXIO) => return Err(self.damaged(format!("{path} is not a file"))),
            Err(errno) => return Err(at(&self.root.join(path), "opening a file of the backup")(errno.into())),
        };
        let about = file.metadata().map_err(at(&self.root.join(path), "looking at a file of the backup"))?;
        if !about.is_file() {
            return Err(self.damaged(format!("{path} is not a file")));
        }
        match bytes {
            Some(bytes) if about.len() != bytes => {
                Err(self.damaged(format!("{path} has {} bytes instead of {bytes}", about.len())))
            }
            Some(_) | None => Ok(file),
        }
    }

    /// Counts the files, each of which is named like one that a backup has.
    pub(super) fn count(&self) -> Result<u64, AdminError> {
        let mut files = 0;
        self.walk("", &mut |path| {
            files += u64::from(path != MANIFEST);
            match path == MANIFEST || Kept::from_path(path).is_some() {
                true => Ok(()),
                false => Err(self.damaged(format!("{path:?} does not belong to a backup"))),
            }
        })?;
        Ok(files)
    }

    /// Shows every file, by its path.
    pub(super) fn walk(
        &self,
        below: &str,
        show: &mut dyn FnMut(&str) -> Result<(), AdminError>,
    ) -> Result<(), AdminError> {
        let path = self.root.join(below);
        for entry in std::fs::read_dir(&path).map_err(at(&path, "listing the backup"))? {
            let entry = entry.map_err(at(&path, "listing the backup"))?;
            let name = entry.file_name();
            let odd = || self.damaged(format!("{:?} does not belong to a backup", path.join(&name)));
            let name = name.to_str().ok_or_else(odd)?;
            let relative = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            // Of the entry itself, not of what it leads to.
            let kind = entry.file_type().map_err(at(&path, "listing the backup"))?;
            if kind.is_dir() {
                // As deep as contents lie; recordings may lie deeper, but not without end.
                let deepest = if relative.starts_with("recordings") { 8 } else { 2 };
                if relative.split('/').count() > deepest {
                    return Err(self.damaged(format!("{relative:?} does not belong to a backup")));
                }
                self.walk(&relative, show)?;
            } else if kind.is_symlink() {
                return Err(self.damaged(format!("{relative:?} is a symbolic link")));
            } else if kind.is_file() {
                show(&relative)?;
            } else {
                return Err(self.damaged(format!("{relative:?} is not a file")));
            }
        }
        Ok(())
    }
}
