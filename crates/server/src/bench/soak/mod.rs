//! The soak: users who do everything at once for a while. Afterwards no answer was wrong and nothing is left over.
//!
//! What is left is counted twice: with the sandbox open, against the time after a first lap, and with it closed, against
//! the time before it was opened; memory, which the first lap fills with caches, against the time after that both times.

mod act;
mod dice;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belljar_sandbox::{Lease, Sandbox};
use serde_json::{Value, json};

use self::act::{ACTS, Act};
use self::dice::Dice;
use super::Failure;
use super::census::Census;
use super::figure::Series;
use super::ours;
use super::report::Yield;
use super::stage::{Needs, Stage};
use super::stopwatch::Stopwatch;
use crate::cell::Language;

const USERS: u64 = 6;
const POOLED: usize = 3;
const PROGRESS: Duration = Duration::from_secs(10);
/// The first lap fills caches, pools and arenas; it is checked like the rest, but counted from its end.
const FIRST_LAP: Duration = Duration::from_secs(10);
/// Wrong answers that are kept word for word.
const COMPLAINTS_MAX: usize = 20;

/// What all users have met so far.
#[derive(Default)]
struct Tally {
    acts: BTreeMap<Act, u64>,
    wrong: u64,
    complaints: Vec<String>,
}

type SharedTally = Arc<Mutex<Tally>>;

impl Tally {
    fn count(tally: &SharedTally, act: Act, done: Result<(), Failure>) {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally.acts.entry(act).or_default() += 1;
        if let Err(error) = done {
            tally.wrong += 1;
            if tally.complaints.len() < COMPLAINTS_MAX {
                tally.complaints.push(format!("{act:?}: {error}"));
            }
        }
    }

    fn totals(tally: &SharedTally) -> (u64, u64) {
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        (tally.acts.values().sum(), tally.wrong)
    }
}

/// Runs the load for `time`, and counts.
pub async fn run(stage: &Stage, time: Duration) -> Result<Yield, Failure> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    let seed = u64::from_ne_bytes(seed);
    let tally = SharedTally::default();
    let closed_before = Census::take();
    let needs = Needs { containers: usize::try_from(USERS)? * 2, pooled: POOLED, language: Language::Python };
    let sandbox = stage.sandbox(needs).await?;
    lap(&sandbox, &tally, seed, FIRST_LAP).await?;
    let open_before = settled(&sandbox, needs).await?;
    let begun = Stopwatch::start();
    lap(&sandbox, &tally, seed.wrapping_add(USERS), time).await?;
    let open_after = settled(&sandbox, needs).await?;
    let took = begun.elapsed();
    sandbox.close().await;
    let closed_after = Census::take();
    let mut left = open_after.left_over(&open_before);
    let nothing_open = Census { resident_kib: open_before.resident_kib, ..closed_before.clone() };
    left.extend(closed_after.left_over(&nothing_open).into_iter().map(|what| format!("after closing, {what}")));
    for what in &left {
        eprintln!("soak: left over: {what}");
    }
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
    for complaint in &tally.complaints {
        eprintln!("soak: wrong: {complaint}");
    }
    let acts: BTreeMap<String, u64> = tally.acts.iter().map(|(act, count)| (format!("{act:?}"), *count)).collect();
    let total: u64 = acts.values().sum();
    let count = |name, value: u64| Series::single(name, "count", value as f64);
    Ok(Yield {
        series: vec![count("acts", total), count("wrong answers", tally.wrong), count("left over", left.len() as u64)],
        notes: json!({
            "seed": seed, "seconds": took.as_secs(), "users": USERS, "acts": acts,
            "complaints": tally.complaints, "left_over": left,
            "open": census_pair(&open_before, &open_after), "closed": census_pair(&closed_before, &closed_after),
        }),
    })
}

fn census_pair(before: &Census, after: &Census) -> Value {
    json!({ "before": before, "after": after })
}

/// Counts once nobody uses the sandbox and its pool is full.
async fn settled(sandbox: &Sandbox, needs: Needs) -> Result<Census, Failure> {
    ours::await_up(sandbox, needs).await?;
    Ok(tokio::task::block_in_place(Census::take))
}

/// All users at once, until the time is over; progress is told meanwhile. Nobody holds a container afterwards.
async fn lap(sandbox: &Sandbox, tally: &SharedTally, seed: u64, time: Duration) -> Result<(), Failure> {
    let begun = Stopwatch::start();
    let users: Vec<_> = (0..USERS)
        .map(|user| tokio::spawn(user_life(sandbox.clone(), Arc::clone(tally), Dice::new(seed + user), begun, time)))
        .collect();
    let teller = tokio::spawn(tell(Arc::clone(tally), sandbox.clone(), begun));
    let mut ends = Vec::new();
    for user in users {
        ends.push(user.await);
    }
    teller.abort();
    ends.into_iter().try_for_each(|end| end?)
}

async fn tell(tally: SharedTally, sandbox: Sandbox, begun: Stopwatch) {
    let mut ticks = tokio::time::interval(PROGRESS);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (acts, wrong) = Tally::totals(&tally);
        let seconds = begun.elapsed().as_secs();
        eprintln!("soak: {seconds} s, {acts} acts, {wrong} wrong, {:?}", sandbox.counts());
    }
}

async fn user_life(
    sandbox: Sandbox,
    tally: SharedTally,
    mut dice: Dice,
    begun: Stopwatch,
    time: Duration,
) -> Result<(), Failure> {
    let mut lease = ours::start(&sandbox, language(&mut dice)).await?;
    while begun.elapsed() < time {
        let act = dice.choose(ACTS).ok_or("there are no acts")?;
        let done = act.perform(&mut lease, &mut dice).await;
        let renew = act == Act::Renew || done.is_err();
        Tally::count(&tally, act, done);
        if renew {
            lease = renewed(&sandbox, lease, &mut dice).await?;
        }
    }
    ours::end(&sandbox, lease).await;
    Ok(())
}

/// A new container in place of an old one; sometimes the old one is removed while a cell runs in it.
async fn renewed(sandbox: &Sandbox, mut old: Lease, dice: &mut Dice) -> Result<Lease, Failure> {
    if dice.below(4) == 0 {
        let id = old.container().clone();
        let running = ours::cell(&mut old, Language::Bash, "sleep 1000", ours::options());
        let (_, removed) = tokio::join!(running, sandbox.remove(&id));
        if !removed {
            return Err("a container that was held could not be removed".into());
        }
    } else {
        ours::end(sandbox, old).await;
    }
    ours::start(sandbox, language(dice)).await
}

fn language(dice: &mut Dice) -> Language {
    if dice.below(2) == 0 { Language::Bash } else { Language::Python }
}
