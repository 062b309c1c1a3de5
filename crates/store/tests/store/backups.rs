//! Backups: made beside an open store, restored, and refused when they are not what was made. How they may be spoilt is data,
//! in `hostile_backups.json`.

use crate::fixture::{Fixture, Place, data_dir, draft, file_id, files_under, get, noise, put, still_clock, workspace};
use belljar_store::{
    AdminError, BackupDraft, BackupReport, ContentDigest, Records, Store, StoreError, StoreOptions, backup, restore,
    verify,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// In a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn back_up(fixture: &Fixture, name: &str, link_from: Option<&Path>) -> Result<BackupReport, AdminError> {
    let (data, destination) = (data_dir(&fixture.dir), fixture.dir.path().join(name));
    let (place, clock, link_from) = (fixture.place.clone(), still_clock(), link_from.map(Path::to_owned));
    blocking(move || {
        backup(&BackupDraft {
            data_dir: &data,
            database: &place.database(),
            blobs: &place.blob_place(),
            destination: &destination,
            link_from: link_from.as_deref(),
            belljar: "1.2.3",
            clock: &*clock,
        })
    })
    .await
}

fn here() -> Place {
    Place::Here
}

async fn restored(backup: &Path, data_dir: &Path) -> Result<BackupReport, AdminError> {
    let (backup, data_dir) = (backup.to_owned(), data_dir.to_owned());
    blocking(move || restore(&backup, &data_dir, &here().database(), &here().blob_place())).await
}

/// A store with two files, of which one is there twice, and a secret; `None` where stores are elsewhere.
async fn filled() -> Option<Fixture> {
    let fixture = Fixture::new().await;
    if matches!(fixture.place, Place::Elsewhere(_)) {
        return None;
    }
    for (id, content) in [(1, 1), (2, 2), (3, 2)] {
        put(&fixture.store, draft(&file_id(id)), noise(content, 100_000)).await.unwrap();
    }
    fixture.store.scope_secret([7; 32]).await.unwrap();
    Some(fixture)
}

#[tokio::test]
async fn a_backup_beside_an_open_store_is_restored_byte_for_byte() {
    let Some(fixture) = filled().await else { return };
    let report = back_up(&fixture, "backup", None).await.unwrap();
    let made = fixture.dir.path().join("backup");
    assert_eq!((report.files, report.linked, report.belljar.as_str()), (5, 0, "1.2.3"));
    for path in files_under(&made) {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
    }
    assert_eq!(files_under(&data_dir(&fixture.dir).join("blobs/pins")), Vec::<PathBuf>::new());
    // What comes afterwards is not in it, what goes afterwards is.
    put(&fixture.store, draft(&file_id(4)), noise(4, 10)).await.unwrap();
    assert!(fixture.store.delete_file(&workspace("local"), &file_id(1)).await.unwrap());
    let again = fixture.dir.path().join("again");
    assert_eq!(restored(&made, &again).await.unwrap(), report);
    let store = Store::open(&again, StoreOptions::new(still_clock())).await.unwrap();
    for (id, content) in [(1, 1), (2, 2), (3, 2)] {
        assert_eq!(get(&store, &workspace("local"), &file_id(id)).await.unwrap(), noise(content, 100_000));
    }
    assert_eq!(get(&store, &workspace("local"), &file_id(4)).await, None);
    assert_eq!(store.scope_secret([1; 32]).await.unwrap(), [7; 32]);
}

#[tokio::test]
async fn a_second_backup_shares_what_is_the_same() {
    let Some(fixture) = filled().await else { return };
    back_up(&fixture, "one", None).await.unwrap();
    put(&fixture.store, draft(&file_id(4)), noise(4, 10)).await.unwrap();
    let one = fixture.dir.path().join("one");
    // One of the former is spoilt: it is copied instead.
    let contents = files_under(&one.join("blobs"));
    spoil(&contents[0]);
    let report = back_up(&fixture, "two", Some(&one)).await.unwrap();
    assert_eq!((report.files, report.linked), (6, 1));
    let two = fixture.dir.path().join("two");
    let shared = std::fs::metadata(two.join(contents[1].strip_prefix(&one).unwrap())).unwrap();
    assert_eq!((shared.ino(), shared.nlink()), (std::fs::metadata(&contents[1]).unwrap().ino(), 2));
    assert_eq!(blocking(move || verify(&two)).await.unwrap().files, 6);
}

#[tokio::test]
async fn what_stands_in_the_way_is_left_alone() {
    let Some(fixture) = filled().await else { return };
    let made = fixture.dir.path().join("backup");
    back_up(&fixture, "backup", None).await.unwrap();
    let said = back_up(&fixture, "backup", None).await.unwrap_err().to_string();
    assert!(said.ends_with("it exists already; a backup is a directory of its own"), "{said}");
    let said = back_up(&fixture, "data/backup", None).await.unwrap_err().to_string();
    assert!(said.contains("within the data directory"), "{said}");
    let error = restored(&made, &data_dir(&fixture.dir)).await.unwrap_err();
    assert!(matches!(error, AdminError::Store(StoreError::Locked { .. })), "{error}");
    let full = fixture.dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "mine").unwrap();
    let said = restored(&made, &full).await.unwrap_err().to_string();
    assert!(said.ends_with("it is not empty; move it away, or restore to another directory"), "{said}");
    assert_eq!(std::fs::read(full.join("mine")).unwrap(), b"mine");
    // What a killed one left is not: nobody holds it.
    std::fs::create_dir(fixture.dir.path().join("third.part")).unwrap();
    std::fs::create_dir(data_dir(&fixture.dir).join("blobs/pins/left")).unwrap();
    back_up(&fixture, "third", None).await.unwrap();
    assert!(!fixture.dir.path().join("third.part").exists());
    assert!(!data_dir(&fixture.dir).join("blobs/pins/left").exists());
}

#[tokio::test]
async fn what_is_lost_already_is_said_with_its_files() {
    let Some(fixture) = filled().await else { return };
    let digest = ContentDigest::of(&noise(2, 100_000)).to_string();
    let content = data_dir(&fixture.dir).join("blobs").join(&digest[..2]).join(&digest[2..]);
    spoil(&content);
    let said = back_up(&fixture, "backup", None).await.unwrap_err().to_string();
    assert!(said.starts_with(&format!("content {digest} is not what was written (of ")), "{said}");
    assert!([2, 3].into_iter().all(|id| said.contains(file_id(id).as_str())), "{said}");
    std::fs::remove_file(&content).unwrap();
    let said = back_up(&fixture, "backup", None).await.unwrap_err().to_string();
    assert!(said.starts_with(&format!("content {digest} is missing (of ")), "{said}");
    assert!(!fixture.dir.path().join("backup").exists() && !fixture.dir.path().join("backup.part").exists());
}

#[tokio::test]
async fn stores_elsewhere_are_backed_up_elsewhere() {
    let fixture = Fixture::new().await;
    if matches!(fixture.place, Place::Here) {
        return;
    }
    let said = back_up(&fixture, "backup", None).await.unwrap_err().to_string();
    assert!(said.contains("pg_dump") && said.contains("docs/operations.md"), "{said}");
}

#[tokio::test]
async fn an_older_schema_is_backed_up_as_it_is_and_not_listed() {
    let Some(fixture) = filled().await else { return };
    let path = data_dir(&fixture.dir);
    fixture.place.sql(&path, "DELETE FROM migrations WHERE version = (SELECT max(version) FROM migrations)").await;
    let report = back_up(&fixture, "backup", None).await.unwrap();
    let (place, listed) = (here(), path.clone());
    let refused = blocking(move || Records::open(&listed, &place.database(), still_clock()).err().unwrap()).await;
    assert!(
        matches!(refused, AdminError::OlderSchema { found, known } if found == report.schema && known == found + 1)
    );
    let nowhere = fixture.dir.path().join("nowhere");
    let missing = nowhere.clone();
    let refused = blocking(move || Records::open(&missing, &here().database(), still_clock()).err().unwrap()).await;
    assert!(matches!(refused, AdminError::NoStore { .. }) && !nowhere.exists());
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(rename = "do")]
    acts: Vec<Vec<Value>>,
    /// A part of what is said; none where it is restored.
    refused: Option<String>,
}

#[tokio::test]
async fn spoilt_backups_are_refused_and_nothing_is_restored() {
    let Some(fixture) = filled().await else { return };
    let cases: Vec<Case> = serde_json::from_str(include_str!("hostile_backups.json")).unwrap();
    for (number, case) in cases.iter().enumerate() {
        let place = fixture.dir.path().join(number.to_string());
        std::fs::create_dir(&place).unwrap();
        let made = format!("{number}/backup");
        back_up(&fixture, &made, None).await.unwrap();
        let spoilt = Spoilt { root: place.join("backup"), content: content_of(&place.join("backup")) };
        case.acts.iter().for_each(|act| spoilt.act(act));
        let expected = case.refused.as_ref().map(|text| text.replace("CONTENT", &spoilt.content));
        let (root, target) = (spoilt.root.clone(), place.join("restored"));
        let verified = blocking(move || verify(&root)).await;
        let restored = restored(&spoilt.root, &target).await;
        for (how, outcome) in [("verify", verified), ("restore", restored)] {
            match (&expected, outcome) {
                (None, Ok(_)) => {}
                (Some(expected), Err(error)) => {
                    assert!(error.to_string().contains(expected), "{} ({how}): {error}", case.name);
                }
                (_, outcome) => panic!("{} ({how}): {outcome:?}", case.name),
            }
        }
        assert_eq!(target.exists(), expected.is_none(), "{}", case.name);
        let beside: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            !beside.iter().any(|name| name == "escape" || name == "restored.restoring"),
            "{}: {beside:?}",
            case.name
        );
    }
}

fn content_of(backup: &Path) -> String {
    let first = files_under(&backup.join("blobs")).remove(0);
    first.strip_prefix(backup).unwrap().to_str().unwrap().to_owned()
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A backup that somebody has had in hand.
struct Spoilt {
    root: PathBuf,
    content: String,
}

impl Spoilt {
    fn path(&self, name: &Value) -> PathBuf {
        self.root.join(name.as_str().unwrap().replace("CONTENT", &self.content))
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.join("manifest.jsonl")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn write(&self, lines: &[String]) {
        std::fs::write(self.root.join("manifest.jsonl"), lines.join("\n") + "\n").unwrap();
    }

    fn act(&self, act: &[Value]) {
        let number = |at: usize| act[at].as_i64().unwrap();
        let text = |at: usize| act[at].as_str().unwrap().replace("CONTENT", &self.content);
        match act[0].as_str().unwrap() {
            "flip" => spoil(&self.path(&act[1])),
            "remove" => std::fs::remove_file(self.path(&act[1])).unwrap(),
            "truncate" => {
                let mut bytes = std::fs::read(self.path(&act[1])).unwrap();
                let length = if number(2) < 0 { bytes.len() as i64 + number(2) } else { number(2) };
                bytes.truncate(usize::try_from(length).unwrap());
                std::fs::write(self.path(&act[1]), bytes).unwrap();
            }
            "append" => {
                let mut bytes = std::fs::read(self.path(&act[1])).unwrap();
                bytes.extend(text(2).bytes());
                std::fs::write(self.path(&act[1]), bytes).unwrap();
            }
            "write" => {
                std::fs::create_dir_all(self.path(&act[1]).parent().unwrap()).unwrap();
                std::fs::write(self.path(&act[1]), text(2)).unwrap();
            }
            "poke" => {
                let mut bytes = std::fs::read(self.path(&act[1])).unwrap();
                bytes[usize::try_from(number(2)).unwrap()] = u8::try_from(number(3)).unwrap();
                std::fs::write(self.path(&act[1]), bytes).unwrap();
            }
            "move" => std::fs::rename(self.path(&act[1]), self.root.join(text(2))).unwrap(),
            "link" => {
                std::fs::create_dir_all(self.path(&act[1]).parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(text(2), self.path(&act[1])).unwrap();
            }
            "directory" => std::fs::create_dir(self.path(&act[1])).unwrap(),
            "pipe" => {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    self.path(&act[1]),
                    kind,
                    rustix::fs::Mode::from_raw_mode(0o600),
                    0,
                )
                .unwrap();
            }
            "put" => {
                let content = noise(99, 50);
                let hex = ContentDigest::of(&content).to_string();
                let path = format!("blobs/{}/{}", &hex[..2], &hex[2..]);
                self.act(&[json!("write"), json!(path), json!("")]);
                std::fs::write(self.root.join(&path), &content).unwrap();
                let mut lines = self.lines();
                let line = json!({ "path": path, "bytes": content.len(), "sha256": hex }).to_string();
                let at = lines.iter().skip(1).position(|other| path_of(other) > path).unwrap() + 1;
                lines.insert(at, line);
                self.write(&lines);
            }
            _ => self.act_on_lines(act),
        }
    }

    fn act_on_lines(&self, act: &[Value]) {
        let mut lines = self.lines();
        let count = lines.len();
        let line = |at: &Value| match at.as_i64() {
            Some(at) if at < 0 => usize::try_from(count as i64 + at).unwrap(),
            Some(at) => usize::try_from(at).unwrap(),
            None => self.lines().iter().position(|line| line.contains(&self.content)).unwrap(),
        };
        match act[0].as_str().unwrap() {
            "cut line" => drop(lines.remove(line(&act[1]))),
            "replace" => {
                let at = line(&act[1]);
                let changed = lines[at].replacen(act[2].as_str().unwrap(), act[3].as_str().unwrap(), 1);
                assert_ne!(changed, lines[at]);
                lines[at] = changed;
            }
            "insert" => {
                let (path, content) = (act[2].as_str().unwrap(), act[3].as_str().unwrap());
                let sha256 = ContentDigest::of(content.as_bytes()).to_string();
                let entry = json!({ "path": path, "bytes": content.len(), "sha256": sha256 }).to_string();
                lines.insert(line(&act[1]), entry);
            }
            "double" => lines.insert(line(&act[1]), lines[line(&act[1])].clone()),
            "swap" => lines.swap(line(&act[1]), line(&act[2])),
            "long line" => lines.insert(1, "x".repeat(1 << 20)),
            "entry" => {
                let bytes = std::fs::read(self.path(&act[2])).unwrap();
                let sha256 = ContentDigest::of(&bytes).to_string();
                lines[line(&act[1])] = json!({ "path": act[2], "bytes": bytes.len(), "sha256": sha256 }).to_string();
            }
            "sign" => self.sign(&mut lines),
            other => panic!("{other}"),
        }
        self.write(&lines);
    }

    /// Makes the end fit what comes before.
    fn sign(&self, lines: &mut Vec<String>) {
        lines.pop();
        let entries: Vec<BTreeMap<String, Value>> =
            lines[1..].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let bytes = entries.iter().filter_map(|entry| entry["bytes"].as_u64()).fold(0, u64::saturating_add);
        let sha256 = ContentDigest::of((lines.join("\n") + "\n").as_bytes()).to_string();
        lines.push(json!({ "files": entries.len(), "bytes": bytes, "sha256": sha256 }).to_string());
    }
}

fn path_of(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap();
    line.get("path").and_then(Value::as_str).unwrap_or("\u{10ffff}").to_owned()
}
