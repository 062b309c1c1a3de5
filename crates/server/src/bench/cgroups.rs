//! What the kernel says of our containers: their cgroups, found by this process's id in the name of their parent.

use std::fs;
use std::path::{Path, PathBuf};

/// One directory in each hierarchy, of one container or of all of this process's.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    directories: Vec<PathBuf>,
}

const ROOT: &str = "/sys/fs/cgroup";

/// The parents of our containers' cgroups, one or more in each hierarchy.
pub struct Parents(Vec<PathBuf>);

impl Parents {
    /// Looks for them in all cgroups of the machine: for many containers, once.
    pub fn find() -> Self {
        Self(ours())
    }

    /// Of one container of this process.
    pub fn of_container(&self, name: &str) -> Cgroups {
        let directories = self.0.iter().map(|directory| directory.join(name)).filter(|path| path.is_dir());
        Cgroups { directories: directories.collect() }
    }
}

impl Cgroups {
    /// Of one container of this process.
    pub fn of_container(name: &str) -> Self {
        Parents::find().of_container(name)
    }

    /// Of each container of this process, those of zygotes and supervisors that have their own included.
    pub fn all() -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = ours();
        while let Some(folder) = folders.pop() {
            folders.extend(directories(&folder));
            found.push(folder);
        }
        found.sort();
        found
    }

    /// How many processes and threads are in it; `None` once it is gone.
    pub fn processes(&self) -> Option<u64> {
        self.directories.iter().find_map(|directory| number(&directory.join("pids.current")))
    }

    /// Memory of the kernel's that is charged to it, in bytes.
    pub fn kernel_bytes(&self) -> u64 {
        self.directories
            .iter()
            .find_map(|directory| {
                number(&directory.join("memory.kmem.usage_in_bytes")).or_else(|| kernel_of_v2(directory))
            })
            .unwrap_or(0)
    }

    /// The ids of its processes on this host.
    pub fn members(&self) -> Vec<u32> {
        let lists =
            self.directories.iter().filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok());
        let mut members: Vec<u32> =
            lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect();
        members.sort_unstable();
        members.dedup();
        members
    }
}

/// memory.stat of cgroup v2, `kernel`.
fn kernel_of_v2(directory: &Path) -> Option<u64> {
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    stat.lines().find_map(|line| line.strip_prefix("kernel ")?.parse().ok())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn ours() -> Vec<PathBuf> {
    let prefix = format!("{}.", std::process::id());
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for path in directories(&folder) {
            match path.file_name().and_then(|name| name.to_str()) {
                Some(name) if name.starts_with(&prefix) => found.push(path),
                _ => folders.push(path),
            }
        }
    }
    found
}

fn directories(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
