//! Checkpoints with an id: one content under many rows, and gone with the last.

use crate::checkpoints::{checkpoint, container, keep, read};
use crate::fixture::{Fixture, NOON_US, draft, file_id, noise, put, workspace};
use belljar_ids::{CheckpointId, ContainerId, SeededIds};
use belljar_store::{
    CheckpointDraft, ContainerRecord, FileQuota, KeyIsolation, NamedCheckpoint, Store, StoreError, Timestamp, UserId,
};
use std::io::Write as _;

const ROOM: u64 = 1 << 20;

fn name(seed: u64) -> CheckpointId {
    CheckpointId::mint(&mut SeededIds::new(seed))
}

async fn keep_named(store: &Store, of: &ContainerId, seed: u64) -> Result<NamedCheckpoint, StoreError> {
    let mut writer = store.begin_checkpoint(checkpoint(of), ROOM).await?;
    writer.write(noise(seed, 5000)).await?;
    writer.finish_named(name(seed)).await
}

fn record(seed: u64, of: &str) -> ContainerRecord {
    ContainerRecord {
        id: ContainerId::mint(&mut SeededIds::new(seed)),
        workspace: workspace(of),
        created_at: Timestamp::from_micros(NOON_US).unwrap(),
        expires_at: Timestamp::from_micros(NOON_US + 1).unwrap(),
    }
}

#[tokio::test]
async fn several_are_kept_and_survive_a_reopening() {
    let fixture = Fixture::new().await;
    let (id, local) = (container(&fixture.store, 1).await, workspace("local"));
    let mut made = Vec::new();
    for seed in 1..=3 {
        made.push(keep_named(&fixture.store, &id, seed).await.unwrap());
    }
    assert_eq!(fixture.store.workspace_bytes(&local).await.unwrap(), 15_000);
    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    let first = store.list_named_checkpoints(&local, &id, None, 2).await.unwrap();
    made.reverse();
    assert_eq!((first.entries.as_slice(), first.has_more), (&made[..2], true));
    let second = store.list_named_checkpoints(&local, &id, first.next, 2).await.unwrap();
    assert_eq!((second.entries.as_slice(), second.next), (&made[2..], None));
    assert_eq!(store.named_checkpoint(&workspace("other"), &id, &name(1)).await.unwrap(), None);
    assert_eq!(read(store, &id).await, None, "it is not kept by being named");
}

#[tokio::test]
async fn rows_share_a_content_and_the_last_one_takes_it_along() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let id = container(store, 1).await;
    keep_named(store, &id, 7).await.unwrap();
    assert!(store.keep_named_checkpoint(&local, &id, &name(7)).await.unwrap().is_some());
    assert_eq!(read(store, &id).await, Some(noise(7, 5000)));
    let again = store.name_checkpoint(&local, &id, name(8)).await.unwrap().unwrap();
    let (of_named, of_kept) = (record(2, "local"), record(3, "local"));
    assert!(store.fork_kept(&id, Some(&name(7)), of_named.clone()).await.unwrap().is_some());
    assert!(store.fork_kept(&id, None, of_kept.clone()).await.unwrap().is_some());
    assert_eq!(fixture.blobs().await.len(), 1);
    assert!(store.delete_named_checkpoint(&local, &id, &name(7)).await.unwrap());
    assert!(!store.delete_named_checkpoint(&local, &id, &name(7)).await.unwrap());
    assert_eq!(store.workspace_bytes(&local).await.unwrap(), again.record.size_bytes);
    // The container takes the other one along, and what was made from it stays.
    assert!(store.delete_container(&local, &id).await.unwrap());
    assert_eq!(store.workspace_bytes(&local).await.unwrap(), 0);
    assert_eq!(read(store, &of_named.id).await, Some(noise(7, 5000)));
    assert!(store.delete_container(&local, &of_named.id).await.unwrap());
    assert_eq!(read(store, &of_kept.id).await, Some(noise(7, 5000)));
    assert!(store.delete_container(&local, &of_kept.id).await.unwrap());
    assert_eq!(fixture.blobs().await.len(), 0);
}

#[tokio::test]
async fn nothing_is_made_of_what_is_not_there() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let id = container(store, 1).await;
    assert_eq!(store.name_checkpoint(&local, &id, name(1)).await.unwrap(), None);
    assert_eq!(store.keep_named_checkpoint(&local, &id, &name(1)).await.unwrap(), None);
    for (checkpoint, of) in [(None, "local"), (Some(name(1)), "local")] {
        let fork = record(2, of);
        assert_eq!(store.fork_kept(&id, checkpoint.as_ref(), fork.clone()).await.unwrap(), None);
        assert_eq!(store.container(&local, &fork.id).await.unwrap(), None);
    }
    keep_named(store, &id, 1).await.unwrap();
    let foreign = record(3, "other");
    assert_eq!(store.fork_kept(&id, Some(&name(1)), foreign).await.unwrap(), None);
    assert!(store.delete_container(&local, &id).await.unwrap());
    let gone = keep_named(store, &id, 2).await;
    assert!(matches!(gone, Err(StoreError::NoContainer { .. })));
    assert_eq!(fixture.blobs().await.len(), 0);
}

#[tokio::test]
async fn a_workspace_has_so_much_room_for_them() {
    let fixture = Fixture::with(|options| options.file_quota.bytes_max = 12_000).await;
    let (store, local) = (&fixture.store, workspace("local"));
    let id = container(store, 1).await;
    keep_named(store, &id, 1).await.unwrap();
    keep_named(store, &id, 2).await.unwrap();
    assert!(matches!(keep_named(store, &id, 3).await, Err(StoreError::QuotaExceeded { bytes_max: 12_000 })));
    assert_eq!(fixture.blobs().await.len(), 2, "nothing is left of the third");
    assert!(store.delete_named_checkpoint(&local, &id, &name(1)).await.unwrap());
    keep_named(store, &id, 3).await.unwrap();
}

#[tokio::test]
async fn those_of_end_users_fill_the_room_of_their_workspace_and_are_no_files() {
    let quota = FileQuota { bytes_max: 12_000, files_max: Some(1) };
    let fixture = Fixture::with(|options| options.file_quotas = [(workspace("local"), quota)].into()).await;
    let (store, whole) = (&fixture.store, workspace("local"));
    let mut owners = Vec::new();
    for (seed, name) in [(1, "ann"), (2, "bob")] {
        let user: UserId = name.parse().unwrap();
        let of = ContainerRecord { workspace: whole.scope_of(&user), ..record(seed, "local") };
        store.enter_scope(&of.workspace, &user).await.unwrap();
        store.record_container(of.clone()).await.unwrap();
        owners.push(of);
    }
    let keep_named = async |of: &ContainerRecord, seed| {
        let draft = CheckpointDraft { workspace: of.workspace.clone(), ..checkpoint(&of.id) };
        let mut writer = store.begin_checkpoint(draft, ROOM).await?;
        writer.write(noise(seed, 5000)).await?;
        writer.finish_named(name(seed)).await
    };
    let [ann, bob] = owners.as_slice() else { unreachable!() };
    keep_named(ann, 1).await.unwrap();
    keep_named(bob, 2).await.unwrap();
    assert!(matches!(keep_named(bob, 3).await, Err(StoreError::QuotaExceeded { bytes_max: 12_000 })));
    assert_eq!(store.workspace_bytes(&whole).await.unwrap(), 10_000);
    put(store, draft(&file_id(9)), noise(9, 2000)).await.unwrap();
    assert!(store.delete_container(&ann.workspace, &ann.id).await.unwrap());
    assert_eq!(store.workspace_bytes(&bob.workspace).await.unwrap(), 7000);
    let summed: u64 = store.holdings().await.unwrap().iter().map(|held| held.bytes).sum();
    assert_eq!(summed, 7000);
    keep_named(bob, 3).await.unwrap();
}

#[tokio::test]
async fn one_that_is_imported_is_a_container_or_nothing() {
    let fixture = Fixture::new().await;
    let (store, new) = (&fixture.store, record(5, "local"));
    let write = async || {
        let mut writer = store.begin_checkpoint(checkpoint(&new.id), ROOM).await.unwrap();
        writer.write(noise(5, 5000)).await.unwrap();
        writer
    };
    drop(write().await);
    assert_eq!((store.container(&new.workspace, &new.id).await.unwrap(), fixture.blobs().await.len()), (None, 0));
    write().await.finish_new(new.clone(), KeyIsolation::Namespaces).await.unwrap();
    assert_eq!(read(store, &new.id).await, Some(noise(5, 5000)));
    let twice = write().await.finish_new(new.clone(), KeyIsolation::Namespaces).await;
    assert!(matches!(twice, Err(StoreError::IdTaken { .. })));
    assert_eq!(read(store, &new.id).await, Some(noise(5, 5000)), "the first one's content is there");
}

#[tokio::test]
async fn a_damaged_one_is_found_out_before_it_is_gone_back_to() {
    let fixture = Fixture::new().await;
    let id = container(&fixture.store, 1).await;
    keep(&fixture.store, &id, noise(1, 100)).await.unwrap();
    keep_named(&fixture.store, &id, 2).await.unwrap();
    let largest = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    let blob = fixture.blobs().await.into_iter().max_by_key(largest).unwrap();
    std::fs::OpenOptions::new().write(true).open(&blob).unwrap().write_all(b"rolled back").unwrap();
    let damaged = fixture.store.check_named_checkpoint(&workspace("local"), &id, &name(2)).await;
    assert!(matches!(damaged, Err(StoreError::Corrupt { .. })));
}
