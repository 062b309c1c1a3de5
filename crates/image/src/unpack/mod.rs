//! Copies trees that nobody vouches for into a new root: the rules that hold for every kind of source.
//!
//! - Names are relative, without `..`, and bounded in length and depth. One bad name refuses the whole source.
//! - Symbolic links are followed inside the root only, by the kernel's rule (`RESOLVE_IN_ROOT`, openat2(2)).
//! - Devices, FIFOs and sockets are left out, and counted. Set-user-id and set-group-id bits, owners, extended
//!   attributes and ACLs are dropped; the owner can always read.
//! - Bytes and entries are capped while they are written, whatever a header says.
//! - A later entry replaces an earlier one of the same name; a directory over a directory only changes its mode.

mod dir;
mod entry;
mod oci;
mod remove;
mod tarball;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

pub(crate) use dir::unpack_dir;
pub(crate) use oci::unpack_oci;
pub(crate) use remove::remove_tree;
pub(crate) use tarball::{digest_of, unpack_tar};

use crate::error::{ArchiveProblem, ImageError};

/// What an import may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of all files together.
    pub content_bytes_max: u64,
    /// Files, directories, links and dropped entries.
    pub entries_max: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { content_bytes_max: 32 << 30, entries_max: 2_000_000 }
    }
}

/// Bytes in a name; `PATH_MAX` less room for a prefix.
pub(crate) const PATH_BYTES_MAX: usize = 3072;
/// Components in a name.
pub(crate) const PATH_COMPONENTS_MAX: usize = 200;

/// An error about one entry of a source.
pub(crate) fn bad(source_path: &Path, entry: &[u8], problem: ArchiveProblem) -> ImageError {
    let entry = if entry.is_empty() { "the whole".into() } else { entry.escape_ascii().to_string() };
    ImageError::BadArchive { source_path: source_path.to_owned(), entry, problem }
}

/// What kind of thing is to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Dir(PathBuf),
    Tar(PathBuf),
    Oci(PathBuf),
}

impl Source {
    /// Looks at `path`. A tar shows only when it is read; anything that is not a directory is taken for one.
    pub(crate) fn detect(path: &Path) -> Result<Self, ImageError> {
        let meta = std::fs::metadata(path).map_err(|error| ImageError::io("reading", path, error))?;
        if meta.is_dir() {
            let oci = path.join("oci-layout").is_file() && path.join("index.json").is_file();
            Ok(if oci { Self::Oci(path.to_owned()) } else { Self::Dir(path.to_owned()) })
        } else if meta.is_file() {
            Ok(Self::Tar(path.to_owned()))
        } else {
            Err(ImageError::UnknownSource(path.to_owned()))
        }
    }
}
