//! The store of images on this machine: the crate's front door.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{self, BuildOptions, Made};
use crate::cache::{self, Cache};
use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::Monitor;
use crate::import::{self, ImportOptions};
use crate::mount::{self, Mounted};
use crate::name::ImageName;
use crate::record::ImageRecord;
use crate::stamp::{self, Checked};

/// Where images are mounted, unless told otherwise.
const RUN_DIR: &str = "/run/belljar/images";
/// The fewest digits that an abbreviated digest may have.
const SHORT_DIGEST_MIN: usize = 8;

/// An image that was there when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRef {
    digest: Digest,
}

impl ImageRef {
    /// The image's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// One line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageListing {
    /// The digest.
    pub digest: Digest,
    /// Names that stand for it.
    pub names: Vec<ImageName>,
    /// Size of its file.
    pub size_bytes: u64,
    /// Its record, unless that is missing.
    pub record: Option<ImageRecord>,
}

/// The images in one cache directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    cache: Cache,
    run_dir: PathBuf,
}

impl ImageStore {
    /// Opens the cache directory, making it if need be.
    ///
    /// # Errors
    /// [`ImageError::CacheNotOurs`] if another user could change what is in it.
    pub fn open(cache_dir: impl AsRef<Path>) -> Result<Self, ImageError> {
        Ok(Self { cache: Cache::open(cache_dir.as_ref())?, run_dir: RUN_DIR.into() })
    }

    /// Mounts images below `run_dir` instead of `/run/belljar/images`.
    #[must_use]
    pub fn with_run_dir(mut self, run_dir: impl Into<PathBuf>) -> Self {
        self.run_dir = run_dir.into();
        self
    }

    /// Finds an image by name, digest (with or without `sha256:`), or the first eight or more digits of a digest.
    ///
    /// # Errors
    /// [`ImageError::UnknownImage`], [`ImageError::AmbiguousDigest`].
    pub fn resolve(&self, name_or_digest: &str) -> Result<ImageRef, ImageError> {
        let unknown = || ImageError::UnknownImage(name_or_digest.into());
        let named = match name_or_digest.parse::<ImageName>() {
            Ok(name) => cache::read_digest(&self.cache.name(&name))?,
            Err(_) => None,
        };
        let digest = match named.or_else(|| name_or_digest.parse().ok()) {
            Some(digest) => digest,
            None => self.resolve_short(name_or_digest)?,
        };
        if self.cache.image(&digest).is_file() { Ok(ImageRef { digest }) } else { Err(unknown()) }
    }

    fn resolve_short(&self, text: &str) -> Result<Digest, ImageError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut found = self.digests()?;
        found.retain(|digest| digest.hex().starts_with(digits));
        match found.as_slice() {
            [digest] if digits.len() >= SHORT_DIGEST_MIN => Ok(*digest),
            [_, _, ..] if digits.len() >= SHORT_DIGEST_MIN => Err(ImageError::AmbiguousDigest(text.into())),
            _ => Err(ImageError::UnknownImage(text.into())),
        }
    }

    fn digests(&self) -> Result<Vec<Digest>, ImageError> {
        let dir = self.cache.images();
        let mut digests = Vec::new();
        for entry in fs::read_dir(&dir).doing("reading", &dir)? {
            let name = entry.doing("reading", &dir)?.file_name();
            if let Some(digest) = name.to_str().and_then(|name| name.strip_suffix(".erofs")?.parse().ok()) {
                digests.push(digest);
            }
        }
        digests.sort();
        Ok(digests)
    }

    /// All images, by digest.
    ///
    /// # Errors
    /// [`ImageError::Io`], [`ImageError::BadRecord`].
    pub fn list(&self) -> Result<Vec<ImageListing>, ImageError> {
        let mut names = self.names()?;
        self.digests()?
            .into_iter()
            .map(|digest| {
                let path = self.cache.image(&digest);
                let size_bytes = fs::metadata(&path).doing("reading", &path)?.len();
                let record = ImageRecord::read(&self.cache, &digest)?;
                Ok(ImageListing { digest, names: names.remove(&digest).unwrap_or_default(), size_bytes, record })
            })
            .collect()
    }

    fn names(&self) -> Result<BTreeMap<Digest, Vec<ImageName>>, ImageError> {
        let dir = self.cache.names();
        let mut names: BTreeMap<Digest, Vec<ImageName>> = BTreeMap::new();
        for entry in fs::read_dir(&dir).doing("reading", &dir)? {
            let entry = entry.doing("reading", &dir)?;
            // Anything else is a file that is being written.
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(digest) = cache::read_digest(&entry.path())? {
                names.entry(digest).or_default().push(name);
            }
        }
        names.values_mut().for_each(|names| names.sort());
        Ok(names)
    }

    /// Hashes the whole image and compares.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] if the bytes are not those of the digest.
    pub async fn verify(&self, image: &ImageRef, monitor: &Monitor) -> Result<(), ImageError> {
        let (cache, digest, inner) = (self.cache.clone(), image.digest, monitor.clone());
        let checked = tokio::task::spawn_blocking(move || stamp::check_all(&cache, &digest, &inner));
        checked.await.doing("checking", self.cache.root())?
    }

    /// Makes sure that an image is whole: cheaply if its file has not been touched since it was last hashed, else by
    /// hashing it. [`Self::mount`] does this too.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] if the bytes are not those of the digest.
    pub async fn check(&self, image: &ImageRef, monitor: &Monitor) -> Result<Checked, ImageError> {
        let (cache, digest, inner) = (self.cache.clone(), image.digest, monitor.clone());
        let checked = tokio::task::spawn_blocking(move || stamp::check(&cache, &digest, &inner));
        checked.await.doing("checking", self.cache.root())?
    }

    /// Checks an image and makes its tree appear as a directory. As root that is a read-only mount, shared by all
    /// processes and gone with its last user; otherwise a tree that is unpacked at first use, and stays.
    ///
    /// # Errors
    /// [`ImageError::Damaged`], [`ImageError::Missing`], or what the system answered.
    pub async fn mount(&self, image: &ImageRef, monitor: &Monitor) -> Result<Mounted, ImageError> {
        self.check(image, monitor).await?;
        mount::mount(&self.cache, &self.run_dir, image.digest, monitor).await
    }

    /// Builds the default image, or finds that this program's recipe has been built already.
    ///
    /// # Errors
    /// [`ImageError::Missing`] and [`ImageError::MachineCannot`] before anything is done;
    /// [`ImageError::ProgramFailed`], [`ImageError::Interrupted`].
    pub async fn build(&self, options: &BuildOptions, monitor: &Monitor) -> Result<Made, ImageError> {
        build::build(&self.cache, options, monitor).await
    }

    /// Imports a directory, a tar or an OCI layout.
    ///
    /// # Errors
    /// [`ImageError::BadArchive`] for everything that an archive may not contain; [`ImageError::Interrupted`].
    pub async fn import(&self, options: &ImportOptions, monitor: &Monitor) -> Result<Made, ImageError> {
        import::import(&self.cache, options, monitor).await
    }
}
