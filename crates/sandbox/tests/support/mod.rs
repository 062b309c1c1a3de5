//! Real containers for tests: a root filesystem, an open sandbox, shorthands.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod calls;
pub mod image;
pub mod inside;
pub mod leftovers;
pub mod ordinary;
pub mod rootfs;
pub mod warm;

use std::path::PathBuf;
use std::time::Duration;

use belljar_ids::{ContainerId, SeededIds};
use belljar_sandbox::{
    CellOptions, CellOutcome, Isolation, LandlockNeed, Lease, LimitsNeed, Output, Rootfs, Sandbox, SandboxConfig,
    find_runsc,
};
use tokio_util::sync::CancellationToken;

/// Says why a test does nothing; where everything must be there (`CI=true`), fails instead.
#[macro_export]
macro_rules! skip {
    ($reason:expr) => {{
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{}", $reason);
        eprintln!("SKIP: {}", $reason);
        return;
    }};
}

/// An open sandbox, or a loud return from the test.
#[macro_export]
macro_rules! sandbox {
    () => {
        $crate::sandbox!($crate::support::config())
    };
    ($config:expr) => {
        match $crate::support::open($config).await {
            Ok(sandbox) => sandbox,
            Err(reason) => $crate::skip!(reason),
        }
    };
}

/// As [`sandbox!`], from an image with Python. The image is held by the second value.
#[macro_export]
macro_rules! python_sandbox {
    () => {
        $crate::python_sandbox!($crate::support::python_config())
    };
    ($config:expr) => {
        match $crate::support::image::open($config).await {
            Ok(both) => both,
            Err(reason) => $crate::skip!(reason),
        }
    };
}

/// Returns from a test of something that gVisor does another way; tests/gvisor.rs has its own for that.
#[macro_export]
macro_rules! namespaces_only {
    ($reason:expr) => {
        if $crate::support::isolation() == belljar_sandbox::Isolation::Gvisor {
            eprintln!("not in gVisor: {}", $reason);
            return;
        }
    };
}

const MIB: u64 = 1024 * 1024;

/// Small limits, so that tests reach them soon.
pub fn config() -> SandboxConfig {
    SandboxConfig {
        memory_bytes_max: 256 * MIB,
        disk_bytes_max: 64 * MIB,
        output_file_bytes_max: 50_000_000,
        processes_max: 64,
        containers_max: 32,
        pool_containers: 0,
        zygotes: Vec::new(),
        limits_need: limits_need(),
        landlock_need: LandlockNeed::Required,
        isolation: isolation(),
        runsc: runsc(),
        ..SandboxConfig::default()
    }
}

/// As [`config`], with room for an interpreter.
pub fn python_config() -> SandboxConfig {
    SandboxConfig { memory_bytes_max: 512 * MIB, zygotes: warm::zygotes(), ..config() }
}

/// `BELLJAR_TEST_ISOLATION=gvisor` runs the same tests in that isolation.
pub fn isolation() -> Isolation {
    match std::env::var("BELLJAR_TEST_ISOLATION").as_deref() {
        Ok("gvisor") => Isolation::Gvisor,
        Ok("namespaces") | Err(_) => Isolation::Namespaces,
        Ok(other) => panic!("BELLJAR_TEST_ISOLATION={other}"),
    }
}

/// As a server finds it.
pub fn runsc() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home).map(|cache| cache.join("belljar"));
    let cache = std::env::var_os("BELLJAR_CACHE_DIR").map(PathBuf::from).or(cache)?;
    find_runsc(std::env::var_os("PATH").as_deref(), &cache)
}

/// Limits are a must where this host can enforce them; tests of limits ask first.
pub fn limits_need() -> LimitsNeed {
    if limits_enforced() { LimitsNeed::Required } else { LimitsNeed::BestEffort }
}

pub fn limits_enforced() -> bool {
    belljar_jail::cgroup::CgroupTree::detect().is_ok()
}

/// The reason is why a container cannot be started here at all, as the sandbox says it.
pub async fn open(config: SandboxConfig) -> Result<Sandbox, String> {
    let rootfs: Rootfs = rootfs::rootfs();
    Sandbox::open(config, rootfs).await.map_err(|error| error.to_string())
}

pub fn id(seed: u64) -> ContainerId {
    ContainerId::mint(&mut SeededIds::new(seed))
}

/// A new container of this sandbox, leased.
pub async fn leased(sandbox: &Sandbox, seed: u64) -> Lease {
    let id = id(seed);
    sandbox.create(id.clone()).await.expect("a container starts");
    sandbox.lease(&id, Duration::ZERO).await.expect("nobody else has it")
}

pub fn options() -> CellOptions {
    CellOptions { wall: Duration::from_secs(60), cancel: CancellationToken::new(), live: None }
}

/// As the sandbox's client, with the streams as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub return_code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn said(output: &Output) -> Said {
    Said {
        return_code: output.return_code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command that must end by itself.
pub async fn run(lease: &mut Lease, command: &str) -> Output {
    match lease.bash(command, options()).await.expect("the container lives") {
        CellOutcome::Ended(output) => output,
        other => panic!("{command}: {other:?}"),
    }
}

/// Standard output of a command that must succeed in silence.
pub async fn stdout(lease: &mut Lease, command: &str) -> String {
    let said = said(&run(lease, command).await);
    assert_eq!((said.return_code, said.stderr.as_str()), (0, ""), "{command}");
    said.stdout
}

/// The name that tracebacks of the tests' cells show.
pub const CELL: &str = "/tmp/srvtoolu_01/cell.py";

/// Runs a cell in Python that must end by itself.
pub async fn python(lease: &mut Lease, source: &str) -> Output {
    match lease.python(source, CELL, options()).await.expect("the container lives") {
        CellOutcome::Ended(output) => output,
        other => panic!("{source}: {other:?}"),
    }
}

/// Standard output of a cell in Python that must succeed in silence.
pub async fn printed(lease: &mut Lease, source: &str) -> String {
    let output = python(lease, source).await;
    let said = said(&output);
    assert_eq!((said.return_code, said.stderr.as_str()), (0, ""), "{source}");
    assert_eq!(output.notices(), Vec::<String>::new(), "{source}");
    said.stdout
}

/// As [`python`], for a cell of which the end is not known.
pub async fn python_outcome(lease: &mut Lease, source: &str) -> CellOutcome {
    lease.python(source, CELL, options()).await.expect("the container lives")
}

/// Waits for a state of the machine; two minutes is longer than any takes, however busy it is.
pub async fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(comes_true(holds).await, "{what}, in 120 s");
}

/// Whether it does, in 120 s.
pub async fn comes_true(mut holds: impl FnMut() -> bool) -> bool {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.is_ok()
}
