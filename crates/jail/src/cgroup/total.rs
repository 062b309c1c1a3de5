//! What all containers of one server may use together, so that the host, and the server with it, keep some.
//!
//! A container's own limits say nothing of their sum: a few that fill their memory, or a hundred that fork, would
//! leave nothing for anything else. The rest of the host is out of reach of what is charged to a cgroup.

use std::collections::BTreeMap;
use std::path::Path;

use super::container::Home;
use super::place::Controller;
use super::{CgroupError, Version, read, write};

/// The host keeps one part in so many of its memory, and of its process ids.
const HOST_PART: u64 = 8;

/// Limits the directory that holds all containers, in each hierarchy.
pub(super) fn limit(homes: &BTreeMap<Controller, Home>) -> Result<(), CgroupError> {
    if let Some(home) = homes.get(&Controller::Memory) {
        let file = match home.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        let all = granted(&home.directory, file).min(memory_bytes()?);
        write(&home.directory.join(file), &containers_part(all).to_string())?;
    }
    if let Some(home) = homes.get(&Controller::Pids) {
        let ids = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
        write(&home.directory.join("pids.max"), &containers_part(ids).to_string())?;
    }
    Ok(())
}

/// The least that a directory above grants: the server itself may live under a limit, as in a container.
fn granted(directory: &Path, file: &str) -> u64 {
    let above = directory.ancestors().skip(1).map_while(|above| read(&above.join(file)).ok());
    // `max`, and what version 1 says instead, are no limits.
    above.filter_map(|limit| limit.trim().parse().ok()).min().unwrap_or(u64::MAX)
}

fn containers_part(all: u64) -> u64 {
    all - all / HOST_PART
}

fn number(path: &str) -> Result<u64, CgroupError> {
    let path = Path::new(path);
    read(path)?.trim().parse().map_err(|_| CgroupError::invalid(path))
}

/// `MemTotal` of proc_meminfo(5).
fn memory_bytes() -> Result<u64, CgroupError> {
    let path = Path::new("/proc/meminfo");
    total_of(&read(path)?).ok_or_else(|| CgroupError::invalid(path))
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_host_keeps_an_eighth_in_both_versions() {
        let memory = containers_part(memory_bytes().expect("meminfo"));
        for (version, file) in [(Version::V1, "memory.limit_in_bytes"), (Version::V2, "memory.max")] {
            let place = tempfile::tempdir().expect("place");
            for name in [file, "pids.max"] {
                fs::write(place.path().join(name), "").expect("file");
            }
            let home = Home { version, directory: place.path().to_owned() };
            limit(&BTreeMap::from([(Controller::Memory, home.clone()), (Controller::Pids, home)])).expect("written");
            assert_eq!(fs::read_to_string(place.path().join(file)).expect("memory"), memory.to_string());
            let ids: u64 = fs::read_to_string(place.path().join("pids.max")).expect("ids").parse().expect("a number");
            assert!(ids < number("/proc/sys/kernel/pid_max").expect("pid_max"), "{ids}");
        }
    }

    #[test]
    fn a_limit_above_is_the_whole() {
        let place = tempfile::tempdir().expect("place");
        let directory = place.path().join("family/server");
        fs::create_dir_all(&directory).expect("directory");
        fs::write(place.path().join("memory.max"), "8388608\n").expect("file");
        fs::write(place.path().join("family/memory.max"), "max\n").expect("file");
        fs::write(directory.join("memory.max"), "max\n").expect("file");
        let home = Home { version: Version::V2, directory: directory.clone() };
        limit(&BTreeMap::from([(Controller::Memory, home)])).expect("written");
        assert_eq!(fs::read_to_string(directory.join("memory.max")).expect("memory"), "7340032");
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_an_error() {
        let place = tempfile::tempdir().expect("place");
        let home = Home { version: Version::V2, directory: place.path().join("gone") };
        let error = limit(&BTreeMap::from([(Controller::Memory, home)])).expect_err("no such file");
        assert_eq!(error.path, place.path().join("gone/memory.max"));
    }

    #[test]
    fn memory_as_the_kernel_says_it() {
        assert_eq!(total_of("MemTotal:       24597712 kB\nMemFree: 1 kB\n"), Some(24_597_712 * 1024));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert_eq!(containers_part(32_768), 28_672);
    }
}
