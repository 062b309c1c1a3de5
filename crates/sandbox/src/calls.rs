//! The host's account of one cell's calls: which wait for an answer, which the holder was told of, and whose turn it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::frame::ReplyKind;
use crate::handover::HandedContainer;
use crate::keeper::Answer;
use crate::tools::{CodeTool, CodeTools, ToolAnswer, ToolCall, ToolsError};

/// Calls that may wait in one cell. The driver keeps to it, with an exception for who does not.
pub const CALLS_WAITING_MAX: usize = 1024;

/// The keeper's end of the talk about one cell's calls.
pub struct Line {
    tools: CodeTools,
    pauses: mpsc::Sender<Vec<ToolCall>>,
    said: mpsc::Receiver<Said>,
}

/// What a holder may say to its cell's keeper.
#[derive(Debug)]
pub enum Said {
    /// The cell goes on.
    Resume(Resumption),
    /// This process is about to become another program: the keeper tells what it has, and does nothing more.
    HandOver(oneshot::Sender<Answer<HandedContainer>>),
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
    /// To calls that it was told of.
    pub answers: Vec<ToolAnswer>,
    /// The others that it was told of: it will be told of them again.
    pub unanswered: Vec<ToolCall>,
    /// In force from here on.
    pub tools: CodeTools,
}

/// What the holder of a cell has: what it is told, and what it says.
pub type HoldersEnd = (mpsc::Receiver<Vec<ToolCall>>, mpsc::Sender<Said>);

/// Both ends.
pub fn line(tools: CodeTools) -> (Line, mpsc::Receiver<Vec<ToolCall>>, mpsc::Sender<Said>) {
    // They speak by turns: there is never more than one word under way.
    let (pauses, told) = mpsc::channel(1);
    let (say, said) = mpsc::channel(1);
    (Line { tools, pauses, said }, told, say)
}

/// See the module's head.
pub struct Ledger {
    line: Line,
    answer_wait_max: Duration,
    /// Functions that the code may call, with the names of their tools. Those of the resumption before are among them: a
    /// call may cross with new definitions.
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
    /// It wants the cell for another program; nothing is said to the code.
    HandOver(oneshot::Sender<Answer<HandedContainer>>),
}

/// The account of a cell, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedLedger {
    tools: Vec<CodeTool>,
    known: BTreeMap<String, String>,
    made: u64,
    waiting: BTreeMap<u64, String>,
    untold: Vec<ToolCall>,
    /// How long the calls that the holder knows of still wait; none when they were given up.
    left: Option<Duration>,
}

impl Word {
    /// What the calls that it leaves unanswered take as text, in bytes: they are kept here again.
    pub fn unanswered_bytes(&self) -> usize {
        match self {
            Self::Resumed(Resumption { unanswered, .. }) => unanswered.iter().map(|call| json_bytes(&call.input)).sum(),
            Self::TimeUp | Self::HandOver(_) => 0,
        }
    }
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
        let known = names(&line.tools).collect();
        let (waiting, untold) = (BTreeMap::new(), Vec::new());
        Self { line, answer_wait_max, known, made: 0, waiting, untold, turn: Turn::Cell }
    }

    /// What [`Ledger::take_over`] needs, on the holder's turn.
    pub fn hand_over(&self) -> HandedLedger {
        let left = match self.turn {
            Turn::Holder { until: Some(until) } => Some(until.saturating_duration_since(Instant::now())),
            Turn::Holder { until: None } | Turn::Cell => None,
        };
        HandedLedger {
            tools: self.line.tools.all().to_vec(),
            known: self.known.clone(),
            made: self.made,
            waiting: self.waiting.clone(),
            untold: self.untold.clone(),
            left,
        }
    }

    /// The account of a cell that was handed over, with the other end of its line.
    ///
    /// # Errors
    /// What is wrong with its tools.
    pub fn take_over(handed: HandedLedger, answer_wait_max: Duration) -> Result<(Self, HoldersEnd), ToolsError> {
        let HandedLedger { tools, known, made, waiting, untold, left } = handed;
        let (line, pauses, say) = line(CodeTools::new(tools)?);
        let turn = Turn::Holder { until: left.map(|left| Instant::now() + left) };
        Ok((Self { line, answer_wait_max, known, made, waiting, untold, turn }, (pauses, say)))
    }

    /// Whether code may have been offered this function.
    pub fn knows(&self, function: &str) -> bool {
        self.known.contains_key(function)
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
            Some(said) = self.line.said.recv() => match said {
                Said::Resume(resumption) => Word::Resumed(resumption),
                Said::HandOver(reply) => Word::HandOver(reply),
            },
            () = silence => Word::TimeUp,
        }
    }

    /// What a word of the holder's is to the code.
    pub fn heed(&mut self, word: Word) -> Delivery {
        match word {
            Word::Resumed(Resumption { answers, unanswered, tools }) => {
                self.turn = Turn::Cell;
                let replies = answers.into_iter().filter_map(|answer| self.answered(answer)).collect();
                self.untell(unanswered);
                let changed = (tools != self.line.tools).then(|| tools.clone());
                let before = std::mem::replace(&mut self.line.tools, tools);
                self.known = names(&before).chain(names(&self.line.tools)).collect();
                Delivery { replies, tools: changed }
            }
            Word::TimeUp => {
                self.turn = Turn::Holder { until: None };
                Delivery { replies: self.give_up(), tools: None }
            }
            Word::HandOver(_) => Delivery::default(),
        }
    }

    /// Takes back what the holder was told of, but for what was given up meanwhile. It was called before what is untold.
    fn untell(&mut self, mut calls: Vec<ToolCall>) {
        calls.retain(|call| self.waiting.contains_key(&call.number));
        calls.append(&mut self.untold);
        self.untold = calls;
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

/// How long an input is as JSON.
fn json_bytes(input: &Map<String, Value>) -> usize {
    serde_json::to_string(input).map_or(usize::MAX, |text| text.len())
}

/// Each function, with the name of its tool.
fn names(tools: &CodeTools) -> impl Iterator<Item = (String, String)> + '_ {
    tools.all().iter().map(|tool| (tool.function.clone(), tool.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::CodeTool;
    use serde_json::json;

    const WAIT: Duration = Duration::from_secs(270);

    fn tools(functions: &[&str]) -> CodeTools {
        let tool = |function: &&str| CodeTool {
            name: function.to_uppercase(),
            function: (*function).to_owned(),
            description: String::new(),
            input_schema: json!({}),
        };
        CodeTools::new(functions.iter().map(tool).collect()).expect("good")
    }

    type Holder = HoldersEnd;

    fn ledger() -> (Ledger, Holder) {
        let (line, pauses, resumptions) = line(tools(&["f", "g"]));
        (Ledger::new(line, WAIT), (pauses, resumptions))
    }

    fn resumed(numbers: &[u64], functions: &[&str]) -> Word {
        let answer = |number: &u64| ToolAnswer { number: *number, text: format!("r{number}"), is_error: *number == 2 };
        let (answers, unanswered) = (numbers.iter().map(answer).collect(), Vec::new());
        Word::Resumed(Resumption { answers, unanswered, tools: tools(functions) })
    }

    fn told(holder: &mut Holder) -> Vec<(u64, String)> {
        holder.0.try_recv().map_or_else(|_| Vec::new(), |calls| calls.into_iter().map(|c| (c.number, c.tool)).collect())
    }

    fn reply(number: u64, kind: ReplyKind, text: &str) -> Reply {
        Reply { number, kind, text: text.to_owned() }
    }

    #[test]
    fn who_waits_is_told_and_nobody_twice() {
        let (mut ledger, mut holder) = ledger();
        assert!(!ledger.tell(), "nothing to tell");
        assert_eq!(ledger.call("f", Map::new()), Ok(1));
        assert_eq!(ledger.call("g", Map::new()), Ok(2));
        assert!(ledger.tell());
        assert_eq!(told(&mut holder), [(1, "F".to_owned()), (2, "G".to_owned())]);
        assert_eq!(ledger.call("f", Map::new()), Ok(3));
        assert!(!ledger.tell(), "it is the holder's turn");
        let delivery = ledger.heed(resumed(&[1, 2], &["f", "g"]));
        let replies = vec![reply(1, ReplyKind::Text, "r1"), reply(2, ReplyKind::Error, "r2")];
        assert_eq!(delivery, Delivery { replies, tools: None });
        assert!(ledger.tell());
        assert_eq!(told(&mut holder), [(3, "F".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_gives_up_what_was_told_and_late_answers_are_dropped() {
        let (mut ledger, mut holder) = ledger();
        ledger.call("f", Map::new()).expect("known");
        ledger.tell();
        ledger.call("g", Map::new()).expect("known");
        let begun = Instant::now();
        let word = ledger.word().await;
        assert!(matches!(word, Word::TimeUp), "{word:?}");
        assert_eq!(begun.elapsed(), WAIT);
        let delivery = ledger.heed(word);
        let text = "Calling tool ['F'] timed out (no response after 270s).";
        assert_eq!(delivery.replies, [reply(1, ReplyKind::TimedOut, text)]);
        assert!(ledger.is_waited_for() && ledger.holder_is_waited_for(), "the second waits on");
        assert!(!ledger.tell(), "the holder has not come back");
        // No time runs until it has.
        assert!(tokio::time::timeout(WAIT * 10, ledger.word()).await.is_err());
        assert_eq!(ledger.heed(resumed(&[1], &["f", "g"])), Delivery::default());
        told(&mut holder);
        assert!(ledger.tell());
        assert_eq!(told(&mut holder), [(2, "G".to_owned())]);
    }

    #[test]
    fn what_is_left_unanswered_is_told_again_before_what_came_later() {
        let (mut ledger, mut holder) = ledger();
        ledger.call("f", Map::new()).expect("known");
        ledger.call("g", Map::new()).expect("known");
        assert!(ledger.tell());
        let mut calls = holder.0.try_recv().expect("told");
        let answered = calls.remove(1);
        ledger.call("g", Map::new()).expect("known");
        let answers = vec![ToolAnswer { number: answered.number, text: "r".to_owned(), is_error: false }];
        let word = Word::Resumed(Resumption { answers, unanswered: calls, tools: tools(&["f", "g"]) });
        assert_eq!(word.unanswered_bytes(), "{}".len());
        assert_eq!(ledger.heed(word).replies, [reply(2, ReplyKind::Text, "r")]);
        assert!(ledger.tell());
        assert_eq!(told(&mut holder), [(1, "F".to_owned()), (3, "G".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_meanwhile_is_not_told_again() {
        let (mut ledger, mut holder) = ledger();
        ledger.call("f", Map::new()).expect("known");
        assert!(ledger.tell());
        let unanswered = holder.0.try_recv().expect("told");
        let word = ledger.word().await;
        assert_eq!(ledger.heed(word).replies.len(), 1);
        ledger.heed(Word::Resumed(Resumption { answers: Vec::new(), unanswered, tools: tools(&["f"]) }));
        assert!(!ledger.tell());
    }

    #[test]
    fn tools_may_change_and_calls_may_cross_with_that() {
        let (mut ledger, _holder) = ledger();
        ledger.call("f", Map::new()).expect("known");
        ledger.tell();
        assert_eq!(ledger.call("h", Map::new()), Err("it called a tool that it was not offered"));
        assert_eq!(ledger.heed(resumed(&[1], &["h"])).tools, Some(tools(&["h"])));
        assert_eq!(ledger.call("h", Map::new()), Ok(2));
        assert_eq!(ledger.call("g", Map::new()), Ok(3), "sent before it heard");
    }

    #[test]
    fn only_so_many_wait() {
        let (mut ledger, _holder) = ledger();
        for number in 1..=CALLS_WAITING_MAX as u64 {
            assert_eq!(ledger.call("f", Map::new()), Ok(number));
        }
        assert_eq!(ledger.call("f", Map::new()), Err("it called more tools at once than it may"));
    }
}
