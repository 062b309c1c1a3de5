//! Files come back as they went in, to their owner only, within their limits and for their time.

use crate::fixture::{Fixture, Place, draft, file_id, get, noise, put, workspace};
use belljar_ids::{ContainerId, SeededIds};
use belljar_store::{
    Content, ContentDigest, FileQuery, FileRecord, Origin, RECORD_KEPT_AFTER_EXPIRY, StoreError, SweepReport,
};
use bytes::Bytes;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_file_comes_back_as_it_went_in() {
    let fixture = Fixture::new().await;
    let content = noise(1, 300_000);
    let mut draft = draft(&file_id(1));
    draft.expires_at = Some(fixture.now().saturating_add(HOUR));
    let container = ContainerId::mint(&mut SeededIds::new(9));
    draft.origin = Origin::Generated { container: container.clone() };
    let mut writer = fixture.store.begin_file(draft.clone()).await.unwrap();
    for chunk in content.chunks(7_777) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(fixture.store.file(&draft.workspace, &draft.id).await.unwrap(), None, "not before finish");
    let record = writer.finish().await.unwrap();
    let expected = FileRecord {
        id: draft.id.clone(),
        workspace: workspace("local"),
        filename: "sales.csv".parse().unwrap(),
        mime_type: "text/csv".to_owned(),
        size_bytes: 300_000,
        origin: Origin::Generated { container },
        created_at: draft.created_at,
        expires_at: draft.expires_at,
        content: Some(ContentDigest::of(&content)),
    };
    assert_eq!(record, expected);
    assert!(record.downloadable());

    let fixture = fixture.reopened().await;
    assert_eq!(fixture.store.file(&draft.workspace, &draft.id).await.unwrap(), Some(expected));
    assert_eq!(get(&fixture.store, &draft.workspace, &draft.id).await.unwrap(), content);
    assert!(fixture.store.check_content(&draft.workspace, &draft.id).await.unwrap());
    assert_eq!(fixture.store.workspace_bytes(&draft.workspace).await.unwrap(), 300_000);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let fixture = Fixture::new().await;
    let record = fixture.store.begin_file(draft(&file_id(1))).await.unwrap().finish().await.unwrap();
    assert_eq!((record.size_bytes, record.downloadable()), (0, false));
    assert_eq!(get(&fixture.store, &record.workspace, &record.id).await.unwrap(), b"");
}

#[tokio::test]
async fn another_workspace_sees_nothing() {
    let fixture = Fixture::new().await;
    let (store, owner, stranger) = (&fixture.store, workspace("local"), workspace("other"));
    let id = put(store, draft(&file_id(1)), noise(1, 10)).await.unwrap().id;

    assert_eq!(store.file(&stranger, &id).await.unwrap(), None);
    assert!(store.open_content(&stranger, &id).await.unwrap().is_none());
    assert!(!store.check_content(&stranger, &id).await.unwrap());
    assert!(!store.delete_file(&stranger, &id).await.unwrap());
    assert_eq!(store.workspace_bytes(&stranger).await.unwrap(), 0);
    for query in [FileQuery::Page { limit: 1000, after: None }, FileQuery::Ids(vec![id.clone()])] {
        assert_eq!(store.list_files(&stranger, query).await.unwrap().entries, []);
    }
    for query in
        [FileQuery::OlderThan { id: id.clone(), limit: 10 }, FileQuery::NewerThan { id: id.clone(), limit: 10 }]
    {
        let error = store.list_files(&stranger, query).await.unwrap_err();
        assert_eq!(error.client_text(), format!("File `{id}` not found."));
    }
    assert!(store.file(&owner, &id).await.unwrap().is_some());

    // The same id in another workspace would make "unknown" and "another's" differ; it is refused.
    let mut taken = draft(&id);
    taken.workspace = stranger;
    let refused = store.begin_file(taken).await.err().unwrap();
    assert!(matches!(refused, StoreError::IdTaken { id: taken } if taken == id.as_str()));
}

#[tokio::test]
async fn a_file_too_large_is_refused_at_the_byte() {
    let fixture = Fixture::with(|options| options.file_bytes_max = 1000).await;
    let mut writer = fixture.store.begin_file(draft(&file_id(1))).await.unwrap();
    writer.write(noise(1, 1000)).await.unwrap();
    let error = writer.write(noise(2, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { bytes_max: 1000 }), "{error}");
    assert_eq!(fixture.blobs().await, Vec::<std::path::PathBuf>::new(), "the temporary file goes at once");
    assert!(matches!(writer.write(noise(2, 1)).await, Err(StoreError::Interrupted)));
    assert!(matches!(writer.finish().await, Err(StoreError::Interrupted)));

    let whole = put(&fixture.store, draft(&file_id(2)), noise(1, 1000)).await.unwrap();
    assert_eq!(whole.size_bytes, 1000);
}

#[tokio::test]
async fn the_quota_counts_every_file_of_the_workspace() {
    let fixture = Fixture::with(|options| options.file_quota.bytes_max = 1000).await;
    let store = &fixture.store;
    let same = noise(1, 400);
    let first = put(store, draft(&file_id(1)), same.clone()).await.unwrap();
    put(store, draft(&file_id(2)), same.clone()).await.unwrap();
    let error = put(store, draft(&file_id(3)), same.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { bytes_max: 1000 }), "{error}");
    assert_eq!(store.workspace_bytes(&first.workspace).await.unwrap(), 800);

    let mut elsewhere = draft(&file_id(4));
    elsewhere.workspace = workspace("other");
    put(store, elsewhere, same.clone()).await.unwrap();

    assert!(store.delete_file(&first.workspace, &first.id).await.unwrap());
    put(store, draft(&file_id(5)), same).await.unwrap();
}

#[tokio::test]
async fn uploads_side_by_side_cannot_exceed_the_quota_together() {
    let fixture = Fixture::with(|options| options.file_quota.bytes_max = 1000).await;
    let (mut one, mut two) = (
        fixture.store.begin_file(draft(&file_id(1))).await.unwrap(),
        fixture.store.begin_file(draft(&file_id(2))).await.unwrap(),
    );
    one.write(noise(1, 600)).await.unwrap();
    two.write(noise(2, 600)).await.unwrap();
    one.finish().await.unwrap();
    assert!(matches!(two.finish().await, Err(StoreError::QuotaExceeded { bytes_max: 1000 })));
    assert_eq!(fixture.blobs().await.len(), 1);
}

#[tokio::test]
async fn an_abandoned_upload_leaves_no_trace() {
    let fixture = Fixture::new().await;
    let mut writer = fixture.store.begin_file(draft(&file_id(1))).await.unwrap();
    writer.write(noise(1, 100_000)).await.unwrap();
    // An object is there only when it is whole.
    let unfinished = usize::from(matches!(fixture.place, Place::Here));
    assert_eq!(fixture.blobs().await.len(), unfinished);
    drop(writer);
    assert_eq!(fixture.blobs().await.len(), 0);
    assert_eq!(fixture.store.file(&workspace("local"), &file_id(1)).await.unwrap(), None);
    put(&fixture.store, draft(&file_id(1)), noise(1, 5)).await.unwrap();
}

#[tokio::test]
async fn two_uploads_under_one_id_make_one_file() {
    let fixture = Fixture::new().await;
    let one = fixture.store.begin_file(draft(&file_id(1))).await.unwrap();
    let mut two = fixture.store.begin_file(draft(&file_id(1))).await.unwrap();
    two.write(noise(2, 10)).await.unwrap();
    one.finish().await.unwrap();
    assert!(matches!(two.finish().await, Err(StoreError::IdTaken { .. })));
    assert_eq!(fixture.blobs().await.len(), 1);
}

#[tokio::test]
async fn expired_files_lose_their_content_and_later_their_record() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let content = noise(1, 500);
    let mut passing = draft(&file_id(1));
    passing.expires_at = Some(fixture.now().saturating_add(HOUR));
    put(store, passing, content.clone()).await.unwrap();
    put(store, draft(&file_id(2)), noise(2, 70)).await.unwrap();

    fixture.clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(get(store, &local, &file_id(1)).await.unwrap(), content);
    assert_eq!(store.sweep().await.unwrap(), SweepReport::default());

    fixture.clock.advance(Duration::from_micros(1));
    let gone = store.open_content(&local, &file_id(1)).await.unwrap().unwrap();
    assert!(matches!(gone, Content::Expired { record } if record.content.is_some()), "before any sweep");
    assert_eq!(store.workspace_bytes(&local).await.unwrap(), 570);

    let swept = SweepReport { contents_released: 1, records_removed: 0 };
    assert_eq!(store.sweep().await.unwrap(), swept);
    assert_eq!(store.workspace_bytes(&local).await.unwrap(), 70);
    assert_eq!(fixture.blobs().await.len(), 1);
    let record = store.file(&local, &file_id(1)).await.unwrap().unwrap();
    assert_eq!((record.size_bytes, record.content), (500, None));
    assert!(record.expired(fixture.now()));
    assert!(matches!(
        store.open_content(&local, &file_id(1)).await.unwrap(),
        Some(Content::Expired { record: same }) if same == record
    ));

    fixture.clock.advance(RECORD_KEPT_AFTER_EXPIRY - Duration::from_micros(1));
    assert_eq!(store.sweep().await.unwrap(), SweepReport::default());
    fixture.clock.advance(Duration::from_micros(1));
    let swept = SweepReport { contents_released: 0, records_removed: 1 };
    assert_eq!(store.sweep().await.unwrap(), swept);
    assert_eq!(store.file(&local, &file_id(1)).await.unwrap(), None);
    assert!(store.file(&local, &file_id(2)).await.unwrap().is_some(), "no expiry, no end");
}

#[tokio::test]
async fn a_sweep_goes_on_until_everything_due_is_done() {
    let fixture = Fixture::new().await;
    let due = 600;
    for seed in 0..due {
        let mut passing = draft(&file_id(seed));
        passing.expires_at = Some(fixture.now());
        put(&fixture.store, passing, noise(seed % 3, 20)).await.unwrap();
    }
    let swept = SweepReport { contents_released: due, records_removed: 0 };
    assert_eq!(fixture.store.sweep().await.unwrap(), swept);
    assert_eq!(fixture.store.workspace_bytes(&workspace("local")).await.unwrap(), 0);
    assert_eq!(fixture.blobs().await.len(), 0);
}
