//! What machine this is, and where the figures are kept.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The machine, as far as figures depend on it; nothing that names it.
pub fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: String, key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cpu": line(read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).unwrap_or(0),
        "memory": line(read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "virtual": read("/proc/cpuinfo").contains("hypervisor"),
    })
}

/// Writes the report under `bench/runs/`, one file a run.
pub fn keep(report: &Value) -> super::Outcome<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/runs");
    std::fs::create_dir_all(&folder)?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H%M%SZ").to_string();
    let path = folder.join(format!("{date}-whole.json"));
    std::fs::write(&path, format!("{report:#}\n"))?;
    Ok(path)
}
