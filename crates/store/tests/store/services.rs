//! What only a PostgreSQL and an object store can do to us: go away, be somebody else's, be held. `tests/harness/stores.py`
//! starts them; the stage `stores` of `cargo xtask ci` runs these.

use crate::fixture::{Fixture, data_dir, draft, file_id, get, noise, put, still_clock, workspace};
use crate::place::{Place, Services};
use belljar_store::{BlobPlace, Content, Database, PostgresPlace, Store, StoreError, StoreOptions};
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

const HOLD: &str = "hashtextextended('belljar ' || current_schema(), 0)";

fn services(fixture: &Fixture) -> &Services {
    match &fixture.place {
        Place::Elsewhere(services) => services,
        Place::Here => panic!("start this through tests/harness/stores.py"),
    }
}

/// Cuts every connection to the fixture's schema from the server's side.
async fn cut(services: &Services) {
    services
        .sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE application_name = 'belljar' AND pid IN (
               SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint | (classid::bigint << 32)
                 = hashtextextended('belljar ' || current_schema(), 0))",
        )
        .await;
}

/// Holds the store as another process would, until dropped.
async fn hold(services: &Services) -> impl Drop + use<> {
    struct Holder(Option<postgres::Client>);
    impl Drop for Holder {
        fn drop(&mut self) {
            let client = self.0.take();
            std::thread::spawn(move || drop(client)).join().unwrap();
        }
    }
    let url = services.url();
    let take = move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.batch_execute(&format!("SELECT pg_advisory_lock({HOLD})")).unwrap();
        client
    };
    Holder(Some(tokio::task::spawn_blocking(take).await.unwrap()))
}

#[tokio::test]
#[ignore = "needs the services of tests/harness/stores.py"]
async fn one_server_holds_a_database() {
    let fixture = Fixture::new().await;
    let other = tempfile::tempdir().unwrap();
    let open = || Store::open(other.path(), fixture.place.options(still_clock()));
    let error = open().await.err().unwrap();
    assert!(matches!(&error, StoreError::Held { place } if place.starts_with("127.0.0.1:")), "{error}");
    assert!(!error.to_string().contains("password"), "{error}");
    drop(fixture.store);
    drop(open().await.unwrap());
}

#[tokio::test]
#[ignore = "needs the services of tests/harness/stores.py"]
async fn a_connection_that_was_cut_comes_back_with_its_hold() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    put(store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    let mut begun = store.begin_file(draft(&file_id(2))).await.unwrap();
    begun.write(noise(2, 100)).await.unwrap();
    cut(services(&fixture)).await;
    begun.finish().await.unwrap();
    assert_eq!(get(store, &local, &file_id(2)).await.unwrap(), noise(2, 100));
    assert!(store.delete_file(&local, &file_id(1)).await.unwrap());
    // It is held again.
    let other = tempfile::tempdir().unwrap();
    let error = Store::open(other.path(), fixture.place.options(still_clock())).await.err().unwrap();
    assert!(matches!(error, StoreError::Held { .. }), "{error}");
}

#[tokio::test]
#[ignore = "needs the services of tests/harness/stores.py"]
async fn who_lost_the_hold_to_another_changes_nothing_any_more() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    put(store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    cut(services(&fixture)).await;
    let other = hold(services(&fixture)).await;
    let error = put(store, draft(&file_id(2)), noise(2, 100)).await.unwrap_err();
    assert!(matches!(error, StoreError::Held { .. }), "{error}");
    // The other one has only looked: the store is still ours when it goes.
    drop(other);
    put(store, draft(&file_id(3)), noise(3, 100)).await.unwrap();

    cut(services(&fixture)).await;
    let other = hold(services(&fixture)).await;
    services(&fixture).sql("UPDATE store SET tenure = tenure + 1").await;
    drop(other);
    for seed in 4..6 {
        let error = put(store, draft(&file_id(seed)), noise(seed, 100)).await.unwrap_err();
        assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
    }
    assert!(matches!(store.delete_file(&local, &file_id(1)).await, Err(StoreError::Superseded { .. })));
    assert_eq!(get(store, &local, &file_id(1)).await.unwrap(), noise(1, 100), "what is there can be read");
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.blobs().await.len(), 2, "what was not committed is gone");
    put(&fixture.store, draft(&file_id(4)), noise(4, 100)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the services of tests/harness/stores.py"]
async fn contents_of_another_database_are_refused_and_not_swept() {
    let fixture = Fixture::new().await;
    put(&fixture.store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    let kept = fixture.blobs().await;
    let foreign = |error: Option<StoreError>| match error {
        Some(StoreError::Foreign { owner, .. }) => owner,
        other => panic!("{other:?}"),
    };
    // Another database with the same bucket and prefix, while its owner lives.
    let other = Place::new().await;
    let options = StoreOptions { database: other.database(), ..fixture.place.options(still_clock()) };
    let dir = tempfile::tempdir().unwrap();
    assert!(foreign(Store::open(dir.path(), options).await.err()).is_some());
    let options = StoreOptions { blobs: fixture.place.blob_place(), ..StoreOptions::new(still_clock()) };
    let dir = tempfile::tempdir().unwrap();
    assert!(foreign(Store::open(dir.path(), options).await.err()).is_some());
    assert_eq!(fixture.blobs().await, kept);

    // A data directory whose metadata were SQLite's until the configuration was changed, and back.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&data_dir(&dir), StoreOptions::new(still_clock())).await.unwrap();
    put(&store, draft(&file_id(1)), noise(1, 100)).await.unwrap();
    drop(store);
    let elsewhere = || StoreOptions { blobs: BlobPlace::Disk, ..fixture.place.options(still_clock()) };
    let elsewhere = || StoreOptions { database: other.database(), ..elsewhere() };
    assert!(foreign(Store::open(&data_dir(&dir), elsewhere()).await.err()).is_some());
    std::fs::remove_file(data_dir(&dir).join("blobs.owner")).unwrap();
    assert_eq!(foreign(Store::open(&data_dir(&dir), elsewhere()).await.err()), None, "from before there were owners");
    let store = Store::open(&data_dir(&dir), StoreOptions::new(still_clock())).await.unwrap();
    assert_eq!(get(&store, &workspace("local"), &file_id(1)).await.unwrap(), noise(1, 100));
}

#[tokio::test]
#[ignore = "needs the services of tests/harness/stores.py"]
async fn what_cannot_be_reached_is_said_by_name_and_without_secrets() {
    let fixture = Fixture::new().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let database = PostgresPlace::parse(&format!("postgres://ada:hidden@{nobody}/belljar")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { database: Database::Postgres(database), ..fixture.place.options(still_clock()) };
    let error = Store::open(dir.path(), options).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unreachable { what: "the database", .. }), "{error}");
    assert!(!error.to_string().contains("hidden"), "{error}");
    assert_eq!(error.client_text(), "The server's storage cannot be reached. Try again.");

    let wrong = services(&fixture).url().replace("belljar-test-password", "hidden");
    let database = Database::Postgres(PostgresPlace::parse(&wrong).unwrap());
    let error = database.reach().await.unwrap_err();
    assert!(error.to_string().contains("authentication failed") && !error.to_string().contains("hidden"), "{error}");
    assert!(fixture.place.database().reach().await.unwrap().unwrap().starts_with(char::is_numeric));
    let found = fixture.place.blob_place().reach().await.unwrap();
    assert_eq!(found.as_deref(), Some("there, and in use by a Belljar"));

    let mut place = services(&fixture).objects();
    place.credentials.as_mut().unwrap().secret_access_key = "hidden".to_owned();
    let error = BlobPlace::Objects(Box::new(place.clone())).reach().await.unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { blobs: BlobPlace::Objects(Box::new(place)), ..StoreOptions::new(still_clock()) };
    let error = Store::open(dir.path(), options).await.err().unwrap();
    assert!(matches!(error, StoreError::Unreachable { what: "the object store", .. }));
}

#[tokio::test]
#[ignore = "needs the services of tests/harness/stores.py"]
async fn a_content_of_many_parts_goes_up_and_comes_back_from_anywhere() {
    let fixture = Fixture::new().await;
    let (store, local) = (&fixture.store, workspace("local"));
    // Two whole parts and some; in chunks that do not divide them.
    let content = noise(1, 20 * 1024 * 1024 + 12_345);
    let mut writer = store.begin_file(draft(&file_id(1))).await.unwrap();
    for chunk in content.chunks(700_001) {
        writer.write(content.slice_ref(chunk)).await.unwrap();
    }
    writer.finish().await.unwrap();
    assert!(store.check_content(&local, &file_id(1)).await.unwrap());
    assert_eq!(get(store, &local, &file_id(1)).await.unwrap(), content);
    for (from, bytes) in [(0, 10), (8 * 1024 * 1024 - 5, 10), (content.len() - 7, 7), (content.len(), 0)] {
        let opened = store.open_content(&local, &file_id(1)).await.unwrap();
        let Some(Content::Open { mut file, .. }) = opened else { panic!("{opened:?}") };
        file.seek(SeekFrom::Start(from as u64)).await.unwrap();
        let mut read = Vec::new();
        file.take(bytes as u64).read_to_end(&mut read).await.unwrap();
        assert_eq!(read, content[from..from + bytes], "from {from}");
    }
    // An upload that is given up, with parts on their way.
    let mut writer = store.begin_file(draft(&file_id(2))).await.unwrap();
    writer.write(noise(2, 20 * 1024 * 1024)).await.unwrap();
    drop(writer);
    assert_eq!(fixture.blobs().await.len(), 1);
    assert!(store.delete_file(&local, &file_id(1)).await.unwrap());
    assert_eq!(fixture.blobs().await.len(), 0);
}
