//! A warm interpreter of the host with nothing around it (`interpreter.py`): a line of source there, a line of output back. What a cell takes
//! in it is the least that running code in another process can take on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Failure;
use super::peer::PATH;
use super::stopwatch::Stopwatch;
use super::task::Task;

const DRIVER: &str = include_str!("interpreter.py");

/// A started interpreter; dropping it ends it.
pub struct Interpreter {
    child: Child,
    /// Closed to end it.
    sources: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Interpreter {
    /// Starts one.
    pub fn start() -> Result<Self, Failure> {
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", DRIVER]).env_clear().env("PATH", PATH);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let sources = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, sources, answers })
    }

    /// One round trip, in microseconds.
    pub fn time(&mut self, task: Task) -> Result<f64, Failure> {
        let source = format!("{}\n", serde_json::to_string(task.source())?);
        let mut answer = String::new();
        let begun = Stopwatch::start();
        self.sources.as_mut().ok_or("the interpreter ended")?.write_all(source.as_bytes())?;
        self.answers.read_line(&mut answer)?;
        let took = begun.micros();
        let output: String = serde_json::from_str(&answer)?;
        match output.as_bytes() == task.expected() {
            true => Ok(took),
            false => Err(format!("a bare interpreter answered {output:?}").into()),
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        drop(self.sources.take());
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "waiting for the interpreter");
        }
    }
}
