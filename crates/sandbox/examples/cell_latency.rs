//! Measures what a cell in Python costs in a live container: `print(2+2)` through [`Lease::python`], on both kinds of
//! runtime, after warm-up. Prints microseconds. Needs the cached image and what containers need.
//!
//! `cargo run --release -p belljar-sandbox --example cell_latency [ROUNDS]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use belljar_ids::{ContainerId, SeededIds};
use belljar_image::{ImageStore, Monitor};
use belljar_sandbox::{CellOptions, CellOutcome, Lease, Rootfs, Sandbox, SandboxConfig, ZygoteStatus};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let cache = PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache/belljar");
    println!("{:<16} {:<8} {:>8} {:>8} {:>8}", "runtime", "cell", "p50_us", "p99_us", "min_us");
    for (name, runtime) in [
        ("current_thread", Builder::new_current_thread().enable_all().build()?),
        ("multi_thread", Builder::new_multi_thread().enable_all().build()?),
    ] {
        measure(name, &runtime, &cache, rounds)?;
    }
    Ok(())
}

fn measure(name: &str, runtime: &Runtime, cache: &std::path::Path, rounds: usize) -> Result<(), Failure> {
    runtime.block_on(async {
        let store = ImageStore::open(cache)?;
        let image = store.mount(&store.resolve("default")?, &Monitor::silent()).await?;
        let (path, digest) = (image.path().to_path_buf(), image.digest().to_string());
        let rootfs = Rootfs { path, owner_base: image.owner_base(), digest };
        // An interpreter that has run is the same however it was started.
        let config = SandboxConfig { pool_containers: 0, zygotes: Vec::new(), ..SandboxConfig::default() };
        let sandbox = Sandbox::open(config, rootfs).await?;
        let id = ContainerId::mint(&mut SeededIds::new(1));
        sandbox.create(id.clone()).await?;
        let mut lease = sandbox.lease(&id, Duration::ZERO).await?;
        one(&mut lease, true).await?;
        // The first need of an interpreter starts a zygote, which keeps a core busy until it is warm.
        while matches!(sandbox.warmth_status().core, ZygoteStatus::Starting) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (cell, python) in [("python", true), ("bash", false)] {
            let rounds = if python { rounds } else { rounds / 10 };
            let mut taken = Vec::new();
            for round in 0..rounds + rounds / 10 {
                let spent = one(&mut lease, python).await?;
                if round >= rounds / 10 {
                    taken.push(spent);
                }
            }
            taken.sort_unstable();
            let at = |share: usize| taken.get(taken.len() * share / 100).map_or(0, Duration::as_micros);
            println!("{name:<16} {cell:<8} {:>8} {:>8} {:>8}", at(50), at(99), at(0));
        }
        drop(lease);
        sandbox.close().await;
        Ok(())
    })
}

async fn one(lease: &mut Lease, python: bool) -> Result<Duration, Failure> {
    let options = CellOptions { wall: Duration::from_secs(60), cancel: CancellationToken::new(), live: None };
    let started = Instant::now();
    let outcome = if python {
        lease.python("print(2+2)", "/tmp/srvtoolu_01/cell.py", options).await?
    } else {
        lease.bash("echo 4", options).await?
    };
    let spent = started.elapsed();
    match outcome {
        CellOutcome::Ended(output) if output.return_code == 0 && output.stdout == b"4\n" => Ok(spent),
        other => Err(format!("{other:?}").into()),
    }
}
