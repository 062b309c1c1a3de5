//! One cell's talk with a REPL: asked for, waited for, interrupted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::time::Instant;

use crate::command::{self, End, Ending, INTERRUPTED_WAIT_MAX, OutputDirectory, Stop};
use crate::conversation::Conversation;
use crate::frame::Status;
use crate::outcome::InterpreterEnd;

use super::frame::CellStatus;
use super::{Event, FromRepl, OutputState, Repl, ToRepl};

/// How long a cell whose time is up may take to end after an interrupt, before the REPL is killed for it.
const TIMED_OUT_WAIT_MAX: Duration = Duration::from_secs(1);

/// What goes with a cell: its text, and the writing ends of its streams.
pub type Handed = (OwnedFd, [OwnedFd; 2]);

/// How long a cell runs before anybody looks at what it writes. Most have ended by then, and what they wrote is in their
/// pipes; who writes more than a pipe holds waits this long once.
const UNWATCHED: Duration = Duration::from_millis(1);

/// A cell that the REPL has been asked to run.
pub struct Asked {
    id: u64,
    nonce: String,
}

impl Repl {
    /// Hands a cell over. None when it takes none: it has ended.
    pub fn ask(&mut self, nonce: String, file: &str, output: &str, fds: &Handed) -> Option<Asked> {
        self.cells += 1;
        let asked = Asked { id: self.cells, nonce };
        let frame = ToRepl::Cell { id: asked.id, nonce: &asked.nonce, file, output };
        let (text, [stdout, stderr]) = fds;
        let fds = [text.as_fd(), stdout.as_fd(), stderr.as_fd()];
        // Between cells nothing is under way to it: there is room unless it has ended.
        self.channel.send_now(&frame, &fds).is_ok().then_some(asked)
    }
}

/// Waits for the end of a cell, moving its output meanwhile.
///
/// [`Ending::Interpreter`] with [`InterpreterEnd::Breach`] and [`Ending::Overdue`] mean that everything is to be killed.
pub async fn wait(
    repl: &mut Repl,
    talk: &mut Conversation,
    asked: &Asked,
    deadline: Instant,
    draining: impl Future,
    stopped: impl Future<Output = ()>,
) -> End {
    tokio::pin!(draining, stopped);
    let mut drain = Draining::NotYet;
    let mut stop = None;
    let mut limit = deadline.min(Instant::now() + UNWATCHED);
    let mut interrupt = None;
    let ending = loop {
        let wanted = tokio::select! {
            biased;
            event = repl.event(talk, &mut interrupt) => match event {
                Ok(None) => continue,
                Ok(Some(event)) => break judge(event, asked),
                Err(reason) => {
                    interrupt = None;
                    break Ending::Died(reason);
                }
            },
            () = &mut stopped, if stop.is_none() => Stop::Request,
            _ = &mut draining, if drain == Draining::Runs => {
                drain = Draining::Over;
                continue;
            }
            () = tokio::time::sleep_until(limit) => {
                if drain == Draining::NotYet && limit < deadline {
                    (drain, limit) = (Draining::Runs, deadline);
                    continue;
                }
                Stop::Time
            }
        };
        if drain == Draining::NotYet {
            drain = Draining::Runs;
        }
        if stop.is_some() {
            break Ending::Overdue;
        }
        stop = Some(wanted);
        limit = Instant::now()
            + match wanted {
                Stop::Time => TIMED_OUT_WAIT_MAX,
                Stop::Request => INTERRUPTED_WAIT_MAX,
            };
        match command::interrupt(talk, Some(repl.pid)).await {
            Ok(asked) => interrupt = Some(asked),
            Err(reason) => break Ending::Died(reason),
        }
    };
    let ending = command::settled(talk, ending, interrupt).await;
    End { stop, ending }
}

/// Whether a cell's output is being moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    NotYet,
    Runs,
    Over,
}

/// What an event makes of the cell. Everything but the one right answer is a breach.
fn judge(event: Event, asked: &Asked) -> Ending {
    let (frame, fds) = match event {
        Event::Ended(end) => return Ending::Interpreter(end),
        Event::Breach(what) => return Ending::Interpreter(InterpreterEnd::Breach(what)),
        Event::Said(frame, fds) => (frame, fds),
    };
    let breach = |what| Ending::Interpreter(InterpreterEnd::Breach(what));
    let FromRepl::Ended { id, nonce, status: CellStatus::Code(code), output } = frame else {
        return breach("it spoke out of turn");
    };
    if id != asked.id || nonce != asked.nonce {
        return breach("it answered for another cell");
    }
    let mut fds = fds.into_iter();
    let output = match (output, fds.next(), fds.next()) {
        (OutputState::None, None, None) => OutputDirectory::Removed,
        (OutputState::Files, Some(directory), None) => OutputDirectory::Held(directory),
        (OutputState::Unsent, None, None) => OutputDirectory::Unsent,
        (OutputState::Gone, None, None) => OutputDirectory::Gone,
        _ => return breach("it sent the wrong descriptors"),
    };
    Ending::Exited { status: Status::Code(code), output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, Packets};
    use crate::error::DeathReason;
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
        let talk = Conversation::new(channel, ended.into(), CancellationToken::new()).expect("watched");
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
        let deadline = Instant::now() + Duration::from_secs(5);
        wait(repl, talk, &asked(), deadline, std::future::pending::<()>(), std::future::pending()).await.ending
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
