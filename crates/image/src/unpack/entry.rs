//! Names of entries, checked once, and then known to be harmless.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{PATH_BYTES_MAX, PATH_COMPONENTS_MAX};
use crate::error::ArchiveProblem;

/// A relative path without `.`, `..` or empty components. Empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryPath(PathBuf);

impl EntryPath {
    /// Checks a name from a source.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, ArchiveProblem> {
        if name.starts_with(b"/") {
            return Err(ArchiveProblem::AbsolutePath);
        }
        if name.contains(&0) {
            return Err(ArchiveProblem::BadName);
        }
        let mut path = PathBuf::new();
        let mut components = 0;
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(ArchiveProblem::ParentPath),
                _ if component.len() > 255 => return Err(ArchiveProblem::PathTooLong),
                _ => {
                    components += 1;
                    path.push(OsStr::from_bytes(component));
                }
            }
        }
        if components > PATH_COMPONENTS_MAX || path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(ArchiveProblem::PathTooLong);
        }
        Ok(Self(path))
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }

    /// The path above and the last component; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&Path, &OsStr)> {
        Some((self.0.parent()?, self.0.file_name()?))
    }

    /// The name beside this one.
    pub(crate) fn sibling(&self, name: &[u8]) -> Result<Self, ArchiveProblem> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(ArchiveProblem::BadName);
        }
        let (parent, _) = self.split().ok_or(ArchiveProblem::BadName)?;
        Self::parse(parent.join(OsStr::from_bytes(name)).as_os_str().as_bytes())
    }

    /// The directory it is in.
    pub(crate) fn parent(&self) -> Option<Self> {
        self.0.parent().map(|parent| Self(parent.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let deep = "d/".repeat(PATH_COMPONENTS_MAX);
        let too_deep = "d/".repeat(PATH_COMPONENTS_MAX + 1);
        let long = format!("{}/x", "y".repeat(256));
        let cases: &[(&[u8], Result<&str, ArchiveProblem>)] = &[
            (b"a", Ok("a")),
            (b"./a//b/./c/", Ok("a/b/c")),
            (b".", Ok("")),
            (b"", Ok("")),
            (b"a..b/...", Ok("a..b/...")),
            (deep.as_bytes(), Ok(deep.trim_end_matches('/'))),
            (b"/etc/passwd", Err(ArchiveProblem::AbsolutePath)),
            (b"//etc", Err(ArchiveProblem::AbsolutePath)),
            (b"..", Err(ArchiveProblem::ParentPath)),
            (b"a/../b", Err(ArchiveProblem::ParentPath)),
            (b"a/..", Err(ArchiveProblem::ParentPath)),
            (b"a\0b", Err(ArchiveProblem::BadName)),
            (too_deep.as_bytes(), Err(ArchiveProblem::PathTooLong)),
            (long.as_bytes(), Err(ArchiveProblem::PathTooLong)),
        ];
        for (name, expected) in cases {
            let found = EntryPath::parse(name).map(|path| path.0);
            assert_eq!(found, expected.clone().map(PathBuf::from), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn siblings_stay_in_the_directory() {
        let path = EntryPath::parse(b"a/.wh.b").expect("a good name");
        assert_eq!(path.sibling(b"b"), EntryPath::parse(b"a/b"));
        for name in [&b""[..], b".", b"..", b"x/y", b"/"] {
            assert_eq!(path.sibling(name), Err(ArchiveProblem::BadName));
        }
    }
}
