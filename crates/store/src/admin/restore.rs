//! A data directory out of a backup: all of it, or nothing.

use super::backup::BackupReport;
use super::part::{Part, Room};
use super::tree::Tree;
use super::verify::{check_database, examine, expect, pour};
use super::{AdminError, all_here, at};
use crate::data_dir::DataDir;
use crate::{BlobPlace, Database};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Makes `data_dir` out of a backup, after every byte of it has been held against its manifest. Blocks.
///
/// # Errors
/// What [`super::verify`] answers; [`AdminError::InTheWay`] where there is a store already, or anything else.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    database: &Database,
    blobs: &BlobPlace,
) -> Result<BackupReport, AdminError> {
    all_here(database, blobs)?;
    let target = free(data_dir)?;
    let tree = Tree::open(backup)?;
    let part = Part::make(&target, ".restoring")?;
    let report = examine(&tree, |entry, file| {
        let (path, mut copy) = part.create(&entry.kept.path())?;
        let (sha256, bytes) = pour(file, &mut copy, &path)?;
        expect(&tree, entry, sha256, bytes)
    })?;
    // Of what was copied: what is read now is what was checked.
    check_database(&tree, part.path())?;
    part.become_whole(Room::EmptyDirectory)?;
    Ok(report)
}

/// Where a data directory can come to be: nothing is there, or an empty directory.
fn free(data_dir: &Path) -> Result<PathBuf, AdminError> {
    let doing = "looking for the data directory";
    let wanted = std::path::absolute(data_dir).map_err(at(data_dir, doing))?;
    match std::fs::read_dir(&wanted) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (wanted.parent(), wanted.file_name()) else {
                return Err(AdminError::InTheWay { path: wanted, what: "this names no directory that could be made" });
            };
            Ok(parent.canonicalize().map_err(at(parent, doing))?.join(name))
        }
        Err(error) => Err(at(&wanted, doing)(error)),
        Ok(mut entries) => match entries.next() {
            None => wanted.canonicalize().map_err(at(&wanted, doing)),
            Some(_) => {
                if let Some(dir) = DataDir::existing(&wanted)?.filter(|_| wanted.join("lock").exists()) {
                    drop(dir.lock()?);
                }
                let what = "it is not empty; move it away, or restore to another directory";
                Err(AdminError::InTheWay { path: wanted, what })
            }
        },
    }
}
