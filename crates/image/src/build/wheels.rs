//! The Python part, fetched: exactly the wheels of the lock file, by the host's pip with the host's settings (index,
//! proxy, certificates). Nothing of a package is executed.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Build, put};
use crate::cache;
use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::event::{Monitor, Phase};
use crate::program::{Grows, Program};
use crate::recipe;

/// The newest glibc that Debian trixie's wheels may ask for, and the oldest that anyone still names: 2.41 to 2.5.
const GLIBC_MINORS: std::ops::RangeInclusive<u32> = 5..=41;

/// Fetches what is missing into `wheels/`.
pub(super) async fn download(build: &Build<'_>) -> Result<(), ImageError> {
    let lock = build.work.join("python.txt");
    put(&lock, recipe::PYTHON_LOCK)?;
    let wheels = build.wheels();
    cache::make_dir(&wheels)?;
    let mut meter = build.monitor.start(Phase::Wheels, None);
    // Older pips do not know that a later manylinux includes the earlier ones.
    let platforms = GLIBC_MINORS.rev().map(|minor| format!("--platform=manylinux_2_{minor}_x86_64"));
    let legacy = ["2014", "2010", "1"].map(|year| format!("--platform=manylinux{year}_x86_64"));
    Program::new("python3")
        .env("TMPDIR", build.scratch())
        .args(["-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--progress-bar=off"])
        .args(["--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"])
        .arg(format!("--python-version={}", recipe::PYTHON))
        .args(["--abi=cp313", "--abi=abi3", "--abi=none"])
        .args(platforms)
        .args(legacy)
        .path_arg("--dest=", &wheels)
        .path_arg("--requirement=", &lock)
        .grows(Grows::Dirs(vec![wheels.clone(), build.scratch()]))
        .run(&build.log, &mut meter, build.monitor)
        .await?;
    if !complete(build).await? {
        return Err(ImageError::BadRecord { path: wheels, problem: "pip did not leave the locked wheels here".into() });
    }
    meter.finish();
    Ok(())
}

/// Whether `wheels/` has every locked wheel. What is not locked is removed: it would be offered to the installation.
pub(super) async fn complete(build: &Build<'_>) -> Result<bool, ImageError> {
    let (wheels, monitor) = (build.wheels(), build.monitor.clone());
    let found = tokio::task::spawn_blocking(move || keep_locked(&wheels, &monitor));
    found.await.doing("checking", &build.wheels())?
}

fn keep_locked(wheels: &Path, monitor: &Monitor) -> Result<bool, ImageError> {
    let pins = recipe::parse_lock(recipe::PYTHON_LOCK)
        .map_err(|error| ImageError::BadRecord { path: "python.txt".into(), problem: error.to_string() })?;
    let entries = match std::fs::read_dir(wheels) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ImageError::io("reading", wheels, error)),
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let path = entry.doing("reading", wheels)?.path();
        let file = std::fs::File::open(&path).doing("opening", &path)?;
        let digest = Digest::of_reader(file, &path, |_| monitor.go_on())?;
        if pins.contains_key(&digest) {
            found.insert(digest);
        } else {
            std::fs::remove_file(&path).doing("removing", &path)?;
        }
    }
    Ok(found.len() == pins.len())
}
