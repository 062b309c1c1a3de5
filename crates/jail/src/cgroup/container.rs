//! One container's cgroup.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::place::Controller;
use super::{CgroupError, Limits, Meter, Stats, Version, read, write};

/// Length of the scheduler's accounting period; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// Shortest quota the kernel takes.
const CPU_QUOTA_US_MIN: u64 = 1_000;

/// Rounds of killing what is listed; with forking stopped, one suffices, more are for processes on their way in.
const KILL_ROUNDS_MAX: u32 = 100;

/// A directory in which containers' cgroups are made, for one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) version: Version,
    pub(crate) directory: PathBuf,
}

/// Version 2's file of processes.
pub(super) const PROCESSES: &str = "cgroup.procs";

impl Home {
    /// The file that a process of one thread enters by. Version 1's file of threads, rather than of processes: a thread that
    /// moves itself needs no lock against all forks of the machine, which the kernel takes a grace period to get, tens of
    /// milliseconds on a busy one (`cgroup_procs_write_start`, kernel/cgroup/cgroup.c).
    fn entrance(&self) -> PathBuf {
        self.directory.join(match self.version {
            Version::V1 => "tasks",
            Version::V2 => PROCESSES,
        })
    }
}

/// One container's cgroup, in every hierarchy that has a part in it. Removed when dropped, if empty by then.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) homes: BTreeMap<Controller, Home>,
    pub(super) bare_v2: Option<PathBuf>,
    /// As last wished, whether imposed or lifted just now.
    cpus: Mutex<f64>,
}

/// Its name becomes that of directories.
fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= 128 && name.chars().all(plain) {
        return Ok(());
    }
    Err(CgroupError { path: PathBuf::from(name), source: io::ErrorKind::InvalidInput.into() })
}

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: Controller,
    file: &'static str,
    value: String,
    presence: Presence,
}

/// Whether every kernel has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Always,
    /// Only with swap accounting; without it there is no swap to limit, or the operator switched it off.
    WithSwapAccounting,
}

impl Cgroup {
    pub(crate) fn create(
        homes: &BTreeMap<Controller, Home>,
        bare_v2: Option<&Path>,
        name: &str,
        limits: &Limits,
    ) -> Result<Self, CgroupError> {
        check(limits).map_err(CgroupError::at(Path::new(name)))?;
        check_name(name)?;
        let below = |directory: &Path| directory.join(name);
        // Dropped on an error below, which removes what was made.
        let mut cgroup = Self { homes: BTreeMap::new(), bare_v2: None, cpus: Mutex::new(limits.cpus) };
        let mut made = BTreeSet::new();
        for (&controller, home) in homes {
            let directory = below(&home.directory);
            if made.insert(directory.clone()) {
                fs::create_dir(&directory).map_err(CgroupError::at(&directory))?;
            }
            let version = home.version;
            cgroup.homes.insert(controller, Home { version, directory });
        }
        if let Some(bare) = bare_v2 {
            let directory = below(bare);
            fs::create_dir(&directory).map_err(CgroupError::at(&directory))?;
            cgroup.bare_v2 = Some(directory);
        }
        cgroup.impose(limits)?;
        Ok(cgroup)
    }

    /// One that was made before, by this process as another program.
    pub(crate) fn inherited(
        homes: &BTreeMap<Controller, Home>,
        bare_v2: Option<&Path>,
        name: &str,
        cpus: f64,
    ) -> Result<Self, CgroupError> {
        check_name(name)?;
        let below = |directory: &Path| {
            let directory = directory.join(name);
            fs::metadata(&directory).map_err(CgroupError::at(&directory))?;
            Ok::<_, CgroupError>(directory)
        };
        let home = |home: &Home| Ok(Home { version: home.version, directory: below(&home.directory)? });
        let homes = homes.iter().map(|(controller, of)| Ok((*controller, home(of)?)));
        let homes = homes.collect::<Result<_, CgroupError>>()?;
        Ok(Self { homes, bare_v2: bare_v2.map(below).transpose()?, cpus: Mutex::new(cpus) })
    }

    /// The name it was made under, and the processors that were last wished for it.
    ///
    /// # Errors
    /// [`CgroupError`] for one that has no directory with a name.
    pub fn made_as(&self) -> Result<(String, f64), CgroupError> {
        let directories = self.homes.values().map(|home| home.directory.as_path()).chain(self.bare_v2.as_deref());
        let name = directories.map(Path::file_name).next().flatten().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| CgroupError::invalid(Path::new("a cgroup without a name")))?;
        Ok((name.to_owned(), *self.cpus.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The files by which a process of one thread enters, writing `0` to each; its later children are born there. A bare
    /// version 2 is left out, for there is no quick way into that one: see [`Cgroup::freeze`]. Whoever
    /// holds them can put other processes in, too: they are closed before untrusted code runs.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn entrances(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let homes: BTreeSet<_> = self.homes.values().map(Home::entrance).collect();
        let open = |path: &PathBuf| {
            let opened = fs::OpenOptions::new().write(true).open(path);
            opened.map(OwnedFd::from).map_err(CgroupError::at(path))
        };
        homes.iter().map(open).collect()
    }

    /// What has been used so far.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        self.meter().read()
    }

    /// Its accounts, for reading them often.
    pub fn meter(&self) -> Meter {
        Meter::of(self.homes.iter())
    }

    /// Lifts the processor quota, so that dying is not throttled.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn lift_cpu(&self) -> Result<(), CgroupError> {
        let Some(home) = self.homes.get(&Controller::Cpu) else {
            return Ok(());
        };
        match home.version {
            Version::V1 => write(&home.directory.join("cpu.cfs_quota_us"), "-1"),
            Version::V2 => write(&home.directory.join("cpu.max"), "max"),
        }
    }

    /// Imposes other limits on what runs in it.
    ///
    /// # Errors
    /// [`CgroupError`]; `EBUSY` when more memory is in use than the new limit allows and cannot be reclaimed.
    pub fn set_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        check(limits).map_err(CgroupError::at(Path::new("limits")))?;
        *self.cpus.lock().unwrap_or_else(PoisonError::into_inner) = limits.cpus;
        self.impose(limits)
    }

    fn impose(&self, limits: &Limits) -> Result<(), CgroupError> {
        for (&controller, home) in &self.homes {
            let settings = settings(controller, home.version, limits);
            let done = settings.iter().try_for_each(|setting| self.set(setting));
            match done {
                // Version 1 keeps memory below memory with swap, at every moment: raised, they go in the other order.
                Err(error) if error.source.raw_os_error() == Some(libc::EINVAL) && settings.len() > 1 => {
                    settings.iter().rev().try_for_each(|setting| self.set(setting))?;
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Imposes again the processor quota that [`Cgroup::lift_cpu`] lifted.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn restore_cpu(&self) -> Result<(), CgroupError> {
        let Some(home) = self.homes.get(&Controller::Cpu) else {
            return Ok(());
        };
        let cpus = *self.cpus.lock().unwrap_or_else(PoisonError::into_inner);
        cpu_settings(home.version, cpus).iter().try_for_each(|setting| self.set(setting))
    }

    /// Kills every process in it, after lifting its quota and stopping its forks. What still is on its way into the
    /// cgroup when this is called may live on; a container's end is [`crate::Jailed::kill`].
    ///
    /// # Errors
    /// [`CgroupError`]; `EBUSY` when processes keep appearing.
    pub fn kill(&self) -> Result<(), CgroupError> {
        // A quota that stays only makes it slow.
        let lifted = self.lift_cpu();
        self.kill_all()?;
        lifted
    }

    /// Has what has been sent a signal that ends it end at once: neither throttled nor, in version 1, frozen. Version 2 lets
    /// what is frozen die.
    ///
    /// # Errors
    /// [`CgroupError`]; both have been tried.
    pub fn let_die(&self) -> Result<(), CgroupError> {
        let lifted = self.lift_cpu();
        if self.homes.contains_key(&Controller::Freezer) {
            self.thaw()?;
        }
        lifted
    }

    /// Whether no process is listed in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes().is_none_or(|procs| listed(&procs).is_ok_and(|listed| listed.is_empty()))
    }

    fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(home) = self.homes.values().find(|home| home.version == Version::V2) {
            match write(&home.directory.join("cgroup.kill"), "1") {
                // Before Linux 5.14.
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                done => return done,
            }
        }
        if self.homes.contains_key(&Controller::Freezer) {
            // What version 1 has frozen dies only when it runs again; its forks are refused from here on.
            self.stop_forks()?;
            self.thaw()?;
        }
        self.kill_each()
    }

    /// Its directory in the unified hierarchy, if it has one.
    pub(super) fn unified(&self) -> Option<PathBuf> {
        self.bare_v2.clone().or_else(|| {
            let home = self.homes.values().find(|home| home.version == Version::V2)?;
            Some(home.directory.clone())
        })
    }

    /// The file that lists all its processes.
    pub(super) fn processes(&self) -> Option<PathBuf> {
        Some(self.homes.get(&Controller::Pids)?.directory.join(PROCESSES))
    }

    /// The bare directory of version 2, which nobody is in before it is frozen.
    pub(super) fn bare(&self) -> Option<&Path> {
        self.bare_v2.as_deref()
    }

    fn stop_forks(&self) -> Result<(), CgroupError> {
        self.homes.get(&Controller::Pids).map_or(Ok(()), |pids| write(&pids.directory.join("pids.max"), "0"))
    }

    /// As `cgroup.kill` does, it returns when all have been sent the signal; they end by and by.
    fn kill_each(&self) -> Result<(), CgroupError> {
        let Some(procs) = self.processes() else {
            return Ok(());
        };
        self.stop_forks()?;
        let mut killed = HashSet::new();
        for _ in 0..KILL_ROUNDS_MAX {
            let fresh = listed(&procs)?.into_iter().filter(|pid| killed.insert(*pid));
            let held: Vec<_> =
                fresh.filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))).collect();
            if held.is_empty() {
                return Ok(());
            }
            // Listed again with its handle held, an id cannot have passed to a stranger in between.
            let still = self::listed(&procs)?;
            for (pid, handle) in held {
                if still.contains(&pid) {
                    match pidfd_send_signal(handle, Signal::KILL) {
                        Ok(()) | Err(Errno::SRCH) => {}
                        Err(errno) => return Err(CgroupError::at(&procs)(errno.into())),
                    }
                }
            }
        }
        Err(CgroupError::at(&procs)(Errno::BUSY.into()))
    }

    /// Removes it. All its processes must have been reaped.
    ///
    /// # Errors
    /// [`CgroupError`], `EBUSY` while a process is left.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        let directories = self.directories();
        self.homes.clear();
        self.bare_v2 = None;
        directories.iter().try_for_each(|directory| fs::remove_dir(directory).map_err(CgroupError::at(directory)))
    }

    fn directories(&self) -> BTreeSet<PathBuf> {
        self.homes.values().map(|home| home.directory.clone()).chain(self.bare_v2.clone()).collect()
    }

    fn set(&self, setting: &Setting) -> Result<(), CgroupError> {
        let Some(home) = self.homes.get(&setting.controller) else {
            return Ok(());
        };
        match (write(&home.directory.join(setting.file), &setting.value), setting.presence) {
            (Err(error), Presence::WithSwapAccounting) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
            (done, _) => done,
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in self.directories() {
            // Refused by the kernel while a process is left; then a later server sweeps it.
            let _left_to_the_sweep = fs::remove_dir(directory);
        }
    }
}

/// Puts the calling process, which has one thread, into the cgroups of these [`Cgroup::entrances`].
pub(crate) fn enter(entrances: &[OwnedFd]) -> Result<(), Errno> {
    entrances.iter().try_for_each(|entrance| match rustix::io::write(entrance, b"0")? {
        1 => Ok(()),
        _ => Err(Errno::IO),
    })
}

pub(super) fn listed(procs: &Path) -> Result<Vec<Pid>, CgroupError> {
    let text = read(procs)?;
    Ok(text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect())
}

/// What is written for one controller, in order.
fn settings(controller: Controller, version: Version, limits: &Limits) -> Vec<Setting> {
    let always = |file, value| Setting { controller, file, value, presence: Presence::Always };
    let with_swap = |file, value| Setting { presence: Presence::WithSwapAccounting, ..always(file, value) };
    let memory = limits.memory_bytes_max.to_string();
    match (controller, version) {
        (Controller::Memory, Version::V1) => vec![
            always("memory.limit_in_bytes", memory.clone()),
            // Memory and swap together; may not be lower than the limit above, so it comes second.
            with_swap("memory.memsw.limit_in_bytes", memory),
        ],
        (Controller::Memory, Version::V2) => {
            vec![always("memory.max", memory), with_swap("memory.swap.max", "0".to_owned())]
        }
        (Controller::Pids, _) => vec![always("pids.max", limits.processes_max.to_string())],
        (Controller::Cpu, version) => cpu_settings(version, limits.cpus),
        (Controller::Cpuacct | Controller::Freezer, _) => Vec::new(),
    }
}

fn cpu_settings(version: Version, cpus: f64) -> Vec<Setting> {
    let setting = |file, value| Setting { controller: Controller::Cpu, file, value, presence: Presence::Always };
    let quota = quota_us(cpus);
    match version {
        Version::V1 => vec![
            setting("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
            setting("cpu.cfs_quota_us", quota.to_string()),
        ],
        Version::V2 => vec![setting("cpu.max", format!("{quota} {CPU_PERIOD_US}"))],
    }
}

/// Limits that the kernel would take for something else.
fn check(limits: &Limits) -> io::Result<()> {
    if (0.01..1e6).contains(&limits.cpus) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn quota_us(cpus: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "cpus has been checked to be positive and below a million"
    )]
    let quota = (cpus * CPU_PERIOD_US as f64).round() as u64;
    quota.max(CPU_QUOTA_US_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes_max: 1 << 30, cpus: 1.5, processes_max: 64 };

    fn written(version: Version) -> Vec<(&'static str, String)> {
        Controller::ALL
            .into_iter()
            .flat_map(|controller| settings(controller, version, &LIMITS))
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    #[test]
    fn limits_as_version_2_files() {
        let expected =
            [("memory.max", "1073741824"), ("memory.swap.max", "0"), ("pids.max", "64"), ("cpu.max", "150000 100000")];
        assert_eq!(written(Version::V2), expected.map(|(file, value)| (file, value.to_owned())));
    }

    #[test]
    fn limits_as_version_1_files() {
        let expected = [
            ("memory.limit_in_bytes", "1073741824"),
            ("memory.memsw.limit_in_bytes", "1073741824"),
            ("pids.max", "64"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "150000"),
        ];
        assert_eq!(written(Version::V1), expected.map(|(file, value)| (file, value.to_owned())));
    }

    #[test]
    fn a_sliver_of_a_processor_is_what_the_kernel_takes_at_least() {
        assert_eq!(quota_us(0.001), CPU_QUOTA_US_MIN);
        assert_eq!(quota_us(2.0), 200_000);
    }

    #[test]
    fn names_and_limits_that_make_no_cgroup() {
        let odd = |cpus| Limits { cpus, ..LIMITS };
        for (name, limits) in [
            ("", LIMITS),
            ("..", LIMITS),
            ("a/b", LIMITS),
            ("a", odd(0.0)),
            ("a", odd(f64::NAN)),
            ("a", odd(f64::INFINITY)),
        ] {
            let made = Cgroup::create(&BTreeMap::new(), None, name, &limits);
            let kind = made.expect_err("refused").source.kind();
            assert_eq!(kind, io::ErrorKind::InvalidInput, "{name:?} {limits:?}");
        }
    }

    #[test]
    fn version_2_accounts() {
        let place = tempfile::tempdir().expect("place");
        for (file, text) in [
            ("memory.peak", "4096\n"),
            ("memory.current", "2048\n"),
            ("pids.events", "max 9\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("cpu.stat", "usage_usec 77\nuser_usec 70\n"),
            ("pids.current", "5\n"),
        ] {
            fs::write(place.path().join(file), text).expect("file");
        }
        let home = Home { version: Version::V2, directory: place.path().to_owned() };
        let mut cgroup = Cgroup {
            homes: BTreeMap::from([(Controller::Memory, home.clone()), (Controller::Pids, home)]),
            bare_v2: None,
            cpus: Mutex::new(1.0),
        };
        let expected = Stats {
            memory_peak_bytes: 4096,
            memory_bytes: 2048,
            cpu_usage_us: 77,
            oom_kills: 1,
            processes: 5,
            pids_refused: 9,
        };
        assert_eq!(cgroup.stats().expect("stats"), expected);
        fs::remove_file(place.path().join("memory.peak")).expect("older kernel");
        assert_eq!(cgroup.stats().expect("stats").memory_peak_bytes, 2048);
        cgroup.homes.clear();
    }
}
