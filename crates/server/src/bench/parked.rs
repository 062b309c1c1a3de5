//! Two thousand containers whose code waits for a tool: what each costs, and what they cost whoever is answered.

use belljar_ids::ContainerId;
use belljar_sandbox::{CodeTools, Parked, Sandbox};
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::Failure;
use super::account::{Memory, Own, of_each};
use super::figure::Series;
use super::machine::meminfo_kib;
use super::ours;
use super::report::Yield;
use super::stage::{Needs, Stage};
use super::stopwatch::Stopwatch;
use super::tool_call::{called, resume, tools};
use crate::cell::Language;

const CONTAINERS: usize = 2000;
const RESUMES: usize = 200;
/// Calls stay unanswered while all the others are made, in seconds.
const ANSWER_WAIT_S: u64 = 3600;
/// What is left to the rest of the machine; a crowd that would take of it is measured as large as it is.
const AVAILABLE_KIB_MIN: u64 = 1024 * 1024;
/// What is left of this process's descriptors: a sandbox that has none loses its zygote, and with it the measure of the rest.
const DESCRIPTORS_MIN: u64 = 1024;
/// Containers between two looks at them.
const LOOK_EVERY: usize = 16;
/// Given up again where there cannot be as many as wanted.
const SPARE: usize = 8;

const CODE: &str = "while True:\n    await step({})\n";

/// One is resumed alone, then among all, each of the others once; then one alone again: a machine that slows down by itself
/// shows.
pub async fn run(stage: &Stage) -> Result<Yield, Failure> {
    let (wanted, times) = (stage.scale.of(CONTAINERS), stage.scale.of(RESUMES));
    let sandbox = stage
        .sandbox_with(|config| {
            config.containers_max = wanted + 8;
            config.tool_answer_wait_s_max = ANSWER_WAIT_S;
        })
        .await?;
    ours::await_up(&sandbox, Needs { containers: wanted + 8, pooled: 0, language: Language::Python }).await?;
    let tools = tools()?;
    let [mut alone, mut crowded, mut others] =
        ["resume at 1", "resume among all", "another each time"].map(Series::times);
    // What the first time costs is nobody's figure.
    let first = park(&sandbox, &tools).await?;
    let first = again(first, &tools, &mut Series::times("unmeasured"), times).await?;
    let first = again(first, &tools, &mut alone, times).await?;
    let before = Memory::now();
    let (mut crowd, why) = fill(&sandbox, &tools, wanted).await;
    if let Some(why) = &why {
        // What has run out is needed to look at the others, too.
        end_all(&sandbox, crowd.split_off(crowd.len().saturating_sub(SPARE))).await?;
        eprintln!("parked: {} containers, not {wanted}: {why}", crowd.len());
    }
    let full = Memory::now();
    let ids: Vec<ContainerId> = crowd.iter().map(|parked| parked.container().clone()).collect();
    let own = tokio::task::block_in_place(|| Own::of(&ids));
    let first = again(first, &tools, &mut crowded, times).await?;
    let mut waiting = Vec::with_capacity(ids.len());
    for parked in crowd {
        waiting.push(again(parked, &tools, &mut others, 1).await?);
    }
    end_all(&sandbox, waiting).await?;
    drop(again(first, &tools, &mut alone, times).await?);
    sandbox.close().await;
    let account = of_each(&own, full.less(before), ids.len());
    let notes = json!({ "wanted": wanted, "had": ids.len(), "why_no_more": why });
    Ok(Yield { series: [alone, crowded, others].into_iter().chain(account).collect(), notes })
}

/// As many as there can be up to `wanted`, and why there are no more.
async fn fill(sandbox: &Sandbox, tools: &CodeTools, wanted: usize) -> (Vec<Parked>, Option<String>) {
    let mut crowd = Vec::with_capacity(wanted);
    while crowd.len() < wanted {
        let available = meminfo_kib("MemAvailable");
        if available < AVAILABLE_KIB_MIN {
            return (crowd, Some(format!("{available} KiB of memory were left")));
        }
        if crowd.len() % LOOK_EVERY == 0
            && let Some(left) = descriptors_left()
            && left < DESCRIPTORS_MIN
        {
            return (crowd, Some(format!("{left} of the server's descriptors were left")));
        }
        match park(sandbox, tools).await {
            Ok(parked) => crowd.push(parked),
            Err(error) => return (crowd, Some(error.to_string())),
        }
    }
    (crowd, None)
}

/// How many more this process may open; none where that cannot be said.
fn descriptors_left() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(getrlimit(Resource::Nofile).current?.saturating_sub(open as u64))
}

/// Asked for all at once; the sandbox clears away a few at a time.
async fn end_all(sandbox: &Sandbox, crowd: Vec<Parked>) -> Result<(), Failure> {
    let mut removals = tokio::task::JoinSet::new();
    for parked in crowd {
        let (sandbox, id) = (sandbox.clone(), parked.container().clone());
        drop(parked);
        removals.spawn(async move { sandbox.remove(&id).await });
    }
    while let Some(removed) = removals.join_next().await {
        removed?;
    }
    Ok(())
}

/// A new container whose code waits.
async fn park(sandbox: &Sandbox, tools: &CodeTools) -> Result<Parked, Failure> {
    let lease = ours::start(sandbox, Language::Python).await?;
    called(lease.python_with(CODE, "/tmp/cell.py", ours::options(), tools).await?)
}

/// Answers it so many times, each time until it waits again.
async fn again(mut parked: Parked, tools: &CodeTools, series: &mut Series, times: usize) -> Result<Parked, Failure> {
    for _ in 0..times {
        let begun = Stopwatch::start();
        parked = called(resume(parked, tools, "go on").await?)?;
        series.samples.push(begun.micros());
    }
    Ok(parked)
}
