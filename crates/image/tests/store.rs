//! The store from outside, with tiny images: import, list, resolve, verify, mount.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use belljar_image::{
    CancellationToken, Checked, ImageError, ImageEvent, ImageName, ImageStore, ImportOptions, Made, Monitor,
    OWNER_BASE, Origin, Phase, UnpackLimits,
};

/// The tests here pack real images. Without mkfs.erofs they say so, and where CI runs them they fail.
fn can_pack() -> bool {
    let found = std::process::Command::new("mkfs.erofs").arg("--help").output().is_ok();
    if !found {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "mkfs.erofs is missing: apt-get install erofs-utils");
        eprintln!("SKIP: mkfs.erofs is missing: apt-get install erofs-utils");
    }
    found
}

struct Home {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = ImageStore::open(dir.path().join("cache")).expect("opens").with_run_dir(dir.path().join("run"));
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("usr/bin")).expect("makes");
        fs::write(source.join("usr/bin/tool"), "#!/bin/sh\n").expect("writes");
        fs::set_permissions(source.join("usr/bin/tool"), fs::Permissions::from_mode(0o755)).expect("a mode");
        std::os::unix::fs::symlink("usr/bin", source.join("bin")).expect("links");
        Self { dir, store }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("cache/images")
    }

    async fn import(&self, source: &Path, name: &str) -> Result<Made, ImageError> {
        let name = name.parse::<ImageName>().expect("a name");
        let options = ImportOptions { source: source.to_owned(), name, limits: UnpackLimits::default() };
        self.store.import(&options, &Monitor::silent()).await
    }
}

#[tokio::test]
async fn an_imported_directory_is_listed_resolved_and_verified() {
    if !can_pack() {
        return;
    }
    let home = Home::new();
    let made = home.import(&home.source(), "tiny").await.expect("imports");
    assert_eq!((made.reused, made.dropped), (false, 0));
    assert_eq!((made.record.entries, made.record.content_bytes), (4, 10));
    assert_eq!(made.record.owner_base, OWNER_BASE);
    assert_eq!(made.record.origin, Origin::Directory);
    let digest = made.record.digest;

    let listed = home.store.list().expect("lists");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].digest, digest);
    assert_eq!(listed[0].names, ["tiny".parse::<ImageName>().expect("a name")]);
    assert_eq!(listed[0].record.as_ref(), Some(&made.record));

    let hex = digest.hex();
    for text in ["tiny", &hex, &digest.to_string(), &hex[..8], &format!("sha256:{}", &hex[..12])] {
        assert_eq!(home.store.resolve(text).expect(text).digest(), digest);
    }
    for text in ["default", &hex[..7], "", "../images", "ffffffffffff"] {
        assert!(matches!(home.store.resolve(text), Err(ImageError::UnknownImage(ref t)) if t == text), "{text}");
    }

    let image = home.store.resolve("tiny").expect("resolves");
    home.store.verify(&image, &Monitor::silent()).await.expect("is whole");
    assert_eq!(home.store.check(&image, &Monitor::silent()).await.expect("is whole"), Checked::ByStamp);
    // Half-made things are gone.
    assert_eq!(fs::read_dir(home.images()).expect("reads").count(), 3);
    assert_eq!(fs::read_dir(home.dir.path().join("cache/build")).expect("reads").count(), 0);
}

#[tokio::test]
async fn the_same_content_is_the_same_image() {
    if !can_pack() {
        return;
    }
    let home = Home::new();
    let tar = home.dir.path().join("source.tar");
    let mut builder = tar::Builder::new(fs::File::create(&tar).expect("makes"));
    builder.follow_symlinks(false);
    builder.append_dir_all(".", home.source()).expect("packs");
    builder.finish().expect("packs");
    let one = home.import(&tar, "one").await.expect("imports");
    let two = home.import(&tar, "two").await.expect("imports");
    assert_eq!(one.record, two.record);
    assert_eq!(home.store.list().expect("lists").len(), 1);
    assert_eq!(home.store.list().expect("lists")[0].names.len(), 2);

    // A name moves to the image last given it.
    fs::write(home.source().join("more"), "more").expect("writes");
    let three = home.import(&home.source(), "one").await.expect("imports");
    assert_ne!(three.record.digest, one.record.digest);
    assert_eq!(home.store.resolve("one").expect("resolves").digest(), three.record.digest);
    assert_eq!(home.store.resolve("two").expect("resolves").digest(), one.record.digest);
}

#[tokio::test]
async fn a_changed_image_is_never_used() {
    if !can_pack() {
        return;
    }
    let home = Home::new();
    home.import(&home.source(), "tiny").await.expect("imports");
    let image = home.store.resolve("tiny").expect("resolves");
    let file = home.images().join(format!("{}.erofs", image.digest().hex()));
    let silent = Monitor::silent();

    // Touched, but the same: the stamp no longer fits, the bytes do.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(home.store.check(&image, &silent).await.expect("whole"), Checked::ByDigest);
    assert_eq!(home.store.check(&image, &silent).await.expect("whole"), Checked::ByStamp);
    // A stamp that makes no sense costs a full check.
    fs::write(home.images().join(format!("{}.stamp", image.digest().hex())), "{").expect("writes");
    assert_eq!(home.store.check(&image, &silent).await.expect("whole"), Checked::ByDigest);

    // One byte, with size and modification time set back.
    let before = fs::metadata(&file).expect("reads");
    let mut bytes = fs::read(&file).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).expect("writes");
    let modified = before.modified().expect("a time");
    fs::File::options().write(true).open(&file).expect("opens").set_modified(modified).expect("a time");
    for result in [
        home.store.check(&image, &silent).await.map(drop),
        home.store.verify(&image, &silent).await,
        home.store.mount(&image, &silent).await.map(drop),
    ] {
        let Err(ImageError::Damaged { expected, found, path }) = result else { panic!("{result:?}") };
        assert_eq!((expected, found, path), (image.digest(), belljar_image::Digest::of(&bytes), file.clone()));
    }
}

fn mounts_below(dir: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    mounts.lines().filter(|line| line.contains(&*dir.to_string_lossy())).count()
}

#[tokio::test]
async fn a_mounted_image_is_shared_and_let_go() {
    if !can_pack() {
        return;
    }
    let home = Home::new();
    home.import(&home.source(), "tiny").await.expect("imports");
    let image = home.store.resolve("tiny").expect("resolves");
    let silent = Monitor::silent();
    let (one, two) = tokio::join!(home.store.mount(&image, &silent), home.store.mount(&image, &silent));
    let (one, two) = (one.expect("mounts"), two.expect("mounts"));
    assert_eq!((one.path(), one.digest()), (two.path(), image.digest()));
    assert_eq!(fs::read_link(one.path().join("bin")).expect("reads"), Path::new("usr/bin"));
    let tool = fs::metadata(one.path().join("bin/tool")).expect("reads");
    assert_eq!(tool.permissions().mode() & 0o7777, 0o755);
    if let Some(base) = one.owner_base() {
        assert_eq!((base, tool.uid(), tool.gid()), (OWNER_BASE, OWNER_BASE, OWNER_BASE));
    } else {
        assert_eq!(tool.uid(), fs::metadata(home.dir.path()).expect("reads").uid());
    }
    let mounted = mounts_below(home.dir.path());
    if mounted == 0 {
        eprintln!("SKIP of the rest: images are unpacked here, not mounted");
        return;
    }
    assert_eq!(mounted, 1);
    let write = fs::write(one.path().join("usr/bin/tool"), "x").expect_err("read-only");
    assert_eq!(write.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    drop(one);
    assert_eq!(mounts_below(home.dir.path()), 1);
    drop(two);
    assert_eq!(mounts_below(home.dir.path()), 0);
    let again = home.store.mount(&image, &silent).await.expect("mounts");
    assert!(again.path().join("usr").is_dir());
}

#[tokio::test]
async fn who_comes_second_waits_and_can_be_interrupted() {
    let home = Home::new();
    if !can_pack() {
        return;
    }
    let lock = fs::File::create(home.dir.path().join("cache/lock")).expect("makes");
    lock.lock().expect("locks");
    let cancel = CancellationToken::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let (heard, stop) = (events.clone(), cancel.clone());
    let monitor = Monitor::new(
        move |event| {
            heard.lock().expect("not poisoned").push(event);
            stop.cancel();
        },
        cancel,
    );
    let name = "tiny".parse().expect("a name");
    let options = ImportOptions { source: home.source(), name, limits: UnpackLimits::default() };
    let result = home.store.import(&options, &monitor).await;
    assert!(matches!(result, Err(ImageError::Interrupted)), "{result:?}");
    let path = fs::canonicalize(home.dir.path().join("cache/lock")).expect("resolves");
    assert_eq!(*events.lock().expect("not poisoned"), [ImageEvent::Waiting { lock: path }]);
    drop(lock);
    home.import(&home.source(), "tiny").await.expect("imports once the lock is free");
}

#[tokio::test]
async fn an_interrupted_import_leaves_nothing() {
    if !can_pack() {
        return;
    }
    let home = Home::new();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let monitor = Monitor::new(
        move |event| {
            if matches!(event, ImageEvent::Started { phase: Phase::Pack, .. }) {
                stop.cancel();
            }
        },
        cancel,
    );
    let name = "tiny".parse().expect("a name");
    let options = ImportOptions { source: home.source(), name, limits: UnpackLimits::default() };
    let result = home.store.import(&options, &monitor).await;
    assert!(matches!(result, Err(ImageError::Interrupted)), "{result:?}");
    for dir in ["images", "names", "build"] {
        assert_eq!(fs::read_dir(home.dir.path().join("cache").join(dir)).expect("reads").count(), 0, "{dir}");
    }
}

#[test]
fn a_cache_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    let error = ImageStore::open(dir.path()).expect_err("refused");
    assert!(matches!(error, ImageError::CacheNotOurs { mode: 0o777, .. }), "{error:?}");
}
