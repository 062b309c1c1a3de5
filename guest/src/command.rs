//! Commands of bash, and the interpreter: how the supervisor starts one.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use belljar_jail::{Code, Spawned};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, memfd_create, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin};

use crate::frame::{COMMAND_BYTES_MAX, Failure, OutputState};

/// Where output directories are made.
pub const OUTPUT_ROOT: &str = "/files/output";
/// Where commands start.
const WORKING_DIRECTORY: &CStr = c"/work";
const GONE: &[u8] = b"belljar: /work is gone, starting in /\n";
const SHELL: &CStr = c"/bin/bash";
/// The longest command that is passed as an argument of `bash -c`, in bytes. The kernel's own limit for one argument
/// is 128 KiB (execve(2), MAX_ARG_STRLEN).
const ARGUMENT_BYTES_MAX: usize = 96 * 1024;
const PYTHON: &str = "python3";
/// Where the driver expects its socket (guest/python/repl.py), the first descriptor behind the standard streams; its source is
/// the next.
const DRIVER_FD: i32 = 4;

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Errno(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Errno(error.raw_os_error())
    }
}

/// Makes the output directory and starts the command.
pub fn spawn(
    output: &str,
    env: &[(String, String)],
    text: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<Pid, Failure> {
    let mut command = Vec::new();
    File::from(text).take(COMMAND_BYTES_MAX as u64 + 1).read_to_end(&mut command)?;
    if command.len() > COMMAND_BYTES_MAX {
        return Err(Failure::Errno(Errno::TOOBIG.raw_os_error()));
    }
    make_output_directory(output)?;
    // Code may have removed it; the shell starts in `/` if it cannot be made again.
    let _kept_or_lost = std::fs::create_dir_all(OsStr::from_bytes(WORKING_DIRECTORY.to_bytes()));
    let long = if command.len() > ARGUMENT_BYTES_MAX { Some(keep(&command)?) } else { None };
    let script = match &long {
        None => command,
        Some(file) => script_of(file.as_raw_fd()).into_bytes(),
    };
    // Standard input is the supervisor's own, /dev/null since the jail was made; the path may be anything by now.
    let code = Code {
        paths: vec![SHELL.to_owned()],
        arguments: vec![c"bash".to_owned(), c"-c".to_owned(), terminated(script)?],
        environment: variables(env)?,
        directory: WORKING_DIRECTORY,
        gone: GONE,
        descriptors: vec![stdin(), stdout.as_fd(), stderr.as_fd()],
    };
    start(&code)
}

/// Starts something of the code's, and says to its standard error why that could not be.
fn start(code: &Code<'_>) -> Result<Pid, Failure> {
    let Spawned { pid, executed } = code.spawn()?;
    if let (Err(errno), Some(words)) = (executed, code.descriptors.get(2)) {
        let name = code.paths.last().map(|path| path.to_string_lossy()).unwrap_or_default();
        // Whoever closed it does not want to know.
        let _said_or_not =
            writeln!(File::from(words.try_clone_to_owned()?), "belljar: {name}: {}", io::Error::from(errno));
    }
    // The supervisor's loop waits for every child alike.
    Ok(Pid::from_raw(pid.as_raw_nonzero().get()))
}

/// As a system call takes it: what has a zero in it is no argument.
fn terminated(text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|_zero_inside| Failure::Errno(Errno::INVAL.raw_os_error()))
}

fn variables(env: &[(String, String)]) -> Result<Vec<CString>, Failure> {
    env.iter().map(|(name, value)| terminated(format!("{name}={value}"))).collect()
}

/// A command too long for an argument, in memory of the container. Inherited by the shell on purpose.
fn keep(command: &[u8]) -> Result<File, Failure> {
    let mut file = File::from(memfd_create("command", MemfdFlags::empty())?);
    file.write_all(command)?;
    Ok(file)
}

fn make_output_directory(output: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(OUTPUT_ROOT)?;
    let root = openat(CWD, OUTPUT_ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    mkdirat(&root, output, Mode::from_raw_mode(0o755))?;
    Ok(())
}

/// What the command left in its output directory. One without anything in it is removed at once, which saves the host a look
/// and a request.
pub fn take_output(output: &str) -> (OutputState, Option<OwnedFd>) {
    if unlinkat(CWD, format!("{OUTPUT_ROOT}/{output}"), AtFlags::REMOVEDIR).is_ok() {
        return (OutputState::None, None);
    }
    match output_directory(output) {
        Some(directory) => (OutputState::Files, Some(directory)),
        None => (OutputState::Gone, None),
    }
}

/// The command's output directory as it is now; code may have removed or replaced it.
pub fn output_directory(output: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, format!("{OUTPUT_ROOT}/{output}"), flags, Mode::empty()).ok()
}

/// Starts the interpreter with the driver.
pub fn spawn_repl(env: &[(String, String)], driver: OwnedFd, socket: OwnedFd) -> Result<Pid, Failure> {
    let _kept_or_lost = std::fs::create_dir_all(OsStr::from_bytes(WORKING_DIRECTORY.to_bytes()));
    // Found by its name, as a shell would.
    let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_str()).unwrap_or_default();
    let paths = path.split(':').map(|directory| terminated(format!("{directory}/{PYTHON}")));
    let driver_path = format!("/proc/self/fd/{DRIVER_FD}");
    let code = Code {
        paths: paths.collect::<Result<_, _>>()?,
        arguments: vec![terminated(PYTHON)?, c"-I".to_owned(), terminated(driver_path)?],
        environment: variables(env)?,
        directory: WORKING_DIRECTORY,
        gone: GONE,
        descriptors: vec![stderr(), stderr(), stderr(), socket.as_fd(), driver.as_fd()],
    };
    start(&code)
}

/// What the shell has to run to run a long command: the text of the descriptor, closed before the text runs.
fn script_of(descriptor: RawFd) -> String {
    format!("eval \"$(</proc/self/fd/{descriptor})\" {descriptor}<&-")
}
