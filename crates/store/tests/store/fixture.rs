//! A store in a directory of its own, with a clock that stands still until moved.

use belljar_ids::{FileId, IdSource as _, SeededIds};
use belljar_store::{
    Clock, Content, FileDraft, FileRecord, Origin, Store, StoreError, StoreOptions, Timestamp, WorkspaceId,
};
use bytes::Bytes;

pub use crate::place::Place;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

/// 2026-11-20T16:16:09.340000Z
pub const NOON_US: i64 = 1_795_191_369_340_000;

pub struct StillClock(AtomicI64);

impl StillClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

pub struct Fixture {
    pub dir: TempDir,
    pub clock: Arc<StillClock>,
    pub store: Store,
    pub place: Place,
}

pub fn still_clock() -> Arc<StillClock> {
    Arc::new(StillClock(AtomicI64::new(NOON_US)))
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut StoreOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = still_clock();
        let place = Place::new().await;
        let mut options = place.options(Arc::clone(&clock) as Arc<dyn Clock>);
        adjust(&mut options);
        let store = Store::open(&data_dir(&dir), options).await.unwrap();
        Self { dir, clock, store, place }
    }

    /// Closes the store and opens it again.
    pub async fn reopened(self) -> Self {
        let Self { dir, clock, store, place } = self;
        drop(store);
        let options = place.options(Arc::clone(&clock) as Arc<dyn Clock>);
        let store = Store::open(&data_dir(&dir), options).await.unwrap();
        Self { dir, clock, store, place }
    }

    /// Every content there is, after those that are being removed are gone.
    pub async fn blobs(&self) -> Vec<PathBuf> {
        self.store.removals_done().await;
        self.place.blobs(&data_dir(&self.dir))
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

pub fn data_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

pub fn workspace(name: &str) -> WorkspaceId {
    name.parse().unwrap()
}

pub fn file_id(seed: u64) -> FileId {
    FileId::mint(&mut SeededIds::new(seed))
}

pub fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut content = vec![0; bytes];
    SeededIds::new(seed).fill(&mut content);
    content.into()
}

/// An upload to the workspace `local`.
pub fn draft(id: &FileId) -> FileDraft {
    FileDraft {
        id: id.clone(),
        workspace: workspace("local"),
        filename: "sales.csv".parse().unwrap(),
        mime_type: "text/csv".to_owned(),
        origin: Origin::Uploaded,
        created_at: Timestamp::from_micros(NOON_US).unwrap(),
        expires_at: None,
    }
}

pub async fn put(store: &Store, draft: FileDraft, content: Bytes) -> Result<FileRecord, StoreError> {
    let mut writer = store.begin_file(draft).await?;
    writer.write(content).await?;
    writer.finish().await
}

/// The whole content of a file; `None` when there is no such file. Fails on an expired one.
pub async fn get(store: &Store, workspace: &WorkspaceId, id: &FileId) -> Option<Vec<u8>> {
    match store.open_content(workspace, id).await.unwrap()? {
        Content::Expired { record } => panic!("{} has expired", record.id),
        Content::Open { mut file, .. } => {
            let mut content = Vec::new();
            file.read_to_end(&mut content).await.unwrap();
            Some(content)
        }
    }
}

/// Every regular file below `dir`, sorted.
pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_under(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
