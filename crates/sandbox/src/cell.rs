//! One bash cell from start to outcome.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::{self, End, said};
use crate::error::{DeathReason, SandboxError};
use crate::guest::Guest;
use crate::harvest::{Harvest, HarvestLimits, harvest};
use crate::host::{Host, random_name};
use crate::outcome::{CellOutcome, LiveChunk, Loss, Output, Stream};
use crate::stream::Drain;
use crate::verdict::Facts;

/// One in so many of a container's processes must be free for a new command.
const PROCESSES_FREE_SHARE: u64 = 8;
/// Entries of `$OUTPUT_DIR` that are looked at.
const OUTPUT_ENTRIES_MAX: usize = 10_000;

/// What is to be run.
pub struct Cell {
    pub command: String,
    pub wall: Duration,
    pub cancel: CancellationToken,
    pub live: Option<mpsc::Sender<LiveChunk>>,
}

/// The answer, and whether the container is still good.
pub struct Done {
    pub answer: Result<CellOutcome, SandboxError>,
    pub survives: Result<(), DeathReason>,
}

/// Why there is no outcome.
enum Trouble {
    /// The container lives.
    NotRun(SandboxError),
    Dead(DeathReason),
}

impl From<SandboxError> for Trouble {
    fn from(error: SandboxError) -> Self {
        Self::NotRun(error)
    }
}

impl From<DeathReason> for Trouble {
    fn from(reason: DeathReason) -> Self {
        Self::Dead(reason)
    }
}

/// Runs a cell. `gone` completes when nobody waits for the outcome any more; the cell is killed then.
pub async fn run(guest: &mut Guest, host: &Host, cell: Cell, gone: impl Future<Output = ()>) -> Done {
    match attempt(guest, host, cell, gone).await {
        Ok((outcome, survives)) => Done { answer: Ok(outcome), survives },
        Err(Trouble::NotRun(error)) => Done { answer: Err(error), survives: Ok(()) },
        Err(Trouble::Dead(reason)) => {
            let reason = guest.explain(reason);
            Done { answer: Err(SandboxError::Dead(reason.clone())), survives: Err(reason) }
        }
    }
}

async fn attempt(
    guest: &mut Guest,
    host: &Host,
    cell: Cell,
    gone: impl Future<Output = ()>,
) -> Result<(CellOutcome, Result<(), DeathReason>), Trouble> {
    let Prepared { output, text, mut stdout, mut stderr, writers } = Prepared::new(host, &cell)?;
    let mut losses = Vec::from_iter(make_room(guest, &output).await?);
    let before = guest.stats();
    let started = Instant::now();
    let id = command::ask(&mut guest.talk, &output, text.into(), writers).await?;
    let end = {
        let draining = async { tokio::join!(stdout.run(), stderr.run()) };
        let stopped = async {
            tokio::select! {
                () = cell.cancel.cancelled() => {}
                () = gone => {}
            }
        };
        command::wait(&mut guest.talk, id, started + cell.wall, draining, stopped).await
    };
    let at_end = guest.stats();
    let (end, mut survives) = settle(guest, end, id, &output).await?;
    let wall = started.elapsed();
    let after = guest.stats();
    let facts = Facts { wall_max: cell.wall, before, at_end, after, limits: guest.limits() };
    let judged = facts.judge(&end);
    let ((stdout, stdout_bytes), (stderr, stderr_bytes)) = tokio::join!(stdout.finish(), stderr.finish());
    let mut harvest = Harvest::default();
    if let End::Exited { directory, .. } = end {
        harvest = collect(host, directory).await;
    }
    if survives.is_ok() {
        survives = command::clean(&mut guest.talk, output).await.map_err(|reason| guest.explain(reason));
    }
    losses.extend(judged.losses);
    losses.extend(harvest.losses);
    let output = Output {
        return_code: judged.return_code,
        stdout,
        stderr,
        stdout_bytes,
        stderr_bytes,
        files: harvest.files,
        skipped: harvest.skipped,
        wall,
        cpu: Duration::from_micros(after.cpu_usage_us.saturating_sub(before.cpu_usage_us)),
        memory_peak_bytes: after.memory_peak_bytes,
        losses,
    };
    Ok(((judged.outcome)(output), survives))
}

/// Does what the command's end asks for, and tells whether the container survives it.
async fn settle(guest: &mut Guest, end: End, id: u64, output: &str) -> Result<(End, Result<(), DeathReason>), Trouble> {
    match end {
        End::NotStarted(failure) => {
            command::clean(&mut guest.talk, output.to_owned()).await?;
            Err(SandboxError::NotStarted(said(failure)).into())
        }
        End::Died(reason) => {
            let reason = guest.explain(reason);
            Ok((End::Died(reason.clone()), Err(reason)))
        }
        End::TimedOut | End::Cancelled => {
            let killed = command::kill(&mut guest.talk, id, output).await;
            Ok((end, killed.map_err(|reason| guest.explain(reason))))
        }
        End::Exited { .. } => Ok((end, Ok(()))),
    }
}

/// What earlier commands left running may take so many processes that no shell can work any more; then it goes.
async fn make_room(guest: &mut Guest, output: &str) -> Result<Option<Loss>, DeathReason> {
    let processes_max = guest.limits().processes_max;
    if guest.stats().processes <= processes_max - processes_max / PROCESSES_FREE_SHARE {
        return Ok(None);
    }
    let id = guest.talk.next_id();
    command::kill(&mut guest.talk, id, output).await?;
    Ok(Some(Loss::LeftoversKilled(processes_max)))
}

/// What a command needs before it can be asked for.
struct Prepared {
    output: String,
    text: File,
    stdout: Drain,
    stderr: Drain,
    writers: [OwnedFd; 2],
}

impl Prepared {
    fn new(host: &Host, cell: &Cell) -> Result<Self, SandboxError> {
        let kept_bytes_max = usize::try_from(host.config.output_bytes_max).unwrap_or(usize::MAX);
        let drain =
            |stream| Drain::new(stream, kept_bytes_max, cell.live.clone()).map_err(SandboxError::io("make a pipe"));
        let (stdout, out) = drain(Stream::Stdout)?;
        let (stderr, err) = drain(Stream::Stderr)?;
        let text = in_memory(&cell.command).map_err(SandboxError::io("keep a command in memory"))?;
        Ok(Self { output: random_name()?, text, stdout, stderr, writers: [out, err] })
    }
}

fn in_memory(command: &str) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("command", MemfdFlags::CLOEXEC)?);
    file.write_all(command.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

async fn collect(host: &Host, directory: Option<OwnedFd>) -> Harvest {
    let limits = HarvestLimits {
        file_bytes_max: host.config.output_file_bytes_max,
        files_max: host.config.output_files_max,
        // Real content cannot be more than the disk it is on.
        total_bytes_max: host.config.disk_bytes_max,
        entries_max: OUTPUT_ENTRIES_MAX,
    };
    match tokio::task::spawn_blocking(move || harvest(directory, limits)).await {
        Ok(harvest) => harvest,
        Err(error) => {
            tracing::error!(%error, "a harvest did not end");
            Harvest { losses: vec![Loss::OutputDirectoryGone], ..Harvest::default() }
        }
    }
}
