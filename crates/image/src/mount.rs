//! Makes an image's tree appear as a directory that containers can take as their lower layer.
//!
//! As root the file is mounted, read-only, `nosuid`, `nodev`, at `<run dir>/<digest>`, straight (Linux 6.12 and later)
//! or through a loop device. All processes share the mount. Two kinds of lock (flock(2)) see to it: `lock` is held for
//! the moment of mounting or unmounting; `<digest>.lock` is held shared by every user, and changes hands only under the
//! first. Who lets go and can have the second alone was the last, and unmounts. A process that was killed lets go as
//! well; its mount is found and used by the next.
//!
//! Without root, or where the kernel has no erofs, the tree is unpacked once into the cache.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::geteuid;

use crate::OWNER_BASE;
use crate::cache::{self, Cache};
use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::{Monitor, Phase};
use crate::program::{self, FSCK, Grows, Log, Program};
use crate::unpack;

/// `f_type` of an erofs (statfs(2)).
const EROFS_MAGIC: u64 = 0xE0F5_E1E2;

/// A directory with an image's tree, for as long as this value lives.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    digest: Digest,
    owner_base: Option<u32>,
    /// `None` for an unpacked tree, which stays.
    held: Option<Held>,
}

/// The locks of a mount that is in use.
#[derive(Debug)]
struct Held {
    /// Of the run directory, taken only for a moment.
    moment: File,
    /// Of this image, shared.
    users: File,
}

impl Mounted {
    /// The tree. Read-only by mount or by agreement: nobody may write there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The user and group that own everything in the tree, to be mapped to a container's root. `None`: the user that
    /// this process runs as owns it.
    pub fn owner_base(&self) -> Option<u32> {
        self.owner_base
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(Held { moment, users }) = &self.held else {
            return;
        };
        if let Err(errno) = flock(moment, FlockOperation::LockExclusive) {
            tracing::warn!(path = %self.path.display(), %errno, "locking; the image stays mounted");
            return;
        }
        if flock(users, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        match rustix::mount::unmount(&self.path, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(errno) => {
                tracing::warn!(path = %self.path.display(), %errno, "unmounting an image")
            }
        }
    }
}

/// Mounts or unpacks an image that has been checked.
pub(crate) async fn mount(
    cache: &Cache,
    run_dir: &Path,
    digest: Digest,
    monitor: &Monitor,
) -> Result<Mounted, ImageError> {
    if geteuid().is_root() {
        match mount_file(cache, run_dir, digest).await {
            Ok(mounted) => return Ok(mounted),
            Err(Refused::Impossible(reason)) => {
                tracing::info!(reason, "images cannot be mounted here; unpacking instead");
            }
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    let path = unpacked(cache, digest, monitor).await?;
    let owner_base = geteuid().is_root().then_some(OWNER_BASE);
    Ok(Mounted { path, digest, owner_base, held: None })
}

enum Refused {
    /// This machine cannot mount images at all.
    Impossible(String),
    Failed(ImageError),
}

impl From<ImageError> for Refused {
    fn from(error: ImageError) -> Self {
        Self::Failed(error)
    }
}

async fn mount_file(cache: &Cache, run_dir: &Path, digest: Digest) -> Result<Mounted, Refused> {
    // 0755: a container's own user has to pass through.
    fs::DirBuilder::new().recursive(true).mode(0o755).create(run_dir).doing("making", run_dir)?;
    let meta = fs::metadata(run_dir).doing("reading", run_dir)?;
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
        return Err(ImageError::CacheNotOurs { path: run_dir.to_owned(), owner, mode }.into());
    }
    let path = run_dir.join(digest.hex());
    let moment = locked(run_dir.join("lock"), FlockOperation::LockExclusive).await?;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).doing("making", &path)?;
    if !is_mounted(&path)? {
        mount_at(&cache.image(&digest), &path).await?;
    }
    // Nobody has it alone but under the lock that we hold: this does not wait.
    let users = locked(run_dir.join(format!("{}.lock", digest.hex())), FlockOperation::LockShared).await?;
    flock(&moment, FlockOperation::Unlock).doing("unlocking", run_dir)?;
    let held = Some(Held { moment, users });
    Ok(Mounted { path, digest, owner_base: Some(OWNER_BASE), held })
}

/// Waits for a lock that others hold for moments only.
async fn locked(path: PathBuf, operation: FlockOperation) -> Result<File, ImageError> {
    let (file, place) = (cache::open_lock_file(&path)?, path.clone());
    let taken = tokio::task::spawn_blocking(move || {
        flock(&file, operation).doing("locking", &path)?;
        Ok(file)
    });
    taken.await.doing("locking", &place)?
}

fn is_mounted(path: &Path) -> Result<bool, ImageError> {
    let stat = rustix::fs::statfs(path).doing("reading", path)?;
    Ok(u64::try_from(stat.f_type).is_ok_and(|kind| kind & 0xFFFF_FFFF == EROFS_MAGIC))
}

async fn mount_at(file: &Path, path: &Path) -> Result<(), Refused> {
    use rustix::io::Errno;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    match rustix::mount::mount(file, path, c"erofs", flags, None) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => return Err(Refused::Impossible("mount(2) is not permitted".into())),
        Err(Errno::NODEV) => return Err(Refused::Impossible("the kernel has no erofs".into())),
        // Older kernels mount block devices only.
        Err(Errno::NOTBLK) => {}
        Err(errno) => return Err(ImageError::io("mounting", file, errno).into()),
    }
    let (file_text, path_text) = (file.to_string_lossy(), path.to_string_lossy());
    let line = ["mount", "-t", "erofs", "-o", "ro,nosuid,nodev,loop", &file_text, &path_text];
    if program::works(&line).await {
        return Ok(());
    }
    Err(Refused::Impossible("neither mounting the file nor a loop device works".into()))
}

/// The image's tree in the cache, unpacked now if it is not there.
async fn unpacked(cache: &Cache, digest: Digest, monitor: &Monitor) -> Result<PathBuf, ImageError> {
    let tree = cache.tree(&digest);
    if tree.exists() {
        return Ok(tree);
    }
    program::require(&[FSCK]).await?;
    let _lock = cache.lock(monitor).await?;
    if tree.exists() {
        return Ok(tree);
    }
    let half = cache.trees().join(".half");
    unpack::remove_tree(&half)?;
    let log = Log::create(cache.log("extract"))?;
    let mut meter = monitor.start(Phase::Extract, None);
    let owner = if geteuid().is_root() { "--preserve-owner" } else { "--no-preserve-owner" };
    Program::clean("fsck.erofs")
        .path_arg("--extract=", &half)
        .arg("--preserve-perms")
        .arg(owner)
        .arg(cache.image(&digest))
        .grows(Grows::Dirs(vec![half.join("usr")]))
        .run(&log, &mut meter, monitor)
        .await?;
    fs::rename(&half, &tree).doing("renaming", &half)?;
    cache::sync_dir(&cache.trees())?;
    meter.finish();
    Ok(tree)
}
