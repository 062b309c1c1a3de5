//! The calls of one command of bash, as the supervisor tells of them and answers them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::calls::{Delivery, HandedLedger, HoldersEnd, Ledger, Word};
use crate::cell::in_memory;
use crate::conversation::Conversation;
use crate::error::{DeathReason, SandboxError};
use crate::frame::{Piece, Reply, ReplyKind, ToGuest};
use crate::tools::{CodeTools, ToolsError};

use super::Say;

/// Calls are told when the supervisor says that all of the code waits. Where code computes beside its calls they are told
/// when the container has used so much of the processor since the first of them: enough to start a few dozen commands.
const BESIDE_MAX: Duration = Duration::from_millis(100);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// No call waits longer than this for others, on a machine however busy.
const TOGETHER_MAX: Duration = Duration::from_secs(1);

/// What the arguments of calls that the holder has not been told of may take. The supervisor refuses what is less.
const CALLS_BYTES_MAX: usize = 9 * 1024 * 1024;

/// See the module's head.
pub struct Calls {
    ledger: Ledger,
    /// Arguments that are not whole yet, by the supervisor's numbers.
    begun: BTreeMap<u64, String>,
    /// The supervisor's numbers by those of the ledger.
    numbers: BTreeMap<u64, u64>,
    untold_bytes: usize,
    /// Until new calls are told.
    patience: Option<Patience>,
    /// What the supervisor is told next sets code going, or is to be followed by word of whether it does.
    stirs: bool,
    due: Vec<(u64, ReplyKind, String)>,
    tools: Option<CodeTools>,
}

#[derive(Debug, Clone, Copy)]
struct Patience {
    look_at: Instant,
    latest: Instant,
    /// What the container had used of the processor when it was first looked at.
    cpu: Option<Duration>,
}

/// A piece of a call's argument.
pub struct Called {
    pub call: u64,
    pub function: String,
    pub text: String,
    pub piece: Piece,
}

/// The tools, one to a line: the name, a space, and the schema of the argument, which as JSON has no line ends.
pub fn offered(tools: &CodeTools) -> String {
    tools.all().iter().map(|tool| format!("{} {}\n", tool.function, tool.input_schema)).collect()
}

/// The calls of a command, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedCalls {
    ledger: HandedLedger,
    begun: BTreeMap<u64, String>,
    numbers: BTreeMap<u64, u64>,
    untold_bytes: usize,
}

impl Calls {
    /// What [`Calls::take_over`] needs: between two words nothing is due.
    pub fn hand_over(&self) -> HandedCalls {
        let Self { ledger, begun, numbers, untold_bytes, patience: _, stirs: _, due: _, tools: _ } = self;
        HandedCalls {
            ledger: ledger.hand_over(),
            begun: begun.clone(),
            numbers: numbers.clone(),
            untold_bytes: *untold_bytes,
        }
    }

    /// Those that were handed over, with the holder's end of their line.
    ///
    /// # Errors
    /// As [`Ledger::take_over`].
    pub fn take_over(handed: HandedCalls, answer_wait_max: Duration) -> Result<(Self, HoldersEnd), ToolsError> {
        let HandedCalls { ledger, begun, numbers, untold_bytes } = handed;
        let (ledger, holder) = Ledger::take_over(ledger, answer_wait_max)?;
        let mut calls = Self { begun, numbers, untold_bytes, ..Self::new(ledger) };
        // Some may have come that are to be told with the next word, and that all of the code waits may have been said.
        calls.hush();
        calls.quiet();
        Ok((calls, holder))
    }

    pub fn new(ledger: Ledger) -> Self {
        let (begun, numbers, due) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { ledger, begun, numbers, untold_bytes: 0, patience: None, stirs: false, due, tools: None }
    }

    /// Whether the holder is to answer something.
    pub fn waits(&self) -> bool {
        self.ledger.holder_is_waited_for()
    }

    /// Takes what the supervisor tells; an error says which rule it breaks.
    pub fn take(&mut self, called: Called) -> Result<(), &'static str> {
        let Called { call, function, text, piece } = called;
        let begun = self.begun.entry(call).or_default();
        begun.push_str(&text);
        self.untold_bytes += text.len();
        if self.untold_bytes > CALLS_BYTES_MAX {
            return Err("more was called than may be");
        }
        if piece == Piece::More {
            return Ok(());
        }
        let argument = std::mem::take(begun);
        self.begun.remove(&call);
        if piece == Piece::Never {
            self.untold_bytes -= argument.len();
            return Ok(());
        }
        let refused = match serde_json::from_str(&argument) {
            Ok(input) if self.ledger.knows(&function) => {
                let number = self.ledger.call(&function, input)?;
                self.numbers.insert(number, call);
                self.hush();
                return Ok(());
            }
            // It crossed with definitions that do not have it.
            Ok(_) => format!("{function}: it is not offered to this cell"),
            // Said by somebody who speaks to the supervisor's socket by hand.
            Err(_untrusted_text) => format!("{function}: the argument is no JSON object"),
        };
        self.untold_bytes -= argument.len();
        self.due.push((call, ReplyKind::Error, refused));
        Ok(())
    }

    /// More calls may come.
    fn hush(&mut self) {
        if self.patience.is_none() {
            let now = Instant::now();
            self.patience = Some(Patience { look_at: now, latest: now + TOGETHER_MAX, cpu: None });
        }
    }

    /// All of the code waits: no more calls come.
    pub fn quiet(&mut self) {
        if let Some(patience) = &mut self.patience {
            let now = Instant::now();
            *patience = Patience { look_at: now, latest: now, cpu: patience.cpu };
        }
    }

    /// Waits for the holder, or until new calls are to be told. Cancel-safe.
    pub async fn said(&mut self, cpu: impl Fn() -> Duration) -> Say {
        loop {
            let patience = self.patience;
            let look = async {
                match patience {
                    Some(Patience { look_at, .. }) => tokio::time::sleep_until(look_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                word = self.ledger.word() => return Say::Word(word),
                () = look => {}
            }
            let Some(patience) = &mut self.patience else { continue };
            let now = Instant::now();
            if now >= patience.latest || cpu().saturating_sub(*patience.cpu.get_or_insert_with(&cpu)) >= BESIDE_MAX {
                return Say::Calls;
            }
            patience.look_at = patience.latest.min(now + LOOK_INTERVAL);
        }
    }

    /// Tells the holder of new calls, if it waits.
    pub fn tell(&mut self) {
        self.patience = None;
        if self.ledger.tell() {
            self.untold_bytes = self.begun.values().map(String::len).sum();
        }
    }

    /// Notes what the holder said, for the supervisor.
    pub fn heed(&mut self, word: Word) {
        self.untold_bytes = self.untold_bytes.saturating_add(word.unanswered_bytes());
        let Delivery { replies, tools } = self.ledger.heed(word);
        for reply in replies {
            if let Some(call) = self.numbers.remove(&reply.number) {
                self.due.push((call, reply.kind, reply.text));
            }
        }
        self.tools = tools.or(self.tools.take());
        self.stirs = true;
        self.hush();
    }

    /// Tells the supervisor what is due to its callers.
    ///
    /// # Errors
    /// The container's death.
    pub async fn pass_on(&mut self, talk: &mut Conversation) -> Result<(), DeathReason> {
        if let Some(tools) = self.tools.take() {
            let offered = in_memory(&offered(&tools)).map_err(no_memory)?;
            let id = talk.next_id();
            talk.send(&ToGuest::Tools { id }, &[offered.as_fd()]).await?;
        }
        if !std::mem::take(&mut self.stirs) && self.due.is_empty() {
            return Ok(());
        }
        let mut texts =
            File::from(memfd_create("answers", MemfdFlags::CLOEXEC).map_err(|errno| no_memory(errno.into()))?);
        let (mut replies, mut at) = (Vec::new(), 0);
        for (call, kind, text) in self.due.drain(..) {
            texts.write_all(text.as_bytes()).map_err(no_memory)?;
            let bytes = text.len() as u64;
            replies.push(Reply { call, kind, at, bytes });
            at += bytes;
        }
        talk.send(&ToGuest::Replies { replies }, &[texts.as_fd()]).await
    }
}

/// This host could not keep a text for the guest.
pub fn no_memory(source: std::io::Error) -> DeathReason {
    DeathReason::Channel(SandboxError::Io { what: "keep answers in memory", source }.to_string())
}
