//! One cell of our own endpoint: run in a container that is held, reported in full.

use std::time::Duration;

use belljar_ids::FileId;
use belljar_sandbox::{CellOptions, CellOutcome, Lease, LiveChunk, SandboxError};
use belljar_store::{FileRecord, WorkspaceId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::app::Shared;
use crate::driver::calls::{append_lines, text};
use crate::driver::place::keep_all;

/// What a cell is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// The container's Python interpreter.
    Python,
    /// A fresh bash process.
    Bash,
}

/// A cell to run.
#[derive(Clone, Debug)]
pub struct CellRequest {
    /// What it is written in.
    pub language: Language,
    /// Its text.
    pub source: String,
    /// Wall time; cut to the configured limit.
    pub wall: Duration,
}

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By itself, with any return code.
    Ended,
    /// By its time limit.
    TimedOut,
    /// By force.
    Killed,
    /// With its container.
    Crashed,
}

impl Outcome {
    /// As it is told.
    pub fn of(outcome: &CellOutcome) -> Self {
        match outcome {
            CellOutcome::Ended(_) => Self::Ended,
            CellOutcome::TimedOut(_) => Self::TimedOut,
            CellOutcome::Killed(..) => Self::Killed,
            CellOutcome::Crashed(_) => Self::Crashed,
        }
    }
}

/// Why a cell was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its memory limit.
    Memory,
    /// The limit of processes.
    Processes,
    /// The limit of its disk.
    Disk,
    /// Its time limit.
    Time,
    /// Somebody asked.
    Requested,
}

impl From<belljar_sandbox::Reason> for Reason {
    fn from(reason: belljar_sandbox::Reason) -> Self {
        match reason {
            belljar_sandbox::Reason::Memory => Self::Memory,
            belljar_sandbox::Reason::Processes => Self::Processes,
            belljar_sandbox::Reason::Disk => Self::Disk,
            belljar_sandbox::Reason::Time => Self::Time,
            belljar_sandbox::Reason::Requested => Self::Requested,
        }
    }
}

/// A captured file.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedFile {
    /// In the Files API.
    pub file_id: FileId,
    /// Base name.
    pub filename: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// The answer of our own endpoint; its fields are a contract that others script against.
#[derive(Clone, Debug, Serialize)]
pub struct CellReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Exit status; 128 + signal.
    pub return_code: i32,
    /// Kept standard output.
    pub stdout: String,
    /// Kept standard error, and a line for each thing that was lost.
    pub stderr: String,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// Captured files.
    pub files: Vec<ReportedFile>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Highest memory of the container so far.
    pub memory_peak_bytes: u64,
    /// Why it was ended; null when it ended by itself.
    pub reason: Option<Reason>,
}

/// A cell that could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The container or the host failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Runs a cell.
pub async fn run(
    app: &Shared,
    workspace: &WorkspaceId,
    lease: &mut Lease,
    request: CellRequest,
    live: Option<mpsc::Sender<LiveChunk>>,
) -> Result<CellReport, CellError> {
    let running = app.running.enter(lease.container().clone());
    let options = CellOptions { wall: request.wall, cancel: running.interrupt(), live };
    let outcome = match request.language {
        Language::Bash => lease.bash(&request.source, options).await?,
        Language::Python => lease.python(&request.source, &cell_file(), options).await?,
    };
    drop(running);
    Ok(report(app, workspace, lease, outcome).await)
}

/// The name of a cell in tracebacks (wire.md §6.1).
fn cell_file() -> String {
    format!("/tmp/{}/cell.py", belljar_ids::ServerToolUseId::mint(&mut crate::random::OsIds))
}

async fn report(app: &Shared, workspace: &WorkspaceId, lease: &Lease, outcome: CellOutcome) -> CellReport {
    let reason = outcome.reason().map(Reason::from);
    let ended = Outcome::of(&outcome);
    let mut output = outcome.into_output();
    let (kept, lost) = keep_all(app, workspace, lease.container(), &mut output).await;
    // The stored size: code left running may have cut the file after it was captured.
    let reported = |record: FileRecord| ReportedFile {
        file_id: record.id,
        filename: record.filename.as_str().to_owned(),
        size_bytes: record.size_bytes,
    };
    let files = kept.into_iter().map(reported).collect();
    let mut stderr = text(&output.stderr);
    append_lines(&mut stderr, output.notices().into_iter().chain(lost));
    CellReport {
        outcome: ended,
        return_code: output.return_code,
        stdout: text(&output.stdout),
        stderr,
        stdout_bytes: output.stdout_bytes,
        stderr_bytes: output.stderr_bytes,
        files,
        wall_ms: millis(output.wall),
        cpu_ms: millis(output.cpu),
        memory_peak_bytes: output.memory_peak_bytes,
        reason,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
