//! A disk that is full: refused by name, nothing left behind, nothing lost.

use crate::fixture::{Fixture, Place, data_dir, draft, file_id, files_under, get, noise, put, workspace};
use belljar_ids::FileId;
use belljar_store::{Store, StoreError, StoreOptions};
use bytes::Bytes;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A small filesystem in memory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, loudly, where mounting is not allowed.
    fn mount(path: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP: mounting a small disk needs root");
            return None;
        }
        std::fs::create_dir(path).unwrap();
        mount("none", path, "tmpfs", MountFlags::empty(), Some(c"size=8m,mode=700")).unwrap();
        Some(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

async fn open(path: &Path, disk_free_bytes_min: u64) -> Store {
    let options = StoreOptions { disk_free_bytes_min, ..StoreOptions::new(crate::fixture::still_clock()) };
    Store::open(path, options).await.unwrap()
}

fn room(error: &StoreError) -> &'static str {
    match error {
        StoreError::DiskFull { doing } => doing,
        other => panic!("not a full disk: {other}"),
    }
}

fn blobs(disk: &SmallDisk) -> Vec<PathBuf> {
    files_under(&disk.0.join("blobs"))
}

async fn assert_all_there(store: &Store, kept: &[(FileId, Bytes)]) {
    for (id, content) in kept {
        assert_eq!(get(store, &workspace("local"), id).await.as_deref(), Some(content.as_ref()));
    }
}

/// Uploads until there is no room; answers what was kept and what the first refusal was doing.
async fn fill(store: &Store, bytes: usize) -> (Vec<(FileId, Bytes)>, &'static str) {
    let mut kept = Vec::new();
    for seed in 0.. {
        let content = noise(seed, bytes);
        match put(store, draft(&file_id(seed)), content.clone()).await {
            Ok(record) => kept.push((record.id, content)),
            Err(error) => return (kept, room(&error)),
        }
    }
    unreachable!("the disk is small")
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_still_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&data_dir(&dir)) else {
        return;
    };
    let store = open(&disk.0, 1024 * 1024).await;

    let error = put(&store, draft(&file_id(9999)), noise(2, 9 << 20)).await.unwrap_err();
    assert_eq!(room(&error), "looking for room for a file's content");
    assert_eq!(error.client_text(), "The server has no space left to store files.");
    assert_eq!(blobs(&disk).len(), 0);

    let (mut kept, doing) = fill(&store, 200_000).await;
    assert_eq!(doing, "looking for room for a file's content");
    assert!(kept.len() > 10, "{}", kept.len());
    assert_eq!(blobs(&disk).len(), kept.len());
    for (id, _) in kept.split_off(kept.len() - 10) {
        assert!(store.delete_file(&workspace("local"), &id).await.unwrap());
    }
    assert_all_there(&store, &kept).await;
    let again = noise(7777, 200_000);
    let record = put(&store, draft(&file_id(7777)), again.clone()).await.unwrap();
    kept.push((record.id, again));
    drop(store);

    let store = open(&disk.0, 1024 * 1024).await;
    assert_all_there(&store, &kept).await;
    assert_eq!(blobs(&disk).len(), kept.len());
}

#[tokio::test]
async fn without_any_reserve_nothing_is_lost_either() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&data_dir(&dir)) else {
        return;
    };
    let store = open(&disk.0, 0).await;
    let (kept, _) = fill(&store, 10_000).await;
    assert!(kept.len() > 10, "{}", kept.len());
    assert_eq!(blobs(&disk).len(), kept.len());

    // Not one byte left: the content has no room.
    let filler = disk.0.join("filler");
    let refused = std::fs::write(&filler, vec![1; 9 << 20]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    let error = put(&store, draft(&file_id(9999)), noise(9999, 1)).await.unwrap_err();
    assert_eq!(room(&error), "looking for room for a file's content");

    drop(store);
    std::fs::remove_file(&filler).unwrap();
    let store = open(&disk.0, 0).await;
    assert_all_there(&store, &kept).await;
    assert_eq!(blobs(&disk).len(), kept.len());
}

#[tokio::test]
async fn a_commit_without_room_takes_its_content_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&data_dir(&dir)) else {
        return;
    };
    let store = open(&disk.0, 0).await;
    let content = noise(1, 10);
    let record = put(&store, draft(&file_id(1)), content.clone()).await.unwrap();
    let before = blobs(&disk);

    // Two pages of room: one for the content, fewer than its row needs in the log.
    let filler = std::fs::File::create(disk.0.join("filler")).unwrap();
    let mut filled = 0;
    while let Ok(count) = (&filler).write(&[1; 4096]) {
        filled += count as u64;
    }
    filler.set_len(filled - 2 * 4096).unwrap();
    for seed in 100..103 {
        let error = put(&store, draft(&file_id(seed)), noise(seed, 10)).await.unwrap_err();
        assert_eq!(room(&error), "using the database");
        assert_eq!(blobs(&disk), before);
        assert_eq!(store.file(&record.workspace, &file_id(seed)).await.unwrap(), None);
    }
    filler.set_len(0).unwrap();
    put(&store, draft(&file_id(100)), noise(100, 10)).await.unwrap();
    assert_all_there(&store, &[(record.id, content)]).await;
}

#[tokio::test]
async fn a_change_that_fails_for_unknown_reasons_is_judged_at_the_next_opening() {
    let fixture = Fixture::new().await;
    let path = data_dir(&fixture.dir);
    put(&fixture.store, draft(&file_id(1)), noise(1, 10)).await.unwrap();
    let before = fixture.blobs().await;
    // Fails in the middle of the change, after the content was placed.
    let refuse = match &fixture.place {
        Place::Here => "CREATE TRIGGER refuse BEFORE INSERT ON files BEGIN SELECT raise(ABORT, 'refused'); END",
        Place::Elsewhere(_) => {
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON files FOR EACH ROW EXECUTE FUNCTION refuse()"
        }
    };
    fixture.place.sql(&path, refuse).await;
    let error = put(&fixture.store, draft(&file_id(2)), noise(2, 10)).await.unwrap_err();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert_eq!(fixture.store.file(&workspace("local"), &file_id(2)).await.unwrap(), None);
    assert_eq!(fixture.blobs().await.len(), before.len() + 1);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.blobs().await, before);
}
