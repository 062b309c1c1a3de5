//! What counting costs: `cargo run --release -p belljar-store --example tenants`. One line of JSON for each figure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use belljar_ids::{FileId, SeededIds};
use belljar_store::{
    FileDraft, FileQuota, Filename, Origin, Store, StoreError, StoreOptions, SystemClock, Timestamp, UserId,
    WorkspaceId,
};
use bytes::Bytes;

/// No quota is reached here.
const NEVER: u64 = 1 << 40;
const TIMES: usize = 1_000;
const END_USERS: u64 = 10_000;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let mut options = StoreOptions::new(Arc::new(SystemClock));
    options.file_quota = FileQuota { bytes_max: NEVER, files_max: Some(NEVER) };
    let store = Store::open(&dir.path().join("data"), options).await?;
    let whole = WorkspaceId::named("measured")?;

    let mut one_by_one = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = Instant::now();
        store.take_execution(&whole, NEVER).await?;
        one_by_one.push(begun.elapsed());
    }
    one_by_one.sort();
    tell("an execution counted, one after another: median", one_by_one[TIMES / 2]);
    tell("the same: 99th of 100", one_by_one[TIMES * 99 / 100]);
    let begun = Instant::now();
    let asked: Vec<_> = (0..TIMES).map(|_| tokio::spawn(take(store.clone(), whole.clone()))).collect();
    for one in asked {
        one.await??;
    }
    tell("the same, 1000 asked for at once: each", per(begun.elapsed(), TIMES));

    for (users, first) in [(0, 0), (END_USERS, END_USERS)] {
        for number in 0..users {
            let user: UserId = format!("user {number}").parse()?;
            let scope = whole.scope_of(&user);
            store.enter_scope(&scope, &user).await?;
            keep(&store, &scope, first + number + 1_000).await?;
        }
        let begun = Instant::now();
        for _ in 0..100 {
            store.workspace_bytes(&whole).await?;
        }
        tell(&format!("bytes of a workspace with {users} end users"), per(begun.elapsed(), 100));
        let begun = Instant::now();
        for number in 0..20 {
            keep(&store, &whole, first * 10 + number).await?;
        }
        tell(&format!("a file kept in it, of so many files: {}", users + 20), per(begun.elapsed(), 20));
    }
    Ok(())
}

async fn take(store: Store, whole: WorkspaceId) -> Result<bool, StoreError> {
    store.take_execution(&whole, NEVER).await
}

async fn keep(store: &Store, workspace: &WorkspaceId, seed: u64) -> Result<(), Failure> {
    let now: Timestamp = "2026-11-29T12:00:00Z".parse()?;
    let draft = FileDraft {
        id: FileId::mint(&mut SeededIds::new(seed)),
        workspace: workspace.clone(),
        filename: Filename::of_generated(b"a"),
        mime_type: "text/plain".to_owned(),
        origin: Origin::Uploaded,
        created_at: now,
        expires_at: None,
    };
    let mut writer = store.begin_file(draft).await?;
    writer.write(Bytes::from_static(b"x")).await?;
    writer.finish().await?;
    Ok(())
}

fn per(all: Duration, times: usize) -> Duration {
    all / u32::try_from(times).unwrap_or(u32::MAX)
}

fn tell(what: &str, took: Duration) {
    println!("{{\"what\": \"{what}\", \"us\": {}}}", took.as_micros());
}
