//! The host's state, as text to be compared: what descends from this process, what its ids own, what it holds open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Ids of one container's user namespace.
const IDS: u32 = 65_536;
/// Where images are mounted.
const IMAGES: &str = "/run/belljar/images/";
/// The name of gVisor's kernel, and of what it starts.
const SENTRY: &str = "exe";
/// Lines of a difference that are told.
const LINES_TOLD: usize = 6;

/// The host ids that containers run as, where these are nobody else's.
#[derive(Clone, Copy, Debug)]
pub struct Ids(Option<u32>);

impl Ids {
    /// From a container's root on; as an ordinary user, containers have no ids of their own.
    pub fn from(base: Option<u32>) -> Self {
        Self(base)
    }

    /// No ids of their own.
    #[cfg(test)]
    pub fn none() -> Self {
        Self(None)
    }

    /// The host's id of a container's root.
    pub fn first(self) -> Option<u32> {
        self.0
    }

    fn contains(self, id: u32) -> bool {
        self.0.is_some_and(|base| Range { start: base, end: base + IDS }.contains(&id))
    }
}

/// A process, as `proc_pid_stat(5)` has it.
struct Process {
    parent: u32,
    name: String,
    state: char,
    start: String,
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = after.split(' ').collect();
    Some(Process {
        name: before.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: (*fields.get(19)?).to_owned(),
    })
}

fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn snapshot() -> io::Result<BTreeMap<u32, Process>> {
    Ok(pids()?.into_iter().filter_map(|pid| Some((pid, process(pid)?))).collect())
}

/// The processes above one, nearest first.
fn above(all: &BTreeMap<u32, Process>, pid: u32) -> impl Iterator<Item = u32> {
    let parent = |pid: &u32| all.get(pid).map(|process| process.parent).filter(|parent| *parent > 0);
    // Process ids are used again while they are read: no way is longer than there are processes.
    std::iter::successors(parent(&pid), parent).take(all.len())
}

/// Nobody's when it is gone.
fn owner(pid: u32) -> u32 {
    std::fs::metadata(format!("/proc/{pid}")).map_or(u32::MAX, |found| found.uid())
}

/// Processes below this one, and any with a container's ids that nobody but the host's first process has above it: by
/// name, because one that was replaced is no harm. Another server's containers are below that server, or, when it was
/// killed, in its control groups.
pub fn processes(ids: &Ids) -> io::Result<String> {
    let all = snapshot()?;
    let us = std::process::id();
    let name = |(pid, process): (&u32, &Process)| {
        if above(&all, *pid).any(|pid| pid == us) {
            return (!is_stub(&all, *pid, process)).then(|| process.name.clone());
        }
        let foreign = |pid: u32| !ids.contains(owner(pid));
        let orphan = !foreign(*pid) && !above(&all, *pid).any(|pid| pid > 1 && foreign(pid));
        let stray = orphan && !in_control_groups_of_another(*pid);
        stray.then(|| format!("stray {}", process.name))
    };
    let mut names: Vec<String> = all.iter().filter_map(name).collect();
    names.sort_unstable();
    Ok(names.iter().map(|name| format!("{name}\n")).collect())
}

/// Whether a process is one in which gVisor lets the code run. Each sentry keeps as many as it likes.
fn is_stub(all: &BTreeMap<u32, Process>, pid: u32, process: &Process) -> bool {
    let named = |process: &Process| process.name == SENTRY;
    let without_arguments = || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.is_empty());
    named(process) && all.get(&process.parent).is_some_and(named) && without_arguments()
}

fn in_control_groups_of_another(pid: u32) -> bool {
    let ours = format!("/belljar/{}.", std::process::id());
    let found = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    found.contains("/belljar/") && !found.contains(&ours)
}

/// Whether a process lives, is not stopped or traced, has no signal waiting, and is the same as ever.
pub fn liveliness(pid: u32) -> io::Result<String> {
    let Some(found) = process(pid) else {
        return Ok(format!("{pid} is gone\n"));
    };
    let state = match found.state {
        'S' | 'R' | 'D' => "lives",
        'T' | 't' => "is stopped",
        _ => "is dead",
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let told = status
        .lines()
        .filter(|line| ["SigPnd:", "ShdPnd:", "TracerPid:", "Uid:"].iter().any(|field| line.starts_with(field)));
    let told: Vec<&str> = told.collect();
    Ok(format!("{pid} {state} since {} {}\n", found.start, told.join(" ")))
}

/// Where control groups are that a process made, once for each: a directory in front bears its process id. Not their
/// names: a container of the pool that was taken is followed by one of another name.
pub fn control_groups_of(pid: u32) -> String {
    let ours = format!("{pid}.");
    let is_ours = |path: &Path| path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(&ours));
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        // Control groups of others come and go.
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if is_ours(&entry.path()) {
                found.push(format!("{}\n", directory.display()));
            }
            directories.push(entry.path());
        }
    }
    found.sort_unstable();
    found.concat()
}

/// Listening TCP and UDP sockets with a container's ids, or held by this process or one below it.
pub fn listening(ids: &Ids) -> io::Result<String> {
    let mut held = BTreeSet::new();
    let all = snapshot()?;
    let us = std::process::id();
    for pid in all.keys().filter(|pid| **pid == us || above(&all, **pid).any(|above| above == us)) {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        held.extend(links.filter_map(|link| {
            let target = fs::read_link(link.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        }));
    }
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        // A kernel without IPv6 has no such tables.
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(owner), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(7), fields.get(9))
            else {
                continue;
            };
            let listens = !table.starts_with("tcp") || *state == "0A";
            let ours = held.contains(*inode) || owner.parse().is_ok_and(|owner| ids.contains(owner));
            if listens && ours {
                found.push(format!("{table} {local}\n"));
            }
        }
    }
    found.sort_unstable();
    Ok(found.concat())
}

/// The mount table, without images: other servers of this host mount and unmount theirs.
pub fn mounts() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let others = text.lines().filter(|line| !line.split(' ').nth(4).is_some_and(|at| at.starts_with(IMAGES)));
    Ok(others.map(|line| format!("{line}\n")).collect())
}

/// What this process has open, without the numbers, and without the names of the pool's containers: one that was taken is
/// followed by one of another name.
pub fn descriptors() -> io::Result<String> {
    let mut kinds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // The directory being read is one of them, and closed by now.
        if let Ok(target) = fs::read_link(entry?.path()) {
            let text = target.to_string_lossy().into_owned();
            let kind = text.split_once(":[").map_or(text.as_str(), |(kind, _)| kind);
            let parts = kind.split('/').map(|part| if part.starts_with("pooled_") { "pooled" } else { part });
            kinds.push(format!("{}\n", parts.collect::<Vec<_>>().join("/")));
        }
    }
    kinds.sort_unstable();
    Ok(kinds.concat())
}

/// Who traces this process: nobody.
pub fn tracer() -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find(|line| line.starts_with("TracerPid:")).unwrap_or_default().to_owned())
}

/// Lines of the host's password file that tell it from another host's; none for who may not read it.
pub fn password_lines() -> Vec<String> {
    let text = fs::read_to_string("/etc/shadow").unwrap_or_default();
    // Locked accounts are the same on every host of a distribution.
    let told = text.lines().filter(|line| line.split(':').nth(1).is_some_and(|hash| hash.len() > 4));
    told.map(str::to_owned).collect()
}

/// The load average over a minute.
pub fn load() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Memory that can be had without swapping, in bytes.
pub fn memory_available_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Lines that came.
pub fn added(before: &str, now: &str) -> String {
    let known: BTreeSet<&str> = before.lines().collect();
    now.lines().filter(|line| !known.contains(line)).map(|line| format!("{line}\n")).collect()
}

/// Lines that came and lines that went.
pub fn difference(before: &str, now: &str) -> String {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for line in now.lines() {
        *counts.entry(line).or_default() += 1;
    }
    for line in before.lines() {
        *counts.entry(line).or_default() -= 1;
    }
    let told = counts.into_iter().filter(|(_, count)| *count != 0);
    let told = told.map(|(line, count)| format!("{count:+} {line}"));
    let told: Vec<String> = told.collect();
    let more = told.len().saturating_sub(LINES_TOLD);
    let more = if more > 0 { format!("; {more} more") } else { String::new() };
    told.into_iter().take(LINES_TOLD).collect::<Vec<_>>().join("; ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_lines() {
        assert_eq!(difference("a\nb\nb\n", "b\nc\n"), "-1 a; -1 b; +1 c");
        assert_eq!(difference("a", "a"), "");
    }

    #[test]
    fn ids_are_one_containers() {
        let ids = Ids::from(Some(1000));
        assert!(ids.contains(1000) && ids.contains(66_535) && !ids.contains(999) && !ids.contains(66_536));
        assert!(!Ids::none().contains(0));
    }
}
