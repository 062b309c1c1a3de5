//! Runs the programs that builds are made of: output to a log file, progress by bytes on disk, gone with all their
//! children when interrupted.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::error::{Doing, ImageError, Requirement};
use crate::event::{Meter, Monitor};

/// How long an interrupted program gets to clean up after itself; mmdebstrap unmounts and removes its root.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How often a running program's bytes are counted.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
const TAIL_BYTES: u64 = 3000;
const TAIL_LINES: usize = 12;

/// The search path for programs that get no environment of ours.
const CLEAN_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The log that one operation's programs write to, one after another.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Begins the log anew.
    pub(crate) fn create(path: PathBuf) -> Result<Self, ImageError> {
        let file =
            File::options().create(true).truncate(false).append(true).read(true).open(&path).doing("opening", &path)?;
        file.set_len(0).doing("emptying", &path)?;
        Ok(Self { path, file })
    }

    fn tail(&self, from: u64) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES).max(from)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
    }
}

/// Where a program's progress can be seen.
#[derive(Debug, Clone)]
pub(crate) enum Grows {
    /// A file it writes.
    File(PathBuf),
    /// Directories it writes into.
    Dirs(Vec<PathBuf>),
    /// Nothing to be seen.
    Unseen,
}

/// A program to be run.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    name: String,
    stdin: Vec<u8>,
    grows: Grows,
}

impl Program {
    /// A program that sees our environment: the host's proxies, certificates and pip configuration reach it that way.
    pub(crate) fn new(name: &str) -> Self {
        let mut command = Command::new(name);
        // Reproducibility is ours to decide: times come from the recipe.
        command.env_remove("SOURCE_DATE_EPOCH").env("LC_ALL", "C.UTF-8");
        Self { command, name: name.into(), stdin: Vec::new(), grows: Grows::Unseen }
    }

    /// A program that sees nothing of our environment.
    pub(crate) fn clean(name: &str) -> Self {
        let mut program = Self::new(name);
        program.command.env_clear().env("PATH", CLEAN_PATH).env("LC_ALL", "C.UTF-8");
        program
    }

    /// What it is called in errors, where the program started is only a wrapper.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// An argument of the form `--name=path`.
    pub(crate) fn path_arg(self, prefix: &str, path: &Path) -> Self {
        let mut arg = OsString::from(prefix);
        arg.push(path);
        self.arg(arg)
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = bytes;
        self
    }

    pub(crate) fn grows(mut self, grows: Grows) -> Self {
        self.grows = grows;
        self
    }

    /// Runs it to a successful end.
    pub(crate) async fn run(mut self, log: &Log, meter: &mut Meter, monitor: &Monitor) -> Result<(), ImageError> {
        monitor.go_on()?;
        let output = |file: &File| file.try_clone().map(Stdio::from).doing("sharing", &log.path);
        let log_start = log.file.metadata().doing("reading", &log.path)?.len();
        self.command
            .stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(output(&log.file)?)
            .stderr(output(&log.file)?)
            .process_group(0)
            .kill_on_drop(true);
        let mut child = self.command.spawn().doing("starting", Path::new(&self.name))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&self.stdin).await.doing("writing to", Path::new(&self.name))?;
        }
        let status = self.watch(&mut child, meter, monitor).await?;
        if status.success() {
            return Ok(());
        }
        let tail = log.tail(log_start).doing("reading", &log.path)?;
        Err(ImageError::ProgramFailed { program: self.name, phase: meter.phase(), status, log: log.path.clone(), tail })
    }

    async fn watch(&self, child: &mut Child, meter: &mut Meter, monitor: &Monitor) -> Result<ExitStatus, ImageError> {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                status = child.wait() => {
                    self.measure(meter).await;
                    return status.doing("waiting for", Path::new(&self.name));
                }
                () = monitor.cancel().cancelled() => {
                    stop(child, group).await;
                    return Err(ImageError::Interrupted);
                }
                _ = ticks.tick() => self.measure(meter).await,
            }
        }
    }

    async fn measure(&self, meter: &mut Meter) {
        let grows = self.grows.clone();
        // Only a figure for people: a count that could not be made is one that did not change.
        if let Ok(Some(bytes)) = tokio::task::spawn_blocking(move || grows.bytes()).await {
            meter.set(bytes);
        }
    }
}

/// Asks the whole process group to end, then makes it.
async fn stop(child: &mut Child, group: Option<Pid>) {
    let signal = |signal| {
        if let Some(group) = group {
            // ESRCH: already gone, which is what is wanted.
            let _gone = kill_process_group(group, signal);
        }
    };
    signal(Signal::TERM);
    if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
        tracing::warn!("a program did not end when asked; killing its process group");
    }
    signal(Signal::KILL);
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "waiting for a killed program");
    }
}

impl Grows {
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => fs::metadata(path).ok().map(|meta| meta.len()),
            Self::Dirs(roots) => Some(tree_bytes(roots.clone())),
            Self::Unseen => None,
        }
    }
}

/// Bytes of the regular files below some directories, as far as they can be seen while they change.
fn tree_bytes(mut pending: Vec<PathBuf>) -> u64 {
    let mut bytes = 0_u64;
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) if meta.is_file() => bytes = bytes.saturating_add(meta.len()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    bytes
}

/// Whether a program ends successfully; one that cannot be started does not.
async fn succeeds(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}

/// Whether a command line works on this machine.
pub(crate) async fn works(line: &[&str]) -> bool {
    let Some((name, args)) = line.split_first() else {
        return false;
    };
    let mut command = Command::new(name);
    command.args(args);
    succeeds(command).await
}

/// Whether a program of this name can be started at all, whatever it then says.
pub(crate) async fn exists(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--help").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok()
}

/// The programs that packing and unpacking images need.
pub(crate) const MKFS: Requirement =
    Requirement { what: "mkfs.erofs", package: "erofs-utils", purpose: "packs the root filesystem" };
pub(crate) const FSCK: Requirement =
    Requirement { what: "fsck.erofs", package: "erofs-utils", purpose: "unpacks an image for use without root" };

/// Fails with the list of those that are missing.
pub(crate) async fn require(wanted: &[Requirement]) -> Result<(), ImageError> {
    let mut missing = Vec::new();
    for requirement in wanted {
        if !exists(requirement.what).await {
            missing.push(*requirement);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(ImageError::Missing(missing)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Phase;

    fn shell(script: &str) -> Program {
        Program::clean("/bin/sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_failure_has_the_end_of_its_own_output() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::create(dir.path().join("log")).expect("a log");
        let monitor = Monitor::silent();
        let mut meter = monitor.start(Phase::Pack, None);
        shell("echo before").run(&log, &mut meter, &monitor).await.expect("succeeds");
        let program = shell("cat; echo two >&2; exit 3").stdin(b"one\n".to_vec());
        let error = program.run(&log, &mut meter, &monitor).await.expect_err("fails");
        let ImageError::ProgramFailed { status, tail, log, .. } = error else { panic!("{error:?}") };
        assert_eq!((status.code(), tail.as_str()), (Some(3), "one\ntwo"));
        assert_eq!(fs::read_to_string(log).expect("reads"), "before\none\ntwo\n");
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::create(dir.path().join("log")).expect("a log");
        let monitor = Monitor::silent();
        let mut meter = monitor.start(Phase::Pack, None);
        let error = Program::new("no-such-program-here").run(&log, &mut meter, &monitor).await.expect_err("fails");
        let ImageError::Io { doing, source, .. } = error else { panic!("{error:?}") };
        assert_eq!((doing, source.kind()), ("starting", std::io::ErrorKind::NotFound));
        assert!(!exists("no-such-program-here").await);
        assert!(exists("/bin/sh").await);
    }

    #[tokio::test]
    async fn an_interruption_ends_the_whole_group() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::create(dir.path().join("log")).expect("a log");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("a FIFO");
        let cancel = tokio_util::sync::CancellationToken::new();
        let monitor = Monitor::new(|_| {}, cancel.clone());
        let mut meter = monitor.start(Phase::Pack, None);
        // The grandchild ignores a polite request, and keeps the FIFO open for writing for as long as it lives.
        let script = format!("(trap '' TERM; echo up; sleep 1000) >{} & wait", fifo.display());
        let reader = tokio::task::spawn_blocking(move || {
            use std::io::BufRead;
            let mut lines = std::io::BufReader::new(File::open(fifo).expect("opens")).lines();
            assert_eq!(lines.next().expect("a line").expect("reads"), "up");
            cancel.cancel();
            // End of file: every process of the group is gone.
            assert!(lines.next().is_none());
        });
        let result = shell(&script).run(&log, &mut meter, &monitor).await;
        assert!(matches!(result, Err(ImageError::Interrupted)), "{result:?}");
        reader.await.expect("the group is gone");
    }
}
