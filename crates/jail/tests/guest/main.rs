//! The program that the integration tests start inside a jail: does what it is told and answers exactly.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

#[path = "../harness/words.rs"]
mod words;

use words::{Answer, Argument, Ask, PACKET_BYTES_MAX};

fn main() -> ExitCode {
    let Ok(entered) = belljar_jail::enter() else {
        return ExitCode::from(70);
    };
    let Ok(control) = entered.seal() else {
        return ExitCode::from(71);
    };
    while let Some(ask) = receive(&control) {
        let answer = match ask {
            Ask::Call { number, arguments } => call(number, &arguments),
            Ask::Read { path } => read(&path),
            Ask::List { path } => list(&path),
            Ask::Run { argv, environment } => run(&argv, environment),
        };
        if !send(&control, &answer) {
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
    serde_json::to_vec(answer).is_ok_and(|packet| {
        rustix::net::send(control, &packet, rustix::net::SendFlags::NOSIGNAL).is_ok()
    })
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
    if value == -1 {
        failed(&std::io::Error::last_os_error())
    } else {
        Answer::Value(value)
    }
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
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    match names {
        Ok(mut names) => {
            names.sort();
            Answer::Names(names)
        }
        Err(error) => failed(&error),
    }
}

fn run(argv: &[String], environment: Vec<(String, String)>) -> Answer {
    let Some((program, rest)) = argv.split_first() else {
        return Answer::Failed(libc::EINVAL);
    };
    let output = Command::new(program)
        .args(rest)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => Answer::Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => failed(&error),
    }
}
