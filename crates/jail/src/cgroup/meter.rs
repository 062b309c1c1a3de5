//! A container's accounts, held open: reading one costs a system call, where opening it costs ten times as much.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::container::Home;
use super::place::Controller;
use super::{CgroupError, Stats, Version, keyed, number};

/// Longer than each of the files that are read here.
const FILE_BYTES_MAX: usize = 4096;

/// The open accounts of one container.
#[derive(Debug)]
pub struct Meter {
    accounts: Vec<Account>,
}

/// One number of one file.
#[derive(Debug)]
struct Account {
    file: File,
    path: PathBuf,
    /// Of a line of it; without one, the file is a number.
    key: Option<&'static str>,
    unit: u64,
    store: fn(&mut Stats) -> &mut u64,
    when: Reading,
}

/// When an account is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Always,
    WholeOnly,
}

impl Meter {
    pub(crate) fn open<'a>(homes: impl Iterator<Item = (&'a Controller, &'a Home)>) -> Result<Self, CgroupError> {
        let mut meter = Self { accounts: Vec::new() };
        for (controller, Home { version, directory }) in homes {
            meter.add(*controller, *version, directory)?;
        }
        Ok(meter)
    }

    fn add(&mut self, controller: Controller, version: Version, directory: &Path) -> Result<(), CgroupError> {
        let mut account = |file: &str, key, unit, store, when| {
            let path = directory.join(file);
            let file = File::open(&path).map_err(CgroupError::at(&path))?;
            self.accounts.push(Account { file, path, key, unit, store, when });
            Ok(())
        };
        match (controller, version) {
            (Controller::Memory, Version::V1) => {
                account("memory.max_usage_in_bytes", None, 1, |s| &mut s.memory_peak_bytes, Reading::Always)?;
                account("memory.usage_in_bytes", None, 1, |s| &mut s.memory_bytes, Reading::WholeOnly)?;
                account("memory.oom_control", Some("oom_kill"), 1, |s| &mut s.oom_kills, Reading::Always)
            }
            (Controller::Memory, Version::V2) => {
                let peak: fn(&mut Stats) -> &mut u64 = |s| &mut s.memory_peak_bytes;
                match account("memory.peak", None, 1, peak, Reading::Always) {
                    // Before Linux 5.19.
                    Err(CgroupError { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        account("memory.current", None, 1, peak, Reading::Always)
                    }
                    opened => opened,
                }?;
                account("memory.current", None, 1, |s| &mut s.memory_bytes, Reading::WholeOnly)?;
                account("memory.events", Some("oom_kill"), 1, |s| &mut s.oom_kills, Reading::Always)?;
                account("cpu.stat", Some("usage_usec"), 1, |s| &mut s.cpu_usage_us, Reading::Always)
            }
            (Controller::Pids, _) => {
                account("pids.current", None, 1, |s| &mut s.processes, Reading::WholeOnly)?;
                match account("pids.events", Some("max"), 1, |s| &mut s.pids_refused, Reading::Always) {
                    // Before Linux 4.8.
                    Err(CgroupError { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
                    opened => opened,
                }
            }
            (Controller::Cpuacct, _) => account("cpuacct.usage", None, 1_000, |s| &mut s.cpu_usage_us, Reading::Always),
            (Controller::Cpu | Controller::Freezer, _) => Ok(()),
        }
    }

    /// As [`super::Cgroup::stats`].
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn read(&self) -> Result<Stats, CgroupError> {
        self.read_those(|_| true)
    }

    /// What only ever grows: processor time, the peak of memory, what was killed for want of memory or refused for the
    /// number of processes. The rest is zero.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn read_counters(&self) -> Result<Stats, CgroupError> {
        self.read_those(|when| when == Reading::Always)
    }

    fn read_those(&self, wanted: impl Fn(Reading) -> bool) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        let mut buffer = [0; FILE_BYTES_MAX];
        for account in self.accounts.iter().filter(|account| wanted(account.when)) {
            let length = account.file.read_at(&mut buffer, 0).map_err(CgroupError::at(&account.path))?;
            let text = str::from_utf8(&buffer[..length]).map_err(|_| CgroupError::invalid(&account.path))?;
            let value = match account.key {
                None => number(text),
                Some(key) => keyed(text, key),
            };
            *(account.store)(&mut stats) = value.ok_or_else(|| CgroupError::invalid(&account.path))? / account.unit;
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn files(all: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("place");
        for (file, text) in all {
            fs::write(place.path().join(file), text).expect("file");
        }
        place
    }

    fn meter(place: &Path, homes: &[(Controller, Version)]) -> Result<Meter, CgroupError> {
        let homes: Vec<_> = homes
            .iter()
            .map(|&(controller, version)| (controller, Home { version, directory: place.to_owned() }))
            .collect();
        Meter::open(homes.iter().map(|(controller, home)| (controller, home)))
    }

    #[test]
    fn accounts_of_version_1_are_read_again_and_again() {
        let place = files(&[
            ("memory.max_usage_in_bytes", "4096\n"),
            ("memory.usage_in_bytes", "2048\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("pids.current", "5\n"),
            ("pids.events", "max 3\n"),
            ("cpuacct.usage", "77123\n"),
        ]);
        let all = [Controller::Memory, Controller::Pids, Controller::Cpu, Controller::Cpuacct];
        let meter = meter(place.path(), &all.map(|controller| (controller, Version::V1))).expect("opens");
        let expected = Stats {
            memory_peak_bytes: 4096,
            memory_bytes: 2048,
            cpu_usage_us: 77,
            oom_kills: 2,
            processes: 5,
            pids_refused: 3,
        };
        assert_eq!(meter.read().expect("reads"), expected);
        fs::write(place.path().join("cpuacct.usage"), "99000\n").expect("file");
        let counters = Stats { cpu_usage_us: 99, memory_bytes: 0, processes: 0, ..expected };
        assert_eq!(meter.read_counters().expect("reads"), counters);
        fs::write(place.path().join("cpuacct.usage"), "much\n").expect("file");
        assert_eq!(meter.read().expect_err("nonsense").source.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn accounts_of_version_2_with_and_without_a_peak() {
        let place = files(&[
            ("memory.current", "2048\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("cpu.stat", "usage_usec 77\nuser_usec 70\n"),
            ("pids.current", "5\n"),
        ]);
        let homes = [(Controller::Memory, Version::V2), (Controller::Pids, Version::V2)];
        let expected = |memory_peak_bytes| Stats {
            memory_peak_bytes,
            memory_bytes: 2048,
            cpu_usage_us: 77,
            oom_kills: 1,
            processes: 5,
            ..Stats::default()
        };
        assert_eq!(meter(place.path(), &homes).expect("opens").read().expect("reads"), expected(2048));
        fs::write(place.path().join("memory.peak"), "4096\n").expect("file");
        assert_eq!(meter(place.path(), &homes).expect("opens").read().expect("reads"), expected(4096));
        fs::remove_file(place.path().join("cpu.stat")).expect("file");
        assert!(meter(place.path(), &homes).is_err());
    }
}
