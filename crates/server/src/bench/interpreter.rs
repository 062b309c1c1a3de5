//! A warm interpreter of the host with nothing around it (`interpreter.py`): a line of source there, a line of output back. What a cell takes
//! in it is the least that running code in another process can take on this machine.

use std::process::Command;

use super::Failure;
use super::lines::Lines;
use super::peer::PATH;
use super::stopwatch::Stopwatch;
use super::task::Task;

const DRIVER: &str = include_str!("interpreter.py");

/// A started interpreter; dropping it ends it.
pub struct Interpreter(Lines);

impl Interpreter {
    /// Starts one.
    pub fn start() -> Result<Self, Failure> {
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", DRIVER]).env_clear().env("PATH", PATH);
        Ok(Self(Lines::start(command)?))
    }

    /// One round trip, in microseconds.
    pub fn time(&mut self, task: Task) -> Result<f64, Failure> {
        let source = format!("{}\n", serde_json::to_string(task.source())?);
        let begun = Stopwatch::start();
        let answer = self.0.ask(&source)?;
        let took = begun.micros();
        let output: String = serde_json::from_str(&answer)?;
        match output.as_bytes() == task.expected() {
            true => Ok(took),
            false => Err(format!("a bare interpreter answered {output:?}").into()),
        }
    }
}
