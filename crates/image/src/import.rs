//! Imports somebody else's root: a directory, a tar, or an OCI layout.

use std::path::{Path, PathBuf};

use crate::build::Made;
use crate::cache::{self, Cache};
use crate::error::{Doing, ImageError};
use crate::event::{Monitor, Phase};
use crate::name::ImageName;
use crate::pack::{self, IMPORT_EPOCH_S};
use crate::program::{self, Log, MKFS};
use crate::record::Origin;
use crate::unpack::{self, Source, UnpackLimits};

/// What to import, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// A directory, a tar (plain, gzip, zstd), or an OCI layout directory.
    pub source: PathBuf,
    /// The name it gets.
    pub name: ImageName,
    /// What it may grow to.
    pub limits: UnpackLimits,
}

/// Unpacks, packs, names.
pub(crate) async fn import(cache: &Cache, options: &ImportOptions, monitor: &Monitor) -> Result<Made, ImageError> {
    let source = Source::detect(&options.source)?;
    program::require(&[MKFS]).await?;
    let _lock = cache.lock(monitor).await?;
    let log = Log::create(cache.log("import"))?;
    let place = cache.builds().join("import");
    unpack::remove_tree(&place)?;
    cache::make_dir(&place)?;
    let root = place.join("root");
    cache::make_dir(&root)?;
    let made = import_at(cache, options, source, &root, &log, monitor).await;
    // Half an import cannot be gone on with.
    unpack::remove_tree(&place)?;
    made
}

async fn import_at(
    cache: &Cache,
    options: &ImportOptions,
    source: Source,
    root: &Path,
    log: &Log,
    monitor: &Monitor,
) -> Result<Made, ImageError> {
    let (limits, to, inner) = (options.limits, root.to_owned(), monitor.clone());
    let unpacked = tokio::task::spawn_blocking(move || unpack_source(&source, &to, limits, &inner));
    let (dropped, origin) = unpacked.await.doing("unpacking", &options.source)??;
    let record = pack::pack(cache, root, IMPORT_EPOCH_S, origin, log, monitor).await?;
    cache::write_whole(&cache.name(&options.name), format!("{}\n", record.digest).as_bytes())?;
    Ok(Made { record, reused: false, dropped })
}

/// Gives how many entries were left out.
fn unpack_source(
    source: &Source,
    root: &Path,
    limits: UnpackLimits,
    monitor: &Monitor,
) -> Result<(u64, Origin), ImageError> {
    let mut meter = monitor.start(Phase::Unpack, None);
    let done = match source {
        Source::Dir(path) => (unpack::unpack_dir(path, root, limits, monitor, &mut meter)?, Origin::Directory),
        Source::Tar(path) => {
            let archive = unpack::digest_of(path, monitor)?;
            (unpack::unpack_tar(path, root, limits, monitor, &mut meter)?, Origin::Tar { archive })
        }
        Source::Oci(path) => {
            let (dropped, manifest) = unpack::unpack_oci(path, root, limits, monitor, &mut meter)?;
            (dropped, Origin::Oci { manifest })
        }
    };
    meter.finish();
    Ok(done)
}
