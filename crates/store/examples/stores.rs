//! How long the store's work takes on this disk and elsewhere, by turns: `python3 tests/harness/stores.py cargo run --release
//! -p belljar-store --example stores -- 200`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use belljar_ids::{ContainerId, FileId, IdSource as _, SeededIds};
use belljar_store::{
    BlobPlace, ContainerRecord, Content, Database, FileDraft, FileQuery, ObjectCredentials, ObjectPlace, Origin,
    PostgresPlace, Store, StoreOptions, SystemClock, Timestamp, WorkspaceId,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::AsyncReadExt as _;

const SMALL: usize = 1024;
const LARGE: usize = 10 * 1024 * 1024;
/// As the server reads and sends.
const CHUNK: usize = 64 * 1024;
const LISTED: u16 = 100;

struct Side {
    name: &'static str,
    store: Store,
    workspace: WorkspaceId,
    seed: u64,
    small: Vec<FileId>,
    large: Vec<FileId>,
}

#[derive(Clone, Copy, PartialEq)]
enum Row {
    Upload(usize),
    Download(usize),
    List,
    Claim,
    Delete,
}

impl Row {
    fn name(self) -> String {
        match self {
            Self::Upload(bytes) => format!("upload {} KiB", bytes / 1024),
            Self::Download(bytes) => format!("download {} KiB", bytes / 1024),
            Self::List => format!("list {LISTED} files"),
            Self::Claim => "record a container".to_owned(),
            Self::Delete => "delete a file".to_owned(),
        }
    }
}

impl Side {
    async fn open(name: &'static str, dir: &std::path::Path, database: Database, blobs: BlobPlace) -> Self {
        let options = StoreOptions { database, blobs, ..StoreOptions::new(Arc::new(SystemClock)) };
        let store = Store::open(dir, options).await.unwrap();
        Self { name, store, workspace: "bench".parse().unwrap(), seed: 0, small: Vec::new(), large: Vec::new() }
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond()).unwrap()
    }

    async fn upload(&mut self, content: Bytes) -> FileId {
        self.seed += 1;
        let draft = FileDraft {
            id: FileId::mint(&mut SeededIds::new(self.seed)),
            workspace: self.workspace.clone(),
            filename: "a.bin".parse().unwrap(),
            mime_type: "application/octet-stream".to_owned(),
            origin: Origin::Uploaded,
            created_at: Self::now(),
            expires_at: None,
        };
        let mut writer = self.store.begin_file(draft).await.unwrap();
        for chunk in content.chunks(CHUNK) {
            writer.write(content.slice_ref(chunk)).await.unwrap();
        }
        writer.finish().await.unwrap().id
    }

    /// Milliseconds of one go.
    async fn go(&mut self, row: Row, turn: usize) -> f64 {
        let content = match row {
            Row::Upload(bytes) => noise(self.seed + 1, bytes),
            Row::Download(_) | Row::List | Row::Claim | Row::Delete => Bytes::new(),
        };
        let begun = Instant::now();
        match row {
            Row::Upload(bytes) => {
                let id = self.upload(content).await;
                if bytes == SMALL { self.small.push(id) } else { self.large.push(id) }
            }
            Row::Download(bytes) => {
                let ids = if bytes == SMALL { &self.small } else { &self.large };
                let id = &ids[turn % ids.len()];
                let opened = self.store.open_content(&self.workspace, id).await.unwrap().unwrap();
                let Content::Open { mut file, .. } = opened else { panic!("{id} has expired") };
                let (mut buffer, mut total) = (vec![0; CHUNK], 0);
                loop {
                    match file.read(&mut buffer).await.unwrap() {
                        0 => break,
                        count => total += count,
                    }
                }
                assert_eq!(total, bytes);
            }
            Row::List => {
                let query = FileQuery::Page { limit: LISTED, after: None };
                assert!(!self.store.list_files(&self.workspace, query).await.unwrap().entries.is_empty());
            }
            Row::Claim => {
                self.seed += 1;
                let record = ContainerRecord {
                    id: ContainerId::mint(&mut SeededIds::new(self.seed)),
                    workspace: self.workspace.clone(),
                    created_at: Self::now(),
                    expires_at: Self::now(),
                };
                self.store.record_container(record).await.unwrap();
            }
            Row::Delete => {
                let id = self.small.pop().unwrap();
                assert!(self.store.delete_file(&self.workspace, &id).await.unwrap());
            }
        }
        begun.elapsed().as_secs_f64() * 1000.0
    }
}

fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut content = vec![0; bytes];
    SeededIds::new(seed).fill(&mut content);
    content.into()
}

fn elsewhere() -> Option<(Database, BlobPlace)> {
    let variable = |name| std::env::var(name).ok();
    let database = PostgresPlace::parse(&variable("BELLJAR_TEST_POSTGRES")?).unwrap();
    let credentials = ObjectCredentials {
        access_key_id: "belljar-test".to_owned(),
        secret_access_key: "belljar-test-secret".to_owned(),
        token: None,
    };
    let place = ObjectPlace {
        bucket: "belljar".to_owned(),
        prefix: "bench".to_owned(),
        endpoint: variable("BELLJAR_TEST_S3"),
        region: "us-east-1".to_owned(),
        allow_http: true,
        credentials: Some(credentials),
    };
    Some((Database::Postgres(database), BlobPlace::Objects(Box::new(place))))
}

#[tokio::main]
async fn main() {
    let turns: usize = std::env::args().nth(1).map_or(200, |text| text.parse().unwrap());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sides = vec![Side::open("sqlite+disk", here.path(), Database::Sqlite, BlobPlace::Disk).await];
    match elsewhere() {
        Some((database, blobs)) => {
            sides.push(Side::open("postgres+s3", there.path(), database, blobs).await);
        }
        None => println!("only this disk: start it through tests/harness/stores.py for both"),
    }
    println!("{:<22} {:<12} {:>6} {:>10} {:>10} {:>10}", "row", "where", "n", "p50 ms", "p99 ms", "max ms");
    let rows = [
        (Row::Upload(SMALL), turns),
        (Row::Upload(LARGE), turns / 10),
        (Row::Download(SMALL), turns),
        (Row::Download(LARGE), turns / 10),
        (Row::List, turns),
        (Row::Claim, turns),
        (Row::Delete, turns),
    ];
    for (row, turns) in rows {
        let mut samples = vec![Vec::with_capacity(turns); sides.len()];
        for turn in 0..turns.max(1) {
            for (side, samples) in sides.iter_mut().zip(&mut samples) {
                samples.push(side.go(row, turn).await);
            }
        }
        for (side, samples) in sides.iter().zip(&mut samples) {
            samples.sort_by(f64::total_cmp);
            let at = |percent: usize| samples[(samples.len() - 1) * percent / 100];
            let (name, where_, count) = (row.name(), side.name, samples.len());
            println!("{name:<22} {where_:<12} {count:>6} {:>10.3} {:>10.3} {:>10.3}", at(50), at(99), at(100));
        }
    }
}
