//! Packs a finished root into an image file and puts it into the store.

use std::path::Path;

use crate::OWNER_BASE;
use crate::cache::{self, Cache};
use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::{Monitor, Phase};
use crate::program::{Grows, Log, Program};
use crate::record::{ImageRecord, Origin};
use crate::stamp;
use crate::unpack;

/// Time of everything in a built image: 2024-01-01T00:00:00Z.
pub(crate) const BUILD_EPOCH_S: u64 = 1_704_067_200;

/// Imported images keep their files' times up to this one: 2100-01-01T00:00:00Z.
pub(crate) const IMPORT_EPOCH_S: u64 = 4_102_444_800;

/// What goes into mkfs.erofs besides the tree; part of a recipe's digest.
///
/// LZ4, the fast variant: of a 1.5 GB root it makes 0.9 GB in 4 s, where none takes 7 s for the writing alone and `lz4hc`
/// 18 s for another 9 % less. Extended attributes are left out: file capabilities and ACLs have no place in a
/// container without capabilities. The fixed UUID, and a fixed time of making given in the environment, let the same root give the same digest.
pub(crate) const MKFS_OPTIONS: &[&str] = &["-zlz4", "-x-1", "-U00000000-0000-4000-8000-62656c6c6a72", "--quiet"];

/// Figures of a root, for its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    entries: u64,
    content_bytes: u64,
}

impl Tally {
    fn of(root: &Path, monitor: &Monitor) -> Result<Self, ImageError> {
        let mut tally = Self::default();
        let mut pending = vec![root.to_owned()];
        while let Some(dir) = pending.pop() {
            monitor.go_on()?;
            for entry in std::fs::read_dir(&dir).doing("reading", &dir)? {
                let entry = entry.doing("reading", &dir)?;
                let meta = entry.metadata().doing("reading", &dir)?;
                tally.entries += 1;
                if meta.is_dir() {
                    pending.push(entry.path());
                } else if meta.is_file() {
                    tally.content_bytes = tally.content_bytes.saturating_add(meta.len());
                }
            }
        }
        Ok(tally)
    }
}

/// Packs `root`, removes it, hashes the result, and moves it into the store with its record. Times after `latest_s` become that.
pub(crate) async fn pack(
    cache: &Cache,
    root: &Path,
    latest_s: u64,
    origin: Origin,
    log: &Log,
    monitor: &Monitor,
) -> Result<ImageRecord, ImageError> {
    let dir = tempfile::Builder::new()
        .prefix(".pack-")
        .tempdir_in(cache.images())
        .doing("making a directory in", &cache.images())?;
    let file = dir.path().join("image.erofs");
    let mut meter = monitor.start(Phase::Pack, None);
    Program::clean("mkfs.erofs")
        .env("SOURCE_DATE_EPOCH", latest_s.to_string())
        .args(MKFS_OPTIONS)
        .arg(format!("--force-uid={OWNER_BASE}"))
        .arg(format!("--force-gid={OWNER_BASE}"))
        .arg(&file)
        .arg(root)
        .grows(Grows::File(file.clone()))
        .run(log, &mut meter, monitor)
        .await?;
    meter.finish();

    let (cache_then, root_then, monitor_then) = (cache.clone(), root.to_owned(), monitor.clone());
    let stored = tokio::task::spawn_blocking(move || {
        let tally = Tally::of(&root_then, &monitor_then)?;
        // Before anything is synced: what is gone by then need not be written to the disk.
        unpack::remove_tree(&root_then)?;
        adopt(&cache_then, &file, tally, origin, &monitor_then)
    });
    stored.await.doing("hashing", cache.root())?
}

/// Hashes a packed file and gives it its name. Idempotent: the same bytes are the same image.
fn adopt(
    cache: &Cache,
    file: &Path,
    tally: Tally,
    origin: Origin,
    monitor: &Monitor,
) -> Result<ImageRecord, ImageError> {
    use std::os::unix::fs::PermissionsExt;
    let opened = std::fs::File::open(file).doing("opening", file)?;
    let size_bytes = opened.metadata().doing("reading", file)?.len();
    let mut meter = monitor.start(Phase::Digest, Some(size_bytes));
    let digest = Digest::of_reader(&opened, file, |bytes| {
        meter.add(bytes);
        monitor.go_on()
    })?;
    opened.sync_all().doing("syncing", file)?;
    opened.set_permissions(std::fs::Permissions::from_mode(0o444)).doing("changing the mode of", file)?;
    meter.finish();
    let record = ImageRecord {
        digest,
        size_bytes,
        content_bytes: tally.content_bytes,
        entries: tally.entries,
        owner_base: OWNER_BASE,
        origin,
    };
    // A mounted image keeps its old inode; the new one has the same bytes.
    let place = cache.image(&digest);
    std::fs::rename(file, &place).doing("renaming", &place)?;
    record.write(cache)?;
    cache::sync_dir(&cache.images())?;
    stamp::note(cache, &digest)?;
    Ok(record)
}
