//! Opening a store: one process, closed to others, no newer schema, leftovers gone.

use crate::fixture::{Fixture, Place, data_dir, draft, file_id, get, noise, put, still_clock, workspace};
use belljar_store::{KeyRing, Store, StoreError, StoreOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Of a store on this machine's disk.
fn options() -> StoreOptions {
    StoreOptions::new(still_clock())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn one_process_at_a_time() {
    let fixture = Fixture::new().await;
    let path = data_dir(&fixture.dir);
    let options = || fixture.place.options(still_clock());
    let error = Store::open(&path, options()).await.err().unwrap();
    let pid = std::process::id();
    assert!(matches!(&error, StoreError::Locked { pid: Some(noted), .. } if *noted == pid), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "{} is in use by another process (pid {pid}); stop it, or choose another data directory",
            path.display()
        )
    );
    assert_eq!(error.client_text(), "Internal server error");
    // A writer that is still open keeps the directory.
    let writer = fixture.store.begin_file(draft(&file_id(1))).await.unwrap();
    drop(fixture.store);
    let again = Store::open(&path, fixture.place.options(still_clock())).await;
    assert!(matches!(again, Err(StoreError::Locked { .. })));
    drop(writer);
    drop(Store::open(&path, fixture.place.options(still_clock())).await.unwrap());
}

#[tokio::test]
async fn the_data_directory_is_closed_to_others() {
    let fixture = Fixture::new().await;
    put(&fixture.store, draft(&file_id(1)), noise(1, 5)).await.unwrap();
    let path = data_dir(&fixture.dir);
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("lock")), 0o600);
    match fixture.place {
        Place::Here => {
            assert_eq!(mode(&path.join("blobs")), 0o700);
            assert_eq!(mode(&fixture.blobs().await[0]), 0o600);
        }
        Place::Elsewhere(_) => assert_eq!(mode(&path.join("spool")), 0o700),
    }

    // Opened to others by mistake, and an empty directory made beforehand: closed again.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let fixture = fixture.reopened().await;
    assert_eq!(mode(&path), 0o700);
    let made = fixture.dir.path().join("made");
    std::fs::create_dir(&made).unwrap();
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(&made, options()).await.unwrap());
    assert_eq!(mode(&made), 0o700);
}

#[tokio::test]
async fn a_directory_full_of_other_things_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Store::open(dir.path(), options()).await.err().unwrap();
    assert!(matches!(error, StoreError::Exposed { mode: 0o755, .. }), "{error}");
    assert_eq!(mode(dir.path()), 0o755);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_not_touched() {
    let fixture = Fixture::new().await;
    let path = data_dir(&fixture.dir);
    drop(fixture.store);
    fixture.place.sql(&path, "INSERT INTO migrations VALUES (999, '0999_later', 'later')").await;
    let database = path.join("belljar.sqlite");
    let before = std::fs::read(&database).ok();
    for _ in 0..2 {
        let error = Store::open(&path, fixture.place.options(still_clock())).await.err().unwrap();
        assert!(matches!(error, StoreError::NewerSchema { found: 999, known: 1.. }), "{error}");
        let (path, database) = (path.clone(), fixture.place.database());
        let ring = move || KeyRing::open(&path, &database, still_clock()).err().unwrap();
        let error = tokio::task::spawn_blocking(ring).await.unwrap();
        assert!(matches!(error, StoreError::NewerSchema { found: 999, known: 1.. }), "{error}");
    }
    assert_eq!(std::fs::read(&database).ok(), before);
}

#[tokio::test]
async fn what_is_not_a_database_is_reported_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(dir.path().join("belljar.sqlite"), noise(1, 8192)).unwrap();
    let error = Store::open(dir.path(), options()).await.err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn opening_removes_leftovers_and_nothing_else() {
    let fixture = Fixture::new().await;
    let record = put(&fixture.store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    let kept = fixture.blobs().await;
    let mut expected = kept.clone();
    match &fixture.place {
        Place::Here => {
            let blobs = data_dir(&fixture.dir).join("blobs");
            std::fs::write(blobs.join("tmp/0"), "half an upload").unwrap();
            let orphan = blobs.join("ab").join("0".repeat(62));
            std::fs::write(&orphan, "renamed, not committed").unwrap();
            let strange = blobs.join("ab/README");
            std::fs::write(&strange, "not ours").unwrap();
            expected.push(strange);
        }
        Place::Elsewhere(_) => {
            let contents = kept[0].parent().unwrap();
            for name in 0..3 {
                std::fs::write(contents.join(format!("{name:032x}")), "uploaded, not committed").unwrap();
            }
            let spool = data_dir(&fixture.dir).join("spool/0");
            std::fs::write(spool, "half a checkpoint").unwrap();
        }
    }
    assert!(fixture.blobs().await.len() > 1);

    let fixture = fixture.reopened().await;
    expected.sort();
    assert_eq!(fixture.blobs().await, expected);
    let content = get(&fixture.store, &workspace("local"), &record.id).await.unwrap();
    assert_eq!(content, noise(1, 100));
}
