//! Writes checked entries below a root, and nowhere else.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::entry::EntryPath;
use super::remove::remove_at;
use super::{UnpackLimits, bad};
use crate::error::{ArchiveProblem, ImageError};
use crate::event::{Meter, Monitor};

/// The permission bits that are kept: no set-user-id, no set-group-id.
const MODE_KEPT: u32 = 0o1777;

/// Mode and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) modified_s: i64,
}

/// The new root, while it is written.
#[derive(Debug)]
pub(crate) struct TreeWriter<'a> {
    root: OwnedFd,
    source_path: PathBuf,
    limits: UnpackLimits,
    monitor: &'a Monitor,
    meter: &'a mut Meter,
    /// Directories get their mode and time at the end: until then we must be able to write into them.
    dirs: HashMap<EntryPath, Meta>,
    entries: u64,
    content_bytes: u64,
    dropped: u64,
}

impl<'a> TreeWriter<'a> {
    /// Writes below `root`, an empty directory. Errors name `source_path`.
    pub(crate) fn new(
        root: &Path,
        source_path: &Path,
        limits: UnpackLimits,
        monitor: &'a Monitor,
        meter: &'a mut Meter,
    ) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(root, flags, Mode::empty()).map_err(|errno| ImageError::io("opening", root, errno))?;
        Ok(Self {
            root,
            source_path: source_path.to_owned(),
            limits,
            monitor,
            meter,
            dirs: HashMap::new(),
            entries: 0,
            content_bytes: 0,
            dropped: 0,
        })
    }

    /// A directory.
    pub(crate) fn dir(&mut self, path: &EntryPath, meta: Meta) -> Result<(), ImageError> {
        self.count(path)?;
        self.dirs.insert(path.clone(), meta);
        let Some((above, name)) = path.split() else {
            return Ok(());
        };
        self.in_dir(path, above, |parent| {
            match fs::mkdirat(parent, name, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                made => return made,
            }
            if file_type(parent, name)? == Some(FileType::Directory) {
                return Ok(());
            }
            remove_at(parent, name)?;
            fs::mkdirat(parent, name, Mode::RWXU)
        })
    }

    /// A file with the bytes that `content` gives.
    pub(crate) fn file(&mut self, path: &EntryPath, meta: Meta, content: &mut dyn Read) -> Result<(), ImageError> {
        self.count(path)?;
        let (above, name) = path.split().ok_or_else(|| self.bad(path, ArchiveProblem::BadName))?;
        let file = self.in_dir(path, above, |parent| {
            remove_at(parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let mut file = std::fs::File::from(file);
        self.copy(path, content, &mut file)?;
        let set = fs::fchmod(&file, Mode::from_raw_mode(meta.mode & MODE_KEPT | 0o400));
        set.and_then(|()| fs::futimens(&file, &times(meta))).map_err(|errno| self.io("finishing", path, errno))
    }

    fn copy(&mut self, path: &EntryPath, content: &mut dyn Read, file: &mut std::fs::File) -> Result<(), ImageError> {
        let mut buffer = vec![0_u8; 256 << 10];
        loop {
            self.monitor.go_on()?;
            let count = content
                .read(&mut buffer)
                .map_err(|error| self.bad(path, ArchiveProblem::Malformed(error.to_string())))?;
            if count == 0 {
                return Ok(());
            }
            self.content_bytes = self.content_bytes.saturating_add(count as u64);
            if self.content_bytes > self.limits.content_bytes_max {
                return Err(self.bad(path, ArchiveProblem::TooManyBytes(self.limits.content_bytes_max)));
            }
            std::io::Write::write_all(file, &buffer[..count]).map_err(|error| self.io("writing", path, error))?;
            self.meter.add(count as u64);
        }
    }

    /// A symbolic link. Its target is kept as it is: it is looked at only from inside the root.
    pub(crate) fn symlink(&mut self, path: &EntryPath, meta: Meta, target: &[u8]) -> Result<(), ImageError> {
        self.count(path)?;
        let (above, name) = path.split().ok_or_else(|| self.bad(path, ArchiveProblem::BadName))?;
        if target.is_empty() || target.contains(&0) || target.len() > 4095 {
            return Err(self.bad(path, ArchiveProblem::BadName));
        }
        self.in_dir(path, above, |parent| {
            remove_at(parent, name)?;
            fs::symlinkat(OsStr::from_bytes(target), parent, name)?;
            fs::utimensat(parent, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// A second name for a file that is already in the root.
    pub(crate) fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<(), ImageError> {
        self.count(path)?;
        let (above, name) = path.split().ok_or_else(|| self.bad(path, ArchiveProblem::BadName))?;
        let missing = || bad(&self.source_path, path.as_bytes(), bad_link(target));
        let (target_above, target_name) = target.split().ok_or_else(missing)?;
        if path == target {
            return Err(missing());
        }
        let target_parent = match self.open_dir(target_above) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            opened => opened.map_err(|errno| self.io("opening", target, errno))?,
        };
        match file_type(&target_parent, target_name).map_err(|errno| self.io("reading", target, errno))? {
            Some(FileType::RegularFile | FileType::Symlink) => {}
            Some(_) | None => return Err(missing()),
        }
        self.in_dir(path, above, |parent| {
            remove_at(parent, name)?;
            fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
    }

    /// Something that does not belong into an image.
    pub(crate) fn drop_special(&mut self, path: &EntryPath) -> Result<(), ImageError> {
        self.count(path)?;
        self.dropped += 1;
        Ok(())
    }

    /// Removes what an earlier layer put at `path`.
    pub(crate) fn remove(&mut self, path: &EntryPath) -> Result<(), ImageError> {
        let (above, name) = path.split().ok_or_else(|| self.bad(path, ArchiveProblem::BadName))?;
        match self.open_dir(above) {
            Ok(parent) => remove_at(parent, name).map_err(|errno| self.io("removing", path, errno)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(self.io("opening", path, errno)),
        }
    }

    /// Removes everything that earlier layers put into the directory `path`.
    pub(crate) fn clear(&mut self, path: &EntryPath) -> Result<(), ImageError> {
        let dir = match self.open_dir(path.as_path()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened.map_err(|errno| self.io("opening", path, errno))?,
        };
        let names = names_in(&dir).map_err(|errno| self.io("reading", path, errno))?;
        for name in names {
            remove_at(&dir, OsStr::from_bytes(name.as_bytes())).map_err(|errno| self.io("emptying", path, errno))?;
        }
        Ok(())
    }

    /// Sets the directories' modes and times, the deepest first. Gives how many entries were left out.
    pub(crate) fn finish(self) -> Result<u64, ImageError> {
        let mut dirs: Vec<(&EntryPath, &Meta)> = self.dirs.iter().collect();
        dirs.sort_by(|one, other| other.0.cmp(one.0));
        for (path, meta) in dirs {
            let dir = match self.open_dir(path.as_path()) {
                // Replaced by something else, or removed by a later layer.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                opened => opened.map_err(|errno| self.io("opening", path, errno))?,
            };
            let mode = Mode::from_raw_mode(meta.mode & MODE_KEPT | 0o700);
            let set = fs::fchmod(&dir, mode).and_then(|()| fs::futimens(&dir, &times(*meta)));
            set.map_err(|errno| self.io("finishing", path, errno))?;
        }
        Ok(self.dropped)
    }

    fn count(&mut self, path: &EntryPath) -> Result<(), ImageError> {
        self.monitor.go_on()?;
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(self.bad(path, ArchiveProblem::TooManyEntries(self.limits.entries_max)));
        }
        Ok(())
    }

    /// Does something in the directory `above`, which is made if need be.
    fn in_dir<T>(
        &self,
        path: &EntryPath,
        above: &Path,
        action: impl FnOnce(&OwnedFd) -> rustix::io::Result<T>,
    ) -> Result<T, ImageError> {
        let parent = match self.open_dir(above) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_dirs(above),
            opened => opened,
        };
        let in_the_way = match parent {
            Err(Errno::LOOP) => "a loop of links is in its way",
            Err(Errno::NOTDIR) => "a file is in its way",
            Err(Errno::NOENT) => "a link to nowhere is in its way",
            Err(errno) => return Err(self.io("opening", path, errno)),
            Ok(parent) => return action(&parent).map_err(|errno| self.io("writing", path, errno)),
        };
        Err(self.bad(path, ArchiveProblem::Malformed(in_the_way.into())))
    }

    fn make_dirs(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let mut dir = self.open_dir(Path::new(""))?;
        let mut so_far = PathBuf::new();
        for name in path {
            match fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            so_far.push(name);
            dir = self.open_dir(&so_far)?;
        }
        Ok(dir)
    }

    fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn bad(&self, path: &EntryPath, problem: ArchiveProblem) -> ImageError {
        bad(&self.source_path, path.as_bytes(), problem)
    }

    fn io(&self, doing: &'static str, path: &EntryPath, error: impl Into<std::io::Error>) -> ImageError {
        ImageError::io(doing, path.as_path(), error)
    }
}

/// Names in a directory.
pub(crate) fn names_in(dir: &OwnedFd) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn bad_link(target: &EntryPath) -> ArchiveProblem {
    ArchiveProblem::BadHardLink(target.as_bytes().escape_ascii().to_string())
}

fn file_type(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<Option<FileType>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn times(meta: Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.modified_s, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
