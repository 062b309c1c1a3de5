//! Whether a directory is a backup, whole and unharmed.

use super::backup::BackupReport;
use super::manifest::{Entry, Kept, MANIFEST, ManifestReader};
use super::tree::Tree;
use super::{AdminError, at};
use crate::db;
use crate::db::contents::KeptContent;
use crate::db::snapshot::Copied;
use crate::{ContentDigest, StoreError};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufReader, Read as _, Write};
use std::path::Path;

/// What is read and hashed at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// An id and the end of its line are shorter.
const OWNER_BYTES_MAX: u64 = 100;
/// Rows looked up at once.
const ROWS: u32 = 1000;

/// Reads every byte of a backup and holds it against the manifest, and the manifest against the database. Blocks.
///
/// # Errors
/// [`AdminError::Damaged`], [`AdminError::Manifest`]; [`StoreError::NewerSchema`] for one that a later program made.
pub fn verify(backup: &Path) -> Result<BackupReport, AdminError> {
    let tree = Tree::open(backup)?;
    let report = examine(&tree, |entry, file| {
        let (sha256, bytes) = pour(file, &mut std::io::sink(), &tree.root().join(entry.kept.path()))?;
        expect(&tree, entry, sha256, bytes)
    })?;
    check_database(&tree, tree.root())?;
    Ok(report)
}

/// Goes through the manifest, shows each file, opened, and sees to it that there are no others.
pub(super) fn examine(
    tree: &Tree,
    mut show: impl FnMut(&Entry, File) -> Result<(), AdminError>,
) -> Result<BackupReport, AdminError> {
    let mut manifest = manifest(tree)?;
    let there = tree.count()?;
    let flaw = |flaw| AdminError::Manifest { backup: tree.root().to_owned(), flaw };
    while let Some(entry) = manifest.next_entry().map_err(flaw)? {
        let file = tree.file(&entry.kept.path(), Some(entry.bytes))?;
        show(&entry, file)?;
    }
    if manifest.files() != there {
        return Err(tree.damaged(format!("there are {there} files, of which the manifest has {}", manifest.files())));
    }
    Ok(BackupReport {
        files: manifest.files(),
        bytes: manifest.bytes(),
        linked: 0,
        schema: manifest.head().schema,
        belljar: manifest.head().belljar.clone(),
        made_at: manifest.head().made_at.clone(),
    })
}

fn manifest(tree: &Tree) -> Result<ManifestReader<BufReader<File>>, AdminError> {
    let opened = BufReader::new(tree.file(MANIFEST, None)?);
    let manifest =
        ManifestReader::begin(opened).map_err(|flaw| AdminError::Manifest { backup: tree.root().to_owned(), flaw })?;
    let (found, known) = (manifest.head().schema, db::beside::latest());
    if found > known {
        return Err(StoreError::NewerSchema { found, known }.into());
    }
    Ok(manifest)
}

/// Copies a file, and says what it was.
pub(super) fn pour(mut from: File, to: &mut dyn Write, path: &Path) -> Result<(ContentDigest, u64), AdminError> {
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0_u8; CHUNK_BYTES], 0_u64);
    loop {
        let count = from.read(&mut buffer).map_err(at(path, "reading"))?;
        if count == 0 {
            return Ok((ContentDigest(hasher.finalize().into()), bytes));
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(at(path, "copying"))?;
        bytes += count as u64;
    }
}

/// Whether what was read is what the manifest has.
pub(super) fn expect(tree: &Tree, entry: &Entry, sha256: ContentDigest, bytes: u64) -> Result<(), AdminError> {
    match (sha256, bytes) == (entry.sha256, entry.bytes) {
        true => Ok(()),
        false => Err(tree.damaged(format!("{} is not what it was: its SHA-256 is {sha256}", entry.kept.path()))),
    }
}

/// Whether the database, wherever it was copied to, is whole, and the contents are those that it refers to.
pub(super) fn check_database(tree: &Tree, root: &Path) -> Result<(), AdminError> {
    let database = &root.join(Kept::Database.path());
    let damaged = |what: String| tree.damaged(format!("the database: {what}"));
    let mut form = [0_u8; 20];
    let mut file = File::open(database).map_err(at(database, "reading"))?;
    // Bytes 18 and 19 say whether there is a log beside it: sqlite.org/fileformat.html, 1.3.3.
    if file.read_exact(&mut form).is_err() || !form.starts_with(b"SQLite format 3\0") || form[18..] != [1, 1] {
        return Err(damaged("it is not one of a backup".to_owned()));
    }
    let unreadable = |error: StoreError| match error {
        StoreError::Corrupt { what } => damaged(what),
        newer @ StoreError::NewerSchema { .. } => newer.into(),
        other => damaged(other.to_string()),
    };
    let copied = Copied::open(database).map_err(unreadable)?;
    if let Some(flaw) = copied.flaw().map_err(unreadable)? {
        return Err(damaged(flaw));
    }
    let mut manifest = manifest(tree)?;
    let head = manifest.head();
    if copied.schema() == 0 || copied.schema() != head.schema || copied.store() != head.store.as_deref() {
        return Err(damaged("it is not the one that the manifest speaks of".to_owned()));
    }
    if let Ok(owner) = File::open(root.join(Kept::Owner.path())) {
        let mut text = String::new();
        let read = owner.take(OWNER_BYTES_MAX).read_to_string(&mut text);
        if read.is_err() || Some(text.trim()) != copied.store() {
            return Err(damaged("the contents are said to be those of another store".to_owned()));
        }
    }
    let mut rows = Rows { copied: &copied, page: Vec::new().into_iter(), last: None, is_over: false };
    let flaw = |flaw| AdminError::Manifest { backup: tree.root().to_owned(), flaw };
    while let Some(entry) = manifest.next_entry().map_err(flaw)? {
        let Kept::Content(digest) = entry.kept else { continue };
        match rows.next().map_err(unreadable)? {
            Some(row) if row.digest == digest && row.size_bytes == entry.bytes => {}
            Some(row) if row.digest < digest => return Err(damaged(format!("content {} is missing", row.digest))),
            Some(_) | None => return Err(damaged(format!("content {digest} is not one of it"))),
        }
    }
    match rows.next().map_err(unreadable)? {
        Some(row) => Err(damaged(format!("content {} is missing", row.digest))),
        None => Ok(()),
    }
}

/// All contents that a database has, in order, page by page.
struct Rows<'c> {
    copied: &'c Copied,
    page: std::vec::IntoIter<KeptContent>,
    last: Option<ContentDigest>,
    is_over: bool,
}

impl Rows<'_> {
    fn next(&mut self) -> Result<Option<KeptContent>, StoreError> {
        if self.page.len() == 0 && !self.is_over {
            let page = db::contents::after(self.copied.connection(), self.last.as_ref(), ROWS)?;
            self.is_over = page.len() < ROWS as usize;
            self.page = page.into_iter();
        }
        let next = self.page.next();
        self.last = next.map(|row| row.digest).or(self.last);
        Ok(next)
    }
}
