//! A warm Jupyter kernel beside us, through the driver in `jupyter.py`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use super::Failure;
use super::peer::Places;
use super::task::Task;

const DRIVER: &str = include_str!("jupyter.py");

/// A started kernel; dropping it ends it.
pub struct Jupyter {
    child: Child,
    /// Closed to end the driver.
    sources: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    both_us: f64,
    output: String,
}

impl Jupyter {
    /// Starts a kernel and imports the libraries there, as ours has them.
    pub fn start(places: &Places) -> Result<Self, Failure> {
        let mut child = Command::new(&places.jupyter)
            .args(["-c", DRIVER])
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let sources = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut started = Self { child, sources, answers };
        let ready = started.line()?;
        if ready != "{\"ready\": true}" {
            return Err(format!("the Jupyter driver said {ready:?}").into());
        }
        started.time(Task::Libraries)?;
        Ok(started)
    }

    /// One round trip, by the driver's own clock.
    pub fn time(&mut self, task: Task) -> Result<f64, Failure> {
        let source = serde_json::to_string(task.source())?;
        let sources = self.sources.as_mut().ok_or("the driver ended")?;
        writeln!(sources, "{source}")?;
        let answer: Answer = serde_json::from_str(&self.line()?)?;
        match answer.output.as_bytes() == task.expected() {
            true => Ok(answer.both_us),
            false => Err(format!("Jupyter answered {:?}", answer.output).into()),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err("the Jupyter driver ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Jupyter {
    fn drop(&mut self) {
        // At the end of its input the driver ends the kernel, then itself.
        drop(self.sources.take());
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "waiting for the Jupyter driver");
        }
    }
}
