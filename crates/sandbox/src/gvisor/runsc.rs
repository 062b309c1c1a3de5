//! Where runsc is, and a copy of it that nobody can change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::SandboxError;

/// Larger than any runsc; it has 29 MiB.
const PROGRAM_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Reads runsc from `path` into memory. As an ordinary user, the container's root is that user outside and could write
/// the file; and what is executed later is what was proven at the start.
pub fn load(path: Option<&Path>) -> Result<File, SandboxError> {
    let path = path.ok_or_else(|| {
        SandboxError::Gvisor(
            "runsc is not installed (neither configured, nor on the PATH, nor in the cache)".to_owned(),
        )
    })?;
    sealed(path).map_err(|error| SandboxError::Gvisor(format!("{}: {error}", path.display())))
}

fn sealed(path: &Path) -> io::Result<File> {
    let mut source = File::open(path)?;
    let found = source.metadata()?;
    if !found.is_file() || found.len() > PROGRAM_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a program"));
    }
    let mut copy = File::from(memfd_create("runsc", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    let mut magic = [0; 4];
    source.read_exact(&mut magic)?;
    if &magic != b"\x7fELF" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a program"));
    }
    io::Write::write_all(&mut copy, &magic)?;
    io::copy(&mut source.take(PROGRAM_BYTES_MAX), &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy)
}

/// Where runsc is looked for when the configuration does not say: in the directories of `path_variable`, then among
/// the tools in `cache_dir`.
#[must_use]
pub fn find(path_variable: Option<&std::ffi::OsStr>, cache_dir: &Path) -> Option<PathBuf> {
    let on_path = path_variable.into_iter().flat_map(std::env::split_paths).map(|folder| folder.join("runsc"));
    let kept = cache_dir.join("tools/bin/runsc");
    on_path.filter(|path| path.is_absolute()).chain([kept]).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_comes_before_the_cache() {
        let root = tempfile::tempdir().expect("tempdir");
        let (on_path, cache) = (root.path().join("bin"), root.path().join("cache"));
        let kept = cache.join("tools/bin");
        let variable = std::env::join_paths([Path::new("relative"), &on_path]).expect("no colons");
        assert_eq!(find(Some(&variable), &cache), None);
        for folder in [&kept, &on_path] {
            std::fs::create_dir_all(folder).expect("mkdir");
            std::fs::write(folder.join("runsc"), "").expect("write");
            assert_eq!(find(Some(&variable), &cache), Some(folder.join("runsc")));
        }
        assert_eq!(find(None, &cache), Some(kept.join("runsc")));
    }

    #[test]
    fn what_is_no_program_is_refused_by_its_path() {
        let root = tempfile::tempdir().expect("tempdir");
        let script = root.path().join("runsc");
        std::fs::write(&script, "#!/bin/sh\n").expect("write");
        for path in [script.as_path(), root.path(), Path::new("/nowhere/runsc")] {
            let error = load(Some(path)).expect_err("refused").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert!(load(None).expect_err("refused").to_string().contains("not installed"));
    }

    #[test]
    fn the_copy_cannot_be_written() {
        let this_test = std::env::current_exe().expect("runs");
        let copy = load(Some(&this_test)).expect("a program");
        assert_eq!(copy.set_len(0).expect_err("sealed").kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(copy.metadata().expect("memfd").len(), this_test.metadata().expect("file").len());
    }
}
