//! The Debian part: mmdebstrap makes a tar of a minimal system with our packages.

use std::path::PathBuf;

use rustix::process::geteuid;

use super::Build;
use crate::cache;
use crate::error::{Doing, ImageError};
use crate::event::Phase;
use crate::mirror::Mirrors;
use crate::program::{Grows, Program};
use crate::recipe;
use crate::unpack::digest_of;

/// Makes `base.tar`.
pub(super) async fn bootstrap(build: &Build<'_>, mirrors: &Mirrors) -> Result<(), ImageError> {
    let packages: Vec<&str> = recipe::lines_of(recipe::DEBIAN_LIST).collect();
    let (mode, scratch) = mode(build)?;
    let half = build.scratch().join("base.tar");
    let mut meter = build.monitor.start(Phase::Debian, None);
    // As root it mounts things in its root: in a mount namespace of its own, where nobody else meets or keeps them.
    let mut program = if geteuid().is_root() {
        Program::new("unshare").args(["--mount", "--", "mmdebstrap"]).named("mmdebstrap")
    } else {
        Program::new("mmdebstrap")
    };
    program = program
        .env("TMPDIR", scratch.path())
        .env("SOURCE_DATE_EPOCH", crate::pack::BUILD_EPOCH_S.to_string())
        .arg(mode)
        .args(["--variant=essential", "--format=tar", "--architectures=amd64"])
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        // The host's apt may be told otherwise; security updates must not be.
        .arg("--aptopt=Acquire::Check-Valid-Until \"true\"")
        // Java's package links manual pages that are not there; the directory must be.
        .arg("--setup-hook=mkdir -p \"$1/usr/share/man/man1\"");
    for option in recipe::lines_of(recipe::DPKG_OPTIONS) {
        program = program.arg(format!("--dpkgopt={option}"));
    }
    program
        .arg(format!("--include={}", packages.join(",")))
        .arg(recipe::SUITE)
        .arg(&half)
        .arg("-")
        .stdin(mirrors.sources(recipe::SUITE).into_bytes())
        .grows(Grows::Dirs(vec![scratch.path().to_owned(), build.scratch()]))
        .run(&build.log, &mut meter, build.monitor)
        .await?;
    meter.finish();
    keep(build, half).await
}

/// Not synced, as the whole of it would have to reach the disk first; a digest tells whether it did.
async fn keep(build: &Build<'_>, half: PathBuf) -> Result<(), ImageError> {
    let (base, note, monitor) = (build.base(), build.base_digest(), build.monitor.clone());
    let kept = tokio::task::spawn_blocking(move || {
        let digest = digest_of(&half, &monitor)?;
        std::fs::write(&note, format!("{digest}\n")).doing("writing", &note)?;
        std::fs::rename(&half, &base).doing("renaming", &base)
    });
    kept.await.doing("hashing", &build.base())?
}

/// Whether there is a whole tar from an interrupted build.
pub(super) async fn complete(build: &Build<'_>) -> Result<bool, ImageError> {
    let (base, note, monitor) = (build.base(), build.base_digest(), build.monitor.clone());
    let checked = tokio::task::spawn_blocking(move || {
        if !base.exists() {
            return Ok(false);
        }
        // Half a note is no note.
        let Ok(Some(noted)) = cache::read_digest(&note) else {
            return Ok(false);
        };
        Ok(digest_of(&base, &monitor)? == noted)
    });
    checked.await.doing("hashing", &build.base())?
}

/// As root, in place. Otherwise in a user namespace, whose root is another user than we are and must be able to reach
/// the directory it works in: below `/var/tmp`, as a home directory is often closed.
fn mode(build: &Build<'_>) -> Result<(&'static str, tempfile::TempDir), ImageError> {
    let (mode, parent) = if geteuid().is_root() {
        ("--mode=root", build.scratch())
    } else {
        ("--mode=unshare", PathBuf::from("/var/tmp"))
    };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let dir = tempfile::Builder::new().prefix("belljar-").permissions(open).tempdir_in(&parent);
    Ok((mode, dir.doing("making a directory in", &parent)?))
}
