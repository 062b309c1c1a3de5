//! A clock that jumps, as after a suspension or a wrong setting: nothing is lost that had no end, and lists stay lists.

use crate::checkpoints::{checkpoint, container};
use crate::fixture::{Fixture, draft, file_id, get, noise, put, workspace};
use belljar_ids::{CheckpointId, SeededIds};
use belljar_store::{FileDraft, FileQuery, FileRecord};
use std::collections::BTreeSet;
use std::time::Duration;

const YEAR: Duration = Duration::from_hours(365 * 24);

/// All files by pages of two.
async fn paged(fixture: &Fixture) -> Vec<FileRecord> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = FileQuery::Page { limit: 2, after };
        let page = fixture.store.list_files(&workspace("local"), query).await.unwrap();
        found.extend(page.entries);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn files_without_an_end_survive_every_jump_and_are_listed_once() {
    let mut fixture = Fixture::new().await;
    fixture.clock.advance(YEAR);
    let jumps: [(bool, Duration); 6] = [
        (true, Duration::ZERO),
        (false, Duration::from_secs(1)),
        (true, YEAR),
        (false, 2 * YEAR),
        (true, Duration::from_micros(1)),
        (true, 20 * YEAR),
    ];
    let mut made = BTreeSet::new();
    for (seed, (forward, by)) in (1..).zip(jumps) {
        if forward {
            fixture.clock.advance(by)
        } else {
            fixture.clock.set_back(by)
        }
        let draft = FileDraft { created_at: fixture.now(), ..draft(&file_id(seed)) };
        put(&fixture.store, draft, noise(seed, 100)).await.unwrap();
        made.insert(file_id(seed));
        fixture.store.sweep().await.unwrap();
        fixture = fixture.reopened().await;
        let found = paged(&fixture).await;
        assert_eq!(found.len(), made.len(), "each once");
        assert_eq!(found.iter().map(|file| file.id.clone()).collect::<BTreeSet<_>>(), made);
        assert!(found.is_sorted_by(|one, next| one.created_at >= next.created_at), "newest first, by the clock");
        for (seed, id) in (1..).zip((1..=seed).map(file_id)) {
            assert_eq!(get(&fixture.store, &workspace("local"), &id).await.as_deref(), Some(noise(seed, 100).as_ref()));
        }
    }
}

#[tokio::test]
async fn what_had_an_end_goes_when_the_clock_says_so_and_does_not_come_back() {
    let fixture = Fixture::new().await;
    let ends = fixture.now().saturating_add(Duration::from_hours(1));
    let mortal = FileDraft { expires_at: Some(ends), ..draft(&file_id(1)) };
    put(&fixture.store, mortal, noise(1, 100)).await.unwrap();
    // Seen from before it was made, it is not older than it is.
    fixture.clock.set_back(YEAR);
    assert_eq!(fixture.store.sweep().await.unwrap().contents_released, 0);
    assert!(get(&fixture.store, &workspace("local"), &file_id(1)).await.is_some());
    fixture.clock.advance(YEAR + Duration::from_hours(2));
    assert_eq!(fixture.store.sweep().await.unwrap().contents_released, 1);
    fixture.clock.set_back(YEAR);
    let record = fixture.store.file(&workspace("local"), &file_id(1)).await.unwrap().unwrap();
    assert!(record.expired(fixture.now()), "its content is gone, whatever the clock says");
    assert_eq!(fixture.blobs().await.len(), 0);
}

#[tokio::test]
async fn named_checkpoints_are_kept_and_listed_whatever_the_clock_does() {
    let fixture = Fixture::new().await;
    let id = container(&fixture.store, 1).await;
    let mut made = BTreeSet::new();
    for seed in 1..=4 {
        if seed % 2 == 0 {
            fixture.clock.set_back(YEAR / 2)
        } else {
            fixture.clock.advance(YEAR / 3)
        }
        let mut writer = fixture.store.begin_checkpoint(checkpoint(&id), 1 << 20).await.unwrap();
        writer.write(noise(seed, 100)).await.unwrap();
        let name = CheckpointId::mint(&mut SeededIds::new(seed));
        made.insert(writer.finish_named(name).await.unwrap().id);
        fixture.store.sweep().await.unwrap();
    }
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = fixture.store.list_named_checkpoints(&workspace("local"), &id, after, 1).await.unwrap();
        found.extend(page.entries.into_iter().map(|named| named.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, made);
}
