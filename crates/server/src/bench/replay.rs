//! A cell that calls a hundred times and does something before each call: by a server that keeps the cell, against one that
//! runs it again from its start for every answer.
//!
//! The second is no server: a bare interpreter of the host and nothing around it (`replay.py`). Its time is the least that any
//! replay takes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Failure;
use super::figure::Series;
use super::peer::PATH;
use super::served::Served;
use super::stage::Stage;
use super::stopwatch::Stopwatch;
use super::talk::{Form, Talk};

const ROUNDS: usize = 5;
const CALLS: u64 = 100;
/// Each call needs the result of the one before; each step leaves a line.
const CODE: &str = r#"
total = 0
for number in range(100):
    with open("steps", "a") as steps:
        steps.write(f"{number}\n")
    total = int(await step({"to": total}))
with open("steps") as steps:
    print("done", total, len(steps.readlines()))
"#;
const SCRIPT: &str = "hundred";
const REPLAY: &str = include_str!("replay.py");

/// By turns; ours in a new container each time, which is counted.
pub async fn run(stage: &Stage) -> Result<Vec<Series>, Failure> {
    let served = Served::open(stage, &[(SCRIPT, CODE)]).await?;
    let measured = tokio::task::block_in_place(|| measure(&served, stage.scale.of(ROUNDS)));
    served.close().await?;
    measured
}

fn measure(served: &Served, rounds: usize) -> Result<Vec<Series>, Failure> {
    let mut ours = Run::series("belljar", "belljar, steps done");
    let mut theirs = Run::series("replay", "replay, steps done");
    for _ in 0..rounds {
        for (run, [times, steps]) in [(kept(served)?, &mut ours), (replayed()?, &mut theirs)] {
            times.samples.push(run.micros);
            steps.samples.push(run.steps);
        }
    }
    Ok(ours.into_iter().chain(theirs).collect())
}

/// The whole cell.
struct Run {
    micros: f64,
    /// How often a step was done; the code says it.
    steps: f64,
}

impl Run {
    fn series(time: &'static str, steps: &'static str) -> [Series; 2] {
        [Series::times(time), Series { name: steps, unit: "count", samples: Vec::new() }]
    }

    fn ended(begun: Stopwatch, printed: &str) -> Result<Self, Failure> {
        let micros = begun.micros();
        let done = printed.strip_prefix(&format!("done {CALLS} ")).and_then(|steps| steps.trim().parse().ok());
        let steps = done.ok_or_else(|| format!("the code printed {printed:?}"))?;
        Ok(Self { micros, steps })
    }
}

/// Ours, over HTTP, from the first request's first byte to the last reply's last.
fn kept(served: &Served) -> Result<Run, Failure> {
    let begun = Stopwatch::start();
    let mut talk = Talk::open(served.address(), SCRIPT, Form::Plain, None)?;
    let mut reply = talk.ask()?;
    while reply.only_call().is_some() {
        talk.answer(&reply, |input| tool(input["to"].as_u64().unwrap_or_default()));
        reply = talk.ask()?;
    }
    Run::ended(begun, reply.printed()?)
}

fn replayed() -> Result<Run, Failure> {
    let folder = tempfile::Builder::new().prefix("belljar-bench-").tempdir()?;
    let begun = Stopwatch::start();
    let mut known = String::new();
    loop {
        let printed = from_the_start(folder.path(), &known)?;
        let Some(to) = printed.strip_prefix("call ") else {
            return Run::ended(begun, &printed);
        };
        known.push_str(&tool(to.trim().parse()?));
        known.push('\n');
    }
}

/// One interpreter, from its start to the first call without a result, or to the end.
fn from_the_start(folder: &Path, known: &str) -> Result<String, Failure> {
    let mut command = Command::new("python3");
    // Neither the user's packages nor those of the host: they would have to be looked for.
    command.args(["-I", "-S", "-c", REPLAY, CODE]).env_clear().env("PATH", PATH).current_dir(folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(known.as_bytes())?;
    let ended = child.wait_with_output()?;
    match ended.status.success() {
        true => Ok(String::from_utf8(ended.stdout)?),
        false => {
            Err(format!("a replay ended with {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr)).into())
        }
    }
}

/// The client's tool: one more.
fn tool(to: u64) -> String {
    (to + 1).to_string()
}
