//! The client's tools as commands: files on PATH, and a socket on which they are called while a command of bash runs.
//!
//! Whoever runs in the container can call them by hand. So nothing that comes in is believed, and what is passed on is
//! never more than the host takes.

mod caller;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, listen, recv, send, sendmsg, socket_with,
};

use crate::frame::{Failure, Piece, Reply, ReplyKind};

pub use caller::call;

/// The first argument that leads to [`call`].
pub const MODE: &str = "call";

/// Where everything is; the host has the commands' directory in it on PATH.
const DIRECTORY: &str = "/run/tools";
const COMMANDS: &str = "bin";
const SCHEMAS: &str = "schemas";
const PROGRAM: &str = "call";
const SOCKET: &str = "socket";

/// Calls that may wait, the gone callers' included; the host takes no more.
const CALLS_MAX: usize = 1024;
/// Of one call's argument.
const ARGUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Of the arguments of all calls that wait.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of a piece of an argument: as JSON it may be six times as long, and must fit a frame.
const PIECE_BYTES_MAX: usize = 10_000;
/// Connections that wait to be seen: no process of a container need wait, or, in gVisor, be turned away.
const BACKLOG: i32 = 1024;

/// What a packet of a caller's begins with, but its first, which is the name of the function.
const MORE: u8 = b'm';
const LAST: u8 = b'l';

/// What the one packet to a caller begins with. Behind it is a text, or where it is in the descriptor that comes with it.
const REFUSED: u8 = b'r';
const TEXT: u8 = b't';
const ERROR: u8 = b'e';
const TIMED_OUT: u8 = b'o';
/// Then: the kind, and where the text begins and how long it is.
const ANSWER_BYTES: usize = 1 + 8 + 8;

/// Tools that can be called now.
pub struct Offer {
    directory: PathBuf,
    listener: OwnedFd,
    functions: BTreeSet<String>,
    calls: BTreeMap<u64, Call>,
    made: u64,
    waiting_bytes: usize,
}

/// One call, until it is answered.
struct Call {
    /// Where it is answered; gone with the caller.
    socket: Option<OwnedFd>,
    function: Option<String>,
    bytes: usize,
    whole: bool,
}

/// Who has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    New,
    Known(u64),
}

/// What a caller has said, for the host.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub call: u64,
    pub function: String,
    pub text: String,
    pub piece: Piece,
}

impl Offer {
    /// Makes commands of these tools: to a line, a name, a space, and the schema of its argument.
    pub fn new(tools: OwnedFd) -> Result<Self, Failure> {
        Self::within(Path::new(DIRECTORY), tools)
    }

    fn within(directory: &Path, tools: OwnedFd) -> Result<Self, Failure> {
        fs::create_dir_all(directory.join(COMMANDS))?;
        fs::create_dir_all(directory.join(SCHEMAS))?;
        copy_program(&directory.join(PROGRAM))?;
        let socket = directory.join(SOCKET);
        remove(&socket)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(&socket)?)?;
        listen(&listener, BACKLOG)?;
        let (functions, calls) = (BTreeSet::new(), BTreeMap::new());
        let mut offer = Self { directory: directory.to_owned(), listener, functions, calls, made: 0, waiting_bytes: 0 };
        offer.change(tools)?;
        Ok(offer)
    }

    /// Makes commands of these instead.
    pub fn change(&mut self, tools: OwnedFd) -> Result<(), Failure> {
        let mut text = String::new();
        File::from(tools).read_to_string(&mut text)?;
        let tools: BTreeMap<&str, &str> = text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
        let functions: BTreeSet<String> = tools.keys().map(|name| (*name).to_owned()).collect();
        for gone in self.functions.difference(&functions) {
            remove(&self.command(gone))?;
            remove(&self.schema(gone))?;
        }
        for (function, schema) in tools {
            write_new(&self.schema(function), schema.as_bytes(), 0o644)?;
        }
        let script = format!("#!{} {MODE}\n", self.directory.join(PROGRAM).display());
        for new in functions.difference(&self.functions) {
            write_executable(&self.command(new), script.as_bytes())?;
        }
        self.functions = functions;
        Ok(())
    }

    fn schema(&self, function: &str) -> PathBuf {
        self.directory.join(SCHEMAS).join(function)
    }

    fn command(&self, function: &str) -> PathBuf {
        self.directory.join(COMMANDS).join(function)
    }

    /// On what callers are waited for.
    pub fn waited_for(&self) -> Vec<(Caller, BorrowedFd<'_>)> {
        let known = self.calls.iter();
        let known = known.filter_map(|(number, call)| Some((Caller::Known(*number), call.socket.as_ref()?.as_fd())));
        std::iter::once((Caller::New, self.listener.as_fd())).chain(known).collect()
    }

    /// Hears who has something to say; nothing, where it is not for the host.
    pub fn hear(&mut self, caller: Caller) -> Option<Said> {
        match caller {
            Caller::New => {
                self.welcome();
                None
            }
            Caller::Known(number) => self.listen_to(number),
        }
    }

    fn welcome(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = accept_with(&self.listener, flags) else {
            return;
        };
        if self.calls.len() >= CALLS_MAX {
            refuse(&socket, &format!("{CALLS_MAX} calls are waiting already"));
            return;
        }
        self.made += 1;
        self.calls.insert(self.made, Call { socket: Some(socket), function: None, bytes: 0, whole: false });
    }

    fn listen_to(&mut self, number: u64) -> Option<Said> {
        let mut packet = [0; PIECE_BYTES_MAX + 2];
        let call = self.calls.get_mut(&number)?;
        let length = match recv(call.socket.as_ref()?, &mut packet[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok((0, _)) | Err(_) => return self.lose(number),
            Ok((length, _)) => length,
        };
        let packet = &packet[..length];
        if call.whole || length > PIECE_BYTES_MAX + 1 {
            return self.lose(number);
        }
        let Some(function) = &call.function else {
            match std::str::from_utf8(packet) {
                Ok(name) if self.functions.contains(name) => call.function = Some(name.to_owned()),
                _ => return self.refuse(number, "it is not offered to this cell"),
            }
            return None;
        };
        let (piece, text) = match (packet[0], std::str::from_utf8(&packet[1..])) {
            (MORE, Ok(text)) => (Piece::More, text),
            (LAST, Ok(text)) => (Piece::Last, text),
            _ => return self.lose(number),
        };
        if call.bytes + text.len() > ARGUMENT_BYTES_MAX {
            return self.refuse(number, &too_long());
        }
        if self.waiting_bytes + text.len() > WAITING_BYTES_MAX {
            let refused = format!("the arguments of all waiting calls would be longer than {WAITING_BYTES_MAX} bytes");
            return self.refuse(number, &refused);
        }
        call.bytes += text.len();
        self.waiting_bytes += text.len();
        call.whole = piece == Piece::Last;
        Some(Said { call: number, function: function.clone(), text: text.to_owned(), piece })
    }

    fn refuse(&mut self, number: u64, why: &str) -> Option<Said> {
        if let Some(socket) = self.calls.get(&number).and_then(|call| call.socket.as_ref()) {
            refuse(socket, why);
        }
        self.lose(number)
    }

    /// The caller is not heard any more. A call that is whole waits on: the host knows of it.
    fn lose(&mut self, number: u64) -> Option<Said> {
        let call = self.calls.get_mut(&number)?;
        call.socket = None;
        if call.whole {
            return None;
        }
        let Call { function, bytes, .. } = self.calls.remove(&number)?;
        self.waiting_bytes -= bytes;
        let function = function.filter(|_| bytes > 0)?;
        Some(Said { call: number, function, text: String::new(), piece: Piece::Never })
    }

    /// Answers a call with a part of the texts, if its caller is still there.
    pub fn reply(&mut self, reply: Reply, texts: &OwnedFd) {
        let Some(Call { socket, bytes, .. }) = self.calls.remove(&reply.call) else {
            return;
        };
        self.waiting_bytes -= bytes;
        let kind = match reply.kind {
            ReplyKind::Text => TEXT,
            ReplyKind::Error => ERROR,
            ReplyKind::TimedOut => TIMED_OUT,
        };
        let mut packet = [kind; ANSWER_BYTES];
        packet[1..9].copy_from_slice(&reply.at.to_le_bytes());
        packet[9..].copy_from_slice(&reply.bytes.to_le_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let fds = [texts.as_fd()];
        if let Some(socket) = socket
            && beside.push(SendAncillaryMessage::ScmRights(&fds))
        {
            let _sent_or_gone = sendmsg(&socket, &[IoSlice::new(&packet)], &mut beside, SendFlags::NOSIGNAL);
        }
    }
}

impl Drop for Offer {
    /// Takes away what it made, and leaves what the code has put beside it.
    fn drop(&mut self) {
        for function in &self.functions {
            let _removed_or_gone = fs::remove_file(self.command(function));
            let _removed_or_gone = fs::remove_file(self.schema(function));
        }
        for name in [PROGRAM, SOCKET] {
            let _removed_or_gone = fs::remove_file(self.directory.join(name));
        }
        let _removed_or_not_empty = fs::remove_dir(self.directory.join(COMMANDS));
        let _removed_or_not_empty = fs::remove_dir(self.directory.join(SCHEMAS));
        let _removed_or_not_empty = fs::remove_dir(&self.directory);
    }
}

fn too_long() -> String {
    format!("the argument is longer than {ARGUMENT_BYTES_MAX} bytes; pass less in one call")
}

fn refuse(socket: &OwnedFd, why: &str) {
    let packet = [&[REFUSED], why.as_bytes()].concat();
    let _sent_or_gone = send(socket, &packet, SendFlags::NOSIGNAL);
}

/// This very program, from memory: what scripts name must be a file.
fn copy_program(path: &Path) -> io::Result<()> {
    let mut program = Vec::new();
    File::open("/proc/self/exe")?.read_to_end(&mut program)?;
    write_executable(path, &program)
}

fn write_executable(path: &Path, content: &[u8]) -> io::Result<()> {
    write_new(path, content, 0o755)
}

/// A new file in the place of whatever is there.
fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    remove(path)?;
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(content)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
