//! Identical contents are kept once, and as long as somebody refers to them.

use crate::fixture::{Fixture, Place, data_dir, draft, file_id, get, noise, put, workspace};
use belljar_store::{Content, ContentDigest, StoreError};
use bytes::Bytes;
use std::path::PathBuf;
use tokio::io::AsyncReadExt as _;

/// The file that holds the one content there is.
async fn the_blob(fixture: &Fixture, content: &[u8]) -> PathBuf {
    let blobs = fixture.blobs().await;
    let [blob] = blobs.as_slice() else { panic!("{blobs:?}") };
    assert_eq!(std::fs::read(blob).unwrap(), content);
    if let Place::Here = fixture.place {
        let digest = ContentDigest::of(content).to_string();
        assert_eq!(*blob, data_dir(&fixture.dir).join("blobs").join(&digest[..2]).join(&digest[2..]));
    }
    blob.clone()
}

#[tokio::test]
async fn the_last_reference_takes_the_content_with_it() {
    let fixture = Fixture::new().await;
    let (store, local, other) = (&fixture.store, workspace("local"), workspace("other"));
    let content = noise(1, 4096);
    put(store, draft(&file_id(1)), content.clone()).await.unwrap();
    let mut theirs = draft(&file_id(2));
    theirs.workspace = other.clone();
    put(store, theirs, content.clone()).await.unwrap();
    the_blob(&fixture, &content).await;

    assert!(store.delete_file(&local, &file_id(1)).await.unwrap());
    assert!(!store.delete_file(&local, &file_id(1)).await.unwrap());
    assert_eq!(get(store, &other, &file_id(2)).await.unwrap(), content);
    assert!(store.delete_file(&other, &file_id(2)).await.unwrap());
    assert_eq!(fixture.blobs().await.len(), 0);
}

#[tokio::test]
async fn a_download_under_way_outlives_the_file() {
    let fixture = Fixture::new().await;
    let content = noise(1, 1 << 20);
    let record = put(&fixture.store, draft(&file_id(1)), content.clone()).await.unwrap();
    let opened = fixture.store.open_content(&record.workspace, &record.id).await.unwrap();
    let Some(Content::Open { mut file, .. }) = opened else { panic!("{opened:?}") };
    fixture.store.delete_file(&record.workspace, &record.id).await.unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, content.as_ref());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_and_deletions_of_one_content_do_not_disturb_each_other() {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 25;
    let fixture = Fixture::new().await;
    let contents = [noise(1, 5000), noise(2, 50)];
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, contents) = (fixture.store.clone(), contents.clone());
        tasks.spawn(async move {
            let local = workspace("local");
            for round in 0..ROUNDS {
                let id = file_id(task * ROUNDS + round);
                let content: &Bytes = &contents[usize::from(round % 3 == 0)];
                put(&store, draft(&id), content.clone()).await.unwrap();
                assert_eq!(get(&store, &local, &id).await.as_deref(), Some(content.as_ref()));
                // Another task's newest file: either not there, or whole.
                let neighbour = file_id(((task + 1) % TASKS) * ROUNDS + round);
                if let Some(read) = get(&store, &local, &neighbour).await {
                    assert_eq!(read, content.as_ref());
                }
                assert!(store.delete_file(&local, &id).await.unwrap());
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(fixture.blobs().await.len(), 0);
    assert_eq!(fixture.store.workspace_bytes(&workspace("local")).await.unwrap(), 0);
}

#[tokio::test]
async fn damage_is_reported_and_the_next_upload_mends_it() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let content = noise(1, 1000);
    put(store, draft(&file_id(1)), content.clone()).await.unwrap();
    let path = the_blob(&fixture, &content).await;
    let digest = ContentDigest::of(&content);

    let corrupt = |error: StoreError| match error {
        StoreError::Corrupt { what } => what,
        other => panic!("{other}"),
    };
    let flipped: Vec<u8> = content.iter().map(|byte| !byte).collect();
    std::fs::write(&path, &flipped).unwrap();
    let error = store.check_content(&local, &file_id(1)).await.unwrap_err();
    assert_eq!(error.client_text(), "Internal server error");
    let found = ContentDigest::of(&flipped);
    assert_eq!(corrupt(error), format!("blob {digest} holds content with digest {found}"));

    std::fs::write(&path, &content[..999]).unwrap();
    let error = store.open_content(&local, &file_id(1)).await.unwrap_err();
    assert_eq!(corrupt(error), format!("blob {digest} has 999 bytes instead of 1000"));

    std::fs::remove_file(&path).unwrap();
    let error = store.open_content(&local, &file_id(1)).await.unwrap_err();
    assert_eq!(corrupt(error), format!("blob {digest} is missing"));

    put(store, draft(&file_id(2)), content.clone()).await.unwrap();
    assert_eq!(get(store, &local, &file_id(1)).await.unwrap(), content);
    assert!(store.check_content(&local, &file_id(1)).await.unwrap());
}
