//! Collecting what nothing refers to, beside an open store and without one.

use crate::fixture::{Fixture, Place, data_dir, draft, file_id, get, noise, put, still_clock, workspace};
use belljar_store::{AdminError, Clock, Collected, Collecting, Tally, collect};
use std::path::PathBuf;
use std::sync::Arc;

async fn collected(fixture: &Fixture, how: Collecting) -> Result<Collected, AdminError> {
    collected_in(data_dir(&fixture.dir), fixture.place.clone(), how).await
}

async fn collected_in(data: PathBuf, place: Place, how: Collecting) -> Result<Collected, AdminError> {
    let work = move || collect(&data, &place.database(), &place.blob_place(), how, &(still_clock() as Arc<dyn Clock>));
    tokio::task::spawn_blocking(work).await.unwrap()
}

const fn tally(count: u64, bytes: u64) -> Tally {
    Tally { count, bytes }
}

#[tokio::test]
async fn beside_an_open_store_only_what_nobody_has_goes() {
    let fixture = Fixture::new().await;
    if matches!(fixture.place, Place::Elsewhere(_)) {
        let refused = collected(&fixture, Collecting::Remove).await.unwrap_err();
        assert!(matches!(refused, AdminError::ServerRuns { .. }), "{refused}");
        return;
    }
    put(&fixture.store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    let mut half = fixture.store.begin_file(draft(&file_id(2))).await.unwrap();
    half.write(noise(2, 100)).await.unwrap();
    let blobs = data_dir(&fixture.dir).join("blobs");
    for digit in ["0", "1"] {
        std::fs::write(blobs.join("ab").join(digit.repeat(62)), "orphan").unwrap();
    }
    std::fs::write(blobs.join("ab/README"), "not ours").unwrap();
    std::fs::create_dir_all(blobs.join("pins/left")).unwrap();
    std::fs::write(blobs.join("pins/left").join("2".repeat(64)), "held back").unwrap();
    for how in [Collecting::Look, Collecting::Look, Collecting::Remove] {
        let expected = Collected { contents: tally(2, 12), unfinished: None, pins: tally(1, 9) };
        assert_eq!(collected(&fixture, how).await.unwrap(), expected, "{how:?}");
    }
    assert_eq!(collected(&fixture, Collecting::Remove).await.unwrap(), Collected::default(), "nothing is left");
    assert!(blobs.join("ab/README").exists() && !blobs.join("pins/left").exists());
    half.finish().await.unwrap();
    for id in [1, 2] {
        assert_eq!(get(&fixture.store, &workspace("local"), &file_id(id)).await.unwrap(), noise(id, 100));
    }
}

#[tokio::test]
async fn without_a_server_what_it_left_unfinished_goes_too() {
    let fixture = Fixture::new().await;
    put(&fixture.store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    let kept = fixture.blobs().await;
    let Fixture { dir, store, place, .. } = fixture;
    drop(store);
    let expected = match &place {
        Place::Here => {
            std::fs::write(data_dir(&dir).join("blobs/tmp/7"), "half").unwrap();
            Collected { unfinished: Some(tally(1, 4)), ..Collected::default() }
        }
        Place::Elsewhere(_) => {
            std::fs::write(kept[0].with_file_name("0".repeat(32)), "half").unwrap();
            Collected { contents: tally(1, 4), ..Collected::default() }
        }
    };
    for how in [Collecting::Look, Collecting::Remove] {
        assert_eq!(collected_in(data_dir(&dir), place.clone(), how).await.unwrap(), expected, "{how:?}");
    }
    assert_eq!(place.blobs(&data_dir(&dir)), kept);
}
