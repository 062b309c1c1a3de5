//! The program that the integration tests start inside a jail: does what it is told and answers exactly.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use belljar_jail::oom::OomAdjuster;
use serde::{Deserialize, Serialize};

#[path = "../harness/words.rs"]
mod words;

mod zygote;

use words::{Answer, Argument, Ask, PACKET_BYTES_MAX};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => process_one(),
        Some("zygote") => zygote::main(),
        Some("stubborn") => loop {
            // SAFETY: `pause` has no preconditions.
            unsafe { libc::pause() };
        },
        Some(_) => ExitCode::from(73),
    }
}

fn process_one() -> ExitCode {
    let Ok(mut entered) = belljar_jail::enter() else {
        return ExitCode::from(70);
    };
    let Some(adjuster) = entered.oom_adjuster() else {
        return ExitCode::from(74);
    };
    let Ok(control) = entered.seal() else {
        return ExitCode::from(71);
    };
    serve(&control, Some(&adjuster))
}

/// Until the host's end closes.
fn serve(control: &OwnedFd, adjuster: Option<&OomAdjuster>) -> ExitCode {
    while let Some(ask) = receive(control) {
        let answer = match ask {
            Ask::Call { number, arguments } => call(number, &arguments),
            Ask::Read { path } => read(&path),
            Ask::List { path } => list(&path),
            Ask::Run { argv } => run(&argv),
            Ask::Link { path } => link(&path),
            Ask::Write { path, bytes } => write(&path, bytes),
            Ask::ForkUntilRefused { most } => expendable(adjuster, || fork_until_refused(most, sleep)),
            Ask::ForkBomb { most } => expendable(adjuster, || fork_until_refused(most, compute)),
            Ask::TouchMemory { bytes } => in_child(|| touch(bytes)),
            Ask::Spin { wall_ms } => spin(Duration::from_millis(wall_ms)),
            Ask::I386 => in_child(i386),
            // A zygote's.
            Ask::Fork { .. } => Answer::Failed(libc::ENOSYS),
        };
        if !send(control, &answer) {
            return ExitCode::from(72);
        }
    }
    ExitCode::SUCCESS
}

fn receive(control: &OwnedFd) -> Option<Ask> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let flags = rustix::net::RecvFlags::empty();
    let (_, length) = rustix::net::recv(control, packet.as_mut_slice(), flags).ok()?;
    serde_json::from_slice(packet.get(..length)?).ok()
}

fn send(control: &OwnedFd, answer: &Answer) -> bool {
    serde_json::to_vec(answer)
        .is_ok_and(|packet| rustix::net::send(control, &packet, rustix::net::SendFlags::NOSIGNAL).is_ok())
}

fn failed(error: &std::io::Error) -> Answer {
    Answer::Failed(error.raw_os_error().unwrap_or(-1))
}

fn call(number: i64, arguments: &[Argument]) -> Answer {
    let texts: Vec<Option<std::ffi::CString>> = arguments
        .iter()
        .map(|argument| match argument {
            Argument::Text(text) => std::ffi::CString::new(text.as_str()).ok(),
            Argument::Number(_) => None,
        })
        .collect();
    let mut raw = [0_i64; 6];
    for ((slot, argument), text) in raw.iter_mut().zip(arguments).zip(&texts) {
        *slot = match (argument, text) {
            (Argument::Number(number), _) => *number,
            (Argument::Text(_), Some(text)) => text.as_ptr().expose_provenance() as i64,
            (Argument::Text(_), None) => 0,
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: the test chooses calls that at most read the given texts, which live until the end of this function.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value == -1 { failed(&std::io::Error::last_os_error()) } else { Answer::Value(value) }
}

fn read(path: &str) -> Answer {
    let mut text = Vec::new();
    match std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Ok(_) => Answer::Text(String::from_utf8_lossy(&text).into_owned()),
        Err(error) => failed(&error),
    }
}

fn list(path: &str) -> Answer {
    let names = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<Vec<_>>>()
    });
    match names {
        Ok(mut names) => {
            names.sort();
            Answer::Names(names)
        }
        Err(error) => failed(&error),
    }
}

fn link(path: &str) -> Answer {
    match std::fs::read_link(path) {
        Ok(target) => Answer::Text(target.to_string_lossy().into_owned()),
        Err(error) => failed(&error),
    }
}

fn run(argv: &[String]) -> Answer {
    let Some((program, rest)) = argv.split_first() else {
        return Answer::Failed(libc::EINVAL);
    };
    let ran = Command::new(program)
        .args(rest)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/belljar-home")
        .env("OPENBLAS_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .output();
    match ran {
        Ok(output) => Answer::Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => failed(&error),
    }
}

fn write(path: &str, bytes: usize) -> Answer {
    match std::fs::write(path, vec![b'x'; bytes]) {
        Ok(()) => Answer::Value(i64::try_from(bytes).unwrap_or(i64::MAX)),
        Err(error) => failed(&error),
    }
}

fn expendable(adjuster: Option<&OomAdjuster>, fork: impl FnOnce() -> Answer) -> Answer {
    match adjuster {
        Some(adjuster) => adjuster.expendable(fork).unwrap_or_else(|error| failed(&error)),
        None => fork(),
    }
}

fn sleep() {
    // SAFETY: `pause` has no preconditions.
    unsafe { libc::pause() };
}

fn compute() {
    std::hint::spin_loop();
}

fn fork_until_refused(most: u32, child: fn()) -> Answer {
    let mut made = 0;
    while made < most {
        // SAFETY: one thread; the child only sleeps or computes until it is killed.
        match unsafe { libc::fork() } {
            0 => loop {
                child();
            },
            -1 => break,
            _ => made += 1,
        }
    }
    Answer::Value(i64::from(made))
}

fn in_child(work: impl FnOnce()) -> Answer {
    // SAFETY: one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => failed(&std::io::Error::last_os_error()),
        0 => {
            work();
            std::process::exit(0)
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            if waited != child {
                failed(&std::io::Error::last_os_error())
            } else if libc::WIFSIGNALED(status) {
                Answer::Signalled(libc::WTERMSIG(status))
            } else {
                Answer::Exited(libc::WEXITSTATUS(status))
            }
        }
    }
}

fn touch(bytes: usize) {
    let memory = vec![1_u8; bytes];
    std::hint::black_box(memory.iter().step_by(4096).map(|&byte| u64::from(byte)).sum::<u64>());
}

fn spin(wall: Duration) -> Answer {
    let start = Instant::now();
    let mut rounds = 0_u64;
    while start.elapsed() < wall {
        rounds = std::hint::black_box(rounds + 1);
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Answer::Value(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000)
}

#[cfg(target_arch = "x86_64")]
fn i386() {
    // SAFETY: getpid (20 in the i386 table) touches no memory; the filters end the process before it runs.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") 20_i64 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn i386() {}
