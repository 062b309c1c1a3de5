//! Removes a directory tree of any depth without recursion, with two open descriptors, and without ever going into
//! something that is mounted there.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, openat, openat2, unlinkat};
use rustix::io::{Errno, Result};

use crate::error::{Doing, ImageError};

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes whatever `path` is; nothing there is fine.
pub(crate) fn remove_tree(path: &Path) -> std::result::Result<(), ImageError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let parent =
        match openat(rustix::fs::CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(ImageError::io("opening", parent, errno)),
        };
    remove_at(parent, name).doing("removing", path)
}

/// Removes `name` in the directory `parent`, whatever it is; nothing there is fine. The tree must not be in use.
pub(crate) fn remove_at(parent: impl AsFd, name: &OsStr) -> Result<()> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    // Down into the first directory met, up by `..` when one is empty; only names are remembered on the way.
    let mut dir = open_writable(&parent, name)?;
    let mut names: Vec<CString> = Vec::new();
    loop {
        match remove_plain(&dir)? {
            Some(below) => {
                dir = open_writable(&dir, below.as_c_str())?;
                names.push(below);
            }
            None => {
                let Some(done) = names.pop() else { break };
                dir = open_here(&dir, c"..")?;
                unlinkat(&dir, done.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
    }
    unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

/// Removes everything in the directory `dir` that is not a directory, and names the first that is one.
fn remove_plain(dir: &OwnedFd) -> Result<Option<CString>> {
    let mut first = None;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            first.get_or_insert_with(|| name.to_owned());
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            // A file system that does not tell types.
            Err(Errno::ISDIR | Errno::PERM) => {
                first.get_or_insert_with(|| name.to_owned());
            }
            done => done?,
        }
    }
    Ok(first)
}

/// EXDEV if something is mounted there: a bind mount may show the host's own files.
fn open_here(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    openat2(parent, name, OPEN_DIR, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

fn open_writable<P: rustix::path::Arg>(parent: impl AsFd, name: P) -> Result<OwnedFd> {
    let name = name.into_c_str()?;
    let dir = match open_here(&parent, &name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&parent, &*name, Mode::RWXU, AtFlags::empty())?;
            open_here(&parent, &name)?
        }
        opened => opened?,
    };
    if rustix::fs::fstat(&dir)?.st_mode & 0o700 != 0o700 {
        fchmod(&dir, Mode::RWXU)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn removes_deep_trees_links_and_locked_directories() {
        let home = tempfile::tempdir().expect("a directory");
        let outside = home.path().join("outside");
        fs::write(&outside, "stays").expect("a file");
        let top = home.path().join("top");
        fs::create_dir(&top).expect("a directory");
        std::os::unix::fs::symlink(home.path(), top.join("link")).expect("a link");
        // Far longer than PATH_MAX, far more directories than descriptors.
        let mut dir = openat(rustix::fs::CWD, &top, OPEN_DIR, Mode::empty()).expect("opens");
        for _ in 0..5000 {
            rustix::fs::mkdirat(&dir, "deep", Mode::RWXU).expect("makes");
            dir = openat(&dir, "deep", OPEN_DIR, Mode::empty()).expect("opens");
        }
        fs::create_dir(top.join("locked")).expect("a directory");
        fs::write(top.join("locked/file"), "x").expect("a file");
        fs::set_permissions(top.join("locked"), fs::Permissions::from_mode(0o000)).expect("a mode");
        remove_tree(&top).expect("removes");
        remove_tree(&top).expect("nothing there is fine");
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(outside).expect("reads"), "stays");
    }
}
