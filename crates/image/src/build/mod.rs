//! Builds the image that containers start from by default: Debian, Python wheels, a few settings.
//!
//! Two phases fetch things, and are kept in `build/` once they are whole, so that an interrupted build goes on:
//! `debian-<digest of its inputs>.tar` (mmdebstrap) and `wheels/` (pip, checked against the lock). The root is made
//! anew each time, in `build/work/`.

mod debian;
mod machine;
mod setup;
mod wheels;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::{self, Cache, CacheLock};
use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::{ImageEvent, Monitor, Phase};
use crate::mirror::Mirrors;
use crate::name::ImageName;
use crate::pack::{self, BUILD_EPOCH_S};
use crate::program::Log;
use crate::recipe;
use crate::record::{ImageRecord, Origin};
use crate::stamp;
use crate::unpack::{self, UnpackLimits};

/// A Debian tar of an interrupted build is used again for this long: after that, security updates would be missing.
const BASE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What to build, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// The name it gets.
    pub name: ImageName,
    /// Debian's archive; `None` means the one that the host's apt uses.
    pub mirror: Option<String>,
    /// Whether an image built earlier by the same recipe will do.
    pub reuse: Reuse,
}

/// Whether earlier work may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// An image of the same recipe is taken as it is; so are finished phases of an interrupted build.
    Allowed,
    /// Everything is done anew, to get Debian's updates.
    Nothing,
}

/// A built or imported image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it is.
    pub record: ImageRecord,
    /// Whether it was there already, so that nothing was done.
    pub reused: bool,
    /// Devices, FIFOs and sockets of the source that were left out.
    pub dropped: u64,
}

/// Builds, or finds, the image of this program's recipe.
pub(crate) async fn build(cache: &Cache, options: &BuildOptions, monitor: &Monitor) -> Result<Made, ImageError> {
    let recipe = recipe::recipe_digest();
    if options.reuse == Reuse::Allowed
        && let Some(made) = find(cache, &recipe, options, monitor).await?
    {
        return Ok(made);
    }
    machine::check(cache).await?;
    let lock = cache.lock(monitor).await?;
    // The process that held the lock may have built just this.
    if options.reuse == Reuse::Allowed
        && let Some(made) = find(cache, &recipe, options, monitor).await?
    {
        return Ok(made);
    }
    let record = Build::open(cache, recipe, options.reuse, &lock, monitor)?.run(options).await?;
    cache::write_whole(&cache.name(&options.name), format!("{}\n", record.digest).as_bytes())?;
    Ok(Made { record, reused: false, dropped: 0 })
}

/// The image of this recipe, if there is one and it is whole.
async fn find(
    cache: &Cache,
    recipe: &Digest,
    options: &BuildOptions,
    monitor: &Monitor,
) -> Result<Option<Made>, ImageError> {
    let Some(digest) = cache::read_digest(&cache.recipe(recipe))? else {
        return Ok(None);
    };
    let Some(record) = ImageRecord::read(cache, &digest)? else {
        return Ok(None);
    };
    let (blocking_cache, blocking_monitor) = (cache.clone(), monitor.clone());
    let checked = tokio::task::spawn_blocking(move || stamp::check(&blocking_cache, &digest, &blocking_monitor));
    match checked.await.doing("checking", cache.root())? {
        Ok(_) => {}
        Err(ImageError::Damaged { expected, found, .. }) => {
            tracing::warn!(%expected, %found, "the image built earlier is damaged; building it again");
            return Ok(None);
        }
        Err(ImageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(other) => return Err(other),
    }
    if cache::read_digest(&cache.name(&options.name))? != Some(digest) {
        cache::write_whole(&cache.name(&options.name), format!("{digest}\n").as_bytes())?;
    }
    Ok(Some(Made { record, reused: true, dropped: 0 }))
}

/// Writes a file that only has to last for this build.
fn put(path: &Path, content: &str) -> Result<(), ImageError> {
    std::fs::write(path, content).doing("writing", path)
}

/// One build under way.
struct Build<'a> {
    cache: &'a Cache,
    recipe: Digest,
    /// Where finished phases are kept.
    dir: PathBuf,
    /// Where everything else is, gone at the end.
    work: PathBuf,
    log: Log,
    monitor: &'a Monitor,
}

impl<'a> Build<'a> {
    /// Clears away what cannot be used again: half a root, another recipe's Debian, or one that is too old.
    fn open(
        cache: &'a Cache,
        recipe: Digest,
        reuse: Reuse,
        lock: &CacheLock,
        monitor: &'a Monitor,
    ) -> Result<Self, ImageError> {
        let dir = cache.builds();
        let build = Self { cache, recipe, work: dir.join("work"), dir, log: Log::create(cache.log("build"))?, monitor };
        for entry in std::fs::read_dir(&build.dir).doing("reading", &build.dir)? {
            let path = entry.doing("reading", &build.dir)?.path();
            let kept = [build.base(), build.base_digest(), build.wheels()].contains(&path);
            if !kept || reuse == Reuse::Nothing {
                unpack::remove_tree(&path)?;
            }
        }
        cache::make_dir(&build.work)?;
        cache::make_dir(&build.scratch())?;
        build.drop_old_base(lock)?;
        Ok(build)
    }

    fn drop_old_base(&self, lock: &CacheLock) -> Result<(), ImageError> {
        let base = self.base();
        let made = match std::fs::metadata(&base).and_then(|meta| meta.modified()) {
            Ok(made) => made,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ImageError::io("reading", &base, error)),
        };
        let now = lock.taken_at().doing("reading the time of", self.cache.root())?;
        // A base from the future has an unknown age.
        if now.duration_since(made).is_ok_and(|age| age <= BASE_AGE_MAX) {
            return Ok(());
        }
        std::fs::remove_file(&base).doing("removing", &base)
    }

    fn base(&self) -> PathBuf {
        self.dir.join(format!("debian-{}.tar", recipe::debian_digest().hex()))
    }

    fn base_digest(&self) -> PathBuf {
        self.base().with_extension("sha256")
    }

    fn wheels(&self) -> PathBuf {
        self.dir.join("wheels")
    }

    fn root(&self) -> PathBuf {
        self.work.join("root")
    }

    /// For the programs' own temporary files.
    fn scratch(&self) -> PathBuf {
        self.work.join("scratch")
    }

    async fn run(&self, options: &BuildOptions) -> Result<ImageRecord, ImageError> {
        if debian::complete(self).await? {
            self.monitor.emit(ImageEvent::Reused { phase: Phase::Debian });
        } else {
            let mirrors = match &options.mirror {
                Some(archive) => Mirrors::given(archive),
                None => Mirrors::of_host(Path::new("/etc/apt")),
            };
            debian::bootstrap(self, &mirrors).await?;
        }
        if wheels::complete(self).await? {
            self.monitor.emit(ImageEvent::Reused { phase: Phase::Wheels });
        } else {
            wheels::download(self).await?;
        }
        self.unpack_base().await?;
        setup::install(self).await?;
        let origin = Origin::Build { recipe: self.recipe };
        let record = pack::pack(self.cache, &self.root(), BUILD_EPOCH_S, origin, &self.log, self.monitor).await?;
        cache::write_whole(&self.cache.recipe(&self.recipe), format!("{}\n", record.digest).as_bytes())?;
        for done in [&self.work, &self.base(), &self.base_digest(), &self.wheels()] {
            unpack::remove_tree(done)?;
        }
        Ok(record)
    }

    async fn unpack_base(&self) -> Result<(), ImageError> {
        let (base, root, monitor) = (self.base(), self.root(), self.monitor.clone());
        let bytes_total = std::fs::metadata(&base).doing("reading", &base)?.len();
        let unpacked = tokio::task::spawn_blocking(move || {
            cache::make_dir(&root)?;
            let mut meter = monitor.start(Phase::Unpack, Some(bytes_total));
            unpack::unpack_tar(&base, &root, UnpackLimits::default(), &monitor, &mut meter)?;
            meter.finish();
            Ok(())
        });
        unpacked.await.doing("unpacking", &self.base())?
    }
}
