//! The calls of one cell in Python, as they come and are answered in frames.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::calls::{Delivery, HandedLedger, HoldersEnd, Ledger, Word};
use crate::cell::in_memory;
use crate::channel::Packets;
use crate::tools::ToolsError;

use super::frame::{CallsPart, ToRepl};

/// What the calls that the holder has not been told of may take as text. The driver refuses what is less than that by
/// the envelopes of all calls that can wait.
const CALLS_BYTES_MAX: usize = 9 * 1024 * 1024;

/// A piece of a text that tells of calls.
pub struct Piece {
    /// How many words of the host's the REPL had heard.
    pub heard: u64,
    /// Of the text.
    pub text: String,
    /// Whether more of it follows.
    pub part: CallsPart,
}

/// See the module's head.
pub struct Calls {
    ledger: Ledger,
    text: String,
    /// Of what the holder has not been told.
    untold_bytes: usize,
    /// Frames that the REPL was sent.
    said: u64,
    waits: bool,
}

/// The calls of a cell, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedCalls {
    ledger: HandedLedger,
    text: String,
    untold_bytes: usize,
    said: u64,
    waits: bool,
}

impl Calls {
    /// What [`Calls::take_over`] needs.
    pub fn hand_over(&self) -> HandedCalls {
        let Self { ledger, text, untold_bytes, said, waits } = self;
        HandedCalls {
            ledger: ledger.hand_over(),
            text: text.clone(),
            untold_bytes: *untold_bytes,
            said: *said,
            waits: *waits,
        }
    }

    /// Those that were handed over, with the holder's end of their line.
    ///
    /// # Errors
    /// As [`Ledger::take_over`].
    pub fn take_over(handed: HandedCalls, answer_wait_max: Duration) -> Result<(Self, HoldersEnd), ToolsError> {
        let HandedCalls { ledger, text, untold_bytes, said, waits } = handed;
        let (ledger, holder) = Ledger::take_over(ledger, answer_wait_max)?;
        Ok((Self { ledger, text, untold_bytes, said, waits }, holder))
    }

    /// None so far.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, text: String::new(), untold_bytes: 0, said: 0, waits: false }
    }

    /// Whether the code has nothing to do but to wait for answers, as the REPL says.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Takes a frame; an error says which rule it breaks.
    pub fn take(&mut self, piece: Piece) -> Result<(), &'static str> {
        let Piece { heard, text, part } = piece;
        self.untold_bytes += text.len();
        if self.untold_bytes > CALLS_BYTES_MAX {
            return Err("it called tools with more than it may");
        }
        self.text.push_str(&text);
        if part == CallsPart::More {
            return Ok(());
        }
        let calls: Vec<(String, Map<String, Value>)> =
            serde_json::from_str(&self.text).map_err(|_untrusted_text| "it called a tool without meaning")?;
        self.text.clear();
        for (function, input) in calls {
            self.ledger.call(&function, input)?;
        }
        if heard > self.said {
            return Err("it heard what was not said");
        }
        // What crossed with an answer is not waiting: it will say so again when it has heard that.
        if heard == self.said {
            if !self.ledger.is_waited_for() {
                return Err("it waits for nothing");
            }
            self.waits = true;
        }
        Ok(())
    }

    /// Tells the holder of new calls, if the code waits and the holder does too.
    pub fn tell(&mut self) {
        if self.waits && self.ledger.tell() {
            self.untold_bytes = 0;
        }
    }

    /// Waits for the holder. Cancel-safe.
    pub async fn word(&mut self) -> Word {
        self.ledger.word().await
    }

    /// Passes on what the holder said; an error says which rule the REPL breaks by not listening.
    pub fn heed(&mut self, word: Word, cell: u64, channel: &Packets) -> Result<(), Unheard> {
        self.untold_bytes = self.untold_bytes.saturating_add(word.unanswered_bytes());
        let delivery = self.ledger.heed(word);
        if delivery == Delivery::default() {
            return Ok(());
        }
        let answers = answers(&delivery)?;
        let tools = delivery.tools.as_ref().map(|tools| in_memory(tools.text())).transpose()?;
        let fds: Vec<BorrowedFd<'_>> =
            [Some(&answers), tools.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
        match channel.send_now(&ToRepl::Answers { id: cell }, &fds) {
            Ok(()) => {
                self.said += 1;
                self.waits = false;
                Ok(())
            }
            // It has ended, and that will be heard.
            Err(error) if Errno::from_io_error(&error).is_some_and(|errno| errno != Errno::WOULDBLOCK) => Ok(()),
            Err(_full) => Err(Unheard::Breach("it does not listen")),
        }
    }
}

/// The REPL could not be told.
#[derive(Debug)]
pub enum Unheard {
    Breach(&'static str),
    /// This host had no memory for it.
    Host(io::Error),
}

impl From<io::Error> for Unheard {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// A line of JSON that says how long each text is, and then the texts: whatever they hold, they are not looked into.
fn answers(delivery: &Delivery) -> io::Result<File> {
    let heads: Vec<_> = delivery.replies.iter().map(|reply| (reply.number, reply.kind, reply.text.len())).collect();
    let mut head = serde_json::to_vec(&heads)?;
    head.push(b'\n');
    let mut file = File::from(memfd_create("answers", MemfdFlags::CLOEXEC)?);
    file.write_all(&head)?;
    delivery.replies.iter().try_for_each(|reply| file.write_all(reply.text.as_bytes()))?;
    Ok(file)
}
