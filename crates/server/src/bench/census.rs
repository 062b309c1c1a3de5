//! What this process has on the host, counted: equal before and after, or something leaks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use belljar_image::OWNER_BASE;
use serde::Serialize;

use super::cgroups::Cgroups;
use super::machine::meminfo_kib;

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Descendants and members of our cgroups, zombies included.
    pub processes: usize,
    /// Lines of this process's mount table.
    pub mounts: usize,
    /// Directories below our own in every hierarchy.
    pub cgroups: usize,
    /// Open files of this process.
    pub descriptors: usize,
    /// Network namespaces that those processes are in or that this process holds.
    pub network_namespaces: usize,
    /// Entries of the host's temporary directories that are a container's or ours.
    pub temporary_files: usize,
    /// Threads of this process.
    pub threads: usize,
    /// Resident memory of this process that no file stands behind: pages of the program itself come with use, and are no leak.
    pub resident_kib: u64,
    /// Kernel memory of the whole machine that cannot be given back.
    pub unreclaimable_kib: u64,
}

/// A process's resident set breathes: buffers, arenas. A leak of one page for each cell of a minute's soak is more.
const RESIDENT_SLACK_KIB: u64 = 16 * 1024;

impl Census {
    /// Counts now.
    pub fn take() -> Self {
        let processes = processes();
        Self {
            network_namespaces: network_namespaces(&processes),
            processes: processes.len(),
            mounts: lines("/proc/self/mountinfo"),
            cgroups: Cgroups::all().len(),
            descriptors: entries("/proc/self/fd").count(),
            temporary_files: ["/tmp", "/var/tmp", "/dev/shm"].into_iter().map(temporary_files).sum(),
            threads: entries("/proc/self/task").count(),
            resident_kib: resident_kib(),
            unreclaimable_kib: meminfo_kib("SUnreclaim"),
        }
    }

    /// What there is more of than `before`, in words; the machine's own memory and our threads are told, not judged.
    pub fn left_over(&self, before: &Self) -> Vec<String> {
        let counts = [
            ("processes", self.processes, before.processes),
            ("mounts", self.mounts, before.mounts),
            ("cgroups", self.cgroups, before.cgroups),
            ("descriptors", self.descriptors, before.descriptors),
            ("network namespaces", self.network_namespaces, before.network_namespaces),
            ("temporary files", self.temporary_files, before.temporary_files),
        ];
        let mut found: Vec<String> = counts
            .into_iter()
            .filter(|(_, after, before)| after > before)
            .map(|(what, after, before)| format!("{what}: {before} before, {after} after"))
            .collect();
        if self.resident_kib > before.resident_kib + RESIDENT_SLACK_KIB {
            found.push(format!("resident memory: {} KiB before, {} KiB after", before.resident_kib, self.resident_kib));
        }
        found
    }
}

fn lines(path: &str) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

fn entries(path: impl AsRef<Path>) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(path).into_iter().flatten().flatten()
}

fn process_ids() -> Vec<u32> {
    entries("/proc").filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn processes() -> BTreeSet<u32> {
    let us = std::process::id();
    let parents: std::collections::BTreeMap<u32, u32> =
        process_ids().into_iter().filter_map(|id| Some((id, parent(id)?))).collect();
    let descends = |mut id: u32| {
        while let Some(&parent) = parents.get(&id) {
            if parent == us {
                return true;
            }
            id = parent;
        }
        false
    };
    let mut found: BTreeSet<u32> = parents.keys().copied().filter(|&id| descends(id)).collect();
    for directory in Cgroups::all() {
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    found
}

/// proc_pid_stat(5): the parent is the second field behind the name.
fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn network_namespaces(processes: &BTreeSet<u32>) -> usize {
    let link = |path: &Path| fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned());
    let joined = processes.iter().filter_map(|id| link(Path::new(&format!("/proc/{id}/ns/net"))));
    let held = entries("/proc/self/fd").filter_map(|entry| link(&entry.path()));
    joined.chain(held).filter(|target| target.starts_with("net:[")).collect::<BTreeSet<_>>().len()
}

/// Those that a container's user owns, and those that bear our name.
fn temporary_files(directory: &str) -> usize {
    let containers = OWNER_BASE..OWNER_BASE + 65_536;
    entries(directory)
        .filter(|entry| {
            let named = entry.file_name().to_string_lossy().contains("belljar");
            named || entry.metadata().is_ok_and(|meta| containers.contains(&meta.uid()))
        })
        .count()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_is_named_and_what_shrank_is_not() {
        let before = Census::take();
        let after =
            Census { mounts: before.mounts + 2, processes: 0, descriptors: before.descriptors, ..before.clone() };
        let said = format!("mounts: {} before, {} after", before.mounts, before.mounts + 2);
        assert_eq!(after.left_over(&before), [said]);
        let grown = Census { resident_kib: before.resident_kib + RESIDENT_SLACK_KIB + 1, ..before.clone() };
        assert_eq!(grown.left_over(&before).len(), 1);
    }

    #[test]
    fn an_open_file_and_a_child_are_counted() {
        let before = Census::take();
        let _file = fs::File::open("/proc/self/stat").expect("proc");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let after = Census::take();
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(after.descriptors > before.descriptors && after.processes > before.processes, "{before:?} {after:?}");
    }
}
