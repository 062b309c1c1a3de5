//! A warm Jupyter kernel beside us, through the driver in `jupyter.py`.

use std::process::Command;

use serde::Deserialize;

use super::Failure;
use super::lines::Lines;
use super::peer::Places;
use super::task::Task;

const DRIVER: &str = include_str!("jupyter.py");

/// A started kernel; dropping it ends it.
pub struct Jupyter(Lines);

#[derive(Deserialize)]
struct Answer {
    both_us: f64,
    output: String,
}

impl Jupyter {
    /// Starts a kernel and imports the libraries there, as ours has them.
    pub fn start(places: &Places) -> Result<Self, Failure> {
        let mut command = Command::new(&places.jupyter);
        command.args(["-c", DRIVER]).env("OPENBLAS_NUM_THREADS", "1");
        let mut started = Self(Lines::start(command)?);
        let ready = started.0.next()?;
        if ready != "{\"ready\": true}" {
            return Err(format!("the Jupyter driver said {ready:?}").into());
        }
        started.time(Task::Libraries)?;
        Ok(started)
    }

    /// One round trip, by the driver's own clock.
    pub fn time(&mut self, task: Task) -> Result<f64, Failure> {
        let source = format!("{}\n", serde_json::to_string(task.source())?);
        let answer: Answer = serde_json::from_str(&self.0.ask(&source)?)?;
        match answer.output.as_bytes() == task.expected() {
            true => Ok(answer.both_us),
            false => Err(format!("Jupyter answered {:?}", answer.output).into()),
        }
    }
}
