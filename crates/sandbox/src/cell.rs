//! One bash cell from start to outcome.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use belljar_jail::cgroup::Stats;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::environment;
use crate::error::{DeathReason, SandboxError};
use crate::frame::{Failure, FromGuest, Status, ToGuest};
use crate::guest::{ANSWER_WAIT_MAX, Guest};
use crate::harvest::{Harvest, HarvestLimits, harvest};
use crate::host::{Host, random_name};
use crate::outcome::{CellOutcome, KillReason, LiveChunk, Loss, Output, Stream};
use crate::stream::Drain;

/// For killing every process of a container and hearing of it. A throttled fork bomb takes 100 ms.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// For removing an output directory of the largest kind.
const CLEAN_WAIT_MAX: Duration = Duration::from_secs(30);

/// One in so many of a container's processes must be free for a new command.
const PROCESSES_FREE_SHARE: u32 = 8;
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

impl Done {
    fn dead(reason: DeathReason) -> Self {
        Self {
            answer: Err(SandboxError::Dead(reason.clone())),
            survives: Err(reason),
        }
    }

    fn failed(error: SandboxError, survives: Result<(), DeathReason>) -> Self {
        Self {
            answer: Err(error),
            survives,
        }
    }
}

/// Why the host stopped waiting for a command.
#[derive(Debug)]
enum End {
    Exited {
        status: Status,
        directory: Option<OwnedFd>,
    },
    TimedOut,
    Cancelled,
    NotStarted(Failure),
    Died(DeathReason),
}

/// Runs a cell. `gone` completes when nobody waits for the outcome any more; the cell is killed then.
pub async fn run(
    guest: &mut Guest,
    host: &Host,
    cell: Cell,
    gone: impl Future<Output = ()>,
) -> Done {
    let prepared = match Prepared::new(host, &cell) {
        Ok(prepared) => prepared,
        Err(error) => return Done::failed(error, Ok(())),
    };
    let Prepared {
        output,
        text,
        mut stdout,
        mut stderr,
        writers: [out, err],
    } = prepared;
    let mut losses = Vec::new();
    match make_room(guest, host, &output).await {
        Ok(None) => {}
        Ok(Some(loss)) => losses.push(loss),
        Err(reason) => return Done::dead(reason),
    }
    let before = guest.stats();
    let started = Instant::now();
    let id = guest.next_id();
    let frame = ToGuest::Run {
        id,
        output: output.clone(),
        env: environment::of_command(&output),
    };
    if let Err(reason) = guest
        .send(&frame, &[text.as_fd(), out.as_fd(), err.as_fd()])
        .await
    {
        return Done::dead(reason);
    }
    // The writing ends are the container's alone from here on.
    drop((text, out, err));
    let end = {
        let draining = async { tokio::join!(stdout.run(), stderr.run()) };
        let stopped = async {
            tokio::select! {
                () = cell.cancel.cancelled() => {}
                () = gone => {}
            }
        };
        wait(guest, id, started + cell.wall, draining, stopped).await
    };
    if let End::NotStarted(failure) = end {
        let survives = clean(guest, output).await;
        return Done::failed(SandboxError::NotStarted(said(failure)), survives);
    }
    let at_end = guest.stats();
    let mut survives = match &end {
        End::Died(reason) => Err(reason.clone()),
        End::Exited { .. } | End::NotStarted(_) => Ok(()),
        End::TimedOut | End::Cancelled => kill(guest, id, &output).await.map(drop),
    };
    let wall = started.elapsed();
    let after = guest.stats();
    let facts = Facts {
        wall_max: cell.wall,
        before,
        at_end,
        after,
        host,
    };
    let judged = facts.judge(&end);
    losses.extend(judged.losses);
    let ((stdout, stdout_bytes), (stderr, stderr_bytes)) =
        tokio::join!(stdout.finish(), stderr.finish());
    let mut harvest = Harvest::default();
    if let End::Exited { directory, .. } = end {
        harvest = collect(host, directory).await;
    }
    if survives.is_ok() {
        survives = clean(guest, output).await;
    }
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
    Done {
        answer: Ok((judged.outcome)(output)),
        survives,
    }
}

/// What earlier commands left running may take so many processes that no shell can work any more; then it goes.
async fn make_room(
    guest: &mut Guest,
    host: &Host,
    output: &str,
) -> Result<Option<Loss>, DeathReason> {
    let processes_max = host.config.processes_max;
    if guest.stats().processes <= u64::from(processes_max - processes_max / PROCESSES_FREE_SHARE) {
        return Ok(None);
    }
    let id = guest.next_id();
    kill(guest, id, output).await?;
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
        let drain = |stream| {
            Drain::new(stream, kept_bytes_max, cell.live.clone())
                .map_err(SandboxError::io("make a pipe"))
        };
        let (stdout, out) = drain(Stream::Stdout)?;
        let (stderr, err) = drain(Stream::Stderr)?;
        let text =
            in_memory(&cell.command).map_err(SandboxError::io("keep a command in memory"))?;
        Ok(Self {
            output: random_name()?,
            text,
            stdout,
            stderr,
            writers: [out, err],
        })
    }
}

fn in_memory(command: &str) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("command", MemfdFlags::CLOEXEC)?);
    file.write_all(command.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

async fn wait(
    guest: &mut Guest,
    id: u64,
    deadline: Instant,
    draining: impl Future,
    stopped: impl Future<Output = ()>,
) -> End {
    tokio::pin!(draining, stopped);
    let mut drained = false;
    let mut runs = false;
    let start_deadline = Instant::now() + ANSWER_WAIT_MAX;
    loop {
        tokio::select! {
            received = guest.frame() => match received {
                Ok((FromGuest::Started { id: of }, fds)) if of == id && !runs && fds.is_empty() => runs = true,
                Ok((FromGuest::Exited { id: of, status }, fds)) if of == id && runs && fds.len() <= 1 => {
                    return End::Exited { status, directory: fds.into_iter().next() };
                }
                Ok((FromGuest::Failed { id: of, failure }, fds)) if of == id && !runs && fds.is_empty() => {
                    return End::NotStarted(failure);
                }
                Ok(_) => return End::Died(DeathReason::Protocol("out of turn during a command")),
                Err(reason) => return End::Died(reason),
            },
            () = tokio::time::sleep_until(if runs { deadline } else { start_deadline }) => {
                return if runs { End::TimedOut } else { End::Died(DeathReason::Unresponsive) };
            }
            () = &mut stopped => return End::Cancelled,
            _ = &mut draining, if !drained => drained = true,
        }
    }
}

/// Kills every process of the container but process 1.
async fn kill(guest: &mut Guest, id: u64, output: &str) -> Result<(), DeathReason> {
    guest
        .send(
            &ToGuest::Kill {
                id,
                output: output.to_owned(),
            },
            &[],
        )
        .await?;
    let deadline = Instant::now() + KILL_WAIT_MAX;
    // At most what was under way when the kill was asked for: that the command runs, and how it ended.
    for _ in 0..3 {
        let left = deadline.saturating_duration_since(Instant::now());
        match guest.answer(left).await?.0 {
            FromGuest::Killed { id: of } if of == id => return Ok(()),
            FromGuest::Started { id: of }
            | FromGuest::Exited { id: of, .. }
            | FromGuest::Failed { id: of, .. }
                if of == id => {}
            _ => break,
        }
    }
    Err(DeathReason::Protocol("out of turn during a kill"))
}

async fn clean(guest: &mut Guest, output: String) -> Result<(), DeathReason> {
    let id = guest.next_id();
    guest.send(&ToGuest::Clean { id, output }, &[]).await?;
    match guest.answer(CLEAN_WAIT_MAX).await? {
        (FromGuest::Cleaned { id: of, whole }, fds) if of == id && fds.is_empty() => {
            if !whole {
                tracing::debug!("an output directory was left behind in its container");
            }
            Ok(())
        }
        _ => Err(DeathReason::Protocol("out of turn during a removal")),
    }
}

async fn collect(host: &Host, directory: Option<OwnedFd>) -> Harvest {
    let limits = HarvestLimits {
        file_bytes_max: host.config.output_file_bytes_max,
        files_max: host.config.output_files_max,
        entries_max: OUTPUT_ENTRIES_MAX,
    };
    match tokio::task::spawn_blocking(move || harvest(directory, limits)).await {
        Ok(harvest) => harvest,
        Err(error) => {
            tracing::error!(%error, "a harvest did not end");
            Harvest {
                losses: vec![Loss::OutputDirectoryGone],
                ..Harvest::default()
            }
        }
    }
}

/// What the judgement is made from.
struct Facts<'a> {
    wall_max: Duration,
    before: Stats,
    at_end: Stats,
    after: Stats,
    host: &'a Host,
}

/// What it was.
struct Judged {
    return_code: i32,
    outcome: fn(Output) -> CellOutcome,
    losses: Vec<Loss>,
}

const SIGKILL: u8 = 9;
/// As a shell reports a command that SIGKILL ended.
const RETURN_CODE_KILLED: i32 = 128 + SIGKILL as i32;

impl Facts<'_> {
    fn judge(&self, end: &End) -> Judged {
        let memory_killed = self.after.oom_kills > self.before.oom_kills;
        let memory_max = self.host.config.memory_bytes_max;
        let mut losses = Vec::new();
        let (return_code, outcome): (i32, fn(Output) -> CellOutcome) = match end {
            End::Exited { status, .. } => {
                let return_code = match *status {
                    Status::Code(code) => i32::from(code),
                    Status::Signal(signal) => 128 + i32::from(signal),
                };
                if memory_killed && return_code == RETURN_CODE_KILLED {
                    losses.push(Loss::KilledByMemory(memory_max));
                    (return_code, |output| {
                        CellOutcome::Killed(KillReason::Memory, output)
                    })
                } else {
                    if memory_killed {
                        losses.push(Loss::ProcessKilledByMemory(memory_max));
                    }
                    (return_code, CellOutcome::Ended)
                }
            }
            End::TimedOut => {
                let processes_max = self.host.config.processes_max;
                if self.at_end.processes >= u64::from(processes_max) {
                    losses.push(Loss::ProcessesRefused(processes_max));
                }
                losses.push(Loss::TimedOut(self.wall_max));
                (RETURN_CODE_KILLED, CellOutcome::TimedOut)
            }
            End::Cancelled | End::Died(DeathReason::Removed) => {
                losses.push(Loss::Interrupted);
                (RETURN_CODE_KILLED, |output| {
                    CellOutcome::Killed(KillReason::Requested, output)
                })
            }
            End::Died(DeathReason::OutOfMemory) => {
                losses.push(Loss::KilledByMemory(memory_max));
                losses.push(Loss::ContainerDied(DeathReason::OutOfMemory.to_string()));
                (RETURN_CODE_KILLED, |output| {
                    CellOutcome::Killed(KillReason::Memory, output)
                })
            }
            End::Died(reason) => {
                losses.push(Loss::ContainerDied(reason.to_string()));
                (RETURN_CODE_KILLED, CellOutcome::Crashed)
            }
            End::NotStarted(failure) => {
                losses.push(Loss::ContainerDied(said(*failure)));
                (RETURN_CODE_KILLED, CellOutcome::Crashed)
            }
        };
        Judged {
            return_code,
            outcome,
            losses,
        }
    }
}

/// A failure of the guest in words.
pub fn said(failure: Failure) -> String {
    match failure {
        Failure::Errno(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
        Failure::IsDirectory => "is a directory".to_owned(),
        Failure::NotRegular => "is not a regular file".to_owned(),
        Failure::Incomplete => "the content ended early".to_owned(),
        Failure::Busy => "a command is running already".to_owned(),
    }
}
