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

/// The process below this one, named `name`, that a container knows by this id. There must be one such container.
pub fn process_inside(name: &str, id_inside: &str) -> i32 {
    let entries = fs::read_dir("/proc").expect("proc");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found: Vec<i32> = ids
        .filter(|id: &i32| {
            // proc_pid_status(5): one id for each pid namespace that the process is in.
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
            let mut ids = line("NSpid:").split_whitespace();
            ids.next().is_some() && ids.next_back() == Some(id_inside) && line("Name:") == name && is_below_us(*id)
        })
        .collect();
    assert_eq!(found.len(), 1, "{name} {id_inside}");
    found[0]
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
            mounts: mounts(),
            descriptors: fs::read_dir("/proc/self/fd").expect("proc").count(),
            cgroups: cgroups(),
        }
    }

    /// Waits until this process holds what it held at `before`; fails with both, and with every descriptor open now.
    pub async fn settles_at(before: &Self) {
        if !super::comes_true(|| Self::now() == *before).await {
            panic!("before {before:#?}\nafter {:#?}\n{:#?}", Self::now(), open_descriptors());
        }
    }
}

/// What each descriptor of this process is of.
fn open_descriptors() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").expect("proc").flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// Mounts of this namespace, but for images: every process that uses one shares its mount, other tests among them
/// (proc_pid_mountinfo(5): the type stands behind the hyphen).
fn mounts() -> usize {
    let all = fs::read_to_string("/proc/self/mountinfo").expect("proc");
    all.lines().filter(|line| !line.contains(" - erofs ")).count()
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

/// Every process below one.
pub fn descendants(of: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut above = vec![of];
    while let Some(pid) = above.pop() {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            above.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        found.extend(i32::try_from(pid).ok().filter(|_| pid != of));
    }
    found
}

fn cgroups() -> Vec<PathBuf> {
    cgroups_of(std::process::id())
}

/// Those that a process made: the folder in front bears its process id.
pub fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let ours = format!("{pid}.");
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

/// Those in which a file has this value.
pub fn cgroups_with(file: &str, value: &str) -> Vec<PathBuf> {
    let containers = cgroups().into_iter().flat_map(|ours| fs::read_dir(ours).expect("list"));
    let containers = containers.map(|entry| entry.expect("entry").path());
    containers.filter(|path| fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == value)).collect()
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, behind)| !behind.starts_with(['Z', 'X']))
}

/// Ends every direct child, process 1 of every container of this test among them, and tells which there were.
pub fn kill_children() -> Vec<i32> {
    let mut killed = Vec::new();
    for thread in fs::read_dir("/proc/self/task").expect("proc") {
        let list = thread.expect("entry").path().join("children");
        for child in fs::read_to_string(list).unwrap_or_default().split_whitespace() {
            let child = child.parse().expect("a process id");
            let pid = rustix::process::Pid::from_raw(child).expect("a process id");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
            killed.push(child);
        }
    }
    killed
}
