//! The Debian part: mmdebstrap makes a tar of a minimal system with our packages.

use std::path::PathBuf;

use rustix::process::geteuid;

use super::Build;
use crate::error::{Doing, ImageError};
use crate::event::Phase;
use crate::mirror::Mirrors;
use crate::program::{Grows, Program};
use crate::recipe;

/// Makes `base.tar`.
pub(super) async fn bootstrap(build: &Build<'_>, mirrors: &Mirrors) -> Result<(), ImageError> {
    let packages: Vec<&str> = recipe::lines_of(recipe::DEBIAN_LIST).collect();
    let (mode, scratch) = mode(build)?;
    let half = build.scratch().join("base.tar");
    let mut meter = build.monitor.start(Phase::Debian, None);
    let mut program = Program::new("mmdebstrap")
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
    std::fs::File::open(&half).and_then(|file| file.sync_all()).doing("syncing", &half)?;
    std::fs::rename(&half, build.base()).doing("renaming", &half)?;
    meter.finish();
    Ok(())
}

/// As root, in place. Otherwise in a user namespace, whose root is another user than we are and must be able to reach
/// the directory it works in: below `/var/tmp`, as a home directory is often closed.
fn mode(build: &Build<'_>) -> Result<(&'static str, tempfile::TempDir), ImageError> {
    let (mode, parent) =
        if geteuid().is_root() { ("--mode=root", build.scratch()) } else { ("--mode=unshare", PathBuf::from("/var/tmp")) };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let dir = tempfile::Builder::new().prefix("belljar-").permissions(open).tempdir_in(&parent);
    Ok((mode, dir.doing("making a directory in", &parent)?))
}
