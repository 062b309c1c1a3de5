//! One cell's talk with a REPL: asked for, waited for, interrupted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::calls::Word;
use crate::cell::in_memory;
use crate::clock::Clock;
use crate::command::{self, End, Ending, HandOver, INTERRUPTED_WAIT_MAX, OutputDirectory, Stop};
use crate::conversation::Conversation;
use crate::error::{DeathReason, SandboxError};
use crate::frame::Status;
use crate::outcome::InterpreterEnd;

use super::calls::Unheard;
use super::frame::{CellStatus, SOURCE_BYTES_SAID_MAX};
use super::{Calls, Event, FromRepl, Piece, Repl, ToRepl};

/// How long a cell whose time is up may take to end after an interrupt, before the REPL is killed for it.
const TIMED_OUT_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long an interrupt waits for the REPL to take the cell in, and how often that is looked at.
const TAKEN_WAIT_MAX: Duration = INTERRUPTED_WAIT_MAX;
const TAKEN_INTERVAL: Duration = Duration::from_millis(1);

/// How long a cell runs before anybody looks at what it writes. Most have ended by then, and what they wrote is in their
/// pipes; who writes more than a pipe holds waits this long once.
const UNWATCHED: Duration = Duration::from_millis(1);

/// What goes with a cell.
pub struct Handed {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// What it can call, if it can call anything.
    pub tools: Option<OwnedFd>,
}

/// The source of a cell.
pub enum Source<'a> {
    /// In the frame: nothing is to be made, read and removed for it.
    Said(&'a str),
    /// Too long for that.
    InMemory(OwnedFd),
}

impl<'a> Source<'a> {
    /// For a text of any length.
    pub fn of(text: &'a str) -> io::Result<Self> {
        if text.len() <= SOURCE_BYTES_SAID_MAX {
            return Ok(Self::Said(text));
        }
        Ok(Self::InMemory(in_memory(text)?.into()))
    }
}

/// A cell that the REPL has been asked to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    id: u64,
    nonce: String,
}

/// What is watched about a running cell but its end.
pub struct Watch<'a, C> {
    pub clock: &'a mut Clock,
    /// How much the container has used of the processor.
    pub cpu: C,
    /// Of the cell's, if it may make any.
    pub calls: &'a mut Option<Calls>,
}

impl Repl {
    /// Hands a cell over. None when it takes none: it has ended.
    pub fn ask(
        &mut self,
        nonce: String,
        file: &str,
        output: &str,
        source: &Source<'_>,
        handed: &Handed,
    ) -> Option<Asked> {
        self.cells += 1;
        let asked = Asked { id: self.cells, nonce };
        let (said, in_memory) = match source {
            Source::Said(text) => (Some(*text), None),
            Source::InMemory(file) => (None, Some(file)),
        };
        let frame = ToRepl::Cell { id: asked.id, nonce: &asked.nonce, file, output, source: said };
        let Handed { stdout, stderr, tools } = handed;
        let fds: Vec<_> = [stdout, stderr].into_iter().chain(in_memory).chain(tools).map(AsFd::as_fd).collect();
        // Between cells nothing is under way to it: there is room unless it has ended.
        self.channel.send_now(&frame, &fds).is_ok().then_some(asked)
    }

    /// Waits until the REPL has taken in what it was sent. To an interrupt that came earlier, it would be between two cells,
    /// where none is heeded: it may be one that crossed with the end of the cell before.
    async fn taken(&self) {
        let by = Instant::now() + TAKEN_WAIT_MAX;
        while !self.channel.is_received() && Instant::now() < by {
            tokio::time::sleep(TAKEN_INTERVAL).await;
        }
    }
}

/// Waits for the end of a cell, moving its output and carrying its calls meanwhile.
///
/// [`Ending::Interpreter`] with [`InterpreterEnd::Breach`] and [`Ending::Overdue`] mean that everything is to be killed.
pub async fn wait(
    repl: &mut Repl,
    talk: &mut Conversation,
    asked: &Asked,
    watch: &mut Watch<'_, impl Fn() -> Duration>,
    draining: impl Future,
    stopped: impl Future<Output = ()>,
) -> Result<End, HandOver> {
    tokio::pin!(draining, stopped);
    let mut drain = Draining::NotYet;
    let watched = Instant::now() + UNWATCHED;
    let mut stop = Stopping::Not;
    let mut interrupt = None;
    let ending = loop {
        let limit = match (&stop, drain) {
            (Stopping::By { limit, .. }, _) => *limit,
            (Stopping::Not, Draining::NotYet) => watched.min(watch.clock.look_at()),
            (Stopping::Not, Draining::Runs | Draining::Over) => watch.clock.look_at(),
        };
        let wanted = tokio::select! {
            biased;
            event = repl.event(talk, &mut interrupt) => match event {
                Ok(None) => continue,
                Ok(Some(event)) => match watch.take(event, asked, &stop) {
                    Some(ending) => break ending,
                    None => continue,
                },
                Err(reason) => {
                    interrupt = None;
                    break Ending::Died(reason);
                }
            },
            () = &mut stopped, if stop.is_not() => Stop::Request,
            _ = &mut draining, if drain == Draining::Runs => {
                drain = Draining::Over;
                continue;
            }
            word = watch.word(), if stop.is_not() => match word {
                Word::HandOver(reply) => return Err(HandOver(reply)),
                word => match watch.heed(word, asked, repl) {
                    Some(ending) => break ending,
                    None => continue,
                },
            },
            () = tokio::time::sleep_until(limit) => {
                if stop.is_not() && !watch.is_up() {
                    drain = drain.begun();
                    continue;
                }
                Stop::Time
            }
        };
        drain = drain.begun();
        if !stop.is_not() {
            break Ending::Overdue;
        }
        repl.taken().await;
        stop = Stopping::by(wanted);
        match command::interrupt(talk, Some(repl.pid)).await {
            Ok(asked) => interrupt = Some(asked),
            Err(reason) => break Ending::Died(reason),
        }
    };
    let ending = command::settled(talk, ending, interrupt).await;
    Ok(End { stop: stop.why(), ending })
}

/// Whether the host wants the cell to end.
enum Stopping {
    Not,
    By { why: Stop, limit: Instant },
}

impl Stopping {
    fn by(why: Stop) -> Self {
        let wait_max = match why {
            Stop::Time => TIMED_OUT_WAIT_MAX,
            Stop::Request => INTERRUPTED_WAIT_MAX,
        };
        Self::By { why, limit: Instant::now() + wait_max }
    }

    fn is_not(&self) -> bool {
        matches!(self, Self::Not)
    }

    fn why(&self) -> Option<Stop> {
        match self {
            Self::Not => None,
            Self::By { why, .. } => Some(*why),
        }
    }
}

impl<C: Fn() -> Duration> Watch<'_, C> {
    /// What an event makes of the cell; none when it goes on.
    fn take(&mut self, event: Event, asked: &Asked, stop: &Stopping) -> Option<Ending> {
        let called = match event {
            Event::Said(FromRepl::Called { id, nonce, heard, calls, part }, fds)
                if fds.is_empty() && asked.id == id && asked.nonce == nonce =>
            {
                Piece { heard, text: calls, part }
            }
            event => return Some(judge(event, asked)),
        };
        let taken = match self.calls {
            Some(calls) => calls.take(called),
            None => Err(OUT_OF_TURN),
        };
        if let Err(what) = taken {
            return Some(breach(what));
        }
        if stop.is_not() {
            self.tell();
        }
        None
    }

    /// Tells the holder what there is to tell, and keeps the time by whose turn it is.
    fn tell(&mut self) {
        let Some(calls) = self.calls else { return };
        calls.tell();
        if calls.waits() { self.clock.stand(&self.cpu) } else { self.clock.run(&self.cpu) }
    }

    async fn word(&mut self) -> Word {
        match self.calls {
            Some(calls) => calls.word().await,
            None => std::future::pending().await,
        }
    }

    /// Passes on what the holder said; an ending when the REPL cannot hear it.
    fn heed(&mut self, word: Word, asked: &Asked, repl: &Repl) -> Option<Ending> {
        let heeded = self.calls.as_mut().map_or(Ok(()), |calls| calls.heed(word, asked.id, &repl.channel));
        match heeded {
            Ok(()) => {
                self.tell();
                None
            }
            Err(Unheard::Breach(what)) => Some(breach(what)),
            Err(Unheard::Host(source)) => {
                let error = SandboxError::Io { what: "keep answers in memory", source };
                Some(Ending::Died(DeathReason::Channel(error.to_string())))
            }
        }
    }

    fn is_up(&mut self) -> bool {
        self.clock.is_up(&self.cpu)
    }
}

/// Whether a cell's output is being moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    NotYet,
    Runs,
    Over,
}

impl Draining {
    fn begun(self) -> Self {
        match self {
            Self::NotYet => Self::Runs,
            Self::Runs | Self::Over => self,
        }
    }
}

const OUT_OF_TURN: &str = "it spoke out of turn";

fn breach(what: &'static str) -> Ending {
    Ending::Interpreter(InterpreterEnd::Breach(what))
}

/// What an event makes of the cell. Everything but the one right answer is a breach.
fn judge(event: Event, asked: &Asked) -> Ending {
    let (frame, fds) = match event {
        Event::Ended(end) => return Ending::Interpreter(end),
        Event::Breach(what) => return breach(what),
        Event::Said(frame, fds) => (frame, fds),
    };
    let FromRepl::Ended { id, nonce, status: CellStatus::Code(code), output } = frame else {
        return breach(OUT_OF_TURN);
    };
    if id != asked.id || nonce != asked.nonce {
        return breach("it answered for another cell");
    }
    match OutputDirectory::of(output, fds) {
        Some(output) => Ending::Exited { status: Status::Code(code), output },
        None => breach("it sent the wrong descriptors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, Packets};
    use crate::repl::ReplEnd;
    use rustix::net::{SendFlags, send};
    use tokio_util::sync::CancellationToken;

    /// What a hostile REPL and its supervisor hold.
    struct There {
        repl: OwnedFd,
        supervisor: OwnedFd,
        _alive: std::io::PipeWriter,
    }

    fn pair() -> (Repl, Conversation, There) {
        let (packets, repl) = Packets::pair().expect("socketpair");
        let (channel, supervisor) = Channel::pair().expect("socketpair");
        let (ended, alive) = std::io::pipe().expect("pipe");
        let talk =
            Conversation::new(channel, std::sync::Arc::new(ended.into()), CancellationToken::new()).expect("watched");
        let ours = Repl::over(packets, ReplEnd::Cold, 2).expect("watched");
        (ours, talk, There { repl, supervisor, _alive: alive })
    }

    fn say(socket: &OwnedFd, text: &str) {
        send(socket, text.as_bytes(), SendFlags::NOSIGNAL).expect("room");
    }

    fn asked() -> Asked {
        Asked { id: 7, nonce: "ab".to_owned() }
    }

    async fn ending(repl: &mut Repl, talk: &mut Conversation) -> Ending {
        let mut clock = Clock::start(Duration::from_secs(5), 1.0);
        let mut watch = Watch { clock: &mut clock, cpu: || Duration::ZERO, calls: &mut None };
        let waited = wait(repl, talk, &asked(), &mut watch, std::future::pending::<()>(), std::future::pending()).await;
        waited.expect("nobody hands it over").ending
    }

    async fn said(frame: &str) -> Ending {
        let (mut repl, mut talk, there) = pair();
        say(&there.repl, frame);
        ending(&mut repl, &mut talk).await
    }

    #[tokio::test]
    async fn the_one_right_answer_is_believed() {
        let none = said(r#"{"ended":{"id":7,"nonce":"ab","status":{"code":3},"output":"none"}}"#).await;
        assert!(matches!(none, Ending::Exited { status: Status::Code(3), output: OutputDirectory::Removed }));
        let gone = said(r#"{"ended":{"id":7,"nonce":"ab","status":{"code":0},"output":"gone"}}"#).await;
        assert!(matches!(gone, Ending::Exited { status: Status::Code(0), output: OutputDirectory::Gone }));
        let unsent = said(r#"{"ended":{"id":7,"nonce":"ab","status":{"code":0},"output":"unsent"}}"#).await;
        assert!(matches!(unsent, Ending::Exited { status: Status::Code(0), output: OutputDirectory::Unsent }));
    }

    #[tokio::test]
    async fn everything_else_is_a_breach() {
        let cases = [
            (r#"{"ended":{"id":8,"nonce":"ab","status":{"code":0},"output":"none"}}"#, "it answered for another cell"),
            (r#"{"ended":{"id":7,"nonce":"aB","status":{"code":0},"output":"none"}}"#, "it answered for another cell"),
            (r#"{"ended":{"id":7,"nonce":"a","status":{"code":0},"output":"none"}}"#, "it answered for another cell"),
            (r#"{"ended":{"id":7,"nonce":"","status":{"code":0},"output":"none"}}"#, "it answered for another cell"),
            (
                r#"{"ended":{"id":7,"nonce":"ab","status":{"code":0},"output":"files"}}"#,
                "it sent the wrong descriptors",
            ),
            (r#"{"ended":{"id":7,"nonce":"ab","status":{"code":-1},"output":"none"}}"#, "a frame without meaning"),
            (r#"{"ended":{"id":7}}"#, "a frame without meaning"),
            (r#"{"ready":{"version":1,"pid":2}}"#, "it spoke out of turn"),
            (r#"{"touched":{}}"#, "it spoke out of turn"),
            ("garbage", "a frame without meaning"),
        ];
        for (frame, what) in cases {
            let ending = said(frame).await;
            let breach = InterpreterEnd::Breach(what);
            assert!(matches!(&ending, Ending::Interpreter(end) if *end == breach), "{frame}: {ending:?}");
        }
    }

    #[tokio::test]
    async fn descriptors_are_counted() {
        let (none, files) = ("none", "files");
        for (output, count, good) in
            [(none, 1, false), (files, 1, true), (files, 2, false), ("gone", 1, false), ("unsent", 1, false)]
        {
            let (mut repl, mut talk, there) = pair();
            let text = format!(r#"{{"ended":{{"id":7,"nonce":"ab","status":{{"code":0}},"output":"{output}"}}}}"#);
            let fds = vec![there.supervisor.as_fd(); count];
            let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
            let parts = [std::io::IoSlice::new(text.as_bytes())];
            rustix::net::sendmsg(&there.repl, &parts, &mut ancillary, SendFlags::NOSIGNAL).expect("room");
            let ending = ending(&mut repl, &mut talk).await;
            assert_eq!(matches!(ending, Ending::Exited { .. }), good, "{output} {count}: {ending:?}");
        }
    }

    #[tokio::test]
    async fn its_end_is_believed_from_the_supervisor_alone() {
        let (mut repl, mut talk, there) = pair();
        talk.watch_cold_repl().await.expect("sent");
        say(&there.supervisor, r#"{"repl_status":{"id":1,"status":{"signal":11}}}"#);
        let ended = ending(&mut repl, &mut talk).await;
        assert!(matches!(ended, Ending::Interpreter(InterpreterEnd::Signal(11))), "{ended:?}");
        // And is known ever after.
        let still = ending(&mut repl, &mut talk).await;
        assert!(matches!(still, Ending::Interpreter(InterpreterEnd::Signal(11))), "{still:?}");
    }

    #[tokio::test]
    async fn an_end_nobody_asked_about_is_the_supervisors_breach() {
        let (mut repl, mut talk, there) = pair();
        say(&there.supervisor, r#"{"repl_status":{"id":1,"status":{"code":0}}}"#);
        let ended = ending(&mut repl, &mut talk).await;
        assert!(matches!(ended, Ending::Died(DeathReason::Protocol("unasked"))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_channel_without_an_end_is_a_breach() {
        let (mut repl, mut talk, there) = pair();
        let There { repl: socket, supervisor: _held, _alive } = there;
        drop(socket);
        let ended = ending(&mut repl, &mut talk).await;
        let closed = InterpreterEnd::Breach("its channel was closed");
        assert!(matches!(&ended, Ending::Interpreter(end) if *end == closed), "{ended:?}");
    }

    #[tokio::test]
    async fn words_between_cells_are_a_breach_too() {
        let (mut repl, mut talk, there) = pair();
        say(&there.repl, r#"{"touched":{}}"#);
        let disturbed = repl.disturbed(&mut talk).await;
        assert_eq!(disturbed, Ok(InterpreterEnd::Breach("it spoke unasked")));
    }
}
