//! The host's account of one cell's calls: which wait for an answer, which the holder was told of, and whose turn it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::frame::ReplyKind;
use crate::tools::{CodeTools, ToolAnswer, ToolCall};

/// Calls that may wait in one cell. The driver keeps to it, with an exception for who does not.
pub const CALLS_WAITING_MAX: usize = 1024;

/// The keeper's end of the talk about one cell's calls.
pub struct Line {
    tools: CodeTools,
    pauses: mpsc::Sender<Vec<ToolCall>>,
    resumptions: mpsc::Receiver<Resumption>,
}

impl Line {
    /// What the code can call at first.
    pub fn tools(&self) -> &CodeTools {
        &self.tools
    }
}

/// What the holder says to a waiting cell.
#[derive(Debug)]
pub struct Resumption {
    /// One for each call that it was told of.
    pub answers: Vec<ToolAnswer>,
    /// In force from here on.
    pub tools: CodeTools,
}

/// Both ends.
pub fn line(tools: CodeTools) -> (Line, mpsc::Receiver<Vec<ToolCall>>, mpsc::Sender<Resumption>) {
    // They speak by turns: there is never more than one word under way.
    let (pauses, told) = mpsc::channel(1);
    let (resume, resumptions) = mpsc::channel(1);
    (Line { tools, pauses, resumptions }, told, resume)
}

/// See the module's head.
pub struct Ledger {
    line: Line,
    answer_wait_max: Duration,
    /// Functions that the code may know by now, with the names of their tools: a call may cross with new definitions.
    known: BTreeMap<String, String>,
    made: u64,
    /// Unanswered, with the names of their tools.
    waiting: BTreeMap<u64, String>,
    /// Those of them that the holder has not been told of.
    untold: Vec<ToolCall>,
    turn: Turn,
}

/// Who is to act next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The cell; the holder waits.
    Cell,
    /// The holder; the calls that it knows of are given up then, if they have not been yet.
    Holder { until: Option<Instant> },
}

/// What comes from the holder, or from its silence.
#[derive(Debug)]
pub enum Word {
    Resumed(Resumption),
    /// It took too long to answer.
    TimeUp,
}

/// What a call is answered with.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub number: u64,
    pub kind: ReplyKind,
    pub text: String,
}

/// What is to be told to the code.
#[derive(Debug, Default, PartialEq)]
pub struct Delivery {
    pub replies: Vec<Reply>,
    /// New definitions, if there are any.
    pub tools: Option<CodeTools>,
}

impl Ledger {
    pub fn new(line: Line, answer_wait_max: Duration) -> Self {
        let mut ledger = Self {
            line,
            answer_wait_max,
            known: BTreeMap::new(),
            made: 0,
            waiting: BTreeMap::new(),
            untold: Vec::new(),
            turn: Turn::Cell,
        };
        ledger.learn();
        ledger
    }

    fn learn(&mut self) {
        for tool in self.line.tools.all() {
            self.known.insert(tool.function.clone(), tool.name.clone());
        }
    }

    /// Notes a call by the name of its function; an error says which rule it breaks.
    pub fn call(&mut self, function: &str, input: Map<String, Value>) -> Result<u64, &'static str> {
        let tool = self.known.get(function).ok_or("it called a tool that it was not offered")?;
        if self.waiting.len() >= CALLS_WAITING_MAX {
            return Err("it called more tools at once than it may");
        }
        self.made += 1;
        self.waiting.insert(self.made, tool.clone());
        self.untold.push(ToolCall { number: self.made, tool: tool.clone(), input });
        Ok(self.made)
    }

    /// Whether the code waits for anything.
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the holder knows of a call that waits.
    pub fn holder_is_waited_for(&self) -> bool {
        self.turn != Turn::Cell && self.is_waited_for()
    }

    /// Tells the holder of new calls, if it is the one that waits; whether it was told.
    pub fn tell(&mut self) -> bool {
        if self.turn != Turn::Cell || self.untold.is_empty() {
            return false;
        }
        // Refused only where nobody holds the other end any more, which ends the cell another way.
        let _told_or_gone = self.line.pauses.try_send(std::mem::take(&mut self.untold));
        self.turn = Turn::Holder { until: Some(Instant::now() + self.answer_wait_max) };
        true
    }

    /// Waits for the holder. Cancel-safe.
    pub async fn word(&mut self) -> Word {
        let Turn::Holder { until } = self.turn else {
            return std::future::pending().await;
        };
        let silence = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(resumption) = self.line.resumptions.recv() => Word::Resumed(resumption),
            () = silence => Word::TimeUp,
        }
    }

    /// What a word of the holder's is to the code.
    pub fn heed(&mut self, word: Word) -> Delivery {
        match word {
            Word::Resumed(Resumption { answers, tools }) => {
                self.turn = Turn::Cell;
                let replies = answers.into_iter().filter_map(|answer| self.answered(answer)).collect();
                let changed = (tools != self.line.tools).then(|| tools.clone());
                self.line.tools = tools;
                self.learn();
                Delivery { replies, tools: changed }
            }
            Word::TimeUp => {
                self.turn = Turn::Holder { until: None };
                Delivery { replies: self.give_up(), tools: None }
            }
        }
    }

    /// None when the code does not wait for it any more.
    fn answered(&mut self, answer: ToolAnswer) -> Option<Reply> {
        let ToolAnswer { number, text, is_error } = answer;
        self.waiting.remove(&number)?;
        let kind = if is_error { ReplyKind::Error } else { ReplyKind::Text };
        Some(Reply { number, kind, text })
    }

    /// Those that the holder knows of.
    fn give_up(&mut self) -> Vec<Reply> {
        let first_untold = self.untold.first().map_or(u64::MAX, |call| call.number);
        let untold = self.waiting.split_off(&first_untold);
        let told = std::mem::replace(&mut self.waiting, untold);
        let seconds = self.answer_wait_max.as_secs();
        let replies = told.into_iter().map(|(number, tool)| Reply {
            number,
            kind: ReplyKind::TimedOut,
            text: format!("Calling tool ['{tool}'] timed out (no response after {seconds}s)."),
        });
        replies.collect()
    }
}
