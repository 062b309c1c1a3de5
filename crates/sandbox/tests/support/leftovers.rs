//! What is left on the host: counted before and after.

use std::fs;
use std::path::{Path, PathBuf};

/// Processes anywhere on the host with these words as arguments.
pub fn processes_with(words: &str) -> Vec<i32> {
    let wanted = words.replace(' ', "\0");
    let ids = fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted)
    })
    .collect()
}

/// What this process holds. Equal before and after, unless something leaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    children: usize,
    mounts: usize,
    descriptors: usize,
    cgroups: Vec<PathBuf>,
}

impl Held {
    pub fn now() -> Self {
        Self {
            children: children(),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("proc").lines().count(),
            descriptors: fs::read_dir("/proc/self/fd").expect("proc").count(),
            cgroups: cgroups(),
        }
    }
}

/// Direct children, zombies included.
fn children() -> usize {
    let me = std::process::id();
    let threads = fs::read_dir(format!("/proc/{me}/task")).expect("proc");
    threads
        .map(|thread| {
            let list = thread.expect("entry").path().join("children");
            fs::read_to_string(list).unwrap_or_default().split_whitespace().count()
        })
        .sum()
}

/// Those of containers: their names are container ids or proofs.
fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.is_dir() || path.is_symlink() || depth > 6 {
                continue;
            }
            if is_container(&path) {
                found.push(path.clone());
            }
            folders.push((path, depth + 1));
        }
    }
    found.sort();
    found
}

fn is_container(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("container_01") || name.starts_with("proof_")
}
