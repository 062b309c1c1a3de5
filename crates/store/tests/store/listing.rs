//! Listings: newest first, and nothing skipped or repeated whatever happens between two pages.

use crate::fixture::{Fixture, NOON_US, draft, file_id, noise, put, workspace};
use belljar_ids::FileId;
use belljar_store::{FilePage, FileQuery, PageCursor, Store, StoreError, Timestamp, WorkspaceId};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

async fn add(store: &Store, workspace: &WorkspaceId, seed: u64, second: i64) -> FileId {
    let mut draft = draft(&file_id(seed));
    draft.workspace = workspace.clone();
    draft.created_at = Timestamp::from_micros(NOON_US + second * 1_000_000).unwrap();
    put(store, draft, noise(seed, 3)).await.unwrap().id
}

fn ids(page: &FilePage) -> Vec<FileId> {
    page.entries.iter().map(|file| file.id.clone()).collect()
}

#[tokio::test]
async fn pages_go_from_new_to_old() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    // Created out of order, two at the same instant: the later of those is the newer.
    let (c, a, b, b2) = (
        add(store, &local, 1, 3).await,
        add(store, &local, 2, 1).await,
        add(store, &local, 3, 2).await,
        add(store, &local, 4, 2).await,
    );
    let page = |limit, after| store.list_files(&local, FileQuery::Page { limit, after });
    let all = page(1000, None).await.unwrap();
    assert_eq!(ids(&all), [c.clone(), b2.clone(), b.clone(), a.clone()]);
    assert_eq!((all.next, all.has_more), (None, false));
    let exact = page(4, None).await.unwrap();
    assert_eq!((exact.next, exact.has_more), (None, false), "no empty last page");

    let first = page(3, None).await.unwrap();
    assert_eq!(ids(&first), [c.clone(), b2.clone(), b.clone()]);
    assert!(first.has_more);
    // The cursor survives its trip through the client.
    let token = first.next.unwrap().to_token();
    let second = page(3, Some(PageCursor::from_token(&token).unwrap())).await.unwrap();
    assert_eq!((ids(&second), second.next, second.has_more), (vec![a.clone()], None, false));

    let by_ids = vec![a.clone(), c.clone(), file_id(99), a.clone()];
    let page = store.list_files(&local, FileQuery::Ids(by_ids)).await.unwrap();
    assert_eq!((ids(&page), page.next, page.has_more), (vec![c.clone(), a.clone()], None, false));

    let older = FileQuery::OlderThan { id: c.clone(), limit: 2 };
    let page = store.list_files(&local, older).await.unwrap();
    assert_eq!((ids(&page), page.has_more), (vec![b2.clone(), b.clone()], true));
    let newer = FileQuery::NewerThan { id: a.clone(), limit: 2 };
    let page = store.list_files(&local, newer).await.unwrap();
    assert_eq!((ids(&page), page.has_more), (vec![b2.clone(), b.clone()], true), "the nearest, not the newest");
    assert!(page.next.is_some(), "a is older");
    let newer = FileQuery::NewerThan { id: c, limit: 2 };
    let page = store.list_files(&local, newer).await.unwrap();
    assert_eq!((ids(&page), page.next, page.has_more), (vec![], None, false));
}

#[tokio::test]
async fn a_deleted_file_still_marks_its_place_for_a_day() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    let old = add(store, &local, 1, 1).await;
    let anchor = add(store, &local, 2, 2).await;
    add(store, &local, 3, 3).await;
    assert!(store.delete_file(&local, &anchor).await.unwrap());
    let query = || FileQuery::OlderThan { id: anchor.clone(), limit: 10 };
    assert_eq!(ids(&store.list_files(&local, query()).await.unwrap()), [old]);

    let stranger = store.list_files(&workspace("other"), query()).await.unwrap_err();
    assert!(matches!(stranger, StoreError::AnchorNotFound { id, .. } if id == anchor.as_str()));

    fixture.clock.advance(Duration::from_secs(24 * 3600));
    store.sweep().await.unwrap();
    let error = store.list_files(&local, query()).await.unwrap_err();
    assert!(matches!(error, StoreError::AnchorNotFound { id, .. } if id == anchor.as_str()));
}

/// What happens between two pages.
#[derive(Debug, Clone)]
enum Meanwhile {
    /// A file is made, this many seconds after noon.
    Add(i64),
    /// The n-th file of those that exist is deleted.
    Delete(prop::sample::Index),
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![(0_i64..12).prop_map(Meanwhile::Add), any::<prop::sample::Index>().prop_map(Meanwhile::Delete)]
}

/// The three ways of going through all files.
#[derive(Debug, Clone, Copy)]
enum Dialect {
    Cursor,
    AfterId,
    BeforeId,
}

struct Walk<'a> {
    store: &'a Store,
    workspace: WorkspaceId,
    alive: Vec<FileId>,
    deleted: BTreeSet<FileId>,
    seeds: &'a AtomicU64,
}

impl Walk<'_> {
    async fn happen(&mut self, what: &Meanwhile) {
        match what {
            Meanwhile::Add(second) => {
                let seed = self.seeds.fetch_add(1, Ordering::Relaxed);
                self.alive.push(add(self.store, &self.workspace, seed, *second).await);
            }
            Meanwhile::Delete(index) => {
                if !self.alive.is_empty() {
                    let id = self.alive.remove(index.index(self.alive.len()));
                    assert!(self.store.delete_file(&self.workspace, &id).await.unwrap());
                    self.deleted.insert(id);
                }
            }
        }
    }

    /// Reads page by page, letting things happen in between; answers the ids in the order seen.
    async fn through(&mut self, dialect: Dialect, limit: u16, between: &[Vec<Meanwhile>]) -> Vec<FileId> {
        let mut seen: Vec<FileId> = Vec::new();
        let mut between = between.iter();
        let mut query = match (dialect, self.alive.first()) {
            (Dialect::BeforeId, Some(first)) => {
                seen.push(first.clone());
                FileQuery::NewerThan { id: first.clone(), limit }
            }
            _ => FileQuery::Page { limit, after: None },
        };
        loop {
            let page = self.store.list_files(&self.workspace, query).await.unwrap();
            let ids = ids(&page);
            assert!(ids.len() <= usize::from(limit));
            assert!(ids.iter().all(|id| !self.deleted.contains(id)), "deleted files are not listed");
            query = match dialect {
                Dialect::Cursor => FileQuery::Page { limit, after: page.next },
                Dialect::AfterId | Dialect::BeforeId if ids.is_empty() => break,
                Dialect::AfterId => FileQuery::OlderThan { id: ids[ids.len() - 1].clone(), limit },
                Dialect::BeforeId => FileQuery::NewerThan { id: ids[0].clone(), limit },
            };
            match dialect {
                Dialect::BeforeId => seen.extend(ids.into_iter().rev()),
                Dialect::Cursor | Dialect::AfterId => seen.extend(ids),
            }
            let go_on = match dialect {
                Dialect::Cursor => page.next.is_some(),
                Dialect::AfterId | Dialect::BeforeId => page.has_more,
            };
            if !go_on {
                break;
            }
            for what in between.next().into_iter().flatten() {
                self.happen(what).await;
            }
        }
        seen
    }
}

#[test]
fn nothing_that_survives_is_skipped_or_repeated() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let (cases, seeds) = (AtomicU64::new(0), AtomicU64::new(1));
    let strategy = (
        prop::sample::select(vec![Dialect::Cursor, Dialect::AfterId, Dialect::BeforeId]),
        1_u16..5,
        prop::collection::vec(meanwhile(), 0..14),
        prop::collection::vec(prop::collection::vec(meanwhile(), 0..4), 0..8),
    );
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((dialect, limit, before, between) in strategy)| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let mut walk = Walk {
            store: &fixture.store,
            workspace: workspace(&format!("case-{case}")),
            alive: Vec::new(),
            deleted: BTreeSet::new(),
            seeds: &seeds,
        };
        runtime.block_on(async {
            for what in &before {
                walk.happen(what).await;
            }
            let mut at_start: BTreeSet<FileId> = walk.alive.iter().cloned().collect();
            if let (Dialect::BeforeId, Some(first)) = (dialect, walk.alive.first()) {
                // Going up from one file meets those newer than it.
                let below = FileQuery::OlderThan { id: first.clone(), limit: 1000 };
                for id in ids(&walk.store.list_files(&walk.workspace, below).await.unwrap()) {
                    at_start.remove(&id);
                }
            }
            let seen = walk.through(dialect, limit, &between).await;
            let distinct: BTreeSet<FileId> = seen.iter().cloned().collect();
            assert_eq!(distinct.len(), seen.len(), "something was repeated");
            let skipped: Vec<_> =
                at_start.iter().filter(|id| !walk.deleted.contains(*id) && !distinct.contains(*id)).collect();
            assert!(skipped.is_empty(), "skipped: {skipped:?}");
            let bytes = walk.store.workspace_bytes(&walk.workspace).await.unwrap();
            assert_eq!(bytes, 3 * walk.alive.len() as u64);
        });
    });
}
