//! What is left on the host: counted before and after. Tests that count need a process of their own
//! (nextest) or one after the other (`--test-threads=1`).

use std::fs;
use std::path::PathBuf;

/// Processes below this one with these words as arguments.
pub fn processes_with(words: &str) -> Vec<i32> {
    let wanted = words.replace(' ', "\0");
    let entries = fs::read_dir("/proc").expect("proc");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted) && is_below_us(*id)
    })
    .collect()
}

/// Whether a process descends from this one: an orphan of a container is a child of its process 1.
fn is_below_us(mut id: i32) -> bool {
    let us = i32::try_from(std::process::id()).expect("process ids are small");
    while id > 1 && id != us {
        // proc_pid_stat(5): the parent is the second field behind the name.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let behind_name = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        let parent = behind_name.split_whitespace().nth(1);
        id = parent.and_then(|parent| parent.parse().ok()).unwrap_or(0);
    }
    id == us
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
    pub fn children(&self) -> usize {
        self.children
    }

    pub fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups
    }

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

/// Those that this process made: the folder in front bears its process id.
fn cgroups() -> Vec<PathBuf> {
    let ours = format!("{}.", std::process::id());
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&ours) {
                found.push(path.clone());
            }
            folders.push(path);
        }
    }
    found.sort();
    found
}

/// Ends every direct child: process 1 of every container of this test.
pub fn kill_children() {
    for thread in fs::read_dir("/proc/self/task").expect("proc") {
        let list = thread.expect("entry").path().join("children");
        for child in fs::read_to_string(list).unwrap_or_default().split_whitespace() {
            let pid = child.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
        }
    }
}
