//! What an operator sees of all workspaces, beside an open store.

use crate::fixture::{Fixture, data_dir, draft, file_id, noise, put, workspace};
use belljar_ids::{ContainerId, SeededIds};
use belljar_store::{Clock, ContainerRecord, FileDraft, Records, Usage, UserId, WorkspaceId};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// More than one page of either.
const MANY: u64 = 600;

async fn seen<T: Send + 'static>(fixture: &Fixture, look: impl FnOnce(Records) -> T + Send + 'static) -> T {
    let (data, place) = (data_dir(&fixture.dir), fixture.place.clone());
    let clock = Arc::clone(&fixture.clock) as Arc<dyn Clock>;
    let work = move || look(Records::open(&data, &place.database(), clock).unwrap());
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn files(records: &Records, of: Option<&WorkspaceId>, limit: usize) -> Vec<(WorkspaceId, Option<UserId>)> {
    let mut found = Vec::new();
    let tell = |held: belljar_store::HeldFile| {
        found.push((held.record.workspace, held.user));
        if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    records.files(of, tell).unwrap();
    found
}

#[tokio::test]
async fn all_workspaces_are_listed_page_by_page_and_one_by_itself() {
    let fixture = Fixture::new().await;
    let (acme, ann): (_, UserId) = (workspace("acme"), "ann".parse().unwrap());
    let scope = acme.scope_of(&ann);
    fixture.store.enter_scope(&scope, &ann).await.unwrap();
    for number in 0..MANY {
        let whose = [&acme, &scope, &workspace("acme-x")][usize::try_from(number % 3).unwrap()].clone();
        let draft = FileDraft { workspace: whose, ..draft(&file_id(number)) };
        put(&fixture.store, draft, noise(1, 10)).await.unwrap();
    }
    let (one, two) = seen(&fixture, |records| {
        (files(&records, None, usize::MAX), files(&records, Some(&workspace("acme")), usize::MAX))
    })
    .await;
    assert_eq!(one.len() as u64, MANY);
    let each = usize::try_from(MANY / 3).unwrap();
    let expected: Vec<_> =
        [(acme.clone(), None), (scope.clone(), Some(ann))].into_iter().flat_map(|whose| vec![whose; each]).collect();
    assert_eq!(two, expected);
    assert_eq!(seen(&fixture, |records| files(&records, None, 7).len()).await, 7);
    let id = file_id(1);
    let found = seen(&fixture, move |records| records.file(&id).unwrap()).await.unwrap();
    assert_eq!((found.record.workspace, found.user.unwrap().as_str()), (scope, "ann"));
    let unknown = file_id(MANY);
    assert!(seen(&fixture, move |records| records.file(&unknown).unwrap()).await.is_none());
}

#[tokio::test]
async fn usage_is_told_by_day_for_workspaces_with_their_end_users() {
    let fixture = Fixture::new().await;
    let (acme, ann): (_, UserId) = (workspace("acme"), "ann".parse().unwrap());
    let scope = acme.scope_of(&ann);
    fixture.store.enter_scope(&scope, &ann).await.unwrap();
    for (number, whose) in [(1, &acme), (2, &scope)] {
        let draft = FileDraft { workspace: whose.clone(), ..draft(&file_id(number)) };
        put(&fixture.store, draft, noise(number, 100)).await.unwrap();
        let record = ContainerRecord {
            id: ContainerId::mint(&mut SeededIds::new(number)),
            workspace: whose.clone(),
            created_at: fixture.now(),
            expires_at: fixture.now().saturating_add(Duration::from_secs(60 * number)),
        };
        fixture.store.record_container(record).await.unwrap();
    }
    for _ in 0..3 {
        assert!(fixture.store.take_execution(&scope, 100).await.unwrap());
        fixture.clock.advance(Duration::from_hours(24));
        fixture.store.take_tokens(&workspace("busy"), 5, 100).await.unwrap();
    }
    fixture.clock.set_back(Duration::from_hours(72) - Duration::from_secs(61));
    let told = |days| {
        move |records: Records| {
            let mut found = Vec::new();
            records
                .usage(None, days, |usage: Usage| {
                    let days = usage.days.iter().map(|day| (day.day.to_string(), day.used.executions, day.used.tokens));
                    let held = (usage.workspace.to_string(), usage.files, usage.bytes, usage.containers);
                    found.push((held, days.collect::<Vec<_>>()));
                    ControlFlow::Continue(())
                })
                .unwrap();
            found
        }
    };
    let found = seen(&fixture, told(1)).await;
    let day = |day: &str, executions, tokens| (day.to_owned(), executions, tokens);
    let acme_days = vec![day("2026-11-22", 1, 0), day("2026-11-21", 1, 0), day("2026-11-20", 1, 0)];
    let busy_days = vec![day("2026-11-23", 0, 5), day("2026-11-22", 0, 5), day("2026-11-21", 0, 5)];
    assert_eq!(found, [(("acme".to_owned(), 2, 200, 1), acme_days), (("busy".to_owned(), 0, 0, 0), busy_days)]);
    fixture.clock.advance(Duration::from_hours(72));
    assert_eq!(seen(&fixture, told(2)).await[0].1, [day("2026-11-22", 1, 0)]);
    assert_eq!(seen(&fixture, told(1)).await[0].1, []);
}
