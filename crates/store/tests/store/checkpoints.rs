//! Checkpoints: all of one or the former one, and nothing without a container.

use crate::fixture::{Fixture, NOON_US, draft, file_id, noise, put, workspace};
use belljar_ids::{ContainerId, SeededIds};
use belljar_store::{CheckpointDraft, CheckpointRecord, ContainerRecord, KeyIsolation, Store, StoreError, Timestamp};
use bytes::Bytes;
use std::io::Write as _;
use tokio::io::AsyncReadExt as _;

const ROOM: u64 = 1 << 20;

pub async fn container(store: &Store, seed: u64) -> ContainerId {
    let record = ContainerRecord {
        id: ContainerId::mint(&mut SeededIds::new(seed)),
        workspace: workspace("local"),
        created_at: Timestamp::from_micros(NOON_US).unwrap(),
        expires_at: Timestamp::from_micros(NOON_US + 1).unwrap(),
    };
    store.record_container(record.clone()).await.unwrap();
    record.id
}

pub fn checkpoint(container: &ContainerId) -> CheckpointDraft {
    CheckpointDraft {
        workspace: workspace("local"),
        container: container.clone(),
        image: "sha256:one".to_owned(),
        isolation: KeyIsolation::Gvisor,
    }
}

pub async fn keep(store: &Store, container: &ContainerId, content: Bytes) -> Result<CheckpointRecord, StoreError> {
    let mut writer = store.begin_checkpoint(checkpoint(container), ROOM).await?;
    for chunk in content.chunks(1000) {
        writer.write(content.slice_ref(chunk)).await?;
    }
    writer.finish().await
}

pub async fn read(store: &Store, container: &ContainerId) -> Option<Bytes> {
    let (_, mut file) = store.open_checkpoint(&workspace("local"), container).await.unwrap()?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).await.unwrap();
    Some(content.into())
}

#[tokio::test]
async fn the_latest_one_is_kept_and_survives_a_reopening() {
    let fixture = Fixture::new().await;
    let id = container(&fixture.store, 1).await;
    assert_eq!(read(&fixture.store, &id).await, None);
    keep(&fixture.store, &id, noise(1, 5000)).await.unwrap();
    let second = keep(&fixture.store, &id, noise(2, 7000)).await.unwrap();
    assert_eq!((second.size_bytes, second.made_at, second.image.as_str()), (7000, fixture.now(), "sha256:one"));
    assert_eq!(fixture.blobs().await.len(), 1, "the first one's content is gone");
    let fixture = fixture.reopened().await;
    assert_eq!(read(&fixture.store, &id).await, Some(noise(2, 7000)));
    assert_eq!(fixture.store.checkpoint(&workspace("local"), &id).await.unwrap(), Some(second));
    assert_eq!(fixture.store.checkpoint(&workspace("other"), &id).await.unwrap(), None);
    assert!(fixture.store.open_checkpoint(&workspace("other"), &id).await.unwrap().is_none());
}

#[tokio::test]
async fn one_that_was_not_finished_leaves_the_former_one() {
    let fixture = Fixture::new().await;
    let id = container(&fixture.store, 1).await;
    keep(&fixture.store, &id, noise(1, 5000)).await.unwrap();
    let mut abandoned = fixture.store.begin_checkpoint(checkpoint(&id), ROOM).await.unwrap();
    abandoned.write(noise(2, 5000)).await.unwrap();
    drop(abandoned);
    let too_large = keep(&fixture.store, &id, noise(3, usize::try_from(ROOM).unwrap() + 1)).await;
    assert!(matches!(too_large, Err(StoreError::TooLarge { bytes_max: ROOM })));
    assert_eq!(read(&fixture.store, &id).await, Some(noise(1, 5000)));
    assert_eq!(fixture.blobs().await.len(), 1);
}

#[tokio::test]
async fn it_goes_with_its_container_but_not_with_a_file_of_the_same_content() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let (one, other) = (container(store, 1).await, container(store, 2).await);
    let content = noise(1, 5000);
    put(store, draft(&file_id(9)), content.clone()).await.unwrap();
    keep(store, &one, content.clone()).await.unwrap();
    keep(store, &other, content.clone()).await.unwrap();
    assert_eq!(fixture.blobs().await.len(), 1);
    assert!(store.delete_container(&local, &one).await.unwrap());
    assert_eq!(read(store, &one).await, None);
    assert!(store.delete_file(&local, &file_id(9)).await.unwrap());
    assert_eq!(read(store, &other).await, Some(content));
    assert!(store.delete_checkpoint(&local, &other).await.unwrap());
    assert!(!store.delete_checkpoint(&local, &other).await.unwrap());
    assert_eq!(fixture.blobs().await.len(), 0);
    let unknown = keep(store, &one, noise(3, 10)).await;
    assert!(matches!(unknown, Err(StoreError::NoContainer { id }) if id == one.as_str()));
    assert_eq!(fixture.blobs().await.len(), 0, "a checkpoint of nothing leaves nothing");
}

#[tokio::test]
async fn a_damaged_one_is_not_handed_out() {
    let fixture = Fixture::new().await;
    let id = container(&fixture.store, 1).await;
    keep(&fixture.store, &id, noise(1, 5000)).await.unwrap();
    let blob = fixture.blobs().await.pop().unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&blob).unwrap();
    file.write_all(b"rolled back").unwrap();
    let damaged = fixture.store.open_checkpoint(&workspace("local"), &id).await;
    assert!(matches!(damaged, Err(StoreError::Corrupt { .. })));
    std::fs::remove_file(&blob).unwrap();
    let missing = fixture.store.open_checkpoint(&workspace("local"), &id).await;
    assert!(matches!(missing, Err(StoreError::Corrupt { .. })));
}
