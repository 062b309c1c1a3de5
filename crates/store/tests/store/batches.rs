//! Batches of requests and what each of them came to.

use crate::fixture::{Fixture, data_dir, workspace};
use belljar_ids::{BatchId, SeededIds};
use belljar_store::{
    BATCH_ITEMS_WAITING_MAX, BATCH_RESULTS_KEPT, BatchClosing, BatchCounts, BatchDraft, BatchItemDraft, BatchOutcome,
    BatchQuery, BatchRecord, KeyIsolation, Store, StoreError,
};
use bytes::Bytes;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

fn batch_id(seed: u64) -> BatchId {
    BatchId::mint(&mut SeededIds::new(seed))
}

fn draft(fixture: &Fixture, seed: u64, items: usize) -> BatchDraft {
    let item = |number: usize| BatchItemDraft {
        custom_id: format!("item-{number}"),
        params: Bytes::from(format!("{{\"n\":{number}}}")),
    };
    BatchDraft {
        id: batch_id(seed),
        workspace: workspace("local"),
        asked: "{}".to_owned(),
        isolation: Some(KeyIsolation::Gvisor),
        expires_at: fixture.now().saturating_add(DAY),
        items: (0..items).map(item).collect(),
    }
}

async fn made(fixture: &Fixture, seed: u64, items: usize) -> BatchRecord {
    fixture.store.create_batch(draft(fixture, seed, items)).await.unwrap()
}

async fn finish(store: &Store, id: &BatchId, position: u32, outcome: BatchOutcome) -> Option<BatchRecord> {
    store.finish_batch_item(id, position, outcome).await.unwrap()
}

fn said(text: &str) -> BatchOutcome {
    BatchOutcome::Succeeded(text.to_owned())
}

#[tokio::test]
async fn a_batch_ends_with_its_last_request() {
    let fixture = Fixture::new().await;
    let batch = made(&fixture, 1, 3).await;
    assert_eq!((batch.items, batch.ended_at, batch.counts), (3, None, BatchCounts::default()));
    assert_eq!(batch.isolation, Some(KeyIsolation::Gvisor));

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    assert_eq!(store.open_batches().await.unwrap(), std::slice::from_ref(&batch));
    let first = store.next_batch_item(&batch.id, None).await.unwrap().unwrap();
    assert_eq!((first.position, first.params.as_ref()), (0, b"{\"n\":0}".as_slice()));
    let second = store.next_batch_item(&batch.id, Some(0)).await.unwrap().unwrap();
    assert_eq!(second.position, 1);
    assert_eq!(store.next_batch_item(&batch.id, Some(2)).await.unwrap(), None);

    let after = finish(store, &batch.id, 1, said("{\"one\"}")).await.unwrap();
    assert_eq!((after.ended_at, after.counts.succeeded), (None, 1));
    assert_eq!(finish(store, &batch.id, 1, said("twice")).await, None, "a request comes to something once");
    assert_eq!(store.next_batch_item(&batch.id, Some(0)).await.unwrap().unwrap().position, 2);
    finish(store, &batch.id, 0, BatchOutcome::Errored("{}".to_owned())).await.unwrap();
    fixture.clock.advance(Duration::from_secs(9));
    let ended = finish(store, &batch.id, 2, BatchOutcome::Canceled).await.unwrap();
    assert_eq!(ended.ended_at, Some(fixture.now()));
    assert_eq!(ended.counts, BatchCounts { succeeded: 1, errored: 1, canceled: 1, expired: 0 });
    assert_eq!(store.open_batches().await.unwrap(), []);

    let told = store.batch_results(&batch.id, None, usize::MAX).await.unwrap();
    let told: Vec<_> = told.into_iter().map(|result| (result.position, result.custom_id, result.outcome)).collect();
    let expected = [
        (0, "item-0".to_owned(), BatchOutcome::Errored("{}".to_owned())),
        (1, "item-1".to_owned(), said("{\"one\"}")),
        (2, "item-2".to_owned(), BatchOutcome::Canceled),
    ];
    assert_eq!(told, expected);
    let one = store.batch_results(&batch.id, Some(0), 1).await.unwrap();
    assert_eq!(one.iter().map(|result| result.position).collect::<Vec<_>>(), [1], "at least one, however large");
}

#[tokio::test]
async fn a_deleted_batch_still_marks_its_place_for_a_day() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let [old, anchor, new] = [made(&fixture, 1, 1).await, made(&fixture, 2, 1).await, made(&fixture, 3, 1).await];
    finish(store, &anchor.id, 0, said("{}")).await.unwrap();
    assert!(store.delete_batch(&local, &anchor.id).await.unwrap());
    let listed = async |query| {
        let page = store.list_batches(&local, query, 9).await?;
        Ok::<_, StoreError>(page.entries.into_iter().map(|batch| batch.id).collect::<Vec<_>>())
    };
    assert_eq!(listed(BatchQuery::OlderThan(anchor.id.clone())).await.unwrap(), [old.id]);
    assert_eq!(listed(BatchQuery::NewerThan(anchor.id.clone())).await.unwrap(), [new.id]);
    let stranger = store.list_batches(&workspace("other"), BatchQuery::OlderThan(anchor.id.clone()), 9).await;
    assert!(matches!(stranger, Err(StoreError::AnchorNotFound { id, .. }) if id == anchor.id.as_str()));

    fixture.clock.advance(Duration::from_secs(24 * 3600));
    store.sweep().await.unwrap();
    let forgotten = listed(BatchQuery::OlderThan(anchor.id.clone())).await;
    assert!(matches!(forgotten, Err(StoreError::AnchorNotFound { id, .. }) if id == anchor.id.as_str()));
}

#[tokio::test]
async fn batches_belong_to_their_workspace() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (local, other) = (workspace("local"), workspace("other"));
    let batch = made(&fixture, 1, 1).await;
    assert_eq!(store.batch(&local, &batch.id).await.unwrap(), Some(batch.clone()));
    assert_eq!(store.batch(&other, &batch.id).await.unwrap(), None);
    assert_eq!(store.cancel_batch(&other, &batch.id).await.unwrap(), None);
    assert_eq!(store.list_batches(&other, BatchQuery::Newest, 9).await.unwrap().entries, []);
    let beside = store.list_batches(&other, BatchQuery::OlderThan(batch.id.clone()), 9).await.unwrap_err();
    assert!(matches!(beside, StoreError::AnchorNotFound { id, .. } if id == batch.id.as_str()));
    assert!(!store.delete_batch(&local, &batch.id).await.unwrap(), "it has not ended");
    finish(store, &batch.id, 0, said("{}")).await.unwrap();
    assert!(!store.delete_batch(&other, &batch.id).await.unwrap());
    assert!(store.delete_batch(&local, &batch.id).await.unwrap());
    assert_eq!(store.batch(&local, &batch.id).await.unwrap(), None);
    assert_eq!(store.batch_results(&batch.id, None, usize::MAX).await.unwrap(), []);
}

#[tokio::test]
async fn what_has_not_run_is_canceled_or_expires() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    // More than one step of a change.
    let canceled = made(&fixture, 1, 4_500).await;
    finish(store, &canceled.id, 7, said("{}")).await.unwrap();
    let noted = store.cancel_batch(&workspace("local"), &canceled.id).await.unwrap().unwrap();
    assert_eq!((noted.cancel_initiated_at, noted.ended_at), (Some(fixture.now()), None));
    let (asked_at, _) = (fixture.now(), fixture.clock.advance(Duration::from_secs(1)));
    let again = store.cancel_batch(&workspace("local"), &canceled.id).await.unwrap().unwrap();
    assert_eq!(again.cancel_initiated_at, Some(asked_at), "the first time counts");
    let ended = store.close_batch(&canceled.id, BatchClosing::Canceled).await.unwrap();
    assert_eq!(ended.counts, BatchCounts { succeeded: 1, canceled: 4_499, ..BatchCounts::default() });
    assert_eq!(ended.ended_at, Some(fixture.now()));

    let expired = made(&fixture, 2, 2).await;
    let ended = store.close_batch(&expired.id, BatchClosing::Expired).await.unwrap();
    assert_eq!(ended.counts, BatchCounts { expired: 2, ..BatchCounts::default() });
    let after = store.cancel_batch(&workspace("local"), &expired.id).await.unwrap().unwrap();
    assert_eq!(after.cancel_initiated_at, None, "what has ended is not canceled");
}

#[tokio::test]
async fn batches_are_listed_both_ways() {
    let fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for seed in 1..=4 {
        ids.push(made(&fixture, seed, 1).await.id);
    }
    let cases = [
        (BatchQuery::Newest, 2, vec![3, 2], true),
        (BatchQuery::OlderThan(ids[2].clone()), 2, vec![1, 0], false),
        (BatchQuery::NewerThan(ids[0].clone()), 2, vec![2, 1], true),
        (BatchQuery::NewerThan(ids[2].clone()), 5, vec![3], false),
        (BatchQuery::OlderThan(ids[0].clone()), 5, vec![], false),
    ];
    for (query, limit, expected, has_more) in cases {
        let page = fixture.store.list_batches(&workspace("local"), query.clone(), limit).await.unwrap();
        let found: Vec<_> = page.entries.iter().map(|batch| batch.id.clone()).collect();
        let expected: Vec<_> = expected.into_iter().map(|index: usize| ids[index].clone()).collect();
        assert_eq!((found, page.has_more), (expected, has_more), "{query:?}");
    }
}

#[tokio::test]
async fn results_are_archived() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let batch = made(&fixture, 1, 1).await;
    let running = made(&fixture, 2, 1).await;
    finish(store, &batch.id, 0, said("{}")).await.unwrap();
    fixture.clock.advance(BATCH_RESULTS_KEPT - Duration::from_secs(1));
    assert_eq!(store.archive_batches().await.unwrap(), 0);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(store.archive_batches().await.unwrap(), 1);
    assert_eq!(store.archive_batches().await.unwrap(), 0);
    let archived = store.batch(&workspace("local"), &batch.id).await.unwrap().unwrap();
    assert_eq!((archived.archived_at, archived.counts.succeeded), (Some(fixture.now()), 1));
    assert_eq!(store.batch_results(&batch.id, None, usize::MAX).await.unwrap(), []);
    assert_eq!(store.batch(&workspace("local"), &running.id).await.unwrap().unwrap().archived_at, None);
}

#[tokio::test]
async fn a_batch_that_a_crash_left_unfinished_is_gone() {
    let fixture = Fixture::new().await;
    let batch = made(&fixture, 1, 2).await;
    let path = data_dir(&fixture.dir);
    fixture.place.sql(&path, "UPDATE batches SET is_whole = 0").await;
    assert_eq!(fixture.store.batch(&workspace("local"), &batch.id).await.unwrap(), None);
    assert_eq!(fixture.store.open_batches().await.unwrap(), []);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.place.number(&path, "SELECT count(*) FROM batch_items").await, 0);
    assert_eq!(fixture.store.open_batches().await.unwrap(), []);
}

#[tokio::test]
async fn a_workspace_has_so_many_requests_waiting() {
    let fixture = Fixture::new().await;
    let most = usize::try_from(BATCH_ITEMS_WAITING_MAX).unwrap();
    made(&fixture, 1, 5).await;
    let mut items = draft(&fixture, 2, 1);
    items.items = vec![items.items[0].clone(); most - 4];
    let refused = fixture.store.create_batch(items).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooManyWaiting { items_max: BATCH_ITEMS_WAITING_MAX }));
    let mut elsewhere = draft(&fixture, 3, 1);
    elsewhere.workspace = workspace("other");
    fixture.store.create_batch(elsewhere).await.unwrap();
}
