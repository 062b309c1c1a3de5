//! A container's processes as the host's kernel sees them.

use std::fs;

use belljar_sandbox::Lease;

use super::stdout;

/// A process of a container.
#[derive(Debug, Clone, Copy)]
pub struct Inside {
    /// On the host.
    pub pid: i32,
    /// In the container.
    pub pid_inside: i32,
}

/// All processes of a container, by the process id namespace in which a command finds itself.
pub async fn inside(lease: &mut Lease) -> Vec<Inside> {
    let namespace = stdout(lease, "readlink /proc/self/ns/pid").await;
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let theirs = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.to_string_lossy() == namespace.trim())
    };
    ids.filter(theirs).filter_map(|pid| Some(Inside { pid, pid_inside: field(pid, "status", "NSpid:")?.1 })).collect()
}

impl Inside {
    /// Its number in the container, and when it was started, in ticks since the machine was.
    pub fn start(self) -> (i32, u64) {
        (self.pid_inside, self.stat(22))
    }

    /// How often it has touched a page that it had to be given, or had to copy, and that was not on a disk.
    pub fn faults(self) -> u64 {
        self.stat(10)
    }

    /// A field of proc_pid_stat(5), by the number that it has there; the third is the first behind the name.
    fn stat(self, field: usize) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("it lives");
        let behind_name = stat.rsplit_once(')').expect("a name").1;
        behind_name.split_whitespace().nth(field - 3).and_then(|text| text.parse().ok()).expect("a number")
    }

    /// Memory that it shares with nobody, in KiB.
    pub fn own_kib(&self) -> u64 {
        let part = |key| field(self.pid, "smaps_rollup", key).map_or(0, |(first, _)| first);
        u64::try_from(part("Private_Dirty:") + part("Private_Clean:")).expect("sizes are not negative")
    }
}

/// Ticks of a hundredth of a second since the machine was started.
pub fn ticks_since_boot() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").expect("proc");
    let seconds = uptime.split_whitespace().next().expect("two numbers");
    seconds.replace('.', "").parse().expect("a number with two digits behind the point")
}

/// The first and the last number behind a key of a file about a process.
fn field(pid: i32, file: &str, key: &str) -> Option<(i32, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let numbers: Vec<i32> = text
        .lines()
        .find_map(|line| line.strip_prefix(key))?
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    Some((*numbers.first()?, *numbers.last()?))
}
