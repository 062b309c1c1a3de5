//! Measures starts in the cached image: on demand, from the pool, in a burst, beside a thousand idle containers. Prints one
//! JSON object a line, times in microseconds. Each start waits, not for ever, for a moment in which nothing else runs;
//! how many had none is told.
//!
//! `cargo run --release -p belljar-sandbox --example starts -- [ROUNDS [IDLE [PART]]]`; PART is `one`, `cells`,
//! `burst` or `idle`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use belljar_ids::{ContainerId, SeededIds};
use belljar_image::{ImageStore, Monitor, Mounted};
use belljar_sandbox::{
    CellOptions, CellOutcome, ContainerOptions, Language, Rootfs, Sandbox, SandboxConfig, Warmth, ZygoteStatus,
};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const BURST: usize = 50;
const CELLS: usize = 4;
/// For the pool to be full again, and the machine quiet.
const REST: Duration = Duration::from_millis(50);
/// 4 in a REPL that has its libraries, and an error in one that was started cold: what is measured is not that.
const WARM_SUM: &str = "import sys; sys.modules['pandas']; print(2+2)";
/// Looks for a quiet moment, a millisecond apart.
const LOOKS_MAX: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let idle = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let cache = PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache/belljar");
    let store = ImageStore::open(&cache)?;
    let image = store.mount(&store.resolve("default")?, &Monitor::silent()).await?;
    let part = arguments.next();
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wanted("one") {
        one_by_one(&image, rounds).await?;
    }
    if wanted("cells") {
        first_cells(&image, rounds).await?;
    }
    if wanted("burst") {
        burst(&image).await?;
    }
    if wanted("idle") {
        beside_idle(&image, rounds, idle).await?;
    }
    Ok(())
}

async fn open(image: &Mounted, pool_containers: usize) -> Result<Sandbox, Failure> {
    let (path, digest) = (image.path().to_path_buf(), image.digest().to_string());
    let rootfs = Rootfs { path, owner_base: image.owner_base(), digest };
    let config = SandboxConfig {
        pool_containers,
        zygotes: vec![Warmth::Core],
        containers_max: 5000,
        memory_bytes_max: 1 << 30,
        idle_freeze: Duration::from_secs(3600),
        ..SandboxConfig::default()
    };
    let sandbox = Sandbox::open(config, rootfs).await?;
    loop {
        match sandbox.warmth_status().core {
            ZygoteStatus::Warm { .. } => return Ok(sandbox),
            ZygoteStatus::Impossible { reason } => return Err(reason.into()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn filled(sandbox: &Sandbox, pooled: usize) {
    while sandbox.counts().pooled < pooled {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(REST).await;
}

static DISTURBED: AtomicUsize = AtomicUsize::new(0);

/// Waits until nothing but this process is runnable (proc_loadavg(5)), for a while.
async fn quiet() {
    for _ in 0..LOOKS_MAX {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        if text.split_whitespace().nth(3).is_some_and(|running| running.starts_with("1/")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    DISTURBED.fetch_add(1, Ordering::Relaxed);
}

fn id(seed: u64) -> ContainerId {
    ContainerId::mint(&mut SeededIds::new(seed))
}

/// From nothing to the first output; the container, and how long it took until it was there, and until it spoke.
async fn start(sandbox: &Sandbox, seed: u64, language: Language) -> Result<(Duration, Duration), Failure> {
    let id = id(seed);
    let started = Instant::now();
    sandbox.create_with(id.clone(), ContainerOptions { ready_for: language, ..ContainerOptions::default() }).await?;
    let made = started.elapsed();
    let mut lease = sandbox.lease(&id, Duration::ZERO).await?;
    let options = CellOptions { wall: Duration::from_secs(60), cancel: CancellationToken::new(), live: None };
    let outcome = match language {
        Language::Python => lease.python(WARM_SUM, "/tmp/srvtoolu_01/cell.py", options).await?,
        Language::Bash => lease.bash("echo 4", options).await?,
    };
    let spoke = started.elapsed();
    match outcome {
        CellOutcome::Ended(output) if output.return_code == 0 && output.stdout == b"4\n" => Ok((made, spoke)),
        other => Err(format!("{other:?}").into()),
    }
}

fn print(what: &str, language: Language, taken: &mut [Duration]) {
    taken.sort_unstable();
    let at = |share: usize| taken.get(taken.len() * share / 100).map_or(0, Duration::as_micros);
    println!(
        "{{\"what\":\"{what}\",\"language\":\"{language:?}\",\"n\":{},\"min\":{},\"p50\":{},\"p90\":{},\"max\":{},\"disturbed\":{}}}",
        taken.len(),
        at(0),
        at(50),
        at(90),
        taken.last().map_or(0, Duration::as_micros),
        DISTURBED.swap(0, Ordering::Relaxed)
    );
}

async fn one_by_one(image: &Mounted, rounds: usize) -> Result<(), Failure> {
    for (what, pool_containers) in [("on demand", 0), ("pooled", 2)] {
        let sandbox = open(image, pool_containers).await?;
        for language in [Language::Bash, Language::Python] {
            let (mut made, mut spoke, mut removed) = (Vec::new(), Vec::new(), Vec::new());
            for seed in 0..rounds as u64 {
                filled(&sandbox, 2 * pool_containers).await;
                quiet().await;
                let (first, second) = start(&sandbox, seed, language).await?;
                made.push(first);
                spoke.push(second);
                let removing = Instant::now();
                sandbox.remove(&id(seed)).await;
                removed.push(removing.elapsed());
            }
            print(&format!("{what}: made"), language, &mut made);
            print(&format!("{what}: first output"), language, &mut spoke);
            print(&format!("{what}: removed"), language, &mut removed);
        }
        sandbox.close().await;
    }
    Ok(())
}

/// The first cells of pooled containers, one after another: what the claim has left to do, and what it has not.
async fn first_cells(image: &Mounted, rounds: usize) -> Result<(), Failure> {
    let sandbox = open(image, 2).await?;
    let mut taken: [Vec<Duration>; CELLS] = Default::default();
    for seed in 0..rounds as u64 {
        filled(&sandbox, 4).await;
        quiet().await;
        let python = ContainerOptions { ready_for: Language::Python, ..ContainerOptions::default() };
        sandbox.create_with(id(seed), python).await?;
        let mut lease = sandbox.lease(&id(seed), Duration::ZERO).await?;
        for taken in &mut taken {
            let options = CellOptions { wall: Duration::from_secs(60), cancel: CancellationToken::new(), live: None };
            let started = Instant::now();
            lease.python(WARM_SUM, "/tmp/srvtoolu_01/cell.py", options).await?;
            taken.push(started.elapsed());
        }
        drop(lease);
        sandbox.remove(&id(seed)).await;
    }
    for (number, taken) in taken.iter_mut().enumerate() {
        print(&format!("pooled: cell {number}"), Language::Python, taken);
    }
    sandbox.close().await;
    Ok(())
}

async fn burst(image: &Mounted) -> Result<(), Failure> {
    for language in [Language::Bash, Language::Python] {
        let sandbox = open(image, 0).await?;
        let started = Instant::now();
        let all: Vec<_> = (0..BURST as u64)
            .map(|seed| {
                let sandbox = sandbox.clone();
                tokio::spawn(async move { start(&sandbox, seed, language).await.map(|_| started.elapsed()) })
            })
            .collect();
        let mut ready = Vec::new();
        for one in all {
            ready.push(one.await??);
        }
        print("burst of 50: first output", language, &mut ready);
        let closing = Instant::now();
        sandbox.close().await;
        print("burst of 50: all removed", language, &mut [closing.elapsed()]);
    }
    Ok(())
}

/// What the whole of it takes, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    /// `MemAvailable` of proc_meminfo(5): everything, and what others on the machine do meanwhile.
    available: u64,
    /// `Slab`, `PageTables`, `KernelStack` and `Percpu` of proc_meminfo(5): the kernel's part.
    kernel: u64,
    /// `Pss` of proc_pid_smaps_rollup(5) of this process and all below it.
    processes: u64,
}

fn memory() -> Result<Memory, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kernel = ["Slab:", "PageTables:", "KernelStack:", "Percpu:"];
    Ok(Memory {
        available: field(&text, "MemAvailable:")?,
        kernel: kernel.iter().map(|name| field(&text, name)).sum::<Result<u64, _>>()?,
        processes: proportional(std::process::id())?,
    })
}

fn field(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("a field is missing")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn proportional(process: u32) -> Result<u64, Failure> {
    let mut bytes = field(&std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?, "Pss:")?;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            bytes += proportional(child.parse()?)?;
        }
    }
    Ok(bytes)
}

async fn beside_idle(image: &Mounted, rounds: usize, idle: usize) -> Result<(), Failure> {
    for language in [Language::Bash, Language::Python] {
        let sandbox = open(image, 0).await?;
        latency(&sandbox, "beside none", language, rounds).await?;
        let before = memory()?;
        let making = Instant::now();
        for seed in 0..idle as u64 {
            start(&sandbox, seed, language).await?;
        }
        let took = making.elapsed();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = memory()?;
        let each = |before: u64, after: u64| after.saturating_sub(before) / idle as u64;
        println!(
            "{{\"what\":\"{idle} idle\",\"language\":\"{language:?}\",\"available_each\":{},\"kernel_each\":{},\
             \"processes_each\":{},\"made_in_us\":{}}}",
            each(after.available, before.available),
            each(before.kernel, after.kernel),
            each(before.processes, after.processes),
            took.as_micros()
        );
        latency(&sandbox, &format!("beside {idle}"), language, rounds).await?;
        let closing = Instant::now();
        sandbox.close().await;
        print(&format!("{idle} idle: all removed"), language, &mut [closing.elapsed()]);
    }
    Ok(())
}

async fn latency(sandbox: &Sandbox, what: &str, language: Language, rounds: usize) -> Result<(), Failure> {
    let mut spoke = Vec::new();
    for seed in 0..rounds as u64 {
        let seed = seed + (1 << 40);
        quiet().await;
        spoke.push(start(sandbox, seed, language).await?.1);
        sandbox.remove(&id(seed)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    print(&format!("{what}: first output"), language, &mut spoke);
    Ok(())
}
