//! What a container costs its host in descriptors, exactly: a machine's hard limit of open files is what a crowd of waiting
//! containers meets first.

mod support;

use std::time::Duration;

use belljar_sandbox::{
    ContainerOptions, Language, Lease, LimitsNeed, Parked, Sandbox, SandboxConfig, Warmth, ZygoteStatus, descriptors,
};
use support::calls::{called, start, start_bash};
use support::{id, python_config, stdout};

/// Containers in each state, so that one descriptor of something else is not taken for one of theirs.
const CONTAINERS: usize = 3;

/// Descriptors by what they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Held {
    sockets: usize,
    pidfds: usize,
    pipes: usize,
    /// Files of cgroups.
    accounts: usize,
    namespaces: usize,
    others: usize,
}

const NONE: Held = Held { sockets: 0, pidfds: 0, pipes: 0, accounts: 0, namespaces: 0, others: 0 };
const NEW_FOR_BASH: Held = Held { sockets: 1, pidfds: 1, ..NONE };
const BASH_AFTER_A_CELL: Held = Held { accounts: 6, ..NEW_FOR_BASH };
const BASH_THAT_WAITS: Held = Held { pipes: 2, accounts: 1, ..NEW_FOR_BASH };
const NEW_FOR_PYTHON: Held = Held { sockets: 2, pidfds: 2, ..NONE };
const PYTHON_AFTER_A_CELL: Held = Held { accounts: 4, ..NEW_FOR_PYTHON };
const PYTHON_THAT_WAITS: Held = Held { pipes: 2, accounts: 1, ..NEW_FOR_PYTHON };
const BOTH_AFTER_A_CELL: Held = Held { accounts: 6, ..NEW_FOR_PYTHON };
const FROZEN: Held = NEW_FOR_PYTHON;

impl Held {
    /// Of this process, which is this test's alone.
    fn now() -> Self {
        let mut held = Self::default();
        for entry in std::fs::read_dir("/proc/self/fd").expect("proc").flatten() {
            // The one that reads the directory is gone.
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let kind = match target.split_once(":[") {
                Some(("socket", _)) => &mut held.sockets,
                Some(("pipe", _)) => &mut held.pipes,
                Some(("pidfd", _)) | Some(("anon_inode", "pidfd]")) => &mut held.pidfds,
                Some(("user" | "mnt" | "pid" | "net" | "ipc" | "uts" | "cgroup", _)) => &mut held.namespaces,
                _ if target.starts_with("/sys/fs/cgroup/") => &mut held.accounts,
                _ => &mut held.others,
            };
            *kind += 1;
        }
        held
    }

    /// With so many containers more, each of which holds `each`.
    fn with(self, each: Self) -> Self {
        Self {
            sockets: self.sockets + CONTAINERS * each.sockets,
            pidfds: self.pidfds + CONTAINERS * each.pidfds,
            pipes: self.pipes + CONTAINERS * each.pipes,
            accounts: self.accounts + CONTAINERS * each.accounts,
            namespaces: self.namespaces + CONTAINERS * each.namespaces,
            others: self.others + CONTAINERS * each.others,
        }
    }

    /// The same where namespaces are held open because this is an ordinary user, and where nothing is counted.
    fn here(self, config: &SandboxConfig) -> Self {
        let namespaces = if rustix::process::geteuid().is_root() { 0 } else { 7 };
        let accounts = if config.limits_need == LimitsNeed::Required { self.accounts } else { 0 };
        Self { namespaces, accounts, ..self }
    }

    fn all(self) -> usize {
        self.sockets + self.pidfds + self.pipes + self.accounts + self.namespaces + self.others
    }
}

fn config() -> SandboxConfig {
    SandboxConfig { pool_containers: 0, zygotes: vec![Warmth::Core], ..python_config() }
}

async fn until(mut holds: impl FnMut() -> bool) -> bool {
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let waiting = async {
        while !holds() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok()
}

/// What was handed to a container or a zygote is closed a moment after it has been told; what stays, stays.
async fn settles(state: &str, expected: Held) {
    until(|| Held::now() == expected).await;
    assert_eq!(Held::now(), expected, "{state}");
}

/// What is held when the zygote is warm and there is no container.
async fn warm(sandbox: &Sandbox) -> Held {
    assert!(until(|| matches!(sandbox.warmth_status().core, ZygoteStatus::Warm { .. })).await);
    Held::now()
}

async fn leased_for(sandbox: &Sandbox, seed: usize, ready_for: Language) -> Lease {
    let id = id(seed as u64);
    let options = ContainerOptions { ready_for, ..ContainerOptions::default() };
    sandbox.create_with(id.clone(), options).await.expect("a container starts");
    sandbox.lease(&id, Duration::ZERO).await.expect("nobody else has it")
}

/// Brings containers into a state, in which each must hold `expected` more than there is `before`; then ends them.
async fn each<T>(
    (sandbox, before): (&Sandbox, Held),
    language: Language,
    (what, expected): (&str, Held),
    state: impl AsyncFn(Lease) -> T,
) {
    let mut all = Vec::new();
    for seed in 1..=CONTAINERS {
        all.push(state(leased_for(sandbox, seed, language).await).await);
    }
    settles(what, before.with(expected.here(&config()))).await;
    drop(all);
    for seed in 1..=CONTAINERS {
        assert!(sandbox.remove(&id(seed as u64)).await);
    }
    settles("all removed", before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_waits_for_a_tool_holds_few_descriptors() {
    namespaces_only!("a sentry has other descriptors");
    let (sandbox, _image) = python_sandbox!(config());
    let there = (&sandbox, warm(&sandbox).await);
    let python = async |lease| -> Parked { called(start(lease, "while True:\n    await anything({})").await) };
    let bash = async |lease| -> Parked { called(start_bash(lease, "anything '{}'").await) };
    each(there, Language::Python, ("Python that waits", PYTHON_THAT_WAITS), python).await;
    each(there, Language::Bash, ("bash that waits", BASH_THAT_WAITS), bash).await;
    assert_eq!(PYTHON_THAT_WAITS.all(), descriptors::PARKED);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_container_holds_what_its_next_cell_needs() {
    namespaces_only!("a sentry has other descriptors");
    let (sandbox, _image) = python_sandbox!(config());
    let there = (&sandbox, warm(&sandbox).await);
    let unused = async |lease: Lease| lease;
    let by_bash = async |mut lease: Lease| {
        assert_eq!(stdout(&mut lease, "echo hi").await, "hi\n");
        lease
    };
    let by_python = async |mut lease: Lease| {
        assert_eq!(support::printed(&mut lease, "print('hi')").await, "hi\n");
        lease
    };
    let by_both = async |lease| by_bash(by_python(lease).await).await;
    each(there, Language::Bash, ("new, for bash", NEW_FOR_BASH), unused).await;
    each(there, Language::Bash, ("after a command", BASH_AFTER_A_CELL), by_bash).await;
    each(there, Language::Python, ("new, for Python", NEW_FOR_PYTHON), unused).await;
    each(there, Language::Python, ("after a cell", PYTHON_AFTER_A_CELL), by_python).await;
    each(there, Language::Python, ("after one of each", BOTH_AFTER_A_CELL), by_both).await;
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_container_keeps_no_account_open() {
    namespaces_only!("a sentry has other descriptors");
    let config = || SandboxConfig { idle_freeze: Duration::from_millis(50), ..config() };
    let (sandbox, _image) = python_sandbox!(config());
    let there = (&sandbox, warm(&sandbox).await);
    let used = async |mut lease: Lease| {
        assert_eq!(support::printed(&mut lease, "print('hi')").await, "hi\n");
    };
    each(there, Language::Python, ("frozen", FROZEN), used).await;
    sandbox.close().await;
}
