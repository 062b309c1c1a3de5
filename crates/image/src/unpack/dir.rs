//! Directories: copied without following a link and without leaving the file system they are on.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};

use super::entry::EntryPath;
use super::writer::{Meta, TreeWriter, names_in};
use super::{UnpackLimits, bad};
use crate::error::{Doing, ImageError};
use crate::event::{Meter, Monitor};

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// Not blocking: something may have become a FIFO since it was looked at.
const OPEN_FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Copies the tree at `source` into the empty directory `root`. Gives how many entries were left out.
pub(crate) fn unpack_dir(
    source: &Path,
    root: &Path,
    limits: UnpackLimits,
    monitor: &Monitor,
    meter: &mut Meter,
) -> Result<u64, ImageError> {
    // The root itself may be given as a link.
    let source = &std::fs::canonicalize(source).doing("resolving", source)?;
    let top = fs::open(source, OPEN_DIR, Mode::empty()).doing("opening", source)?;
    let device = fs::fstat(&top).doing("reading", source)?.st_dev;
    let mut copy =
        Copy { source, writer: TreeWriter::new(root, source, limits, monitor, meter)?, device, links: HashMap::new() };
    let mut pending = vec![entry(source, b"")?];
    while let Some(path) = pending.pop() {
        // Opened by its whole name each time: one descriptor, whatever the depth; below `top` and through no link.
        let beneath = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS;
        let name = if path.as_bytes().is_empty() { Path::new(".") } else { path.as_path() };
        let dir =
            fs::openat2(&top, name, OPEN_DIR, Mode::empty(), beneath).doing("opening", &source.join(path.as_path()))?;
        copy.dir(&path, &dir, &mut pending)?;
    }
    copy.writer.finish()
}

fn entry(source: &Path, name: &[u8]) -> Result<EntryPath, ImageError> {
    EntryPath::parse(name).map_err(|problem| bad(source, name, problem))
}

struct Copy<'a> {
    source: &'a Path,
    writer: TreeWriter<'a>,
    device: u64,
    /// Where the first name of each file with several names went.
    links: HashMap<u64, EntryPath>,
}

impl Copy<'_> {
    /// Copies one directory's entries; directories in it are left in `pending`.
    fn dir(&mut self, path: &EntryPath, dir: &OwnedFd, pending: &mut Vec<EntryPath>) -> Result<(), ImageError> {
        let at = self.source.join(path.as_path());
        let stat = fs::fstat(dir).doing("reading", &at)?;
        self.writer.dir(path, meta(&stat))?;
        let mut names = names_in(dir).doing("reading", &at)?;
        // The order of a directory is an accident; which name of a file comes first must not be.
        names.sort();
        for name in names {
            let name = OsStr::from_bytes(name.as_bytes());
            let below = entry(self.source, path.as_path().join(name).as_os_str().as_bytes())?;
            let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).doing("reading", &at.join(name))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if stat.st_dev == self.device => pending.push(below),
                // Something else is mounted there: its place is kept, its content is not part of this tree.
                FileType::Directory => self.writer.dir(&below, meta(&stat))?,
                FileType::RegularFile => self.file(&below, dir, name)?,
                FileType::Symlink => {
                    let target = fs::readlinkat(dir, name, Vec::new()).doing("reading", &at.join(name))?;
                    self.writer.symlink(&below, meta(&stat), target.as_bytes())?;
                }
                _ => self.writer.drop_special(&below)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &EntryPath, dir: &OwnedFd, name: &OsStr) -> Result<(), ImageError> {
        let at = self.source.join(path.as_path());
        let file = File::from(fs::openat(dir, name, OPEN_FILE, Mode::empty()).doing("opening", &at)?);
        let stat = fs::fstat(&file).doing("reading", &at)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.writer.drop_special(path);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                return self.writer.hard_link(path, first);
            }
            self.links.insert(stat.st_ino, path.clone());
        }
        self.writer.file(path, meta(&stat), &mut &file)
    }
}

fn meta(stat: &Stat) -> Meta {
    Meta { mode: stat.st_mode & 0o7777, modified_s: stat.st_mtime }
}
