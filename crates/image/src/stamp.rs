//! The note that an image's bytes have been checked, so that starting a server need not hash a gigabyte.
//!
//! An image file is never written to once it has its name. Any write, truncation, replacement or change of mode moves
//! its inode's change time, which no ordinary call can set back. So a note of inode, size, modification and change
//! time, taken around a complete hash, says "still the file that was hashed". A missing, unreadable or differing note
//! costs one complete hash, and a new note if that succeeds. The note guards against accidents and half-made files;
//! against someone who can write into the cache directory nothing here can, and [`crate::ImageStore::open`] refuses a
//! directory in which others can.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::{Monitor, Phase};

/// What `fstat` said of the image file when its digest was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    inode: u64,
    size_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
    changed_s: i64,
    changed_ns: i64,
}

/// How an image was found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// The file is the one that was hashed earlier.
    ByStamp,
    /// All its bytes were hashed now.
    ByDigest,
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            size_bytes: meta.len(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
            changed_s: meta.ctime(),
            changed_ns: meta.ctime_nsec(),
        }
    }
}

/// Cheap check if there is a stamp that fits, else the full one.
pub(crate) fn check(cache: &Cache, digest: &Digest, monitor: &Monitor) -> Result<Checked, ImageError> {
    let path = cache.image(digest);
    let now = Stamp::of(&std::fs::metadata(&path).doing("reading", &path)?);
    let noted = cache::read_small(&cache.stamp(digest))?.and_then(|text| serde_json::from_slice::<Stamp>(&text).ok());
    if noted == Some(now) {
        return Ok(Checked::ByStamp);
    }
    check_all(cache, digest, monitor).map(|()| Checked::ByDigest)
}

/// Hashes the whole file, and notes success.
pub(crate) fn check_all(cache: &Cache, digest: &Digest, monitor: &Monitor) -> Result<(), ImageError> {
    let path = cache.image(digest);
    let file = File::open(&path).doing("opening", &path)?;
    let before = Stamp::of(&file.metadata().doing("reading", &path)?);
    let mut meter = monitor.start(Phase::Digest, Some(before.size_bytes));
    let found = Digest::of_reader(&file, &path, |bytes| {
        meter.add(bytes);
        monitor.go_on()
    })?;
    meter.finish();
    let after = Stamp::of(&file.metadata().doing("reading", &path)?);
    if found != *digest || before != after {
        return Err(ImageError::Damaged { expected: *digest, found, path });
    }
    write(cache, digest, &after)
}

/// For a file whose digest was computed by the caller just before it was renamed into place.
pub(crate) fn note(cache: &Cache, digest: &Digest) -> Result<(), ImageError> {
    let path = cache.image(digest);
    let stamp = Stamp::of(&std::fs::metadata(&path).doing("reading", &path)?);
    write(cache, digest, &stamp)
}

fn write(cache: &Cache, digest: &Digest, stamp: &Stamp) -> Result<(), ImageError> {
    let path = cache.stamp(digest);
    let text = serde_json::to_vec(stamp).doing("writing", &path)?;
    cache::write_whole(&path, &text)
}
