//! Continuations of code that called tools, by what they answer, and of replies that left calls to run: each is carried out once,
//! and told as often as it is asked for.
//!
//! The SDKs send a request again when its answer is lost on the way (wire.md §2.7). The results in it have reached the code
//! by then, and cannot be taken back. So such a turn goes on without its client, and whoever sends the same results
//! again gets the events of the first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belljar_ids::ToolUseId;
use belljar_store::WorkspaceId;
use belljar_turn::Resume;
use belljar_wire::event::StreamEvent;
use belljar_wire::sse;
use bytes::BytesMut;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::driver::Sent;
use crate::failure::Failure;
use crate::parked::Spot;

/// Bytes of one answer, as a stream, that is kept to be told again.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of all answers that are kept after their turns have ended; the oldest go first.
const ANSWERS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long an answer is kept after its turn has ended: the official SDKs wait that long for one (wire.md §2.7).
const ANSWER_KEPT: Duration = Duration::from_secs(600);
/// Events that may wait for a client that is told an answer again.
const EVENTS_WAITING_MAX: usize = 64;

/// The continuations of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Continuations(Arc<Mutex<HashMap<Key, Entry>>>);

/// What makes two requests one continuation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// The cell that goes on, and the calls that are answered.
    Results { workspace: String, container: String, call: String, results: BTreeSet<ToolUseId> },
    /// Calls that were left to run, and the conversation about them.
    Deferred { workspace: String, container: Option<String>, digest: u64 },
}

impl Key {
    fn of(spot: &Spot, resume: &Resume) -> Self {
        Self::Results {
            workspace: spot.workspace.as_str().to_owned(),
            container: spot.container.as_str().to_owned(),
            call: spot.call.as_str().to_owned(),
            results: resume.results.iter().map(|result| result.tool_use_id.clone()).collect(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    answer: watch::Receiver<Answer>,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: Instant,
    bytes: usize,
}

/// An answer as far as it has come.
#[derive(Debug, Default)]
struct Answer {
    sent: Vec<Sent>,
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    GoesOn,
    /// All of it is there.
    Whole,
    /// It grew beyond [`ANSWER_BYTES_MAX`], and is not kept.
    TooLong,
}

/// Whether a continuation is the first of its kind.
pub enum Joined {
    /// It is, and has to be carried out.
    First(Teller),
    /// It was, by another request.
    Again(Told),
}

impl Continuations {
    /// Enters a continuation, or finds the one that is the same.
    pub fn join(&self, spot: &Spot, resume: &Resume) -> Joined {
        self.enter(Key::of(spot, resume))
    }

    /// The same for a request that runs calls which an earlier reply has left (wire.md §13): those it runs must not run twice, either.
    pub fn join_deferred(&self, workspace: &WorkspaceId, container: Option<&str>, digest: u64) -> Joined {
        let (workspace, container) = (workspace.as_str().to_owned(), container.map(str::to_owned));
        self.enter(Key::Deferred { workspace, container, digest })
    }

    fn enter(&self, key: Key) -> Joined {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&key) {
            return Joined::Again(Told(entry.answer.clone()));
        }
        let (answer, told) = watch::channel(Answer::default());
        entries.insert(key.clone(), Entry { answer: told, ended: None });
        Joined::First(Teller { continuations: self.clone(), key, answer, end: End::Forgotten })
    }

    /// Forgets answers that nobody will ask for any more.
    pub fn sweep(&self, now: Instant) {
        let mut entries = self.lock();
        entries
            .retain(|_, entry| entry.ended.is_none_or(|ended| now.saturating_duration_since(ended.at) < ANSWER_KEPT));
    }

    fn keep(&self, key: &Key, ended: Ended) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key) {
            entry.ended = Some(ended);
        }
        let mut by_age: Vec<_> =
            entries.iter().filter_map(|(key, entry)| entry.ended.map(|ended| (ended, key.clone()))).collect();
        by_age.sort_unstable_by_key(|(ended, _)| std::cmp::Reverse(ended.at));
        let mut bytes = 0_usize;
        for (ended, key) in by_age {
            bytes = bytes.saturating_add(ended.bytes);
            if bytes > ANSWERS_BYTES_MAX {
                entries.remove(&key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of an answer when its turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is the answer, for everybody who asks.
    Kept,
    /// The turn failed: who asks again tries again.
    Forgotten,
}

/// Writes one continuation's answer down. Dropped, it is over.
#[derive(Debug)]
pub struct Teller {
    continuations: Continuations,
    key: Key,
    answer: watch::Sender<Answer>,
    end: End,
}

impl Teller {
    /// Notes what the client is sent.
    pub fn note(&self, sent: &Sent) {
        let bytes = match sent {
            // Neither silence nor what the result has again is repeated.
            Sent::Event(StreamEvent::Ping | StreamEvent::BelljarOutput { .. }) => return,
            Sent::Event(event) => {
                let mut text = BytesMut::new();
                sse::encode(event, &mut text);
                text.len()
            }
            Sent::Failed(_) => 0,
        };
        self.answer.send_modify(|answer| {
            answer.bytes = answer.bytes.saturating_add(bytes);
            if answer.bytes > ANSWER_BYTES_MAX {
                *answer = Answer { state: State::TooLong, ..Answer::default() };
            }
            if answer.state == State::GoesOn {
                answer.sent.push(sent.clone());
            }
        });
    }

    /// The turn has come to its end.
    pub fn ended(mut self, end: End) {
        self.end = end;
    }

    /// The continuation is refused; whoever asked for the same meanwhile is refused with it.
    pub fn refuse(self, failure: Failure) -> Failure {
        self.note(&Sent::Failed(failure.clone()));
        failure
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut bytes = 0;
        self.answer.send_modify(|answer| {
            bytes = answer.bytes;
            if answer.state == State::GoesOn {
                answer.state = State::Whole;
            }
        });
        match self.end {
            End::Kept => self.continuations.keep(&self.key, Ended { at: clock::instant_now(), bytes }),
            End::Forgotten => drop(self.continuations.lock().remove(&self.key)),
        }
    }
}

/// An answer that another request has asked for.
#[derive(Debug)]
pub struct Told(watch::Receiver<Answer>);

/// The answer was longer than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Told {
    /// The same events, from the first on.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn again(self, ping_interval: Duration) -> Result<mpsc::Receiver<Sent>, TooLong> {
        if self.0.borrow().state == State::TooLong {
            return Err(TooLong);
        }
        let (sink, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        tokio::spawn(retell(self.0, sink, ping_interval));
        Ok(receiver)
    }
}

/// Sends an answer as it comes. An answer that grows too long breaks off: its reader notices that the end is missing.
async fn retell(mut answer: watch::Receiver<Answer>, sink: mpsc::Sender<Sent>, ping_interval: Duration) {
    let mut told = 0;
    loop {
        let next = async {
            let known = answer.wait_for(|answer| answer.sent.len() > told || answer.state != State::GoesOn).await;
            // A teller that is gone without a word has nothing to add.
            known.ok().and_then(|answer| answer.sent.get(told).cloned())
        };
        let sent = tokio::select! {
            biased;
            () = sink.closed() => return,
            next = next => match next {
                Some(sent) => {
                    told += 1;
                    sent
                }
                None => return,
            },
            () = tokio::time::sleep(ping_interval), if told > 0 => Sent::Event(StreamEvent::Ping),
        };
        if sink.send(sent).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsIds;
    use belljar_ids::{ContainerId, ServerToolUseId};
    use belljar_turn::CallResult;
    use belljar_wire::error::ApiError;
    use belljar_wire::tool::SubTool;

    const PING_INTERVAL: Duration = Duration::from_secs(60);

    fn spot() -> Spot {
        Spot {
            workspace: "a".parse().expect("a workspace"),
            container: ContainerId::mint(&mut OsIds),
            call: ServerToolUseId::mint(&mut OsIds),
        }
    }

    fn resume(spot: &Spot, ids: &[ToolUseId]) -> Resume {
        let result = |id: &ToolUseId| CallResult { tool_use_id: id.clone(), text: String::new(), is_error: false };
        let results = ids.iter().map(result).collect();
        Resume { id: spot.call.clone(), sub_tool: SubTool::CodeExecution, results }
    }

    fn first(joined: Joined) -> Teller {
        match joined {
            Joined::First(teller) => teller,
            Joined::Again(told) => panic!("not the first: {told:?}"),
        }
    }

    fn again(joined: Joined) -> Result<mpsc::Receiver<Sent>, TooLong> {
        match joined {
            Joined::Again(told) => told.again(PING_INTERVAL),
            Joined::First(teller) => panic!("the first: {teller:?}"),
        }
    }

    async fn all(mut receiver: mpsc::Receiver<Sent>) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(sent) = receiver.recv().await {
            texts.push(format!("{sent:?}"));
        }
        texts
    }

    fn stop() -> Sent {
        Sent::Event(StreamEvent::MessageStop)
    }

    #[tokio::test]
    async fn the_same_results_in_any_order_get_the_same_answer() {
        let (continuations, spot) = (Continuations::default(), spot());
        let [a, b, c] = std::array::from_fn(|_| ToolUseId::mint(&mut OsIds));
        let teller = first(continuations.join(&spot, &resume(&spot, &[a.clone(), b.clone()])));
        teller.note(&stop());
        let while_it_runs = again(continuations.join(&spot, &resume(&spot, &[b.clone(), a.clone()]))).expect("kept");
        teller.note(&Sent::Event(StreamEvent::Ping));
        teller.note(&stop());
        teller.ended(End::Kept);
        let afterwards = again(continuations.join(&spot, &resume(&spot, &[a.clone(), b]))).expect("kept");
        let expected = [stop(), stop()].map(|sent| format!("{sent:?}"));
        assert_eq!(all(while_it_runs).await, expected);
        assert_eq!(all(afterwards).await, expected);
        let _other = first(continuations.join(&spot, &resume(&spot, &[a, c])));
    }

    #[tokio::test]
    async fn what_failed_is_tried_again_by_those_who_did_not_see_it() {
        let (continuations, spot, id) = (Continuations::default(), spot(), ToolUseId::mint(&mut OsIds));
        let same = resume(&spot, std::slice::from_ref(&id));
        let teller = first(continuations.join(&spot, &same));
        let beside = again(continuations.join(&spot, &same)).expect("kept");
        drop(teller.refuse(ApiError::invalid("no").into()));
        assert_eq!(all(beside).await.len(), 1);
        drop(first(continuations.join(&spot, &same)));
        drop(first(continuations.join(&spot, &same)));
    }

    #[tokio::test]
    async fn answers_are_kept_within_bounds() {
        let (continuations, spot, id) = (Continuations::default(), spot(), ToolUseId::mint(&mut OsIds));
        let same = resume(&spot, &[id]);
        let teller = first(continuations.join(&spot, &same));
        let text = "x".repeat(ANSWER_BYTES_MAX / 2);
        let delta = Sent::Event(StreamEvent::ContentBlockDelta {
            index: 0,
            delta: belljar_wire::event::Delta::TextDelta { text },
        });
        teller.note(&delta);
        let beside = again(continuations.join(&spot, &same)).expect("not too long yet");
        teller.note(&delta);
        teller.note(&stop());
        assert_eq!(again(continuations.join(&spot, &same)).err(), Some(TooLong));
        teller.ended(End::Kept);
        assert!(all(beside).await.len() <= 1);
        continuations.sweep(clock::instant_now() + ANSWER_KEPT);
        drop(first(continuations.join(&spot, &same)));
    }
}
