//! The same tests once more as an ordinary user, when they run as root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `nobody`.
const USER: u32 = 65534;

/// What an ordinary user may be unable to do on a host that gives it no cgroup.
const ALLOWED: [&str; 2] = ["SKIP: this host cannot limit memory", "SKIP: this host cannot limit processes"];

/// Runs this test program, all but the test named `but`, as an ordinary user.
pub fn run_all(but: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Neither the program nor its root filesystem need be in a folder that everybody may enter.
    let place = tempfile::tempdir().expect("tempdir");
    chown(place.path(), Some(USER), Some(USER)).expect("chown");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let program = place.path().join("tests");
    fs::copy(std::env::current_exe().expect("runs"), &program).expect("room for a copy");
    if let Some(runsc) = super::runsc() {
        let tools = place.path().join("tools/bin");
        fs::create_dir_all(&tools).expect("mkdir");
        fs::copy(runsc, tools.join("runsc")).expect("room for a copy");
    }
    let output = Command::new(&program)
        .args(["--test-threads=1", "--nocapture", "--skip", but])
        .current_dir(place.path())
        .env("BELLJAR_TEST_CACHE", place.path())
        .env("BELLJAR_CACHE_DIR", place.path())
        // Skips are judged here.
        .env_remove("CI")
        .env_remove("BELLJAR_TEST_ROOTFS")
        .env_remove("NEXTEST")
        .uid(USER)
        .gid(USER)
        .output()
        .expect("starts");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let skips = err.lines().filter(|line| line.starts_with("SKIP: "));
    let unexpected: Vec<_> = skips.filter(|line| !ALLOWED.contains(line)).collect();
    if !unexpected.is_empty() {
        crate::skip!(format!("as an ordinary user: {unexpected:?}"));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
