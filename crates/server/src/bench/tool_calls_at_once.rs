//! A thousand calls that one cell makes at once and waits for together: one pause, one continuation. Beside them one call.

use super::Failure;
use super::figure::Series;
use super::served::Served;
use super::stage::Stage;
use super::talk::{Form, Talk};

const ROUNDS: usize = 20;

const THOUSAND: Gathering = Gathering { script: "thousand", calls: 1000, code: THOUSAND_CODE };
const THOUSAND_CODE: &str = r#"
import asyncio, time
at = time.monotonic_ns()
answers = await asyncio.gather(*(step({"n": n, "at": at}) for n in range(1000)))
print(sum(map(int, answers)))
"#;
const ONE: Gathering = Gathering { script: "one", calls: 1, code: ONE_CODE };
const ONE_CODE: &str = r#"
import asyncio, time
at = time.monotonic_ns()
answers = await asyncio.gather(*(step({"n": n, "at": at}) for n in range(1)))
print(sum(map(int, answers)))
"#;

/// A cell that gathers so many calls.
#[derive(Clone, Copy)]
struct Gathering {
    script: &'static str,
    calls: u64,
    code: &'static str,
}

/// One call and a thousand by turns, all in one container.
pub async fn run(stage: &Stage) -> Result<Vec<Series>, Failure> {
    let served = Served::open(stage, &[THOUSAND, ONE].map(|gathering| (gathering.script, gathering.code))).await?;
    let measured = tokio::task::block_in_place(|| measure(&served, stage.scale.of(ROUNDS)));
    served.close().await?;
    measured
}

fn measure(served: &Served, rounds: usize) -> Result<Vec<Series>, Failure> {
    let mut one = ["1 call to paused", "1 answer to the end", "1 call"].map(Series::times);
    let mut many = ["1000 calls to paused", "1000 answers to the end", "1000 calls"].map(Series::times);
    // What the first time costs is nobody's figure.
    let (_, mut container) = ONE.play(served, None)?;
    for _ in 0..rounds {
        for (gathering, series) in [(ONE, &mut one), (THOUSAND, &mut many)] {
            let (took, place) = gathering.play(served, container)?;
            series.iter_mut().zip(took).for_each(|(series, micros)| series.samples.push(micros));
            container = place;
        }
    }
    Ok(one.into_iter().chain(many).collect())
}

impl Gathering {
    /// Microseconds from before the first call to the paused reply's last byte, from the continuation's first byte to the
    /// last of the reply that ends, and both together; and where it ran.
    fn play(self, served: &Served, container: Option<String>) -> Result<([f64; 3], Option<String>), Failure> {
        let mut talk = Talk::open(served.address(), self.script, Form::Plain, container)?;
        let paused = talk.ask()?;
        let numbers: Vec<_> = paused.calls().map(|call| call["input"]["n"].as_u64()).collect();
        if numbers != (0..self.calls).map(Some).collect::<Vec<_>>() {
            return Err(format!("{} calls in one pause, not {}", numbers.len(), self.calls).into());
        }
        let begun = paused.calls().find_map(|call| call["input"]["at"].as_u64()).ok_or("a call without a time")?;
        talk.answer(&paused, |input| input["n"].to_string());
        let ended = talk.ask()?;
        let sum = self.calls * (self.calls - 1) / 2;
        if ended.printed()? != format!("{sum}\n") {
            return Err(format!("the code printed {:?}", ended.printed()?).into());
        }
        let micros = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e3;
        let (there, back) = (micros(begun, paused.read), micros(ended.sent, ended.read));
        Ok(([there, back, there + back], talk.container()))
    }
}
