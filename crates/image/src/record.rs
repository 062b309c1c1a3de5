//! What is written down about an image, beside its file.

use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::digest::Digest;
use crate::error::{Doing, ImageError};

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// Made by `belljar image build`.
    Build {
        /// Digest of everything the build was made from, but for the state of Debian's archive that day.
        recipe: Digest,
    },
    /// Copied from a directory.
    Directory,
    /// Unpacked from a tar.
    Tar {
        /// Digest of the archive as it was, compressed or not.
        archive: Digest,
    },
    /// Unpacked from an OCI layout.
    Oci {
        /// Digest of the image's manifest.
        manifest: Digest,
    },
}

/// The record of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// The image's name among images.
    pub digest: Digest,
    /// Size of its file.
    pub size_bytes: u64,
    /// Bytes of all files in it.
    pub content_bytes: u64,
    /// Files, directories and links in it.
    pub entries: u64,
    /// User and group that own everything in it: root of a container is mapped to this one.
    pub owner_base: u32,
    /// Where it came from.
    pub origin: Origin,
}

impl ImageRecord {
    pub(crate) fn write(&self, cache: &Cache) -> Result<(), ImageError> {
        let path = cache.record(&self.digest);
        let mut text = serde_json::to_vec_pretty(self).doing("writing", &path)?;
        text.push(b'\n');
        cache::write_whole(&path, &text)
    }

    pub(crate) fn read(cache: &Cache, digest: &Digest) -> Result<Option<Self>, ImageError> {
        let path = cache.record(digest);
        let Some(text) = cache::read_small(&path)? else {
            return Ok(None);
        };
        let record: Self = serde_json::from_slice(&text)
            .map_err(|error| ImageError::BadRecord { path: path.clone(), problem: error.to_string() })?;
        if record.digest == *digest {
            Ok(Some(record))
        } else {
            Err(ImageError::BadRecord { path, problem: "is about another image".into() })
        }
    }
}
