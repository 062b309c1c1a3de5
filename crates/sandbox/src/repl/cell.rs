//! One cell's talk with a REPL: asked for, waited for, interrupted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::time::Instant;

use crate::command::{self, End, Ending, INTERRUPTED_WAIT_MAX, OutputDirectory, Stop};
use crate::conversation::{ANSWER_WAIT_MAX, Conversation};
use crate::frame::Status;
use crate::outcome::InterpreterEnd;

use super::frame::CellStatus;
use super::{Event, FromRepl, OutputState, Repl, ToRepl};

/// How long a cell whose time is up may take to end after an interrupt, before the REPL is killed for it.
const TIMED_OUT_WAIT_MAX: Duration = Duration::from_secs(1);

/// A cell that the REPL has been asked to run.
pub struct Asked {
    id: u64,
    nonce: String,
}

impl Repl {
    /// Hands a cell over. The descriptors are the REPL's alone afterwards. False when it takes none: it has ended, or
    /// does not read its socket.
    async fn hand_over(&mut self, asked: &Asked, file: &str, output: &str, fds: [OwnedFd; 3]) -> bool {
        let [text, stdout, stderr] = &fds;
        let frame = ToRepl::Cell { id: asked.id, nonce: &asked.nonce, file, output };
        let fds = [text.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let sending = self.channel.send(&frame, &fds);
        matches!(tokio::time::timeout(ANSWER_WAIT_MAX, sending).await, Ok(Ok(())))
    }
}

/// Asks for a cell. Whether the REPL heard it is told by [`wait`].
pub async fn ask(repl: &mut Repl, nonce: String, file: &str, output: &str, fds: [OwnedFd; 3]) -> Asked {
    repl.cells += 1;
    let asked = Asked { id: repl.cells, nonce };
    let _heard_or_ended = repl.hand_over(&asked, file, output, fds).await;
    asked
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
    let mut drained = false;
    let mut stop = None;
    let mut limit = deadline;
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
            () = tokio::time::sleep_until(limit) => Stop::Time,
            () = &mut stopped, if stop.is_none() => Stop::Request,
            _ = &mut draining, if !drained => {
                drained = true;
                continue;
            }
        };
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
    let ending = match command::heard_of_interrupt(talk, interrupt).await {
        Ok(()) => ending,
        Err(reason) => Ending::Died(reason),
    };
    End { stop, ending }
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
        (OutputState::Gone, None, None) => OutputDirectory::Gone,
        _ => return breach("it sent the wrong descriptors"),
    };
    Ending::Exited { status: Status::Code(code), output }
}
