//! A disk that is full: refused by name, nothing left behind, nothing lost.

use crate::fixture::{
    Fixture, StillClock, data_dir, draft, file_id, files_under, get, noise, put, workspace,
};
use belljar_store::{Clock, Store, StoreError, StoreOptions};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        mount(
            "none",
            path,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=2m,mode=700"),
        )
        .unwrap();
        Some(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn is_disk_full(error: &StoreError) -> bool {
    matches!(error, StoreError::DiskFull { .. })
}

async fn open(path: &Path, clock: &Arc<StillClock>) -> Store {
    Store::open(path, StoreOptions::new(Arc::clone(clock) as Arc<dyn Clock>))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&data_dir(&dir)) else {
        return;
    };
    let clock = crate::fixture::still_clock();
    let store = open(&disk.0, &clock).await;
    let local = workspace("local");
    let first = put(&store, draft(&file_id(1)), noise(1, 50_000))
        .await
        .unwrap();
    let blobs_before = files_under(&disk.0.join("blobs"));

    let error = put(&store, draft(&file_id(2)), noise(2, 3 << 20))
        .await
        .unwrap_err();
    assert!(is_disk_full(&error), "{error}");
    assert_eq!(
        error.client_text(),
        "The server has no space left to store files."
    );
    assert_eq!(files_under(&disk.0.join("blobs")), blobs_before);

    // Small uploads fill the rest; the last ones fail in the content, or in the database's log.
    let mut kept = vec![(first.id, noise(1, 50_000))];
    for seed in 10.. {
        let content = noise(seed, 10_000);
        match put(&store, draft(&file_id(seed)), content.clone()).await {
            Ok(record) => kept.push((record.id, content)),
            Err(error) => {
                assert!(is_disk_full(&error), "{error}");
                break;
            }
        }
    }
    // With not one byte left.
    let filler = disk.0.join("filler");
    drop(std::fs::write(&filler, vec![1; 4 << 20]));
    for seed in 1000..1003 {
        let error = put(&store, draft(&file_id(seed)), noise(seed, 1))
            .await
            .unwrap_err();
        assert!(is_disk_full(&error), "{error}");
    }
    assert_eq!(files_under(&disk.0.join("blobs")).len(), kept.len());
    for (id, content) in &kept {
        assert_eq!(
            get(&store, &local, id).await.as_ref(),
            Some(&content.to_vec())
        );
    }

    std::fs::remove_file(&filler).unwrap();
    let (id, content) = kept.pop().unwrap();
    assert!(store.delete_file(&local, &id).await.unwrap());
    put(&store, draft(&file_id(2000)), content).await.unwrap();
    drop(store);

    let store = open(&disk.0, &clock).await;
    for (id, content) in &kept {
        assert_eq!(
            get(&store, &local, id).await.as_ref(),
            Some(&content.to_vec())
        );
    }
    assert_eq!(files_under(&disk.0.join("blobs")).len(), kept.len() + 1);
}

#[tokio::test]
async fn a_commit_that_finds_no_space_takes_its_content_back() {
    let fixture = Fixture::new().await;
    let path = data_dir(&fixture.dir);
    put(&fixture.store, draft(&file_id(1)), noise(1, 10))
        .await
        .unwrap();
    let before = fixture.blobs();
    // SQLite answers SQLITE_FULL at this page count as it does when the disk is full.
    drop(fixture.store);
    let clock = Arc::clone(&fixture.clock);
    let connection = rusqlite::Connection::open(path.join("belljar.sqlite")).unwrap();
    // A trigger stands in for the disk: it fails in the middle of the change, after the blob was placed.
    connection
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON files WHEN new.filename = 'sales.csv' BEGIN
               SELECT raise(ABORT, 'refused'); END",
        )
        .unwrap();
    drop(connection);
    let store = open(&path, &clock).await;
    let error = put(&store, draft(&file_id(2)), noise(2, 10))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert_eq!(
        store.file(&workspace("local"), &file_id(2)).await.unwrap(),
        None
    );
    assert_eq!(
        files_under(&path.join("blobs")).len(),
        before.len() + 1,
        "left for the next opening"
    );
    drop(store);
    let store = open(&path, &clock).await;
    assert_eq!(files_under(&path.join("blobs")), before);
    drop(store);
}
