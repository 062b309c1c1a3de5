//! What machine this is, as far as figures depend on it; nothing that names it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// The machine, for the report.
pub fn describe() -> Value {
    let cpuinfo = read("/proc/cpuinfo");
    json!({
        "cpu": field(&cpuinfo, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cgroup": cgroup_version(),
        "virtualisation": virtualisation(&cpuinfo),
        "root": rustix::process::geteuid().is_root(),
        "load_average": read("/proc/loadavg").split_whitespace().next(),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    })
}

/// A number of `/proc/meminfo`, in KiB; zero where this kernel has none.
pub fn meminfo_kib(key: &str) -> u64 {
    let text = read("/proc/meminfo");
    let value = field(&text, key).and_then(|value| value.trim_end_matches(" kB").parse().ok());
    value.unwrap_or(0)
}

fn cgroup_version() -> &'static str {
    let mounts = read("/proc/self/mountinfo");
    match (mounts.contains(" - cgroup "), Path::new("/sys/fs/cgroup/cgroup.controllers").exists()) {
        (_, true) => "v2",
        (true, false) if mounts.contains(" - cgroup2 ") => "v1 with v2 beside it",
        (true, false) => "v1",
        (false, false) => "none",
    }
}

fn virtualisation(cpuinfo: &str) -> String {
    if !cpuinfo.contains("hypervisor") {
        return "none".to_owned();
    }
    let vendor = read("/sys/class/dmi/id/sys_vendor");
    if vendor.trim().is_empty() { "a hypervisor".to_owned() } else { vendor.trim().to_owned() }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotal:  5 kB\nSwapTotal: 6 kB\nSwap:\t7 kB\n";
        let found = ["MemTotal", "Swap", "Mem"].map(|key| field(text, key));
        assert_eq!(found, [Some("5 kB"), Some("7 kB"), None]);
    }
}
