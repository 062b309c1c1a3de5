//! From the writable directory of the overlay to a tar stream.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, chmodat, fchmod, fgetxattr, flistxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::{OPAQUE, OPAQUE_XATTR, OVERLAY_XATTRS, PATH_BYTES_MAX, PAX_XATTR, Summary, WHITEOUT};
use crate::frame::Failure;

/// The longest extended attribute that is kept, in bytes (xattr(7), XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a file that are read at once: `tar` asks for few.
const CHUNK_BYTES: usize = 128 * 1024;

/// Writes everything below `upper` into `sink`, but for the mount points, where other file systems lie over the
/// container's own. The files must not change meanwhile: whoever asks stops the code first.
pub fn pack(upper: BorrowedFd<'_>, sink: impl Write, mount_points: &[&[u8]]) -> Result<Summary, Failure> {
    let mut builder = Builder::new(sink);
    builder.sparse(false);
    let mut packer = Packer { builder, mount_points, linked: HashMap::new(), summary: Summary::default() };
    let root = openat(upper, ".", DIRECTORY_FLAGS, Mode::empty())?;
    packer.directory(root)?;
    packer.builder.into_inner()?.flush()?;
    Ok(packer.summary)
}

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Packer<'a, W: Write> {
    builder: Builder<W>,
    mount_points: &'a [&'a [u8]],
    /// The first path of each file that has several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    summary: Summary,
}

/// A directory that is being walked; the way down is a list of these, not recursion: its depth is the code's choice.
struct Level {
    directory: Opened,
    names: std::vec::IntoIter<Vec<u8>>,
    path_bytes: usize,
}

impl Level {
    fn new(directory: Opened, path_bytes: usize) -> Result<Self, Failure> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory.fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(Self { directory, names: names.into_iter(), path_bytes })
    }
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, root: OwnedFd) -> Result<(), Failure> {
        let mut path = Vec::new();
        let mut levels = vec![Level::new(Opened { fd: root, mode: None }, 0)?];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_bytes);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if self.mount_points.contains(&path.as_slice()) {
                continue;
            }
            if path.len() > PATH_BYTES_MAX {
                return Err(Errno::NAMETOOLONG.into());
            }
            if let Some(inside) = self.entry(level.directory.fd.as_fd(), OsStr::from_bytes(&name), &path)? {
                let deeper = Level::new(inside, path.len())?;
                levels.push(deeper);
            }
        }
        Ok(())
    }

    /// Writes one entry; a directory is answered opened, to be gone into.
    fn entry(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<Option<Opened>, Failure> {
        let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        match kind {
            FileType::Directory => return self.enter(at, name, path, &found).map(Some),
            FileType::RegularFile => self.file(at, name, path, &found)?,
            FileType::Symlink => {
                let target = readlinkat(at, name, Vec::new())?;
                self.append(EntryType::Symlink, path, Some(target.as_bytes()), &found, Vec::new(), io::empty())?;
            }
            FileType::Fifo => self.append(EntryType::Fifo, path, None, &found, Vec::new(), io::empty())?,
            FileType::CharacterDevice if found.st_rdev == 0 => self.removed(path, &found)?,
            // A socket is its process's; no other node can be made inside.
            _ => {}
        }
        Ok(None)
    }

    fn enter(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: &[u8], found: &Stat) -> Result<Opened, Failure> {
        let directory = readable(at, name, found, DIRECTORY_FLAGS)?;
        self.append(EntryType::Directory, path, None, found, attributes(directory.fd.as_fd())?, io::empty())?;
        let mut mark = [0; 1];
        if matches!(fgetxattr(&directory.fd, OPAQUE_XATTR, &mut mark[..]), Ok(1) if mark == *b"y") {
            let inside = [path, b"/", OPAQUE].concat();
            self.append(EntryType::Regular, &inside, None, found, Vec::new(), io::empty())?;
        }
        Ok(directory)
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: &[u8], found: &Stat) -> Result<(), Failure> {
        if found.st_nlink > 1 {
            let key = (found.st_dev, found.st_ino);
            if let Some(first) = self.linked.get(&key).cloned() {
                return self.append(EntryType::Link, path, Some(&first), found, Vec::new(), io::empty());
            }
            self.linked.insert(key, path.to_vec());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = readable(at, name, found, flags)?;
        let attributes = attributes(file.fd.as_fd())?;
        let buffer = usize::try_from(found.st_size).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let content = BufReader::with_capacity(buffer, File::from(file.fd.try_clone()?));
        self.append(EntryType::Regular, path, None, found, attributes, content)
    }

    fn removed(&mut self, path: &[u8], found: &Stat) -> Result<(), Failure> {
        let start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let mark = [&path[..start], WHITEOUT, &path[start..]].concat();
        self.append(EntryType::Regular, &mark, None, found, Vec::new(), io::empty())
    }

    fn append(
        &mut self,
        kind: EntryType,
        path: &[u8],
        link: Option<&[u8]>,
        found: &Stat,
        mut attributes: Vec<(String, Vec<u8>)>,
        content: impl Read,
    ) -> Result<(), Failure> {
        let size = if kind == EntryType::Regular && FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
            u64::try_from(found.st_size).map_err(|_negative| Failure::Errno(Errno::OVERFLOW.raw_os_error()))?
        } else {
            0
        };
        let seconds = u64::try_from(found.st_mtime).unwrap_or(0);
        attributes.push(("mtime".to_owned(), format!("{seconds}.{:09}", found.st_mtime_nsec).into_bytes()));
        self.builder.append_pax_extensions(attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(found.st_mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(seconds);
        header.set_size(size);
        let path = Path::new(OsStr::from_bytes(path));
        match link {
            Some(target) => self.builder.append_link(&mut header, path, OsStr::from_bytes(target))?,
            // A file that shrank is made up with zeros: the header has been promised its size.
            None => self.builder.append_data(&mut header, path, content.chain(io::repeat(0)).take(size))?,
        }
        self.summary.entries += 1;
        Ok(())
    }
}

/// A file or directory that can be read, and gone through, for as long as this lives: process 1 is its owner, and has no
/// other power over what the code has closed to itself.
struct Opened {
    fd: OwnedFd,
    /// The mode to give back.
    mode: Option<Mode>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(mode) = self.mode {
            let _as_it_was = fchmod(&self.fd, mode);
        }
    }
}

fn readable(at: BorrowedFd<'_>, name: &OsStr, found: &Stat, flags: OFlags) -> Result<Opened, Failure> {
    let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
    let needed = if flags.contains(OFlags::DIRECTORY) { Mode::RUSR | Mode::XUSR } else { Mode::RUSR };
    if mode.contains(needed) {
        return Ok(Opened { fd: openat(at, name, flags, Mode::empty())?, mode: None });
    }
    chmodat(at, name, mode | needed, AtFlags::empty())?;
    match openat(at, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Opened { fd, mode: Some(mode) }),
        Err(error) => {
            let _as_it_was = chmodat(at, name, mode, AtFlags::empty());
            Err(error.into())
        }
    }
}

/// The extended attributes that code gave it, in the form of PAX records.
fn attributes(file: BorrowedFd<'_>) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = match flistxattr(file, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let Some(text) = CStr::from_bytes_with_nul(name).ok().and_then(|name| name.to_str().ok()) else { continue };
        // A name with `=` cannot stand in a PAX record.
        if !text.starts_with("user.") || text.starts_with(OVERLAY_XATTRS) || text.contains('=') {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = fgetxattr(file, text, value.as_mut_slice())?;
        value.truncate(length);
        found.push((format!("{PAX_XATTR}{text}"), STANDARD_NO_PAD.encode(value).into_bytes()));
    }
    Ok(found)
}
