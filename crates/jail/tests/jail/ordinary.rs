//! The same tests once more as an ordinary user, when they run as root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::harness::GUEST;
use crate::skip;

/// `nobody`.
const USER: u32 = 65534;

/// How skips begin that an ordinary user may have: what needs root, and what a host does not give to others.
const ALLOWED: [&str; 3] = ["SKIP: only ", "SKIP: cgroups are not usable", "SKIP: no cpu controller"];

#[test]
fn as_an_ordinary_user_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Neither program need be in a folder that everybody may enter.
    let place = tempfile::tempdir().expect("tempdir");
    chown(place.path(), Some(USER), Some(USER)).expect("chown");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (tests, guest) = (place.path().join("tests"), place.path().join("guest"));
    fs::copy(std::env::current_exe().expect("runs"), &tests).expect("room for a copy");
    fs::copy(env!("CARGO_BIN_EXE_jail-test-guest"), &guest).expect("room for a copy");
    let output = Command::new(&tests)
        .args(["--test-threads=1", "--nocapture", "--skip", "as_an_ordinary_user_too"])
        .current_dir(place.path())
        .env(GUEST, &guest)
        // Skips are judged here.
        .env_remove("CI")
        .env_remove("NEXTEST")
        .uid(USER)
        .gid(USER)
        .output()
        .expect("starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let skips = err.lines().filter(|line| line.starts_with("SKIP: "));
    let unexpected: Vec<_> = skips.filter(|line| !ALLOWED.iter().any(|start| line.starts_with(start))).collect();
    if !unexpected.is_empty() {
        skip!(format!("as an ordinary user: {unexpected:?}"));
    }
}
