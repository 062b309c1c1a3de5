//! End users' parts of workspaces, and what quotas count.

use crate::fixture::{Fixture, data_dir, draft, file_id, noise, put, still_clock, workspace};
use belljar_store::{Clock, Day, FileQuota, KeyRing, Spending, Store, StoreError, StoreOptions, UserId, WorkspaceId};
use std::sync::Arc;
use std::time::Duration;

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

async fn scope(fixture: &Fixture, whole: &WorkspaceId, name: &str) -> WorkspaceId {
    let scope = whole.scope_of(&user(name));
    fixture.store.enter_scope(&scope, &user(name)).await.unwrap();
    scope
}

#[tokio::test]
async fn end_users_share_the_quota_of_their_workspace_and_nothing_else() {
    let fixture = Fixture::with(|options| options.file_quota.bytes_max = 1000).await;
    let (store, whole) = (&fixture.store, workspace("local"));
    let (ann, bob) = (scope(&fixture, &whole, "ann").await, scope(&fixture, &whole, "bob").await);
    for (seed, owner) in (1..).zip([&whole, &ann]) {
        let mut of_owner = draft(&file_id(seed));
        of_owner.workspace = owner.clone();
        put(store, of_owner, noise(seed, 400)).await.unwrap();
    }
    let mut too_much = draft(&file_id(3));
    too_much.workspace = bob.clone();
    let error = put(store, too_much.clone(), noise(3, 400)).await.unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { bytes_max: 1000 }), "{error}");
    for (owner, id, there) in
        [(&ann, 2, true), (&ann, 1, false), (&bob, 2, false), (&whole, 2, false), (&whole, 1, true)]
    {
        assert_eq!(store.file(owner, &file_id(id)).await.unwrap().is_some(), there, "{owner} {id}");
    }
    assert_eq!(store.workspace_bytes(&bob).await.unwrap(), 800);
    assert!(store.delete_file(&ann, &file_id(2)).await.unwrap());
    put(store, too_much, noise(3, 400)).await.unwrap();
}

#[tokio::test]
async fn of_files_side_by_side_exactly_as_many_are_kept_as_may_be() {
    let quota = FileQuota { bytes_max: 1 << 30, files_max: Some(5) };
    let fixture = Fixture::with(|options| options.file_quotas = [(workspace("local"), quota)].into()).await;
    let whole = workspace("local");
    let mut writers = Vec::new();
    for seed in 1..=12 {
        let mut of_user = draft(&file_id(seed));
        of_user.workspace = scope(&fixture, &whole, &format!("user {}", seed % 3)).await;
        writers.push(fixture.store.begin_file(of_user).await.unwrap());
    }
    let mut ends = Vec::new();
    for (seed, mut writer) in (1..).zip(writers) {
        ends.push(tokio::spawn(async move {
            writer.write(noise(seed, 10)).await?;
            writer.finish().await
        }));
    }
    let mut kept = 0;
    for end in ends {
        match end.await.unwrap() {
            Ok(_) => kept += 1,
            Err(StoreError::TooManyFiles { files_max: 5 }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(kept, 5);
    assert!(matches!(fixture.store.begin_file(draft(&file_id(90))).await, Err(StoreError::TooManyFiles { .. })));
    let mut elsewhere = draft(&file_id(91));
    elsewhere.workspace = workspace("other");
    put(&fixture.store, elsewhere, noise(91, 10)).await.unwrap();
}

#[tokio::test]
async fn a_days_executions_are_counted_exactly_and_outlive_the_process() {
    let fixture = Fixture::new().await;
    let whole = workspace("local");
    let asked = (0..20).map(|number| {
        let (store, scope) = (fixture.store.clone(), whole.scope_of(&user(&format!("user {}", number % 3))));
        tokio::spawn(async move { store.take_execution(&scope, 7).await.unwrap() })
    });
    let mut counted = 0;
    for answer in asked.collect::<Vec<_>>() {
        counted += u32::from(answer.await.unwrap());
    }
    assert_eq!(counted, 7);
    let fixture = fixture.reopened().await;
    assert!(!fixture.store.take_execution(&whole, 7).await.unwrap());
    assert!(fixture.store.take_execution(&workspace("other"), 7).await.unwrap());
    assert_eq!(fixture.store.spending(&whole).await.unwrap(), Spending { executions: 7, tokens: 0 });
    let end = fixture.store.today().end();
    fixture.clock.advance(end.saturating_since(fixture.now()));
    assert!(fixture.store.take_execution(&whole, 7).await.unwrap());
    assert_eq!(fixture.store.spending(&whole).await.unwrap(), Spending { executions: 1, tokens: 0 });
}

#[tokio::test]
async fn tokens_are_counted_beforehand_and_settled_on_the_day_they_were() {
    let fixture = Fixture::new().await;
    let (store, whole) = (&fixture.store, workspace("local"));
    let day = store.take_tokens(&whole, 60, 100).await.unwrap().unwrap();
    assert_eq!(day, Day::of(fixture.now()));
    assert_eq!(store.take_tokens(&whole, 60, 100).await.unwrap(), None, "together they would be more");
    store.settle_tokens(&whole, day, 60, 95).await.unwrap();
    assert_eq!(store.take_tokens(&whole, 6, 100).await.unwrap(), None);
    assert_eq!(store.take_tokens(&whole, 5, 100).await.unwrap(), Some(day));
    assert_eq!(store.take_tokens(&whole, 0, 100).await.unwrap(), None, "all are used up");
    store.settle_tokens(&whole, day, 5, 0).await.unwrap();
    assert_eq!(store.take_tokens(&whole, 0, 100).await.unwrap(), Some(day));

    fixture.clock.advance(Duration::from_secs(24 * 60 * 60));
    let next = store.take_tokens(&whole, 100, 100).await.unwrap().unwrap();
    assert!(next > day);
    store.settle_tokens(&whole, day, 0, 1000).await.unwrap();
    assert_eq!(store.spending(&whole).await.unwrap().tokens, 100);
}

#[tokio::test]
async fn people_are_told_what_is_whose() {
    let fixture = Fixture::new().await;
    let (store, whole) = (&fixture.store, workspace("local"));
    let ann = scope(&fixture, &whole, "ann@example.com").await;
    let mut of_ann = draft(&file_id(1));
    of_ann.workspace = ann.clone();
    put(store, of_ann, noise(1, 400)).await.unwrap();
    store.take_execution(&ann, 7).await.unwrap();
    let held = store.holdings().await.unwrap();
    let told: Vec<_> = held
        .iter()
        .map(|held| (held.user.as_ref().map(UserId::as_str), held.files, held.bytes, held.today.executions))
        .collect();
    assert_eq!(told, [(None, 0, 0, 1), (Some("ann@example.com"), 1, 400, 0)]);
    assert!(held.iter().all(|held| held.workspace == whole));
    store.take_tokens(&workspace("spender"), 9, 10).await.unwrap().unwrap();
    let held = store.holdings().await.unwrap();
    assert_eq!(held.last().map(|held| (held.workspace.as_str(), held.today.tokens)), Some(("spender", 9)));
    let (path, database) = (data_dir(&fixture.dir), fixture.place.database());
    let beside = move || KeyRing::open(&path, &database, still_clock()).unwrap().holdings().unwrap();
    assert_eq!(tokio::task::spawn_blocking(beside).await.unwrap(), held);
}

#[tokio::test]
async fn the_secret_of_scopes_is_made_once() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.scope_secret([1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(fixture.store.scope_secret([2; 32]).await.unwrap(), [1; 32]);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.store.scope_secret([3; 32]).await.unwrap(), [1; 32]);
    std::fs::write(data_dir(&fixture.dir).join("scope.secret"), [1; 31]).unwrap();
    assert!(matches!(fixture.store.scope_secret([4; 32]).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn what_a_workspace_holds_is_what_its_files_come_to() {
    let fixture = Fixture::new().await;
    let whole = workspace("local");
    let ann = scope(&fixture, &whole, "ann").await;
    let expires_at = fixture.now().saturating_add(Duration::from_secs(60));
    for (seed, owner, expires_at) in [(1, &whole, None), (2, &ann, None), (3, &ann, Some(expires_at)), (4, &ann, None)]
    {
        let mut one = draft(&file_id(seed));
        (one.workspace, one.expires_at) = (owner.clone(), expires_at);
        put(&fixture.store, one, noise(seed, 100)).await.unwrap();
    }
    let store = &fixture.store;
    assert_eq!(store.workspace_bytes(&ann).await.unwrap(), 400);
    assert!(store.delete_file(&ann, &file_id(2)).await.unwrap());
    assert_eq!(store.workspace_bytes(&whole).await.unwrap(), 300);
    fixture.clock.advance(Duration::from_secs(61));
    store.sweep().await.unwrap();
    assert_eq!(store.workspace_bytes(&whole).await.unwrap(), 200);
    assert!(store.delete_file(&ann, &file_id(3)).await.unwrap(), "its record is still there, and counts no more");
    assert_eq!(store.workspace_bytes(&whole).await.unwrap(), 200);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.store.workspace_bytes(&whole).await.unwrap(), 200);
    let summed: u64 = fixture.store.holdings().await.unwrap().iter().map(|held| held.bytes).sum();
    assert_eq!(summed, 200);
}

/// A data directory from before is counted when its schema is brought up to date; it is on this machine's disk, as all were.
#[tokio::test]
async fn files_from_before_there_were_quotas_count() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(still_clock() as Arc<dyn Clock>);
    let store = Store::open(&data_dir(&dir), options()).await.unwrap();
    put(&store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    drop(store);
    std::fs::remove_file(data_dir(&dir).join("blobs.owner")).unwrap();
    let connection = rusqlite::Connection::open(data_dir(&dir).join("belljar.sqlite")).unwrap();
    connection
        .execute_batch(
            "DROP TABLE deleted_batches; DROP TABLE objects; DROP TABLE store; DROP TABLE named_checkpoints;
             DROP TABLE holdings; DROP TABLE usage_by_day; DELETE FROM migrations WHERE version >= 7",
        )
        .unwrap();
    drop(connection);
    let store = Store::open(&data_dir(&dir), options()).await.unwrap();
    assert_eq!(store.workspace_bytes(&workspace("local")).await.unwrap(), 100);
}
