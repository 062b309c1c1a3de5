//! A container's accounts, which stay open once they are read: reading one costs a system call, where opening it costs ten
//! times as much. But each takes a descriptor of the host, and there are many containers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::container::Home;
use super::place::Controller;
use super::{CgroupError, Stats, Version, keyed, number};

/// Longer than each of the files that are read here.
const FILE_BYTES_MAX: usize = 4096;

/// The accounts of one container; none is open yet. They are found by the names that the host gave to its own directories.
#[derive(Debug)]
pub struct Meter {
    accounts: Vec<Account>,
}

/// One number of one file.
#[derive(Debug)]
struct Account {
    path: PathBuf,
    /// From the first time that it is read, until it is closed.
    file: Option<File>,
    /// Of a line of it; without one, the file is a number.
    key: Option<&'static str>,
    unit: u64,
    store: fn(&mut Stats) -> &mut u64,
    kind: Kind,
    without: Without,
}

/// What an account says, and so who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Processor time, which only grows, and is asked for when nothing else is.
    Processor,
    /// What only grows, too.
    Grows,
    /// How much there is now.
    Present,
}

/// What is made of a file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Every kernel has it.
    Fail,
    /// This kernel does not count it.
    Zero,
    /// The file beside it that comes closest.
    Take(&'static str),
}

impl Meter {
    pub(crate) fn of<'a>(homes: impl Iterator<Item = (&'a Controller, &'a Home)>) -> Self {
        let accounts = homes.flat_map(|(controller, home)| accounts(*controller, home.version, &home.directory));
        Self { accounts: accounts.collect() }
    }

    /// As [`super::Cgroup::stats`].
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn read(&mut self) -> Result<Stats, CgroupError> {
        self.read_those(|_| true)
    }

    /// What only ever grows: processor time, the peak of memory, what was killed for want of memory or refused for the
    /// number of processes. The rest is zero.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn read_counters(&mut self) -> Result<Stats, CgroupError> {
        self.read_those(|kind| kind != Kind::Present)
    }

    /// Processor time, in microseconds.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn read_processor(&mut self) -> Result<u64, CgroupError> {
        self.read_those(|kind| kind == Kind::Processor).map(|stats| stats.cpu_usage_us)
    }

    /// Closes all but what [`Meter::read_processor`] reads.
    pub fn close_but_processor(&mut self) {
        self.close_those(|kind| kind != Kind::Processor);
    }

    /// Closes all.
    pub fn close(&mut self) {
        self.close_those(|_| true);
    }

    fn close_those(&mut self, unwanted: impl Fn(Kind) -> bool) {
        self.accounts.iter_mut().filter(|account| unwanted(account.kind)).for_each(|account| account.file = None);
    }

    fn read_those(&mut self, wanted: impl Fn(Kind) -> bool) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        let mut buffer = [0; FILE_BYTES_MAX];
        for account in self.accounts.iter_mut().filter(|account| wanted(account.kind)) {
            if let Some(value) = account.read(&mut buffer)? {
                *(account.store)(&mut stats) = value;
            }
        }
        Ok(stats)
    }
}

impl Account {
    /// Its number; none where there is none to be had.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<u64>, CgroupError> {
        let file = match &self.file {
            Some(file) => file,
            None => match self.open()? {
                Some(file) => self.file.insert(file),
                None => return Ok(None),
            },
        };
        let length = file.read_at(buffer, 0).map_err(CgroupError::at(&self.path))?;
        let text = str::from_utf8(&buffer[..length]).map_err(|_| CgroupError::invalid(&self.path))?;
        let value = match self.key {
            None => number(text),
            Some(key) => keyed(text, key),
        };
        Ok(Some(value.ok_or_else(|| CgroupError::invalid(&self.path))? / self.unit))
    }

    fn open(&mut self) -> Result<Option<File>, CgroupError> {
        match (File::open(&self.path), self.without) {
            (Err(error), Without::Zero) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            (Err(error), Without::Take(other)) if error.kind() == io::ErrorKind::NotFound => {
                self.path.set_file_name(other);
                self.without = Without::Fail;
                File::open(&self.path).map(Some).map_err(CgroupError::at(&self.path))
            }
            (opened, _) => opened.map(Some).map_err(CgroupError::at(&self.path)),
        }
    }
}

/// The accounts of one controller, closed.
fn accounts(controller: Controller, version: Version, directory: &Path) -> Vec<Account> {
    let account = |file: &str, store, kind| {
        let path = directory.join(file);
        Account { path, file: None, key: None, unit: 1, store, kind, without: Without::Fail }
    };
    let peak: fn(&mut Stats) -> &mut u64 = |stats| &mut stats.memory_peak_bytes;
    let memory: fn(&mut Stats) -> &mut u64 = |stats| &mut stats.memory_bytes;
    let killed: fn(&mut Stats) -> &mut u64 = |stats| &mut stats.oom_kills;
    let processor: fn(&mut Stats) -> &mut u64 = |stats| &mut stats.cpu_usage_us;
    match (controller, version) {
        (Controller::Memory, Version::V1) => vec![
            account("memory.max_usage_in_bytes", peak, Kind::Grows),
            account("memory.usage_in_bytes", memory, Kind::Present),
            Account { key: Some("oom_kill"), ..account("memory.oom_control", killed, Kind::Grows) },
        ],
        (Controller::Memory, Version::V2) => vec![
            // Since Linux 5.19.
            Account { without: Without::Take("memory.current"), ..account("memory.peak", peak, Kind::Grows) },
            account("memory.current", memory, Kind::Present),
            Account { key: Some("oom_kill"), ..account("memory.events", killed, Kind::Grows) },
            Account { key: Some("usage_usec"), ..account("cpu.stat", processor, Kind::Processor) },
        ],
        (Controller::Pids, _) => vec![
            account("pids.current", |stats| &mut stats.processes, Kind::Present),
            // Since Linux 4.8.
            Account {
                key: Some("max"),
                without: Without::Zero,
                ..account("pids.events", |stats| &mut stats.pids_refused, Kind::Grows)
            },
        ],
        (Controller::Cpuacct, _) => {
            vec![Account { unit: 1_000, ..account("cpuacct.usage", processor, Kind::Processor) }]
        }
        (Controller::Cpu | Controller::Freezer, _) => Vec::new(),
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

    fn meter(place: &Path, homes: &[(Controller, Version)]) -> Meter {
        let homes: Vec<_> = homes
            .iter()
            .map(|&(controller, version)| (controller, Home { version, directory: place.to_owned() }))
            .collect();
        Meter::of(homes.iter().map(|(controller, home)| (controller, home)))
    }

    fn open(meter: &Meter) -> usize {
        meter.accounts.iter().filter(|account| account.file.is_some()).count()
    }

    const OF_VERSION_1: [(&str, &str); 6] = [
        ("memory.max_usage_in_bytes", "4096\n"),
        ("memory.usage_in_bytes", "2048\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("pids.current", "5\n"),
        ("pids.events", "max 3\n"),
        ("cpuacct.usage", "77123\n"),
    ];
    const VERSION_1: [(Controller, Version); 4] = [
        (Controller::Memory, Version::V1),
        (Controller::Pids, Version::V1),
        (Controller::Cpu, Version::V1),
        (Controller::Cpuacct, Version::V1),
    ];
    const READ: Stats = Stats {
        memory_peak_bytes: 4096,
        memory_bytes: 2048,
        cpu_usage_us: 77,
        oom_kills: 2,
        processes: 5,
        pids_refused: 3,
    };

    #[test]
    fn accounts_of_version_1_are_read_again_and_again() {
        let place = files(&OF_VERSION_1);
        let mut meter = meter(place.path(), &VERSION_1);
        assert_eq!(meter.read().expect("reads"), READ);
        fs::write(place.path().join("cpuacct.usage"), "99000\n").expect("file");
        let counters = Stats { cpu_usage_us: 99, memory_bytes: 0, processes: 0, ..READ };
        assert_eq!(meter.read_counters().expect("reads"), counters);
        assert_eq!(meter.read_processor().expect("reads"), 99);
        fs::write(place.path().join("cpuacct.usage"), "much\n").expect("file");
        assert_eq!(meter.read().expect_err("nonsense").source.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn only_what_is_read_is_open() {
        let place = files(&OF_VERSION_1);
        let mut meter = meter(place.path(), &VERSION_1);
        assert_eq!(open(&meter), 0);
        meter.read_processor().expect("reads");
        assert_eq!(open(&meter), 1);
        meter.read_counters().expect("reads");
        assert_eq!(open(&meter), 4);
        meter.read().expect("reads");
        assert_eq!(open(&meter), 6);
        meter.close_but_processor();
        assert_eq!(open(&meter), 1);
        assert_eq!(meter.read().expect("opens again"), READ);
        meter.close();
        assert_eq!(open(&meter), 0);
        assert_eq!(meter.read().expect("opens again"), READ);
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
        let mut without = meter(place.path(), &homes);
        assert_eq!(without.read().expect("reads"), expected(2048));
        without.close();
        assert_eq!(without.read().expect("reads"), expected(2048));
        fs::write(place.path().join("memory.peak"), "4096\n").expect("file");
        assert_eq!(meter(place.path(), &homes).read().expect("reads"), expected(4096));
        fs::remove_file(place.path().join("cpu.stat")).expect("file");
        assert_eq!(
            meter(place.path(), &homes).read().expect_err("every kernel has it").source.kind(),
            io::ErrorKind::NotFound
        );
    }
}
