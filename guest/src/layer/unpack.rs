//! From a tar stream back to a container's files, through the merged root.
//!
//! The stream was made inside a container and is as hostile as its code: every path is looked up beneath the root
//! without following a link, and only what [`super::pack`] writes is understood.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, chmodat, fchmod, fsetxattr,
    futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::{BLOCK_BYTES, OPAQUE, PATH_BYTES_MAX, PAX_XATTR, Summary, WHITEOUT, malformed};
use crate::frame::Failure;

/// Bytes of a file that are read and written at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// Applies a layer to the tree at `root`. On a failure the tree is in between: the container is not to be used then.
pub fn unpack(root: BorrowedFd<'_>, source: impl Read) -> Result<Summary, Failure> {
    let mut archive = Archive::new(source);
    let mut unpacker = Unpacker { root, directories: Vec::new(), summary: Summary::default() };
    for entry in archive.entries()? {
        unpacker.apply(entry?)?;
        unpacker.summary.entries += 1;
    }
    unpacker.finish()?;
    // To the end: whoever feeds the pipe would otherwise hear that nobody reads.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(unpacker.summary)
}

/// What is set on a directory when nothing more is put into it.
struct Later {
    path: Vec<u8>,
    mode: Mode,
    times: Timestamps,
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    directories: Vec<Later>,
    summary: Summary,
}

/// The place of an entry: its directory, opened, and its name there.
struct Place {
    directory: OwnedFd,
    name: Vec<u8>,
}

impl Place {
    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

impl Unpacker<'_> {
    fn apply<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Failure> {
        let attributes = Attributes::of(&mut entry)?;
        let path = entry.path_bytes().into_owned();
        let place = self.place(&path)?;
        match entry.header().entry_type() {
            EntryType::Directory => self.directory(&place, path, attributes),
            EntryType::Regular if place.name == OPAQUE => Ok(clear(place.directory.as_fd())?),
            EntryType::Regular if place.name.starts_with(WHITEOUT) => {
                let name = &place.name[WHITEOUT.len()..];
                check_name(name)?;
                clear_place(place.directory.as_fd(), OsStr::from_bytes(name))
            }
            EntryType::Regular => file(&place, entry, &attributes),
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(malformed)?.into_owned();
                let target = self.place(&target)?;
                clear_place(place.directory.as_fd(), place.name())?;
                Ok(linkat(&target.directory, target.name(), &place.directory, place.name(), AtFlags::empty())?)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(malformed)?.into_owned();
                clear_place(place.directory.as_fd(), place.name())?;
                symlinkat(OsStr::from_bytes(&target), &place.directory, place.name())?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                Ok(utimensat(&place.directory, place.name(), &attributes.times, flags)?)
            }
            EntryType::Fifo => {
                clear_place(place.directory.as_fd(), place.name())?;
                mknodat(&place.directory, place.name(), FileType::Fifo, attributes.mode, 0)?;
                chmodat(&place.directory, place.name(), attributes.mode, AtFlags::empty())?;
                Ok(utimensat(&place.directory, place.name(), &attributes.times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            _ => Err(malformed()),
        }
    }

    fn place(&self, path: &[u8]) -> Result<Place, Failure> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        if path.len() > PATH_BYTES_MAX || path.starts_with(b"/") {
            return Err(malformed());
        }
        check_name(name)?;
        Ok(Place { directory: self.open(parent)?, name: name.to_vec() })
    }

    /// Step by step, never through a link: gVisor has no openat2(2), which would do it at once.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = openat(self.root, ".", flags, Mode::empty())?;
        if path != b"." {
            for name in path.split(|&byte| byte == b'/') {
                check_name(name)?;
                directory = openat(&directory, OsStr::from_bytes(name), flags, Mode::empty())?;
            }
        }
        Ok(directory)
    }

    fn directory(&mut self, place: &Place, path: Vec<u8>, attributes: Attributes) -> Result<(), Failure> {
        let there = statat(&place.directory, place.name(), AtFlags::SYMLINK_NOFOLLOW);
        match there.map(|found| FileType::from_raw_mode(found.st_mode)) {
            Ok(FileType::Directory) => {}
            Ok(_) | Err(Errno::NOENT) => {
                clear_place(place.directory.as_fd(), place.name())?;
                mkdirat(&place.directory, place.name(), Mode::RWXU)?;
            }
            Err(error) => return Err(error.into()),
        }
        let opened = self.open(&path)?;
        attributes.set_xattrs(opened.as_fd())?;
        self.directories.push(Later { path, mode: attributes.mode, times: attributes.times });
        Ok(())
    }

    /// Modes and times of directories, the deepest first: a directory may be closed to its own owner.
    fn finish(&mut self) -> Result<(), Failure> {
        for later in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = self.open(&later.path)?;
            fchmod(&directory, later.mode)?;
            futimens(&directory, &later.times)?;
        }
        Ok(())
    }
}

fn check_name(name: &[u8]) -> Result<(), Failure> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') { Err(malformed()) } else { Ok(()) }
}

fn file<R: Read>(place: &Place, mut entry: Entry<'_, R>, attributes: &Attributes) -> Result<(), Failure> {
    clear_place(place.directory.as_fd(), place.name())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&place.directory, place.name(), flags, Mode::RUSR | Mode::WUSR)?);
    let mut chunk = vec![0; usize::try_from(entry.size()).unwrap_or(CHUNK_BYTES).clamp(1, CHUNK_BYTES)];
    let mut written = 0;
    loop {
        let count = fill(&mut entry, &mut chunk)?;
        if count == 0 {
            break;
        }
        written += count as u64;
        write_but_zeros(&mut file, &chunk[..count])?;
    }
    if written != entry.size() {
        return Err(Failure::Incomplete);
    }
    file.set_len(written)?;
    attributes.set_xattrs(file.as_fd())?;
    fchmod(&file, attributes.mode)?;
    Ok(futimens(&file, &attributes.times)?)
}

/// Writes what has a byte that is not zero, as much of it at once as stands together, and goes past the rest.
fn write_but_zeros(file: &mut File, chunk: &[u8]) -> io::Result<()> {
    let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    let mut rest = chunk;
    while let Some(first) = rest.chunks(BLOCK_BYTES).next() {
        let zeros = is_zero(first);
        let alike = rest.chunks(BLOCK_BYTES).take_while(|block| is_zero(block) == zeros).map(<[u8]>::len).sum();
        let (run, behind) = rest.split_at(alike);
        if zeros {
            file.seek(SeekFrom::Current(i64::try_from(run.len()).unwrap_or(i64::MAX)))?;
        } else {
            file.write_all(run)?;
        }
        rest = behind;
    }
    Ok(())
}

/// Reads until the block is full or the source ends.
fn fill(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Removes whatever stands at a place.
fn clear_place(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Failure> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // Linux answers EISDIR, POSIX allows EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {
            // The image's own directories cannot be moved in an overlay, so not as `clean` does it.
            let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
            Ok(std::fs::remove_dir_all(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Empties a directory: what the image has there is hidden.
fn clear(directory: BorrowedFd<'_>) -> Result<(), Failure> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            clear_place(directory, OsStr::from_bytes(&name))?;
        }
    }
    Ok(())
}

/// What a header and its PAX records say of an entry.
struct Attributes {
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    fn of<R: Read>(entry: &mut Entry<'_, R>) -> Result<Self, Failure> {
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        let mut modified = Timespec { tv_sec: i64::try_from(entry.header().mtime()?).unwrap_or(0), tv_nsec: 0 };
        let mut xattrs = Vec::new();
        if let Some(records) = entry.pax_extensions()? {
            for record in records {
                let record = record?;
                let key = record.key().map_err(|_| malformed())?;
                if key == "mtime" {
                    modified = time(record.value().map_err(|_| malformed())?).ok_or_else(malformed)?;
                } else if let Some(name) = key.strip_prefix(PAX_XATTR).filter(|name| name.starts_with("user.")) {
                    let value = STANDARD_NO_PAD.decode(record.value_bytes()).map_err(|_| malformed())?;
                    xattrs.push((name.to_owned(), value));
                }
            }
        }
        let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Ok(Self { mode, times: Timestamps { last_access: accessed, last_modification: modified }, xattrs })
    }

    fn set_xattrs(&self, file: BorrowedFd<'_>) -> Result<(), Failure> {
        for (name, value) in &self.xattrs {
            fsetxattr(file, name.as_str(), value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// `seconds.nanoseconds`, as [`super::pack`] writes it.
fn time(text: &str) -> Option<Timespec> {
    let (seconds, nanoseconds) = text.split_once('.')?;
    let nanoseconds = (nanoseconds.len() == 9).then(|| nanoseconds.parse().ok())??;
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: nanoseconds })
}
