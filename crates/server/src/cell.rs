//! One cell of our own endpoint: run in a container that is held, reported in full.

use std::time::Duration;

use belljar_ids::FileId;
use belljar_sandbox::{CellOptions, CellOutcome, Lease, LiveChunk, PutError, SandboxError};
use belljar_store::{FileRecord, WorkspaceId};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::Shared;
use crate::driver::calls::{append_lines, text};
use crate::driver::place::keep_all;

/// What a cell is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// A fresh Python process.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

/// Why a cell was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// Its source could not be put into the container.
    #[error("the source could not be put into the container: {0}")]
    Source(#[from] PutError),
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
    let command = match request.language {
        Language::Bash => request.source,
        Language::Python => place_python(lease, request.source).await?,
    };
    let options = CellOptions { wall: request.wall, cancel: CancellationToken::new(), live };
    let outcome = lease.bash(&command, options).await?;
    Ok(report(app, workspace, lease, outcome).await)
}

/// Puts Python source where a traceback can quote it, and gives the command that runs it.
async fn place_python(lease: &mut Lease, source: String) -> Result<String, CellError> {
    let id = belljar_ids::ServerToolUseId::mint(&mut crate::random::OsIds);
    let path = format!("/tmp/{id}/cell.py");
    let size = source.len() as u64;
    lease.write_file(&path, std::io::Cursor::new(source.into_bytes()), size).await?;
    Ok(format!("exec python3 {path}"))
}

async fn report(app: &Shared, workspace: &WorkspaceId, lease: &Lease, outcome: CellOutcome) -> CellReport {
    let reason = outcome.reason().map(Reason::from);
    let ended = match &outcome {
        CellOutcome::Ended(_) => Outcome::Ended,
        CellOutcome::TimedOut(_) => Outcome::TimedOut,
        CellOutcome::Killed(..) => Outcome::Killed,
        CellOutcome::Crashed(_) => Outcome::Crashed,
    };
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
