//! Whether this machine can build: programs, rights and room, asked before anything is fetched.

use std::path::Path;

use rustix::process::geteuid;

use crate::cache::Cache;
use crate::error::{Doing, ImageError, Requirement};
use crate::mirror::KEYRING;
use crate::program::{self, FSCK, MKFS};

/// What a build needs at its widest: two roots, the tar, the wheels, the image.
const FREE_BYTES_MIN: u64 = 5 << 30;

const PROGRAMS: &[Requirement] = &[
    Requirement { what: "mmdebstrap", package: "mmdebstrap", purpose: "makes the Debian root" },
    MKFS,
    FSCK,
    Requirement { what: "unshare", package: "util-linux", purpose: "installs Python packages in the new root" },
    Requirement { what: "python3", package: "python3", purpose: "runs pip" },
];
const PIP: Requirement =
    Requirement { what: "pip of python3", package: "python3-pip", purpose: "fetches the Python wheels" };
const KEYS: Requirement =
    Requirement { what: KEYRING, package: "debian-archive-keyring", purpose: "checks Debian's signatures" };
const UIDMAP: Requirement =
    Requirement { what: "newuidmap", package: "uidmap", purpose: "makes the Debian root without being root" };

/// Everything that is missing, in one error.
pub(super) async fn check(cache: &Cache) -> Result<(), ImageError> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(cannot("the image is built for x86-64 only", "import an image for this machine instead"));
    }
    let root = geteuid().is_root();
    let mut missing = Vec::new();
    for wanted in PROGRAMS.iter().chain((!root).then_some(&UIDMAP)) {
        if !program::exists(wanted.what).await {
            missing.push(*wanted);
        }
    }
    if !program::works(&["python3", "-m", "pip", "--version"]).await {
        missing.push(PIP);
    }
    if !Path::new(KEYRING).is_file() {
        missing.push(KEYS);
    }
    if !missing.is_empty() {
        return Err(ImageError::Missing(missing));
    }
    if root {
        check_root().await?
    } else {
        check_user().await?
    }
    check_room(cache.root())
}

async fn check_root() -> Result<(), ImageError> {
    if program::works(&["unshare", "--mount", "--net", "--pid", "--fork", "true"]).await {
        return Ok(());
    }
    Err(cannot(
        "this root user may not make namespaces",
        "give the surrounding container CAP_SYS_ADMIN, or build elsewhere and copy the cache directory",
    ))
}

async fn check_user() -> Result<(), ImageError> {
    if !program::works(&["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"]).await {
        return Err(cannot(
            "unprivileged user namespaces do not work here",
            "allow them (sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu \
             kernel.apparmor_restrict_unprivileged_userns=0), or build as root",
        ));
    }
    // mmdebstrap wants a second range, for root's files and everybody else's.
    let uid = geteuid().as_raw();
    let user = user_name(uid).unwrap_or_else(|| uid.to_string());
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let has =
            text.lines().filter_map(|line| line.split(':').next()).any(|one| one == user || one == uid.to_string());
        if !has {
            return Err(cannot(
                &format!("{file} has no range for user {user}"),
                &format!("add one as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"),
            ));
        }
    }
    Ok(())
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn check_room(dir: &Path) -> Result<(), ImageError> {
    let stat = rustix::fs::statvfs(dir).doing("reading", dir)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= FREE_BYTES_MIN {
        return Ok(());
    }
    Err(cannot(
        &format!("{} has {} MiB free, a build needs {} MiB", dir.display(), free >> 20, FREE_BYTES_MIN >> 20),
        "make room, or set BELLJAR_CACHE_DIR to a directory elsewhere",
    ))
}

fn cannot(what: &str, remedy: &str) -> ImageError {
    ImageError::MachineCannot { what: what.into(), remedy: remedy.into() }
}
