//! Taking files out of a hostile directory: odd names, links, FIFOs, sockets, sparse giants; nothing is followed, nothing
//! blocks, no limit is passed.
#![no_main]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use arbitrary::Arbitrary;
use belljar_sandbox::fuzzing::{Harvest, HarvestLimits, harvest, usable};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mknodat, open};

#[derive(Arbitrary, Debug)]
struct Tree {
    entries: Vec<Entry>,
    file_bytes_max: u16,
    total_bytes_max: u32,
    files_max: u8,
    entries_max: u8,
}

#[derive(Arbitrary, Debug)]
struct Entry {
    name: Name,
    kind: Kind,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Plain(u8),
    Odd(Vec<u8>),
    Long { byte: u8, length: u8 },
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Regular {
        size: u16,
    },
    Sparse {
        size: u64,
    },
    Unreadable {
        mode: u16,
    },
    Directory,
    Fifo,
    Socket,
    /// To the file outside.
    LinkOut,
    /// To whatever these bytes name.
    Link(Vec<u8>),
    /// A second name of the first entry.
    HardLink,
}

const ENTRIES_MAX: usize = 24;
const CANARY: &[u8] = b"the file outside";

fuzz_target!(|tree: Tree| {
    // A tmpfs, as containers' disks are: nothing else is harvested from.
    let place = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let outside = place.path().join("outside");
    fs::write(&outside, CANARY).expect("a file");
    let inside = place.path().join("output");
    fs::create_dir(&inside).expect("a folder");
    let made = build(&inside, &outside, &tree);
    let limits = HarvestLimits {
        file_bytes_max: tree.file_bytes_max.into(),
        files_max: tree.files_max.into(),
        total_bytes_max: tree.total_bytes_max.into(),
        entries_max: tree.entries_max.into(),
    };
    // As the guest sends it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory: OwnedFd = open(&inside, flags, Mode::empty()).expect("it is there");
    check(harvest(Some(directory), limits), &made, limits);
});

/// Makes what can be made; gives the sizes of the regular files by name, and every name.
fn build(inside: &Path, outside: &Path, tree: &Tree) -> BTreeMap<Vec<u8>, Option<u64>> {
    let mut made = BTreeMap::new();
    let mut first: Option<PathBuf> = None;
    for entry in tree.entries.iter().take(ENTRIES_MAX) {
        let name = bytes(&entry.name);
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) || name == b"." || name == b".." {
            continue;
        }
        let path = inside.join(OsString::from_vec(name.clone()));
        let there = path.symlink_metadata().is_ok();
        if !there && make(&path, outside, first.as_deref(), &entry.kind).is_some() {
            let found = path.symlink_metadata().expect("just made");
            made.insert(name, found.is_file().then(|| found.len()));
            first.get_or_insert(path);
        }
    }
    made
}

fn make(path: &Path, outside: &Path, first: Option<&Path>, kind: &Kind) -> Option<()> {
    match kind {
        Kind::Regular { size } => fs::write(path, vec![b'x'; usize::from(*size)]).ok(),
        Kind::Sparse { size } => File::create(path).ok()?.set_len(size % (1 << 40)).ok(),
        Kind::Unreadable { mode } => {
            fs::write(path, b"x").ok()?;
            rustix::fs::chmod(path, Mode::from_raw_mode(u32::from(*mode) & 0o7777)).ok()
        }
        Kind::Directory => fs::create_dir(path).ok(),
        Kind::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).ok(),
        Kind::Socket => mknodat(CWD, path, FileType::Socket, Mode::RWXU, 0).ok(),
        Kind::LinkOut => std::os::unix::fs::symlink(outside, path).ok(),
        Kind::Link(target) => {
            let target: Vec<u8> = target.iter().copied().filter(|&byte| byte != 0).collect();
            std::os::unix::fs::symlink(OsString::from_vec(target), path).ok()
        }
        Kind::HardLink => linkat(CWD, first?, CWD, path, AtFlags::empty()).ok(),
    }
}

fn bytes(name: &Name) -> Vec<u8> {
    match name {
        Name::Plain(number) => format!("file-{number}.txt").into_bytes(),
        Name::Odd(bytes) => bytes.iter().copied().take(255).collect(),
        Name::Long { byte, length } => vec![*byte; usize::from(*length)],
    }
}

fn check(found: Harvest, made: &BTreeMap<Vec<u8>, Option<u64>>, limits: HarvestLimits) {
    assert_eq!(found.files.len() + found.skipped.len(), made.len().min(limits.entries_max));
    assert_eq!(found.losses.is_empty(), made.len() <= limits.entries_max);
    assert!(found.files.len() <= limits.files_max);
    let mut total = 0_u64;
    for mut file in found.files {
        assert!(usable(&file.name), "{:?}", file.name);
        assert_eq!(made.get(file.name.as_bytes()), Some(&Some(file.size)), "{:?} is no regular file", file.name);
        assert!(file.size <= limits.file_bytes_max);
        total += file.size;
        let mut beginning = [0; CANARY.len()];
        let length = file.file.read(&mut beginning).expect("a regular file can be read");
        assert!(length < CANARY.len() || beginning != *CANARY, "{:?} is the file outside", file.name);
    }
    assert!(total <= limits.total_bytes_max);
    for skipped in found.skipped {
        assert!(!skipped.name.chars().any(char::is_control), "{:?} would disturb a terminal", skipped.name);
    }
}
