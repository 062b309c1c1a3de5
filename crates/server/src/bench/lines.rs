//! A peer that stays: it is told a line, and answers one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Failure;

/// A started program; dropping it ends it.
pub struct Lines {
    child: Child,
    /// Closed to end it.
    told: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Lines {
    /// Starts a program. What it says on standard error is nobody's.
    pub fn start(mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let told = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, told, answers })
    }

    /// Tells it a line, which ends with a line feed, in one write; gives its answer, without one.
    pub fn ask(&mut self, line: &str) -> Result<String, Failure> {
        self.told.as_mut().ok_or("the peer ended")?.write_all(line.as_bytes())?;
        self.next()
    }

    /// What it says next.
    pub fn next(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err("the peer ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.told.take());
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "waiting for a peer of the bench");
        }
    }
}
