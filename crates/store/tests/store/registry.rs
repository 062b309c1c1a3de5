//! Containers and keys.

use crate::fixture::{Fixture, NOON_US, Place, data_dir, still_clock, workspace};
use belljar_ids::{ContainerId, KeyId, SeededIds};
use belljar_store::{
    ContainerRecord, Database, KeyDraft, KeyEnd, KeyHash, KeyIsolation, KeyRing, KeyScope, PageCursor, Principal,
    ShownKey, StoreError, Timestamp, WorkspaceId,
};
use std::path::Path;
use std::time::Duration;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_micros(NOON_US + minute * 60_000_000).unwrap()
}

fn container(seed: u64, workspace: &WorkspaceId, minute: i64) -> ContainerRecord {
    ContainerRecord {
        id: ContainerId::mint(&mut SeededIds::new(seed)),
        workspace: workspace.clone(),
        created_at: at(minute),
        expires_at: at(minute + 60),
    }
}

#[tokio::test]
async fn containers_belong_to_their_workspace() {
    let fixture = Fixture::new().await;
    let (store, local, other) = (&fixture.store, workspace("local"), workspace("other"));
    let record = container(1, &local, 0);
    store.record_container(record.clone()).await.unwrap();
    let again = store.record_container(record.clone()).await.unwrap_err();
    assert!(matches!(again, StoreError::IdTaken { id } if id == record.id.as_str()));

    let later = record.expires_at.saturating_add(Duration::from_secs(60));
    assert_eq!(store.container(&other, &record.id).await.unwrap(), None);
    assert!(!store.touch_container(&other, &record.id, later).await.unwrap());
    assert!(!store.delete_container(&other, &record.id).await.unwrap());
    assert_eq!(store.list_containers(&other, None, 10).await.unwrap().entries, []);
    assert_eq!(store.container(&local, &record.id).await.unwrap(), Some(record.clone()));

    assert!(store.touch_container(&local, &record.id, later).await.unwrap());
    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    let touched = ContainerRecord { expires_at: later, ..record.clone() };
    assert_eq!(store.container(&local, &record.id).await.unwrap(), Some(touched));
    assert!(store.delete_container(&local, &record.id).await.unwrap());
    assert!(!store.delete_container(&local, &record.id).await.unwrap());
    assert_eq!(store.container(&local, &record.id).await.unwrap(), None);
}

#[tokio::test]
async fn containers_are_listed_and_expire() {
    let fixture = Fixture::new().await;
    let (store, local, other) = (&fixture.store, workspace("local"), workspace("other"));
    let records = [container(1, &local, 0), container(2, &other, 1), container(3, &local, 2)];
    for record in &records {
        store.record_container(record.clone()).await.unwrap();
    }
    let first = store.list_containers(&local, None, 1).await.unwrap();
    assert_eq!((first.entries, first.has_more), (vec![records[2].clone()], true));
    let cursor = PageCursor::from_token(&first.next.unwrap().to_token()).unwrap();
    let second = store.list_containers(&local, Some(cursor), 1).await.unwrap();
    assert_eq!((second.entries, second.next, second.has_more), (vec![records[0].clone()], None, false));

    assert_eq!(store.expired_containers(10).await.unwrap(), []);
    fixture.clock.advance(Duration::from_secs(61 * 60));
    assert_eq!(store.expired_containers(10).await.unwrap(), records[..2]);
    assert_eq!(store.expired_containers(1).await.unwrap(), records[..1]);
}

#[tokio::test]
async fn an_end_that_is_not_on_disk_yet_holds_all_the_same() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let records = [container(1, &local, 0), container(2, &local, 1)];
    for record in &records {
        store.record_container(record.clone()).await.unwrap();
    }
    let [first, second] = &records;
    let (soon, late) = (at(70), at(200));
    store.touch_live_container(&local, &first.id, late);
    let touched = ContainerRecord { expires_at: late, ..first.clone() };
    assert_eq!(store.container(&local, &first.id).await.unwrap(), Some(touched.clone()));
    assert_eq!(store.list_containers(&local, None, 10).await.unwrap().entries, [second.clone(), touched.clone()]);
    fixture.clock.advance(Duration::from_secs(100 * 60));
    assert_eq!(store.expired_containers(10).await.unwrap(), std::slice::from_ref(second));

    // The last word counts, whichever way it went to disk.
    store.touch_live_container(&local, &first.id, soon);
    assert!(store.touch_container(&local, &first.id, late).await.unwrap());
    store.touch_live_container(&local, &second.id, late);
    store.write_touches().await.unwrap();
    store.touch_live_container(&local, &second.id, soon);
    let fixture = fixture.reopened().await;
    let ends = fixture.store.list_containers(&local, None, 10).await.unwrap().entries;
    assert_eq!(ends.iter().map(|record| record.expires_at).collect::<Vec<_>>(), [late, late]);
}

fn key(seed: u64, text: &str) -> KeyDraft {
    KeyDraft {
        id: KeyId::mint(&mut SeededIds::new(seed)),
        workspace: workspace("local"),
        label: "laptop".to_owned(),
        hash: KeyHash::of(text),
        isolation: None,
        expires_at: None,
        models: None,
        scope: KeyScope::Workspace,
    }
}

fn opened(shown: ShownKey) -> Principal {
    match shown {
        ShownKey::Opens(principal) => principal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn keys_open_their_workspace_until_revoked() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = store.create_key(key(1, "bj_one")).await.unwrap();
    assert_eq!((made.created_at, made.revoked_at), (fixture.now(), None));
    let principal = opened(store.authenticate(KeyHash::of("bj_one")).await.unwrap());
    assert_eq!((&principal.workspace, &principal.key_id), (&workspace("local"), &made.id));
    assert_eq!(store.key(&made.id).await.unwrap(), ShownKey::Opens(principal));
    assert_eq!(store.authenticate(KeyHash::of("bj_two")).await.unwrap(), ShownKey::Unknown);
    assert!(matches!(store.create_key(key(2, "bj_one")).await, Err(StoreError::IdTaken { .. })));

    fixture.clock.advance(Duration::from_secs(5));
    assert!(store.revoke_key(&made.id).await.unwrap());
    assert!(!store.revoke_key(&made.id).await.unwrap());
    let ended = ShownKey::Ended { key_id: made.id.clone(), end: KeyEnd::Revoked(fixture.now()) };
    assert_eq!(store.authenticate(KeyHash::of("bj_one")).await.unwrap(), ended);
    assert_eq!(store.key(&made.id).await.unwrap(), ended);
    let listed = store.list_keys().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].revoked_at, Some(fixture.now()));
}

#[tokio::test]
async fn a_key_keeps_the_isolation_it_asks_for() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let asked = [None, Some(KeyIsolation::Namespaces), Some(KeyIsolation::Gvisor)];
    for (seed, isolation) in (1..).zip(asked) {
        let text = format!("bj_{seed}");
        let made = store.create_key(KeyDraft { isolation, ..key(seed, &text) }).await.unwrap();
        assert_eq!(made.isolation, isolation);
        assert_eq!(opened(store.authenticate(KeyHash::of(&text)).await.unwrap()).isolation, isolation);
    }
    let mut listed: Vec<_> = store.list_keys().await.unwrap().into_iter().map(|key| key.isolation).collect();
    listed.sort_by_key(|isolation| isolation.map(KeyIsolation::as_str));
    assert_eq!(listed, [None, Some(KeyIsolation::Gvisor), Some(KeyIsolation::Namespaces)]);
}

#[tokio::test]
async fn a_key_ends_by_itself_at_its_time_and_not_before() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let expires_at = fixture.now().saturating_add(Duration::from_secs(60));
    let models = Some(vec!["claude-*".to_owned(), "qwen3:32b".to_owned()]);
    let draft = KeyDraft { expires_at: Some(expires_at), models, scope: KeyScope::PerUser, ..key(1, "bj_one") };
    let made = store.create_key(draft.clone()).await.unwrap();
    assert_eq!((made.expires_at, &made.models, made.scope), (draft.expires_at, &draft.models, draft.scope));
    fixture.clock.advance(Duration::from_micros(59_999_999));
    let principal = opened(store.authenticate(KeyHash::of("bj_one")).await.unwrap());
    assert_eq!((principal.models, principal.scope), (draft.models, KeyScope::PerUser));
    fixture.clock.advance(Duration::from_micros(1));
    let ended = ShownKey::Ended { key_id: made.id.clone(), end: KeyEnd::Expired(expires_at) };
    assert_eq!(store.authenticate(KeyHash::of("bj_one")).await.unwrap(), ended);
    assert_eq!(store.list_keys().await.unwrap()[0].revoked_at, None);
}

#[tokio::test]
async fn the_key_ring_works_beside_a_server_and_without_one() {
    let fixture = Fixture::new().await;
    let path = data_dir(&fixture.dir);
    let ring = |path: &Path, database: Database| {
        let path = path.to_owned();
        move || KeyRing::open(&path, &database, still_clock()).unwrap()
    };
    let beside = ring(&path, fixture.place.database());
    let made = blocking(move || beside().create(key(1, "bj_one")).unwrap()).await;
    opened(fixture.store.authenticate(KeyHash::of("bj_one")).await.unwrap());
    let beside = ring(&path, fixture.place.database());
    assert!(blocking(move || beside().revoke(&made.id).unwrap()).await);
    let shown = fixture.store.authenticate(KeyHash::of("bj_one")).await.unwrap();
    assert!(matches!(shown, ShownKey::Ended { .. }), "{shown:?}");

    let (alone, place) = (tempfile::tempdir().unwrap(), Place::new().await);
    let alone = ring(&alone.path().join("new"), place.database());
    let lists = move || {
        let mut ring = alone();
        let made = ring.create(key(2, "bj_two")).unwrap();
        assert_eq!(ring.list().unwrap(), [made]);
    };
    blocking(lists).await;
}

/// A key ring blocks, and must not be used inside a runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn the_text_of_a_key_is_not_on_disk() {
    let fixture = Fixture::new().await;
    let text = "bj_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
    fixture.store.create_key(key(1, text)).await.unwrap();
    let path = data_dir(&fixture.dir);
    drop(fixture.store);
    for file in crate::fixture::files_under(&path) {
        let bytes = std::fs::read(&file).unwrap();
        let shown = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!shown, "{}", file.display());
    }
}
