//! `kill -9` at random instants: what was acknowledged is there, what was not leaves nothing behind.

use crate::fixture::{NOON_US, Place, StillClock, draft, file_id, noise, put, still_clock, workspace};
use belljar_ids::{FileId, IdSource as _, SeededIds};
use belljar_store::{Clock, ContentDigest, FileQuery, Store, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Tells the child where to work, and which seeds are its own: `PATH:PLACE:ROUND`.
const CHILD: &str = "BELLJAR_STORE_CRASH_CHILD";
const ROUNDS: u64 = 15;

async fn open(path: &Path, place: &Place, clock: Arc<StillClock>) -> Store {
    Store::open(path, place.options(clock as Arc<dyn Clock>)).await.unwrap()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// Uploads, and deletes every fourth file again, until killed.
async fn upload_forever(store: Store, first_seed: u64) {
    let local = workspace("local");
    for seed in first_seed.. {
        // Every third content is one that others upload too.
        let content = if seed % 3 == 0 {
            noise(seed % 5, 20_000)
        } else {
            noise(seed, 1 + usize::try_from(seed * 7919 % 200_000).unwrap())
        };
        let mut draft = draft(&file_id(seed));
        draft.created_at = Timestamp::from_micros(NOON_US + i64::try_from(seed).unwrap()).unwrap();
        let record = put(&store, draft, content).await.unwrap();
        say(&format!("ack {} {}\n", record.id, record.content.unwrap()));
        if seed % 4 == 0 {
            say(&format!("deleting {}\n", record.id));
            assert!(store.delete_file(&local, &record.id).await.unwrap());
            say(&format!("deleted {}\n", record.id));
        }
    }
}

#[test]
#[ignore = "the child of acknowledged_files_survive_kill"]
fn child_that_uploads_until_killed() {
    let Ok(task) = std::env::var(CHILD) else {
        eprintln!("SKIP: only started by acknowledged_files_survive_kill");
        return;
    };
    let (path, round) = task.rsplit_once(':').unwrap();
    let (path, place) = path.rsplit_once(':').unwrap();
    let round: u64 = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(path), &Place::named(place), still_clock()).await;
        let uploads = (0..4).map(|task| tokio::spawn(upload_forever(store.clone(), (round * 4 + task) * 1_000_000)));
        for upload in uploads.collect::<Vec<_>>() {
            upload.await.unwrap();
        }
    });
}

/// What the children said, over all rounds.
#[derive(Default)]
struct Said {
    acknowledged: BTreeMap<FileId, String>,
    maybe_deleted: BTreeSet<FileId>,
    deleted: BTreeSet<FileId>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["ack", id, digest] => {
                self.acknowledged.insert(id.parse().unwrap(), digest.to_owned());
            }
            ["deleting", id] => {
                self.maybe_deleted.insert(id.parse().unwrap());
            }
            ["deleted", id] => {
                self.deleted.insert(id.parse().unwrap());
            }
            _ => {}
        }
    }
}

/// Lets a child upload and kills it some time after its first acknowledgement.
fn run_and_kill(path: &Path, place: &Place, round: u64, after: Duration, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_uploads_until_killed", "--ignored", "--nocapture"])
        .env(CHILD, format!("{}:{}:{round}", path.display(), place.name()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (started, first) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 {
                return lines;
            }
            if line.starts_with("ack ") {
                // Only the first one is waited for; nobody hears the others.
                let _ = started.send(());
            }
            lines.push(line);
        }
    });
    let first = first.recv_timeout(Duration::from_secs(60));
    // Not to wait for anything: the instant of the kill is what varies.
    std::thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    first.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it ran until killed");
    // A line cut off by the kill was not said.
    for line in listener.join().unwrap().iter().filter(|line| line.ends_with('\n')) {
        said.hear(line);
    }
}

async fn every_file(store: &Store) -> BTreeMap<FileId, String> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let page = store.list_files(&workspace("local"), FileQuery::Page { limit: 1000, after }).await.unwrap();
        found.extend(page.entries.into_iter().map(|file| (file.id, file.content.unwrap().to_string())));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[test]
fn acknowledged_files_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = runtime.block_on(Place::new());
    let (mut said, mut random) = (Said::default(), SeededIds::new(2026));
    for round in 0..ROUNDS {
        let mut byte = [0];
        random.fill(&mut byte);
        run_and_kill(&path, &place, round, Duration::from_micros(u64::from(byte[0]) * 500), &mut said);

        let store = runtime.block_on(open(&path, &place, still_clock()));
        let kept = runtime.block_on(every_file(&store));
        for (id, digest) in said.acknowledged.iter().filter(|(id, _)| !said.maybe_deleted.contains(*id)) {
            assert_eq!(kept.get(id), Some(digest), "{id} was acknowledged");
        }
        assert!(said.deleted.iter().all(|id| !kept.contains_key(id)), "a deletion came undone");
        // Every file, acknowledged or not, is whole; and there is nothing on disk but their contents.
        let mut there: Vec<String> = Vec::new();
        for blob in place.blobs(&path) {
            let digest = ContentDigest::of(&std::fs::read(&blob).unwrap()).to_string();
            if let Place::Here = place {
                let shard = blob.parent().unwrap().file_name().unwrap().to_str().unwrap();
                let name = format!("{shard}{}", blob.file_name().unwrap().to_str().unwrap());
                assert_eq!(name, digest, "a content is not whole");
            }
            there.push(digest);
        }
        there.sort();
        let referenced: BTreeSet<String> = kept.values().cloned().collect();
        assert_eq!(there, referenced.into_iter().collect::<Vec<_>>());
    }
    assert!(said.acknowledged.len() as u64 > ROUNDS * 2, "{} uploads are too few", said.acknowledged.len());
    println!("{} acknowledged, {} deleted", said.acknowledged.len(), said.deleted.len());
}
