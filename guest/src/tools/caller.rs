//! What runs when a tool's command is run: one call, from its argument to its answer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recvmsg, send, socket_with,
};
use serde_json::{Map, Value};

use super::{
    ANSWER_BYTES, ARGUMENT_BYTES_MAX, ERROR, LAST, MORE, PIECE_BYTES_MAX, REFUSED, SCHEMAS, SOCKET, TEXT, TIMED_OUT,
    schema::complaint, too_long,
};

/// The tool failed, or could not be called.
const EXIT_FAILED: u8 = 1;
/// As commands say that they were called in a wrong way.
const EXIT_USAGE: u8 = 2;
/// As timeout(1) has it.
const EXIT_TIMED_OUT: u8 = 124;
/// Of the answer, at once.
const COPIED_BYTES: usize = 64 * 1024;

/// Why there is no answer, and the exit code for that.
#[derive(Debug, PartialEq, Eq)]
struct Failed(u8, String);

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(EXIT_FAILED, error.to_string())
    }
}

/// Calls the tool of which this is the command: the first argument is the script's path.
pub fn call(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let script = PathBuf::from(arguments.next().unwrap_or_default());
    let function = script.file_name().unwrap_or(OsStr::new("tool")).to_string_lossy().into_owned();
    match answered(&script, &function, arguments) {
        Ok(code) => ExitCode::from(code),
        Err(Failed(code, why)) => {
            eprintln!("{function}: {why}");
            ExitCode::from(code)
        }
    }
}

fn answered(script: &Path, function: &str, arguments: impl Iterator<Item = OsString>) -> Result<u8, Failed> {
    let argument = argument(function, arguments, io::stdin())?;
    // The script is in a directory beside the socket.
    let directory = script.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    fits(&argument, &directory.join(SCHEMAS).join(function))?;
    let none = |_error| Failed(EXIT_FAILED, "no cell is running that was given tools".to_owned());
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(directory.join(SOCKET)).map_err(io::Error::from)?;
    connect(&socket, &address).map_err(none)?;
    // Whoever refuses the call closes the socket, and has said why before.
    let _sent_or_refused = ask(&socket, function, &argument);
    answer(&socket)
}

/// The one argument, or what comes through standard input; nothing at all is an empty object.
fn argument(function: &str, mut arguments: impl Iterator<Item = OsString>, input: impl Read) -> Result<String, Failed> {
    let usage = |what: &str| Failed(EXIT_USAGE, format!("{what}: {function} '{{...}}', or the same on standard input"));
    let mut bytes = match (arguments.next(), arguments.next()) {
        (Some(argument), None) => argument.as_bytes().to_vec(),
        (Some(_), Some(_)) => return Err(usage("it takes one argument, a JSON object")),
        (None, _) => {
            let mut bytes = Vec::new();
            input.take(ARGUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
            bytes
        }
    };
    if bytes.len() > ARGUMENT_BYTES_MAX {
        return Err(Failed(EXIT_USAGE, too_long()));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        bytes = b"{}".to_vec();
    }
    // As the host will read it, so that what it cannot read is told here.
    match (serde_json::from_slice::<Map<String, Value>>(&bytes), String::from_utf8(bytes)) {
        (Ok(_), Ok(text)) => Ok(text),
        (Err(error), _) => Err(usage(&format!("the argument is no JSON object ({error})"))),
        (Ok(_), Err(error)) => Err(usage(&error.to_string())),
    }
}

/// Whether the argument is what the tool takes: a help for whoever wrote the call, as in Python. Without a schema anything is.
fn fits(argument: &str, schema: &Path) -> Result<(), Failed> {
    let schema = std::fs::read(schema).unwrap_or_default();
    match (serde_json::from_str(argument), serde_json::from_slice(&schema)) {
        (Ok(argument), Ok(schema)) => match complaint(&argument, &schema) {
            Some(complaint) => Err(Failed(EXIT_USAGE, complaint)),
            None => Ok(()),
        },
        (Err(_), _) | (_, Err(_)) => Ok(()),
    }
}

fn ask(socket: &OwnedFd, function: &str, argument: &str) -> io::Result<()> {
    send(socket, function.as_bytes(), SendFlags::NOSIGNAL)?;
    let mut left = argument;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.floor_char_boundary(PIECE_BYTES_MAX));
        let tag = if rest.is_empty() { LAST } else { MORE };
        send(socket, &[&[tag], piece.as_bytes()].concat(), SendFlags::NOSIGNAL)?;
        left = rest;
    }
    Ok(())
}

/// Waits for the answer and passes it on.
fn answer(socket: &OwnedFd) -> Result<u8, Failed> {
    let mut packet = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut beside, RecvFlags::CMSG_CLOEXEC)
    });
    let length = received.map_or(0, |message| message.bytes);
    let texts = beside.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    match (packet[..length].split_first(), texts) {
        (Some((&REFUSED, why)), _) => Err(Failed(EXIT_FAILED, String::from_utf8_lossy(why).into_owned())),
        (Some((kind, place)), Some(texts)) if length == ANSWER_BYTES => pass_on(*kind, place, &File::from(texts)),
        _ => Err(Failed(EXIT_FAILED, "the cell has ended".to_owned())),
    }
}

fn pass_on(kind: u8, place: &[u8], texts: &File) -> Result<u8, Failed> {
    let number = |at: usize| place[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (at, bytes) = (number(0), number(8));
    let code = match kind {
        TEXT => {
            copy(texts, at, bytes, &mut io::stdout())?;
            0
        }
        ERROR | TIMED_OUT => {
            copy(texts, at, bytes, &mut io::stderr())?;
            eprintln!();
            if kind == ERROR { EXIT_FAILED } else { EXIT_TIMED_OUT }
        }
        _ => return Err(Failed(EXIT_FAILED, "its answer makes no sense".to_owned())),
    };
    Ok(code)
}

fn copy(from: &File, mut at: u64, mut bytes: u64, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; COPIED_BYTES];
    while bytes > 0 {
        let wanted = usize::try_from(bytes).unwrap_or(COPIED_BYTES).min(COPIED_BYTES);
        let count = from.read_at(&mut buffer[..wanted], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..count])?;
        at += count as u64;
        bytes -= count as u64;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], input: &str) -> Result<String, Failed> {
        argument("f", arguments.iter().map(OsString::from), input.as_bytes())
    }

    #[test]
    fn an_argument_is_one_json_object() {
        assert_eq!(read(&[r#"{"a": "é"}"#], "ignored").as_deref(), Ok(r#"{"a": "é"}"#));
        assert_eq!(read(&[], "{\"a\":\n1}").as_deref(), Ok("{\"a\":\n1}"));
        assert_eq!(read(&[], " \n").as_deref(), Ok("{}"));
        let bad = [(&["5"][..], ""), (&["{"], ""), (&["{}", "{}"], ""), (&[], "[1]"), (&[r#"{"a":1e999}"#], "")];
        for (arguments, input) in bad {
            let refused = read(arguments, input).expect_err("no object");
            assert_eq!(refused.0, EXIT_USAGE, "{arguments:?} {input}");
            assert!(refused.1.ends_with(": f '{...}', or the same on standard input"), "{refused:?}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(ARGUMENT_BYTES_MAX));
        assert_eq!(read(&[], &long), Err(Failed(EXIT_USAGE, too_long())));
    }
}
