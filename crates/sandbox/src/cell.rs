//! One cell from start to outcome.

mod handover;
mod prepared;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use belljar_jail::cgroup::Stats;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls::{Ledger, Line};
use crate::clock::Clock;
use crate::command::{self, End, Ending, HandOver, OutputDirectory, Stage, said};
use crate::environment;
use crate::error::{DeathReason, SandboxError};
use crate::frame::{COMMAND_BYTES_MAX, Status};
use crate::guest::Guest;
use crate::harvest::{Harvest, HarvestLimits, harvest};
use crate::host::{Host, SharedHost};
use crate::kill;
use crate::outcome::{CellOutcome, InterpreterEnd, LiveChunk, Loss, Output};
use crate::repl::{self, Handed, Repl, ReplError, Source, Warmth};
use crate::stream::Drain;
use crate::verdict::{Facts, Judged, Language};

/// One in so many of a container's processes must be free for a new command.
const PROCESSES_FREE_SHARE: u64 = 8;
/// Interpreters that are tried for one cell: the first may have ended since the last one.
const ASKED_MAX: u32 = 2;
/// Entries of `$OUTPUT_DIR` that are looked at.
const OUTPUT_ENTRIES_MAX: usize = 10_000;

/// What is to be run.
pub struct Cell {
    pub code: Code,
    pub wall: Duration,
    pub cancel: CancellationToken,
    pub live: Option<mpsc::Sender<LiveChunk>>,
    /// To whoever answers the calls of its code, if it may make any.
    pub line: Option<Line>,
}

/// The text of a cell.
pub enum Code {
    Bash(String),
    Python {
        source: String,
        /// The name that tracebacks show.
        file: String,
    },
}

/// The longest name of a cell's file, in bytes.
const FILE_NAME_BYTES_MAX: usize = 256;

impl Code {
    /// A command that a shell can be given.
    pub fn bash(command: &str) -> Result<Self, SandboxError> {
        if command.contains('\0') {
            return Err(SandboxError::CommandHasNul);
        }
        Ok(Self::Bash(short_enough(command)?))
    }

    /// Python under a name that tracebacks can show.
    pub fn python(source: &str, file: &str) -> Result<Self, SandboxError> {
        if !file.starts_with('/') || file.contains('\0') || file.len() > FILE_NAME_BYTES_MAX {
            return Err(SandboxError::FileName { bytes_max: FILE_NAME_BYTES_MAX });
        }
        Ok(Self::Python { source: short_enough(source)?, file: file.to_owned() })
    }

    fn language(&self) -> Language {
        match self {
            Self::Bash(_) => Language::Bash,
            Self::Python { .. } => Language::Python,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Bash(text) | Self::Python { source: text, .. } => text,
        }
    }
}

fn short_enough(text: &str) -> Result<String, SandboxError> {
    if text.len() > COMMAND_BYTES_MAX {
        return Err(SandboxError::CommandTooLong { bytes_max: COMMAND_BYTES_MAX });
    }
    Ok(text.to_owned())
}

/// The answer, and whether the container is still good.
pub struct Done {
    pub answer: Result<CellOutcome, SandboxError>,
    pub survives: Result<(), DeathReason>,
}

pub use handover::HandedCell;
pub use prepared::{First, Prepared};

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

impl From<ReplError> for Trouble {
    fn from(error: ReplError) -> Self {
        match error {
            ReplError::Dead(reason) => Self::Dead(reason),
            alive @ (ReplError::NotStarted(_) | ReplError::Host(_)) => Self::NotRun(alive.into()),
        }
    }
}

impl From<DeathReason> for Trouble {
    fn from(reason: DeathReason) -> Self {
        Self::Dead(reason)
    }
}

/// Runs a cell. `gone` completes when nobody waits for the outcome any more; the cell is killed then.
pub async fn run(guest: &mut Guest, host: &SharedHost, cell: Cell, gone: impl Future<Output = ()>) -> Done {
    let ended = attempt(guest, host, cell, gone).await;
    done(guest, ended)
}

fn done(guest: &Guest, ended: Result<(CellOutcome, Result<(), DeathReason>), Trouble>) -> Done {
    match ended {
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
    host: &SharedHost,
    mut cell: Cell,
    gone: impl Future<Output = ()>,
) -> Result<(CellOutcome, Result<(), DeathReason>), Trouble> {
    let (prepared, rested) = match guest.first.take() {
        Some(First { prepared, rested }) => (prepared, Some(rested)),
        None => (Prepared::new(host)?, None),
    };
    let Prepared { output, nonce, stdout: (mut stdout, out), stderr: (mut stderr, err) } = prepared;
    stdout.tell_to(cell.live.clone());
    stderr.tell_to(cell.live.take());
    let handed = Handed { stdout: out, stderr: err, tools: tools_in_memory(&cell)? };
    let mut losses = Vec::new();
    if cell.code.language() == Language::Bash {
        losses.extend(make_room(guest, &output).await?);
    }
    let before = rested.unwrap_or_else(|| guest.process.counters());
    let (asked, restarted) = ask(guest, &mut cell, &output, &nonce, handed, host.answer_wait_max()).await?;
    losses.extend(restarted);
    let (wall_max, clock) = (cell.wall, Clock::start(cell.wall, guest.limits().cpus));
    let under_way =
        UnderWay { asked, wall_max, clock, output, stdout, stderr, before, losses, started: Instant::now() };
    under_way.see_through(guest, host, first_of(cell.cancel.cancelled(), gone)).await
}

/// Goes on with a cell that was handed over; all else is as in [`run`].
pub async fn go_on(
    guest: &mut Guest,
    host: &SharedHost,
    under_way: UnderWay,
    cancel: CancellationToken,
    gone: impl Future<Output = ()>,
) -> Done {
    let stopped = first_of(cancel.cancelled(), gone);
    let ended = under_way.see_through(guest, host, stopped).await;
    done(guest, ended)
}

/// A cell that the guest has been asked for, with what its outcome will be made of.
pub struct UnderWay {
    asked: Asked,
    wall_max: Duration,
    clock: Clock,
    /// The name of its output directory.
    output: String,
    stdout: Drain,
    stderr: Drain,
    /// What the container had used before.
    before: Stats,
    losses: Vec<Loss>,
    started: Instant,
}

impl UnderWay {
    fn language(&self) -> Language {
        match self.asked {
            Asked::Command { .. } => Language::Bash,
            Asked::Cell { .. } => Language::Python,
        }
    }

    /// Waits for its end, and makes the outcome.
    async fn see_through(
        mut self,
        guest: &mut Guest,
        host: &SharedHost,
        stopped: impl Future<Output = ()>,
    ) -> Result<(CellOutcome, Result<(), DeathReason>), Trouble> {
        let language = self.language();
        let end = match self.wait(guest, stopped).await {
            Ok(end) => end,
            Err(HandOver(reply)) => return handover::stand_still(guest, self, reply).await,
        };
        let Self { asked, wall_max, clock, output, stdout, stderr, before, mut losses, started } = self;
        let run = match asked {
            Asked::Command { run, .. } => run,
            Asked::Cell { repl, .. } => {
                guest.repl = Some(repl);
                guest.talk.next_id()
            }
        };
        let (end, mut survives) = settle(guest, end, run, &output).await?;
        let wall = started.elapsed().saturating_sub(clock.stood());
        let after = guest.process.counters();
        let judged = judge(guest, (language, wall_max), (&before, &after), &end, &mut survives).await;
        let ((stdout, stdout_bytes), (stderr, stderr_bytes)) = tokio::join!(stdout.finish(), stderr.finish());
        let mut harvest = Harvest::default();
        if survives.is_ok() {
            (harvest, survives) = take_files(guest, host, end.ending, output).await;
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

    /// Waits for its end, moving its output and carrying its calls meanwhile.
    async fn wait(&mut self, guest: &mut Guest, stopped: impl Future<Output = ()>) -> Result<End, HandOver> {
        let Self { asked, clock, stdout, stderr, .. } = self;
        let draining = async { tokio::join!(stdout.run(), stderr.run()) };
        let Guest { talk, process, .. } = guest;
        let cpu = || process.processor_while_still();
        match asked {
            Asked::Command { run, stage, calls } => {
                let mut watch = command::Watch { clock, cpu, calls };
                command::wait(talk, (*run, *stage), &mut watch, draining, stopped).await
            }
            Asked::Cell { repl, cell, calls } => {
                let mut watch = repl::Watch { clock, cpu, calls };
                repl::wait(repl, talk, cell, &mut watch, draining, stopped).await
            }
        }
    }
}

/// Completes with the first of two.
async fn first_of(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}

/// Finds out what the end of a cell is to be called.
async fn judge(
    guest: &mut Guest,
    (language, wall_max): (Language, Duration),
    (before, after): (&Stats, &Stats),
    end: &End,
    survives: &mut Result<(), DeathReason>,
) -> Judged {
    if language == Language::Python {
        // This cell tells it itself.
        guest.lost = None;
    }
    let well = end.stop.is_none() && matches!(end.ending, Ending::Exited { status: Status::Code(0), .. });
    let mut disk = None;
    if !well && survives.is_ok() {
        match command::disk(&mut guest.talk).await {
            Ok(free) => disk = free,
            Err(reason) => *survives = Err(guest.explain(reason)),
        }
    }
    let (limits, disk_max) = (guest.limits(), guest.disk_max());
    Facts { language, wall_max, before: *before, after: *after, limits, disk, disk_max }.judge(end)
}

/// What a cell is for the guest.
enum Asked {
    /// A command, by the number of its request, by which it can be killed too.
    Command {
        run: u64,
        stage: Stage,
        calls: Option<command::Calls>,
    },
    Cell {
        repl: Repl,
        cell: repl::Asked,
        calls: Option<repl::Calls>,
    },
}

/// Asks for a cell, and tells what it must hear of that. The descriptors are the guest's alone afterwards.
async fn ask(
    guest: &mut Guest,
    cell: &mut Cell,
    output: &str,
    nonce: &str,
    handed: Handed,
    answer_wait_max: Duration,
) -> Result<(Asked, Option<Loss>), Trouble> {
    let Code::Python { source, file } = &cell.code else {
        let text = in_memory(cell.code.text()).map_err(no_memory)?;
        let tools = cell.line.as_ref().map(Line::tools);
        let Handed { stdout, stderr, .. } = handed;
        let env = match tools {
            None => environment::of_command(output),
            Some(tools) => {
                let offered = command::offer(&mut guest.talk, tools).await?;
                offered.map_err(|failure| SandboxError::NotStarted(said(failure)))?;
                environment::of_calling_command(output)
            }
        };
        let run = command::ask(&mut guest.talk, output, env, text.into(), [stdout, stderr]).await?;
        let calls = cell.line.take().map(|line| command::Calls::new(Ledger::new(line, answer_wait_max)));
        return Ok((Asked::Command { run, stage: Stage::Asked, calls }, None));
    };
    let warmth = Warmth::wanted(source);
    let source = Source::of(source).map_err(no_memory)?;
    for _ in 0..ASKED_MAX {
        let mut repl = match guest.repl.take() {
            Some(repl) => repl,
            None => repl::start(guest, warmth).await?,
        };
        if let Some(asked) = repl.ask(nonce.to_owned(), file, output, &source, &handed) {
            let calls = cell.line.take().map(|line| repl::Calls::new(Ledger::new(line, answer_wait_max)));
            let restarted = guest.lost.take().map(Loss::InterpreterRestarted);
            return Ok((Asked::Cell { repl, cell: asked, calls }, restarted));
        }
        // It ended before it heard of the cell: that cell is the next one's.
        let end = repl.disturbed(&mut guest.talk).await?;
        guest.repl = Some(repl);
        kill::lose(guest, end).await?;
    }
    Err(SandboxError::NotStarted("the interpreter ends before it can be given a cell".to_owned()).into())
}

/// Does what the cell's end asks for, and tells whether the container survives it.
async fn settle(
    guest: &mut Guest,
    end: End,
    run: u64,
    output: &str,
) -> Result<(End, Result<(), DeathReason>), Trouble> {
    let survives = match &end.ending {
        Ending::NotStarted(failure) => {
            let failure = *failure;
            command::clean(&mut guest.talk, output.to_owned()).await?;
            return Err(SandboxError::NotStarted(said(failure)).into());
        }
        Ending::Died(reason) => {
            let reason = guest.explain(reason.clone());
            let end = End { stop: end.stop, ending: Ending::Died(reason.clone()) };
            return Ok((end, Err(reason)));
        }
        Ending::Overdue | Ending::Interpreter(InterpreterEnd::Breach(_)) => {
            kill::under(guest, run, output).await.map_err(|reason| guest.explain(reason))
        }
        Ending::Interpreter(_) => {
            guest.repl = None;
            Ok(())
        }
        Ending::Exited { .. } => Ok(()),
    };
    Ok((end, survives))
}

/// What earlier commands left running may take so many processes that no shell can work any more; then it goes.
async fn make_room(guest: &mut Guest, output: &str) -> Result<Option<Loss>, DeathReason> {
    let processes_max = guest.limits().processes_max;
    if guest.stats().processes <= processes_max - processes_max / PROCESSES_FREE_SHARE {
        return Ok(None);
    }
    let id = guest.talk.next_id();
    kill::under(guest, id, output).await?;
    Ok(Some(Loss::LeftoversKilled(processes_max)))
}

/// Takes the cell's files out of the container and its output directory away.
async fn take_files(
    guest: &mut Guest,
    host: &Host,
    ending: Ending,
    output: String,
) -> (Harvest, Result<(), DeathReason>) {
    let directory = match ending {
        Ending::Exited { output: OutputDirectory::Removed, .. } => return (Harvest::default(), Ok(())),
        Ending::Exited { output: output @ (OutputDirectory::Held(_) | OutputDirectory::Gone), .. } => Ok(output),
        // What it had written before it crashed is there all the same.
        Ending::Exited { output: OutputDirectory::Unsent, .. } | Ending::Interpreter(_) => {
            command::output(&mut guest.talk, &output).await
        }
        Ending::Overdue | Ending::NotStarted(_) | Ending::Died(_) => Ok(OutputDirectory::Removed),
    };
    let harvest = match directory {
        Ok(OutputDirectory::Held(directory)) => collect(host, Some(directory)).await,
        Ok(OutputDirectory::Gone | OutputDirectory::Unsent) => collect(host, None).await,
        Ok(OutputDirectory::Removed) => Harvest::default(),
        Err(reason) => return (Harvest::default(), Err(guest.explain(reason))),
    };
    let cleaned = command::clean(&mut guest.talk, output).await.map_err(|reason| guest.explain(reason));
    (harvest, cleaned)
}

/// Of a cell in Python that can call any; a command has them as files of its container.
fn tools_in_memory(cell: &Cell) -> Result<Option<OwnedFd>, SandboxError> {
    let line = cell.line.as_ref().filter(|_| cell.code.language() == Language::Python);
    let tools = line.map(|line| in_memory(line.tools().text())).transpose();
    Ok(tools.map_err(SandboxError::io("keep a cell's tools in memory"))?.map(OwnedFd::from))
}

fn no_memory(error: std::io::Error) -> SandboxError {
    SandboxError::Io { what: "keep a cell's text in memory", source: error }
}

/// A text for the guest to read.
pub fn in_memory(text: &str) -> std::io::Result<File> {
    let file = File::from(memfd_create("cell", MemfdFlags::CLOEXEC)?);
    // Read from its start, where its offset still is.
    file.write_all_at(text.as_bytes(), 0)?;
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
