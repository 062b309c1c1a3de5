//! File work with the rights of the container's user: nothing here can do more than the code inside could.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, openat, renameat, stat, unlinkat};
use rustix::io::Errno;

use crate::frame::Failure;

/// Mode of a file that was not there before.
const NEW_FILE_MODE: u32 = 0o644;
const COPY_BYTES: usize = 64 * 1024;

/// Opens a regular file for reading. Never waits for a FIFO's other end.
pub fn open(path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    regular(FileType::from_raw_mode(fstat(&file)?.st_mode))?;
    Ok(file)
}

fn regular(file_type: FileType) -> Result<(), Failure> {
    match file_type {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Failure::IsDirectory),
        _ => Err(Failure::NotRegular),
    }
}

/// Writes a file whole: beside its place first, then over it. Returns whether there was one.
pub fn write(path: &str, source: OwnedFd, size: u64) -> Result<bool, Failure> {
    // Through a link to the file it stands for: renaming over the link would leave that one as it was.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_absent| PathBuf::from(path));
    let before = match stat(&target) {
        Ok(found) => Some(found),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(found) = &before {
        regular(FileType::from_raw_mode(found.st_mode))?;
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(Failure::IsDirectory);
    };
    std::fs::create_dir_all(parent)?;
    let directory = openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let (draft, file) = create_draft(directory.as_fd())?;
    let mode = before.as_ref().map_or(NEW_FILE_MODE, |found| found.st_mode & 0o7777);
    let written =
        fill(file, source, size, mode).and_then(|()| Ok(renameat(&directory, &draft, &directory, Path::new(name))?));
    if written.is_err() {
        // The first error is the one that counts.
        let _nothing_to_add = unlinkat(&directory, &draft, AtFlags::empty());
    }
    written.map(|()| before.is_some())
}

/// A new file under a name that nobody has.
fn create_draft(directory: rustix::fd::BorrowedFd<'_>) -> Result<(String, File), Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for attempt in 0..1000u32 {
        let name = format!(".belljar-draft-{attempt}");
        match openat(directory, &name, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => return Ok((name, File::from(file))),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::Errno(Errno::EXIST.raw_os_error()))
}

/// Copies exactly `size` bytes; more than that is the sender's fault and is not read.
fn fill(mut file: File, source: OwnedFd, size: u64, mode: u32) -> Result<(), Failure> {
    let mut source = File::from(source).take(size);
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        file.write_all(&buffer[..count])?;
        copied += count as u64;
    }
    if copied != size {
        return Err(Failure::Incomplete);
    }
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn pipe_with(bytes: &[u8]) -> OwnedFd {
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        writer.write_all(bytes).expect("fits the pipe");
        reader.into()
    }

    fn put(path: &Path, bytes: &[u8], size: u64) -> Result<bool, Failure> {
        write(path.to_str().expect("UTF-8"), pipe_with(bytes), size)
    }

    #[test]
    fn parents_are_made_and_a_second_write_is_an_update_that_keeps_the_mode() {
        let root = tempfile::tempdir().expect("tempdir");
        let path = root.path().join("a/b/c.txt");
        assert_eq!(put(&path, b"one", 3), Ok(false));
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o644);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(put(&path, b"two!", 4), Ok(true));
        assert_eq!(std::fs::read(&path).expect("there"), b"two!");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_source_that_ends_early_changes_nothing() {
        let root = tempfile::tempdir().expect("tempdir");
        let path = root.path().join("kept");
        std::fs::write(&path, "old").expect("write");
        assert_eq!(put(&path, b"ne", 3), Err(Failure::Incomplete));
        assert_eq!(std::fs::read(&path).expect("there"), b"old");
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_link_is_written_through() {
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::write(root.path().join("real"), "old").expect("write");
        std::os::unix::fs::symlink("real", root.path().join("link")).expect("symlink");
        assert_eq!(put(&root.path().join("link"), b"new", 3), Ok(true));
        assert_eq!(std::fs::read(root.path().join("real")).expect("there"), b"new");
    }

    #[test]
    fn only_regular_files_are_opened_and_replaced() {
        let root = tempfile::tempdir().expect("tempdir");
        let fifo = root.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("mkfifo");
        let cases = [
            (root.path().to_path_buf(), Failure::IsDirectory),
            (fifo, Failure::NotRegular),
            (PathBuf::from("/dev/null"), Failure::NotRegular),
        ];
        for (path, failure) in cases {
            assert_eq!(open(path.to_str().expect("UTF-8")).err(), Some(failure), "{}", path.display());
            assert_eq!(put(&path, b"x", 1), Err(failure), "{}", path.display());
        }
        let absent = root.path().join("absent");
        assert_eq!(open(absent.to_str().expect("UTF-8")).err(), Some(Errno::NOENT.into()));
    }
}
