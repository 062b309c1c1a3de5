//! A root filesystem for tests: `BELLJAR_TEST_ROOTFS` if set, else bash and a few tools of this host with the libraries
//! they need, copied once and kept in the target folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use belljar_sandbox::Rootfs;

/// First host id of test containers.
const BASE: u32 = 900_000_000;

const TOOLS: &[&str] = &[
    "bash",
    "base64",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "du",
    "env",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mv",
    "nohup",
    "printf",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "touch",
    "tr",
    "true",
    "truncate",
    "uname",
    "wc",
    "yes",
];

/// Whose containers these tests run.
pub fn rootfs() -> Rootfs {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let owner_base = rustix::process::geteuid().is_root().then_some(BASE);
    let given = std::env::var_os("BELLJAR_TEST_ROOTFS").map(PathBuf::from);
    let path = given.unwrap_or_else(|| MADE.get_or_init(|| made(owner_base)).clone());
    Rootfs { path, owner_base, digest: "test".to_owned() }
}

/// A second one, with a file of this name at its top, for as long as its folder is held.
pub fn another(name: &str) -> (tempfile::TempDir, Rootfs) {
    let owner_base = rustix::process::geteuid().is_root().then_some(BASE);
    let place = tempfile::tempdir().expect("a folder for the root filesystem");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fill(place.path());
    fs::write(place.path().join(name), "").expect("write");
    own(place.path(), owner_base);
    let path = place.path().to_path_buf();
    (place, Rootfs { path, owner_base, digest: "other".to_owned() })
}

/// Made beside its place, then renamed: test processes running at the same time see a whole one or none.
fn made(owner_base: Option<u32>) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let parent = match std::env::var_os("BELLJAR_TEST_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let place = parent.join(format!("rootfs-{uid}"));
    if place.exists() {
        return place;
    }
    let draft = parent.join(format!("rootfs-{uid}.{}", std::process::id()));
    fs::create_dir_all(&draft).expect("a folder for the root filesystem");
    fill(&draft);
    own(&draft, owner_base);
    if fs::rename(&draft, &place).is_err() {
        assert!(place.exists(), "another test made it");
        fs::remove_dir_all(&draft).expect("the draft goes");
    }
    place
}

fn fill(root: &Path) {
    for folder in ["usr/bin", "etc", "tmp", "usr/lib", "usr/lib64"] {
        fs::create_dir_all(root.join(folder)).expect("mkdir");
    }
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(target, root.join(link)).expect("symlink");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").expect("write");
    for tool in TOOLS {
        let found = ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("{tool} is on every Debian"));
        copy(&found, &root.join("usr/bin").join(tool));
        for library in libraries(&found) {
            // The library's path is kept below the new root, whose /lib and /lib64 are links.
            let inside = root.join(library.strip_prefix("/").expect("absolute"));
            fs::create_dir_all(inside.parent().expect("has one")).expect("mkdir");
            if !inside.exists() {
                copy(&library, &inside);
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// The absolute paths in what ldd(1) prints.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let printed = Command::new("ldd").arg(program).output().expect("ldd is part of libc-bin").stdout;
    let text = String::from_utf8(printed).expect("ASCII");
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn own(place: &Path, owner_base: Option<u32>) {
    let Some(base) = owner_base else { return };
    lchown(place, Some(base), Some(base)).expect("chown");
    if place.is_dir() && !place.is_symlink() {
        for entry in fs::read_dir(place).expect("list") {
            own(&entry.expect("entry").path(), owner_base);
        }
    }
}
