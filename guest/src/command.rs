//! Commands of bash: the supervisor's half that starts one, and the new process's half that becomes the shell.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, mkdirat, openat};
use rustix::io::{Errno, dup};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use crate::frame::{COMMAND_BYTES_MAX, Failure};

/// Where output directories are made.
pub const OUTPUT_ROOT: &str = "/files/output";
/// Where commands start.
const WORKING_DIRECTORY: &str = "/work";
const SHELL: &str = "/bin/bash";
/// The longest command that is passed as an argument of `bash -c`, in bytes. The kernel's own limit for one argument
/// is 128 KiB (execve(2), MAX_ARG_STRLEN).
const ARGUMENT_BYTES_MAX: usize = 96 * 1024;
/// The command is the next argument.
const HOW_ARGUMENT: &str = "argument";
/// The command is the content of the file descriptor whose number is the next argument.
const HOW_DESCRIPTOR: &str = "descriptor";
/// The REPL: its socket is standard input, the driver's source standard output.
const HOW_REPL: &str = "repl";
const PYTHON: &str = "python3";
/// Where the driver expects its socket (guest/python/repl.py).
const REPL_SOCKET_FD: i32 = 3;
/// Where the driver's source is put.
const DRIVER_FD: i32 = 4;
/// As a shell says that it cannot execute something.
const EXIT_NO_SHELL: u8 = 127;

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
    let _kept_or_lost = std::fs::create_dir_all(WORKING_DIRECTORY);
    // This very program again, which then becomes the shell: what has to be set in the new process is set there.
    let mut shell = Command::new("/proc/self/exe");
    shell.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    // Standard input is the supervisor's own, /dev/null since the jail was made; the path may be anything by now.
    shell.stdin(Stdio::inherit()).stdout(stdout).stderr(stderr);
    let long = if command.len() > ARGUMENT_BYTES_MAX { Some(keep(&command)?) } else { None };
    match &long {
        None => shell.arg(HOW_ARGUMENT).arg(OsStr::from_bytes(&command)),
        Some(file) => shell.arg(HOW_DESCRIPTOR).arg(file.as_raw_fd().to_string()),
    };
    let child = shell.spawn()?;
    // The handle is dropped: the supervisor's loop waits for every child alike.
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)))
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

/// The command's output directory as it is now; code may have removed or replaced it.
pub fn output_directory(output: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, format!("{OUTPUT_ROOT}/{output}"), flags, Mode::empty()).ok()
}

/// Starts the interpreter with the driver.
pub fn spawn_repl(env: &[(String, String)], driver: OwnedFd, socket: OwnedFd) -> Result<Pid, Failure> {
    let _kept_or_lost = std::fs::create_dir_all(WORKING_DIRECTORY);
    let mut repl = Command::new("/proc/self/exe");
    repl.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    repl.arg(HOW_REPL).stdin(socket).stdout(driver).stderr(Stdio::inherit());
    let child = repl.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)))
}

/// Turns this process, just started by [`spawn`] or [`spawn_repl`], into the shell or the interpreter.
pub fn become_shell(how: &OsStr, mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if let Err(error) = belljar_jail::limit_code() {
        eprintln!("belljar: the limit of open files: {error}");
        return ExitCode::from(EXIT_NO_SHELL);
    }
    // Neither can fail in a fresh child of the supervisor, and neither is a wall: the code runs all the same.
    let _no_leader_before = rustix::process::setsid();
    let _nothing_blocked = SigSet::empty().thread_set_mask();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if std::env::set_current_dir(WORKING_DIRECTORY).is_err() {
        eprintln!("belljar: {WORKING_DIRECTORY} is gone, starting in /");
        let _always_there = std::env::set_current_dir("/");
    }
    if how == HOW_REPL {
        return become_interpreter();
    }
    let Some(argument) = arguments.next() else {
        return ExitCode::from(EXIT_NO_SHELL);
    };
    let script = if how == HOW_DESCRIPTOR { read_script(&argument) } else { argument };
    let error = Command::new(SHELL).arg0("bash").arg("-c").arg(script).exec();
    eprintln!("belljar: {SHELL}: {error}");
    ExitCode::from(EXIT_NO_SHELL)
}

fn become_interpreter() -> ExitCode {
    let error = match place_descriptors() {
        Ok(()) => Command::new(PYTHON).arg("-I").arg(format!("/proc/self/fd/{DRIVER_FD}")).exec(),
        Err(error) => error,
    };
    eprintln!("belljar: {PYTHON}: {error}");
    ExitCode::from(EXIT_NO_SHELL)
}

/// Puts socket and driver where the interpreter inherits them, and the supervisor's /dev/null in their places.
fn place_descriptors() -> io::Result<()> {
    // dup(2) takes the lowest number, and nothing else is open in a fresh child of the supervisor.
    let placed = [dup(stdin())?.into_raw_fd(), dup(stdout())?.into_raw_fd()];
    if placed != [REPL_SOCKET_FD, DRIVER_FD] {
        return Err(io::Error::from(Errno::BADF));
    }
    dup2_stdin(stderr())?;
    dup2_stdout(stderr())?;
    Ok(())
}

/// What the shell has to run to run a long command: the text of the descriptor, closed before the text runs.
fn read_script(descriptor: &OsStr) -> OsString {
    let number = descriptor.to_string_lossy();
    OsString::from(format!("eval \"$(</proc/self/fd/{number})\" {number}<&-"))
}
