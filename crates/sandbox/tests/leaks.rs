//! Nothing is left: after hundreds of containers made and ended in every way, and after a server that was killed.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use belljar_sandbox::{ContainerOptions, Language, Sandbox, SandboxConfig, SandboxError, Warmth, ZygoteStatus};
use support::leftovers::{self, Held, processes_with};
use support::{id, options, python_config, until};

/// Containers in each of the rounds that are counted; two cores end both well within the time a test has.
const ROUND: u64 = 64;
/// What waits to be killed sleeps so long, and nobody else does.
const SLEEP: &str = "74001";
/// Memory that this process may keep after a round like the one before: caches of the allocator, not containers.
const MEMORY_BYTES_MAX: u64 = 16 << 20;

fn mixed() -> SandboxConfig {
    SandboxConfig {
        pool_containers: 2,
        zygotes: vec![Warmth::Core],
        idle_freeze: Duration::from_millis(50),
        ..python_config()
    }
}

async fn warm(sandbox: &Sandbox) {
    let status = || sandbox.warmth_status().core;
    until("the zygote is warm", || !matches!(status(), ZygoteStatus::Off | ZygoteStatus::Starting)).await;
    assert!(matches!(status(), ZygoteStatus::Warm { .. }), "{:?}", status());
}

/// One container's life; which one, its number decides.
async fn live(sandbox: Sandbox, seed: u64) -> Result<(), SandboxError> {
    let ready_for = if seed.is_multiple_of(2) { Language::Python } else { Language::Bash };
    sandbox.create_with(id(seed), ContainerOptions { ready_for, ..ContainerOptions::default() }).await?;
    let Ok(mut lease) = sandbox.lease(&id(seed), Duration::from_secs(60)).await else {
        return Err(SandboxError::Closed);
    };
    let cell = async {
        match (ready_for, seed % 5) {
            (Language::Python, 0) => lease.python("import os; os._exit(1)", support::CELL, options()).await,
            (Language::Python, 1) => lease.python(&sleeping(), support::CELL, options()).await,
            (Language::Python, _) => lease.python("print(2+2)", support::CELL, options()).await,
            (Language::Bash, 0) => lease.bash(&format!("sleep {SLEEP} & setsid sleep {SLEEP} &"), options()).await,
            (Language::Bash, 1) => lease.bash(&format!("sleep {SLEEP} & kill -9 -1; wait"), options()).await,
            (Language::Bash, _) => lease.bash("echo x > $OUTPUT_DIR/x", options()).await,
        }
    };
    if ready_for == Language::Python && seed % 5 == 1 {
        // Removed in the middle of its cell.
        let removing = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sandbox.remove(&id(seed)).await
        };
        let _killed = tokio::join!(cell, removing);
        return Ok(());
    }
    cell.await?;
    drop(lease);
    if seed.is_multiple_of(3) {
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    sandbox.remove(&id(seed)).await;
    Ok(())
}

fn sleeping() -> String {
    format!("import subprocess; subprocess.run(['sleep', '{SLEEP}'])")
}

async fn round(sandbox: &Sandbox, seeds: std::ops::Range<u64>) {
    // A few at a time, as in a server.
    let mut lives = tokio::task::JoinSet::<Result<(), SandboxError>>::new();
    for seed in seeds {
        if lives.len() == 8 {
            lives.join_next().await.expect("eight").expect("no panic").expect("a life");
        }
        lives.spawn(live(sandbox.clone(), seed));
    }
    while let Some(one) = lives.join_next().await {
        one.expect("no panic").expect("a life");
    }
}

/// Resident memory of this process, in bytes (proc_pid_statm(5)).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: u64 = statm.split_whitespace().nth(1).expect("a field").parse().expect("a number");
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn many_containers_leave_nothing() {
    let (sandbox, image) = python_sandbox!(mixed());
    warm(&sandbox).await;
    round(&sandbox, 0..ROUND).await;
    sandbox.close().await;
    drop(image);
    let (before, memory) = (Held::now(), resident());
    let (sandbox, image) = python_sandbox!(mixed());
    warm(&sandbox).await;
    round(&sandbox, ROUND..2 * ROUND).await;
    // Closed in the middle of a third round: whoever is refused then hears so.
    let closing = sandbox.clone();
    let mut lives = tokio::task::JoinSet::<Result<(), SandboxError>>::new();
    for seed in 2 * ROUND..2 * ROUND + 24 {
        lives.spawn(live(sandbox.clone(), seed));
    }
    drop(sandbox);
    tokio::time::sleep(Duration::from_millis(60)).await;
    closing.close().await;
    while let Some(one) = lives.join_next().await {
        let _closed_or_done = one.expect("no panic");
    }
    drop(image);
    Held::settles_at(&before).await;
    assert_eq!(processes_with(&format!("sleep {SLEEP}")), Vec::<i32>::new());
    let kept = resident().saturating_sub(memory);
    assert!(kept < MEMORY_BYTES_MAX, "{kept} bytes more than before");
}

/// Told by the next test: this process is the server that it kills.
const SERVER: &str = "BELLJAR_TEST_SERVER";

/// The server that the next test kills; by itself it has nothing to show.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_to_be_killed() {
    if std::env::var_os(SERVER).is_none() {
        return;
    }
    let (sandbox, _image) = python_sandbox!(SandboxConfig { pool_containers: 1, ..mixed() });
    warm(&sandbox).await;
    let mut leases = Vec::new();
    for (seed, ready_for) in [(1, Language::Python), (2, Language::Bash)] {
        sandbox
            .create_with(id(seed), ContainerOptions { ready_for, ..ContainerOptions::default() })
            .await
            .expect("starts");
        leases.push(sandbox.lease(&id(seed), Duration::ZERO).await.expect("free"));
    }
    support::python(&mut leases[0], "import subprocess; p = subprocess.Popen(['sleep', '74002'])").await;
    support::run(&mut leases[1], "setsid sleep 74002 >/dev/null 2>&1 &").await;
    for (seed, ready_for) in [(3, Language::Python), (4, Language::Bash)] {
        sandbox
            .create_with(id(seed), ContainerOptions { ready_for, ..ContainerOptions::default() })
            .await
            .expect("starts");
    }
    until("the unused stand still", || sandbox.counts().frozen == 2).await;
    println!("up");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_takes_everything_with_it() {
    let _probe = python_sandbox!();
    let mut server = Command::new(std::env::current_exe().expect("runs"))
        .args(["a_server_to_be_killed", "--exact", "--nocapture"])
        .env(SERVER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("up")), "the server came up");
    let below = leftovers::descendants(server.id());
    assert!(below.len() > 8, "{below:?}");
    assert!(!leftovers::cgroups_of(server.id()).is_empty() || !support::limits_enforced());
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    // Those that stood still cannot notice: the next server sees to them.
    let (sandbox, _image) = python_sandbox!();
    until("all are dead", || !below.iter().any(|pid| leftovers::is_alive(*pid))).await;
    sandbox.close().await;
    let (sandbox, _image) = python_sandbox!();
    assert_eq!(leftovers::cgroups_of(server.id()), Vec::<std::path::PathBuf>::new());
    sandbox.close().await;
}
