//! Removing a tree that hostile code made: any depth, any size, changing meanwhile.
//!
//! No recursion and no path longer than a name: a directory inside is first moved up beside the tree, then emptied
//! like the tree itself. So neither depth nor path length matters, and only two directories are open at a time.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::command::OUTPUT_ROOT;

/// Entries after which the guest gives up; more than a container's filesystem holds unless code adds them meanwhile.
const ENTRIES_MAX: u64 = 4_000_000;

/// Removes `/files/output/<output>` and what is in it; false when something is left.
pub fn remove(output: &str) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, OUTPUT_ROOT, flags, Mode::empty()) {
        Ok(root) => Removal { root, prefix: output.to_owned(), moved: 0, entries: 0 }.run(),
        Err(error) => error == Errno::NOENT,
    }
}

struct Removal {
    root: OwnedFd,
    prefix: String,
    /// Directories moved up so far; all but the emptied ones stand in the root as `<prefix>.<number>`.
    moved: u64,
    entries: u64,
}

impl Removal {
    fn run(mut self) -> bool {
        let first = self.prefix.clone();
        let mut whole = self.remove_one(&first);
        let mut next = 0;
        while next < self.moved && self.entries < ENTRIES_MAX {
            let name = self.place(next);
            whole &= self.remove_one(&name);
            next += 1;
        }
        whole && next == self.moved
    }

    fn place(&self, number: u64) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// Empties and removes one entry of the root, whatever it is.
    fn remove_one(&mut self, name: &str) -> bool {
        match unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return true,
            Err(_a_directory) => {}
        }
        // Code may have taken its own rights away. A link in the directory's place would only lead to what code owns.
        let _best_effort = chmodat(&self.root, name, Mode::RWXU, AtFlags::empty());
        self.empty(name);
        matches!(unlinkat(&self.root, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
    }

    fn empty(&mut self, name: &str) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = openat(&self.root, name, flags, Mode::empty()) else {
            return;
        };
        let Ok(listing) = Dir::read_from(&directory) else {
            return;
        };
        for entry in listing {
            let Ok(entry) = entry else { return };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries >= ENTRIES_MAX {
                return;
            }
            if entry.file_type() != FileType::Directory && unlinkat(&directory, name, AtFlags::empty()).is_ok() {
                continue;
            }
            if unlinkat(&directory, name, AtFlags::REMOVEDIR).is_ok() {
                continue;
            }
            // A directory that is not writable cannot be moved: its `..` would change.
            let _best_effort = chmodat(&directory, name, Mode::RWXU, AtFlags::empty());
            if renameat(&directory, name, &self.root, self.place(self.moved)).is_ok() {
                self.moved += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn removal(root: &Path) -> Removal {
        let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open");
        Removal { root, prefix: "tree".into(), moved: 0, entries: 0 }
    }

    fn left(root: &Path) -> usize {
        std::fs::read_dir(root).expect("list").count()
    }

    #[test]
    fn a_thousand_levels_go_without_recursion_or_long_paths() {
        let root = tempfile::tempdir().expect("tempdir");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = openat(CWD, root.path(), flags, Mode::empty()).expect("open");
        for level in 0..2000 {
            let name = if level == 0 { "tree".to_owned() } else { "d".repeat(100) };
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).expect("mkdir");
            at = openat(&at, &name, flags, Mode::empty()).expect("open");
        }
        assert!(removal(root.path()).run());
        assert_eq!(left(root.path()), 0);
    }

    #[test]
    fn links_are_removed_not_followed() {
        let root = tempfile::tempdir().expect("tempdir");
        let outside = tempfile::tempdir().expect("tempdir");
        std::fs::write(outside.path().join("precious"), "x").expect("write");
        let tree = root.path().join("tree");
        std::fs::create_dir_all(tree.join("sub/locked")).expect("mkdir");
        std::os::unix::fs::symlink(outside.path(), tree.join("link")).expect("symlink");
        std::os::unix::fs::symlink("link", tree.join("sub/loop")).expect("symlink");
        rustix::fs::chmod(tree.join("sub/locked"), Mode::empty()).expect("chmod");
        rustix::fs::chmod(tree.join("sub"), Mode::empty()).expect("chmod");
        assert!(removal(root.path()).run());
        assert_eq!(left(root.path()), 0);
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn nothing_there_is_done() {
        let root = tempfile::tempdir().expect("tempdir");
        assert!(removal(root.path()).run());
    }
}
