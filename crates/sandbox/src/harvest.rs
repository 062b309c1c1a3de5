//! Taking files out of `$OUTPUT_DIR`. The directory is hostile: nothing in it is opened by a path that code inside
//! could bend, and nothing but a regular file is kept open.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;

use crate::names;
use crate::outcome::{Loss, OutputFile, SkipReason, Skipped};

/// statfs(2): the filesystems a container's own files can be on.
const OVERLAY_MAGIC: i64 = 0x794c_7630;
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// How much may be taken out.
#[derive(Debug, Clone, Copy)]
pub struct HarvestLimits {
    pub file_bytes_max: u64,
    pub files_max: usize,
    /// Of all files together. By their sizes: a file without content takes no room inside, but does once it is copied.
    pub total_bytes_max: u64,
    /// Entries that are looked at.
    pub entries_max: usize,
}

/// What was taken out, and what was not.
#[derive(Debug, Default)]
pub struct Harvest {
    pub files: Vec<OutputFile>,
    pub skipped: Vec<Skipped>,
    pub losses: Vec<Loss>,
}

/// Whether a descriptor from the guest can be a container's own file or directory, and not one that the kernel makes
/// up on reading, such as those of proc, where reading may block or have effects.
pub fn on_container_disk(file: BorrowedFd<'_>) -> bool {
    fstatfs(file).is_ok_and(|found| [OVERLAY_MAGIC, TMPFS_MAGIC].contains(&found.f_type))
}

/// Opens the regular files at the top level. Blocks for as long as a directory of that many entries takes.
pub fn harvest(directory: Option<OwnedFd>, limits: HarvestLimits) -> Harvest {
    let Some(directory) = directory.filter(|directory| on_container_disk(directory.as_fd())) else {
        return Harvest { losses: vec![Loss::OutputDirectoryGone], ..Harvest::default() };
    };
    take(&directory, limits)
}

fn take(directory: &OwnedFd, limits: HarvestLimits) -> Harvest {
    let mut harvest = Harvest::default();
    let Ok((entries, examined_all)) = list(directory, limits.entries_max) else {
        harvest.losses.push(Loss::OutputDirectoryGone);
        return harvest;
    };
    if !examined_all {
        harvest.losses.push(Loss::OutputNotExamined(limits.entries_max));
    }
    for (name, listed) in entries {
        match take_one(directory, &name, listed, limits, &harvest.files) {
            Ok(file) => harvest.files.push(file),
            Err(why) => harvest.skipped.push(Skipped { name: shown(&name), why }),
        }
    }
    harvest
}

/// A name that cannot disturb the line it is shown in.
fn shown(name: &CStr) -> String {
    match name.to_str() {
        Ok(text) => text
            .chars()
            .flat_map(|c| if c == '\'' || c == '"' { vec![c] } else { c.escape_debug().collect() })
            .collect(),
        Err(_) => name.to_bytes().escape_ascii().to_string(),
    }
}

fn open(directory: &OwnedFd, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(directory, name, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The entries, sorted by name, and whether these are all.
fn list(directory: &OwnedFd, entries_max: usize) -> rustix::io::Result<(Vec<(CString, FileType)>, bool)> {
    // A description of our own: the guest holds the one it sent.
    let listing = open(directory, c".", OFlags::DIRECTORY)?;
    let mut entries: Vec<(CString, FileType)> = Vec::new();
    let mut all = true;
    for entry in Dir::read_from(&listing)? {
        let entry = entry?;
        if [c".", c".."].contains(&entry.file_name()) {
            continue;
        }
        if entries.len() == entries_max {
            all = false;
            break;
        }
        entries.push((entry.file_name().to_owned(), entry.file_type()));
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok((entries, all))
}

fn take_one(
    directory: &OwnedFd,
    name: &CStr,
    listed: FileType,
    limits: HarvestLimits,
    taken: &[OutputFile],
) -> Result<OutputFile, SkipReason> {
    if listed != FileType::Unknown {
        regular(listed)?;
    }
    let text = name.to_str().ok().filter(|text| names::usable(text)).ok_or(SkipReason::UnusableName)?;
    if taken.len() == limits.files_max {
        return Err(SkipReason::TooMany(limits.files_max));
    }
    let file =
        open(directory, name, OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).map_err(|error| match error {
            Errno::LOOP => SkipReason::SymbolicLink,
            Errno::NXIO | Errno::NODEV => SkipReason::Special,
            _ => SkipReason::Unreadable,
        })?;
    let found = fstat(&file).map_err(|_| SkipReason::Unreadable)?;
    regular(FileType::from_raw_mode(found.st_mode))?;
    let size = u64::try_from(found.st_size).map_err(|_| SkipReason::Unreadable)?;
    if size > limits.file_bytes_max {
        return Err(SkipReason::TooLarge(limits.file_bytes_max));
    }
    let taken_bytes = taken.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    if size > limits.total_bytes_max.saturating_sub(taken_bytes) {
        return Err(SkipReason::TooMuch(limits.total_bytes_max));
    }
    Ok(OutputFile { name: text.to_owned(), size, file: File::from(file) })
}

fn regular(file_type: FileType) -> Result<(), SkipReason> {
    match file_type {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(SkipReason::SymbolicLink),
        FileType::Directory => Err(SkipReason::Directory),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Err(SkipReason::Special)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;

    const LIMITS: HarvestLimits =
        HarvestLimits { file_bytes_max: 10, files_max: 2, total_bytes_max: 14, entries_max: 12 };

    fn of(directory: &tempfile::TempDir) -> Harvest {
        take(&OwnedFd::from(File::open(directory.path()).expect("open")), LIMITS)
    }

    fn write(directory: &tempfile::TempDir, name: &[u8], content: &str) {
        std::fs::write(directory.path().join(OsStr::from_bytes(name)), content).expect("write");
    }

    #[test]
    fn every_kind_of_entry_is_taken_or_named_with_its_reason() {
        let directory = tempfile::tempdir().expect("tempdir");
        write(&directory, b"b.txt", "bytes");
        write(&directory, b"a.txt", "");
        write(&directory, b"c.txt", "third");
        write(&directory, b"a-big", "eleven byte");
        write(&directory, b"bad\xff", "");
        write(&directory, b"line\nbreak", "");
        std::os::unix::fs::symlink("b.txt", directory.path().join("link")).expect("symlink");
        std::fs::create_dir(directory.path().join("sub")).expect("mkdir");
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("mkfifo");
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).expect("bind");
        let harvest = of(&directory);
        let files: Vec<_> = harvest.files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(files, [("a.txt", 0), ("b.txt", 5)]);
        let skipped: Vec<_> = harvest.skipped.iter().map(|skipped| (skipped.name.as_str(), skipped.why)).collect();
        assert_eq!(
            skipped,
            [
                ("a-big", SkipReason::TooLarge(10)),
                ("bad\\xff", SkipReason::UnusableName),
                ("c.txt", SkipReason::TooMany(2)),
                ("fifo", SkipReason::Special),
                ("line\\nbreak", SkipReason::UnusableName),
                ("link", SkipReason::SymbolicLink),
                ("socket", SkipReason::Special),
                ("sub", SkipReason::Directory),
            ]
        );
        assert_eq!(harvest.losses, []);
    }

    #[test]
    fn files_are_taken_up_to_a_size_in_all() {
        let directory = tempfile::tempdir().expect("tempdir");
        // Sparse: no bytes on the disk they come from.
        for (name, size) in [("a", 8), ("b", 7), ("c", 6)] {
            File::create(directory.path().join(name)).and_then(|file| file.set_len(size)).expect("create");
        }
        let harvest = of(&directory);
        let files: Vec<_> = harvest.files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(files, [("a", 8), ("c", 6)]);
        assert_eq!(harvest.skipped, [Skipped { name: "b".into(), why: SkipReason::TooMuch(14) }]);
    }

    #[test]
    fn a_taken_file_outlives_its_directory() {
        let directory = tempfile::tempdir().expect("tempdir");
        write(&directory, b"kept", "content");
        let mut harvest = of(&directory);
        drop(directory);
        let mut content = String::new();
        harvest.files[0].file.read_to_string(&mut content).expect("readable");
        assert_eq!(content, "content");
    }

    #[test]
    fn a_directory_without_end_is_cut() {
        let directory = tempfile::tempdir().expect("tempdir");
        for number in 0..15 {
            std::fs::create_dir(directory.path().join(number.to_string())).expect("mkdir");
        }
        let harvest = of(&directory);
        assert_eq!(harvest.skipped.len(), 12);
        assert_eq!(harvest.losses, [Loss::OutputNotExamined(12)]);
    }

    #[test]
    fn what_is_not_on_a_containers_disk_is_not_looked_at() {
        let proc = OwnedFd::from(File::open("/proc/self").expect("open"));
        let harvest = harvest(Some(proc), LIMITS);
        assert!(harvest.files.is_empty());
        assert_eq!(harvest.losses, [Loss::OutputDirectoryGone]);
    }
}
