//! What one call from code costs: there, from the code's call to the last byte of the reply that pauses for it, and back, from
//! the first byte of the continuation to the code that runs again. Over HTTP in both forms of reply, and beside that without a
//! server: what is left is the sandbox's.
//!
//! The code tells its own times, by the clock that this process reads, too.

use belljar_sandbox::{CodeTool, CodeTools, Lease, Parked, Progress, ToolAnswer};
use serde_json::{Map, Value, json};
use tokio::task::block_in_place;

use super::Failure;
use super::figure::Series;
use super::ours;
use super::peer::{self, Peer};
use super::report::Yield;
use super::served::Served;
use super::stage::Stage;
use super::stopwatch::monotonic_ns;
use super::talk::{Form, Reply, Talk};
use super::task::Task;
use crate::cell::Language;

const ROUNDS: usize = 10;
/// Calls of each contestant in a round: one after the other, all of them from one cell.
const EACH: usize = 20;

const CODE: &str = r#"
import time
woke = 0
while True:
    at = time.monotonic_ns()
    answer = await step({"woke": woke, "at": at})
    woke = time.monotonic_ns()
    if answer == "end":
        break
print("done")
"#;
const SCRIPT: &str = "calls";

/// All by turns, in one cell each; beside them an interpreter's start, which is what a replay of the code begins with.
pub async fn run(stage: &Stage) -> Result<Yield, Failure> {
    let served = Served::open(stage, &[(SCRIPT, CODE)]).await?;
    let measured = measure(stage, &served).await;
    served.close().await?;
    measured
}

async fn measure(stage: &Stage, served: &Served) -> Result<Yield, Failure> {
    let open = |form, names| block_in_place(|| OverHttp::open(served, form, names));
    let plain = ["call to paused", "answer to code", "one call"];
    let mut plain = open(Form::Plain, plain)?;
    let streamed = ["call to paused, streamed", "answer to code, streamed", "one call, streamed"];
    let mut streamed = open(Form::Streamed, streamed)?;
    let mut alone = InSandbox::open(ours::start(served.sandbox(), Language::Python).await?).await?;
    let mut starts = Series::times("python3 on the host");
    for round in 0..ROUNDS {
        for time in 0..stage.scale.of(EACH) {
            let start = Peer::Bare.command(Task::Number, &stage.places, (round * EACH + time) as u64);
            starts.samples.extend(block_in_place(|| peer::time(start, Task::Number)).ok());
        }
        let calls = stage.scale.of(EACH);
        block_in_place(|| plain.turn(calls))?;
        block_in_place(|| streamed.turn(calls))?;
        alone = alone.turn(calls).await?;
    }
    let notes = json!({ "bytes_of_the_last_request": plain.talk.request_bytes() });
    let both = block_in_place(|| Ok::<_, Failure>([plain.end()?, streamed.end()?]))?;
    let series = both.into_iter().flatten().chain(alone.end().await?).chain([starts]).collect();
    Ok(Yield { series, notes })
}

/// There, back, and both, with what the code does between.
struct Times([Series; 3]);

impl Times {
    fn new(names: [&'static str; 3]) -> Self {
        Self(names.map(Series::times))
    }

    /// Of a call that followed an answer: when that was sent, the input of the call, when its holder had it.
    fn add(&mut self, sent: u64, input: &Map<String, Value>, had: u64) -> Result<(), Failure> {
        let moment = |key| input.get(key).and_then(Value::as_u64).ok_or("a call without a time");
        let micros = |from: u64, to: u64| {
            let passed = to.checked_sub(from).ok_or("the code goes by another clock, as in gVisor")?;
            Ok::<_, Failure>(passed as f64 / 1e3)
        };
        let [there, back, both] = &mut self.0;
        there.samples.push(micros(moment("at")?, had)?);
        back.samples.push(micros(sent, moment("woke")?)?);
        both.samples.push(micros(sent, had)?);
        Ok(())
    }
}

/// A client of the server.
struct OverHttp {
    talk: Talk,
    last: Reply,
    times: Times,
}

impl OverHttp {
    /// Up to the first call, which nobody counts.
    fn open(served: &Served, form: Form, names: [&'static str; 3]) -> Result<Self, Failure> {
        let mut talk = Talk::open(served.address(), SCRIPT, form, None)?;
        let last = talk.ask()?;
        Ok(Self { talk, last, times: Times::new(names) })
    }

    fn turn(&mut self, calls: usize) -> Result<(), Failure> {
        for _ in 0..calls {
            self.talk.answer(&self.last, |_| "go on".to_owned());
            self.last = self.talk.ask()?;
            let input = self.last.only_call().ok_or("not one call")?;
            self.times.add(self.last.sent, input, self.last.read)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<[Series; 3], Failure> {
        self.talk.answer(&self.last, |_| "end".to_owned());
        match self.talk.ask()?.printed()? {
            "done\n" => Ok(self.times.0),
            other => Err(format!("the code printed {other:?}").into()),
        }
    }
}

/// The same without a server, by the sandbox's own interface.
struct InSandbox {
    tools: CodeTools,
    parked: Parked,
    times: Times,
}

impl InSandbox {
    async fn open(lease: Lease) -> Result<Self, Failure> {
        let tools = tools()?;
        let progress = lease.python_with(CODE, "/tmp/cell.py", ours::options(), &tools).await?;
        let names = ["call to paused, sandbox", "answer to code, sandbox", "one call, sandbox"];
        Ok(Self { tools, parked: called(progress)?, times: Times::new(names) })
    }

    async fn turn(mut self, calls: usize) -> Result<Self, Failure> {
        for _ in 0..calls {
            let sent = monotonic_ns();
            self.parked = called(resume(self.parked, &self.tools, "go on").await?)?;
            let had = monotonic_ns();
            let call = self.parked.calls().first().ok_or("no call")?;
            self.times.add(sent, &call.input, had)?;
        }
        Ok(self)
    }

    async fn end(self) -> Result<[Series; 3], Failure> {
        match resume(self.parked, &self.tools, "end").await? {
            Progress::Ended(..) => Ok(self.times.0),
            Progress::Called(_) => Err("the code went on".into()),
        }
    }
}

/// The one tool of every cell of the suite that calls any: `step`.
pub fn tools() -> Result<CodeTools, Failure> {
    Ok(CodeTools::new(vec![CodeTool {
        name: "step".to_owned(),
        function: "step".to_owned(),
        description: "One step.".to_owned(),
        input_schema: json!({ "type": "object" }),
    }])?)
}

/// Answers every call with the same text.
pub async fn resume(parked: Parked, tools: &CodeTools, text: &str) -> Result<Progress, Failure> {
    let answer = |number| ToolAnswer { number, text: text.to_owned(), is_error: false };
    let answers = parked.calls().iter().map(|call| answer(call.number)).collect();
    Ok(parked.resume(answers, tools).await?)
}

/// A cell that must have called.
pub fn called(progress: Progress) -> Result<Parked, Failure> {
    match progress {
        Progress::Called(parked) => Ok(parked),
        Progress::Ended(_, outcome) => Err(format!("a cell ended with {outcome:?}").into()),
    }
}
