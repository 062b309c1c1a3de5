//! Two thousand containers whose code waits for a tool: what each costs, and what they cost whoever is answered.

use belljar_ids::ContainerId;
use belljar_sandbox::{CodeTools, Parked, Sandbox};
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use tokio::task::JoinSet;

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
/// A start waits for the kernel now and then.
const STARTS_AT_ONCE: usize = 4;
/// So many of them are asked what they have: the kernel takes its time over each.
const ASKED: usize = 500;

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
    let asked: Vec<ContainerId> = ids.iter().step_by(ids.len().div_ceil(ASKED).max(1)).cloned().collect();
    let own = tokio::task::block_in_place(|| Own::of(&asked));
    let first = again(first, &tools, &mut crowded, times).await?;
    let mut waiting = Vec::with_capacity(ids.len());
    for parked in crowd {
        waiting.push(again(parked, &tools, &mut others, 1).await?);
    }
    end_all(&sandbox, waiting).await?;
    drop(again(first, &tools, &mut alone, times).await?);
    sandbox.close().await;
    let account = of_each(&own, full.less(before), ids.len());
    let notes = json!({ "wanted": wanted, "had": ids.len(), "asked": asked.len(), "why_no_more": why });
    Ok(Yield { series: [alone, crowded, others].into_iter().chain(account).collect(), notes })
}

/// As many as there can be up to `wanted`, and why there are no more.
async fn fill(sandbox: &Sandbox, tools: &CodeTools, wanted: usize) -> (Vec<Parked>, Option<String>) {
    let (mut crowd, mut starting, mut why) = (Vec::with_capacity(wanted), JoinSet::new(), None);
    loop {
        while why.is_none() && starting.len() < STARTS_AT_ONCE && crowd.len() + starting.len() < wanted {
            why = shortage(crowd.len());
            if why.is_some() {
                break;
            }
            let (sandbox, tools) = (sandbox.clone(), tools.clone());
            starting.spawn(async move { park(&sandbox, &tools).await.map_err(|error| error.to_string()) });
        }
        match starting.join_next().await {
            None => return (crowd, why),
            Some(Ok(Ok(parked))) => crowd.push(parked),
            Some(Ok(Err(error))) => why = why.or(Some(error)),
            Some(Err(error)) => why = why.or(Some(error.to_string())),
        }
    }
}

/// What there is too little of for another one.
fn shortage(crowd: usize) -> Option<String> {
    let available = meminfo_kib("MemAvailable");
    if available < AVAILABLE_KIB_MIN {
        return Some(format!("{available} KiB of memory were left"));
    }
    let looked = crowd.is_multiple_of(LOOK_EVERY).then(descriptors_left).flatten();
    let left = looked.filter(|left| *left < DESCRIPTORS_MIN)?;
    Some(format!("{left} of the server's descriptors were left"))
}

/// How many more this process may open; none where that cannot be said.
fn descriptors_left() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(getrlimit(Resource::Nofile).current?.saturating_sub(open as u64))
}

/// Asked for all at once; the sandbox clears away a few at a time. Each is held until it is gone: a cell that is let go of is
/// interrupted first, and two thousand interpreters would all run for that.
async fn end_all(sandbox: &Sandbox, crowd: Vec<Parked>) -> Result<(), Failure> {
    let mut removals = JoinSet::new();
    for parked in crowd {
        let sandbox = sandbox.clone();
        removals.spawn(async move { sandbox.remove(parked.container()).await });
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
