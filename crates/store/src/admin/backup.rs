//! A copy of a data directory as it was at one moment, made beside a running server.
//!
//! The order: contents get pins; the server's changes are held off while contents that are new since then get theirs and one moment
//! of the database is taken hold of; then everything goes on, and the database and the contents it refers to are copied at leisure.

use super::manifest::{Entry, FORMAT, Head, Kept, MANIFEST, ManifestWriter};
use super::part::{Part, Room};
use super::pins::Pins;
use super::tree::Tree;
use super::verify::pour;
use super::{AdminError, at, expect_own, whole_dir};
use crate::data_dir::{DataDir, OWNER, SECRET};
use crate::db;
use crate::db::contents::KeptContent;
use crate::db::snapshot::{Copied, Moment, Standstill};
use crate::{BlobPlace, Clock, ContentDigest, Database, StoreError};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Contents pinned or copied before the database is asked for more.
const ROWS: u32 = 1000;
const FILES_NAMED: u32 = 5;

/// What is to be backed up, and where to.
pub struct BackupDraft<'d> {
    /// Of the store.
    pub data_dir: &'d Path,
    /// Where its metadata is.
    pub database: &'d Database,
    /// Where its contents are.
    pub blobs: &'d BlobPlace,
    /// The directory to make.
    pub destination: &'d Path,
    /// An earlier backup, whose contents get a second name here instead of a copy where they are the same.
    pub link_from: Option<&'d Path>,
    /// The version of this program.
    pub belljar: &'d str,
    /// Tells the time.
    pub clock: &'d dyn Clock,
}

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Files, the manifest not among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them share their space with an earlier backup.
    pub linked: u64,
    /// The schema of its database.
    pub schema: u32,
    /// The version of the program that made it.
    pub belljar: String,
    /// When, as RFC 3339.
    pub made_at: String,
}

/// Makes a backup, whether or not a server runs. Blocks.
///
/// # Errors
/// Many; then there is no backup, and the store is as it was.
pub fn backup(draft: &BackupDraft<'_>) -> Result<BackupReport, AdminError> {
    let dir = whole_dir(draft.data_dir, draft.database, draft.blobs)?;
    let destination = destination(&dir, draft.destination)?;
    let previous = draft.link_from.map(Tree::open).transpose()?;
    super::pins::left(&dir.blobs(), super::Collecting::Remove)?;
    let part = Part::make(&destination, ".part")?;
    let pins = Pins::make(&dir)?;
    let moment = moment(&dir, &pins)?;
    expect_own(&dir, moment.store()?.as_deref(), draft.database)?;
    let head = Head {
        belljar_backup: FORMAT,
        belljar: draft.belljar.to_owned(),
        schema: moment.schema(),
        store: moment.store()?,
        made_at: draft.clock.now().to_string(),
    };
    let (database, file) = part.create(&Kept::Database.path())?;
    drop(file);
    moment.write(&database)?;
    let copied = Copied::open(&database)?;
    if let Some(flaw) = copied.flaw()? {
        return Err(StoreError::Corrupt { what: format!("the database: {flaw}") }.into());
    }
    let mut copying = Copying { dir, part, pins, previous, copied, linked: 0 };
    let (files, bytes) = copying.all(&head)?;
    let Copying { part, linked, .. } = copying;
    part.become_whole(Room::Nothing)?;
    Ok(BackupReport { files, bytes, linked, schema: head.schema, belljar: head.belljar, made_at: head.made_at })
}

/// A name that is free, outside of the data directory.
fn destination(dir: &DataDir, wanted: &Path) -> Result<PathBuf, AdminError> {
    let doing = "looking for the destination";
    let wanted = std::path::absolute(wanted).map_err(at(wanted, doing))?;
    let in_the_way = |what| AdminError::InTheWay { path: wanted.clone(), what };
    let (Some(parent), Some(name)) = (wanted.parent(), wanted.file_name()) else {
        return Err(in_the_way("this names no directory that could be made"));
    };
    let parent = parent.canonicalize().map_err(at(parent, doing))?;
    let data = dir.root().canonicalize().map_err(at(dir.root(), doing))?;
    if parent.starts_with(&data) {
        return Err(in_the_way("it would be within the data directory; choose a place outside, best on another disk"));
    }
    let destination = parent.join(name);
    match std::fs::symlink_metadata(&destination) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(destination),
        Err(error) => Err(at(&destination, doing)(error)),
        Ok(_) => Err(in_the_way("it exists already; a backup is a directory of its own")),
    }
}

/// One moment of the database, all of whose contents are pinned.
fn moment(dir: &DataDir, pins: &Pins) -> Result<Moment, AdminError> {
    let path = dir.database();
    let none = || AdminError::NoStore { place: dir.root().display().to_string() };
    let place = db::Place::Sqlite(path.clone());
    let ahead = db::beside::open(&place)?.ok_or_else(none)?;
    if db::beside::schema(&ahead)? == 0 {
        return Err(none());
    }
    // Most of them, while nobody waits for us. What goes meanwhile is not in the moment.
    each_content(&ahead, |row| pins.pin(&row.digest).map(drop))?;
    drop(ahead);
    let standstill = Standstill::begin(&path)?;
    let moment = standstill.moment(&path)?;
    let mut lost = None;
    each_content(moment.connection(), |row| {
        if !pins.pin(&row.digest)? {
            lost = lost.or(Some(row.digest));
        }
        Ok(())
    })?;
    standstill.end()?;
    match lost {
        None => Ok(moment),
        Some(digest) => Err(content_lost(moment.connection(), &digest, "is missing")),
    }
}

fn each_content(
    connection: &db::Connection,
    mut show: impl FnMut(&KeptContent) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    let mut last = None;
    loop {
        let page = db::contents::after(connection, last.as_ref(), ROWS)?;
        page.iter().try_for_each(&mut show)?;
        match page.last() {
            Some(row) => last = Some(row.digest),
            None => return Ok(()),
        }
    }
}

fn content_lost(connection: &db::Connection, digest: &ContentDigest, what: &'static str) -> AdminError {
    match db::contents::files_of(connection, digest, FILES_NAMED) {
        Ok(files) => AdminError::ContentLost { digest: digest.to_string(), what, files },
        Err(error) => error.into(),
    }
}

struct Copying {
    dir: DataDir,
    part: Part,
    pins: Pins,
    previous: Option<Tree>,
    copied: Copied,
    linked: u64,
}

impl Copying {
    /// Copies everything in the order of paths, which is the manifest's, and writes that.
    fn all(&mut self, head: &Head) -> Result<(u64, u64), AdminError> {
        let (path, file) = self.part.create(MANIFEST)?;
        let writing = |error| at(&path, "writing the manifest")(error);
        let mut manifest = ManifestWriter::begin(BufWriter::new(file), head).map_err(writing)?;
        let database = self.part.path().join(Kept::Database.path());
        let opened = File::open(&database).map_err(at(&database, "reading"))?;
        let (sha256, bytes) = pour(opened, &mut std::io::sink(), &database)?;
        manifest.add(&Entry { kept: Kept::Database, bytes, sha256 }).map_err(writing)?;
        if let Some(entry) = self.plain(Kept::Owner, &self.dir.root().join(OWNER))? {
            manifest.add(&entry).map_err(writing)?;
        }
        let mut last = None;
        loop {
            let page = db::contents::after(self.copied.connection(), last.as_ref(), ROWS)?;
            let Some(row) = page.last() else { break };
            last = Some(row.digest);
            for row in &page {
                manifest.add(&self.content(row)?).map_err(writing)?;
            }
        }
        for (below, path) in recordings(&self.dir)? {
            if let Some(entry) = self.plain(Kept::Recording(below), &path)? {
                manifest.add(&entry).map_err(writing)?;
            }
        }
        if let Some(entry) = self.plain(Kept::Secret, &self.dir.root().join(SECRET))? {
            manifest.add(&entry).map_err(writing)?;
        }
        let (mut out, files, bytes) = manifest.end().map_err(writing)?;
        out.flush().map_err(writing)?;
        out.get_ref().sync_all().map_err(writing)?;
        Ok((files, bytes))
    }

    /// A file that has no row, if it is there.
    fn plain(&self, kept: Kept, path: &Path) -> Result<Option<Entry>, AdminError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(path, "reading")(error)),
        };
        let (path, mut copy) = self.part.create(&kept.path())?;
        let (sha256, bytes) = pour(file, &mut copy, &path)?;
        Ok(Some(Entry { kept, bytes, sha256 }))
    }

    fn content(&mut self, row: &KeptContent) -> Result<Entry, AdminError> {
        let kept = Kept::Content(row.digest);
        let entry = Entry { bytes: row.size_bytes, sha256: row.digest, kept };
        if self.link(&entry)? {
            self.linked += 1;
            return Ok(entry);
        }
        let pin = self.pins.path(&row.digest);
        let file = File::open(&pin).map_err(at(&pin, "reading a content"))?;
        let (path, mut copy) = self.part.create(&entry.kept.path())?;
        let (sha256, bytes) = pour(file, &mut copy, &path)?;
        match (sha256, bytes) == (entry.sha256, entry.bytes) {
            true => Ok(entry),
            false => Err(content_lost(self.copied.connection(), &row.digest, "is not what was written")),
        }
    }

    /// Gives a content of the earlier backup a second name here, if it is still what it was.
    fn link(&self, entry: &Entry) -> Result<bool, AdminError> {
        let Some(previous) = &self.previous else { return Ok(false) };
        let path = entry.kept.path();
        let Ok(file) = previous.file(&path, Some(entry.bytes)) else { return Ok(false) };
        let checked = file.try_clone().map_err(at(previous.root(), "reading the earlier backup"))?;
        if pour(checked, &mut std::io::sink(), previous.root())? != (entry.sha256, entry.bytes) {
            return Ok(false);
        }
        // Made and removed for the sake of the directories on the way.
        let (to, _) = self.part.create(&path)?;
        std::fs::remove_file(&to).map_err(at(&to, "linking a content"))?;
        // What was just read, not what has its name by now.
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let (here, follow) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_FOLLOW);
        Ok(rustix::fs::linkat(here, open, here, &to, follow).is_ok())
    }
}

/// The recordings that stand in the data directory, by their path below it, in order.
fn recordings(dir: &DataDir) -> Result<Vec<(String, PathBuf)>, AdminError> {
    let root = dir.root().join("recordings");
    if !root.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let tree = Tree::open(&root)?;
    tree.walk("", &mut |below| {
        match Kept::from_path(&format!("recordings/{below}")) {
            Some(_) => found.push((below.to_owned(), root.join(below))),
            None => return Err(tree.damaged(format!("{below:?} is no name for a recording in a backup"))),
        }
        Ok(())
    })?;
    found.sort();
    Ok(found)
}
