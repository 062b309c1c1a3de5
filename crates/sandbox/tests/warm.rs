//! REPLs forked from zygotes, claimed from the pool, started cold: in the real image.

mod support;

use std::time::{Duration, Instant};

use belljar_sandbox::{ContainerOptions, Language, Lease, Sandbox, SandboxConfig, SandboxCounts, Warmth, ZygoteStatus};
use support::leftovers::Held;
use support::{id, printed, python_config, stdout, until};
use tokio::io::AsyncReadExt;

fn warm(pool_containers: usize) -> SandboxConfig {
    SandboxConfig { pool_containers, zygotes: vec![Warmth::Core], ..python_config() }
}

fn is_warm(status: &ZygoteStatus) -> bool {
    matches!(status, ZygoteStatus::Warm { .. })
}

async fn core_warm(sandbox: &Sandbox) {
    let status = || sandbox.warmth_status().core;
    until("the zygote is warm", || is_warm(&status()) || matches!(status(), ZygoteStatus::Impossible { .. })).await;
    assert!(is_warm(&status()), "{:?}", status());
}

const PYTHON: ContainerOptions = ContainerOptions {
    limits: belljar_sandbox::ContainerLimits { memory_bytes_max: None, cpus: None, processes_max: None },
    ready_for: Language::Python,
    isolation: None,
};

async fn leased(sandbox: &Sandbox, seed: u64) -> Lease {
    sandbox.create_with(id(seed), PYTHON).await.expect("a container with Python");
    sandbox.lease(&id(seed), Duration::ZERO).await.expect("nobody else has it")
}

/// Whether a library is in the interpreter's memory before anybody has imported it.
const HAS_PANDAS: &str = "import sys; print('pandas' in sys.modules)";

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_repl_has_its_libraries_and_is_in_its_container() {
    let (sandbox, _image) = python_sandbox!(warm(0));
    core_warm(&sandbox).await;
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(printed(&mut lease, HAS_PANDAS).await, "True\n");
    assert_eq!(printed(&mut lease, "x = 41").await, "");
    assert_eq!(printed(&mut lease, "print(x + 1)").await, "42\n");
    let same = "import os; print(os.getcwd(), os.getuid(), os.uname().nodename, sorted(os.listdir('/files')))";
    assert_eq!(printed(&mut lease, same).await, "/work 0 container ['input', 'output']\n");
    assert_eq!(printed(&mut lease, "print(os.getppid())").await, "0\n", "its parent is outside");
    let pid = printed(&mut lease, "print(os.getpid())").await;
    assert_eq!(stdout(&mut lease, &format!("cat /proc/{}/comm", pid.trim())).await, "python3\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_share_nothing_that_is_to_be_random() {
    let (sandbox, _image) = python_sandbox!(warm(1));
    core_warm(&sandbox).await;
    until("the pool is full", || sandbox.counts().pooled == 2).await;
    let source = "import random, ssl, numpy, uuid, os\n\
                  print(random.random(), ssl.RAND_bytes(8).hex(), numpy.random.random(), uuid.uuid4(), os.urandom(8).hex())";
    let mut seen = Vec::new();
    for seed in 0..4 {
        let mut lease = leased(&sandbox, seed).await;
        let printed = printed(&mut lease, source).await;
        seen.extend(printed.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), all), (20, 20), "{seen:?}");
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_for_python_comes_from_the_pool() {
    let (sandbox, _image) = python_sandbox!(warm(2));
    core_warm(&sandbox).await;
    until("the pool is full", || sandbox.counts().pooled == 4).await;
    let started = Instant::now();
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(printed(&mut lease, "print(2+2)").await, "4\n");
    eprintln!("claim to output: {:?}", started.elapsed());
    assert_eq!(printed(&mut lease, HAS_PANDAS).await, "True\n");
    drop(lease);
    until("the pool is full again", || sandbox.counts().pooled == 4).await;
    assert_eq!(sandbox.counts(), SandboxCounts { ready: 1, pooled: 4, ..SandboxCounts::default() });
    sandbox.close().await;
}

/// The processes of zygotes below this one.
fn zygotes() -> Vec<i32> {
    support::leftovers::processes_with("/run/belljar/zygote.py core")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_repl_has_run_a_cell_that_left_nothing() {
    const TRACES: &str = "import linecache, os; print(sorted(n for n in globals() if n[:2] != '__'), os.getcwd(), \
        len(os.listdir('/files/output')), os.listdir('/files/input'), os.listdir('/tmp'), len(os.listdir('/proc/self/fd')))";
    let mut traces = Vec::new();
    for pool_containers in [1, 0] {
        let (sandbox, _image) = python_sandbox!(warm(pool_containers));
        core_warm(&sandbox).await;
        until("the pool is full", || sandbox.counts().pooled == 2 * pool_containers).await;
        let mut lease = leased(&sandbox, 1).await;
        traces.push(printed(&mut lease, TRACES).await);
        let rehearsed = printed(&mut lease, "print('<rehearsal>' in linecache.cache)").await;
        assert_eq!(rehearsed, if pool_containers == 1 { "True\n" } else { "False\n" });
        drop(lease);
        sandbox.close().await;
    }
    assert_eq!(traces[0], traces[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_before_the_first_cell_of_a_pooled_container_is_not_the_cells() {
    const BYTES: u64 = 24 * 1024 * 1024;
    let (sandbox, _image) = python_sandbox!(warm(1));
    core_warm(&sandbox).await;
    until("the pool is full", || sandbox.counts().pooled == 2).await;
    let mut lease = leased(&sandbox, 1).await;
    for _ in 0..8 {
        lease.put_input("large", tokio::io::repeat(b'x').take(BYTES), BYTES).await.expect("it fits");
    }
    let output = support::python(&mut lease, "print(2+2)").await;
    // A cell takes 2 ms of the processor at most, and those files 20 at least.
    assert!(output.cpu < Duration::from_millis(10), "{:?}", output.cpu);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygotes_death_costs_nobody_their_repl() {
    let (sandbox, _image) = python_sandbox!(warm(0));
    core_warm(&sandbox).await;
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(printed(&mut lease, "x = 'kept'").await, "");
    let zygote = zygotes().into_iter().min().expect("one runs");
    kill(zygote);
    // That it ended is known before how it did.
    let by_signal = |reason: &str| reason.contains("signal: 9");
    let known = || matches!(sandbox.warmth_status().core, ZygoteStatus::Down { reason } if by_signal(&reason));
    until("how it ended is known", known).await;
    assert_eq!(printed(&mut lease, "print(x)").await, "kept\n");
    // Started cold meanwhile.
    let mut second = leased(&sandbox, 2).await;
    assert_eq!(printed(&mut second, HAS_PANDAS).await, "False\n");
    core_warm(&sandbox).await;
    let mut third = leased(&sandbox, 3).await;
    assert_eq!(printed(&mut third, HAS_PANDAS).await, "True\n");
    assert_eq!(printed(&mut lease, "print(x)").await, "kept\n");
    drop((lease, second, third));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repl_that_ends_is_told_by_its_zygote() {
    let (sandbox, _image) = python_sandbox!(warm(0));
    core_warm(&sandbox).await;
    let mut lease = leased(&sandbox, 1).await;
    let outcome = lease.python("import os; os._exit(7)", support::CELL, support::options()).await.expect("lives");
    assert!(matches!(outcome, belljar_sandbox::CellOutcome::Crashed(_)), "{outcome:?}");
    assert_eq!(outcome.output().return_code, 7);
    let next = support::python(&mut lease, HAS_PANDAS).await;
    assert_eq!(support::said(&next).stdout, "True\n", "the next one is forked too");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_zygotes_and_repls() {
    let (warmed, image) = python_sandbox!(warm(1));
    until("the pool is full", || warmed.counts().pooled == 2).await;
    warmed.close().await;
    let before = Held::now();
    let (sandbox, second_image) = python_sandbox!(warm(1));
    core_warm(&sandbox).await;
    for seed in 0..6 {
        let mut lease = leased(&sandbox, seed).await;
        assert_eq!(printed(&mut lease, "print(2+2)").await, "4\n");
    }
    sandbox.close().await;
    drop(second_image);
    Held::settles_at(&before).await;
    drop(image);
}
