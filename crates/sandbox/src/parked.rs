//! A cell that calls the client's tools, as its holder sees it: it runs, it is parked, it has ended.

use std::collections::BTreeSet;

use belljar_ids::ContainerId;
use tokio::sync::{mpsc, oneshot};

use crate::calls::{HoldersEnd, Line, Resumption, Said, line};
use crate::cell::Cell;
use crate::error::SandboxError;
use crate::handover::HandedContainer;
use crate::keeper::{Answer, Request};
use crate::lease::Lease;
use crate::outcome::CellOutcome;
use crate::tools::{CodeTools, ToolAnswer, ToolCall};

/// The texts of one resumption's answers together, in bytes.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How far a cell has come.
#[derive(Debug)]
pub enum Progress {
    /// It has its outcome.
    Ended(Lease, CellOutcome),
    /// It waits for answers.
    Called(Parked),
}

/// A cell has no outcome, for a reason of the sandbox's. The lease is as good as its container.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NoOutcome {
    /// The hold on the container.
    pub lease: Lease,
    /// Why.
    #[source]
    pub error: SandboxError,
}

/// A cell was not resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// These are not the answers to its calls. Nothing of them has reached the cell, which waits on.
    #[error("{why}")]
    Refused {
        /// Still waiting.
        parked: Box<Parked>,
        /// What is wrong with them.
        #[source]
        why: AnswersError,
    },
    /// It was, and has no outcome.
    #[error(transparent)]
    NoOutcome(Box<NoOutcome>),
}

impl From<NoOutcome> for ResumeError {
    fn from(none: NoOutcome) -> Self {
        Self::NoOutcome(Box::new(none))
    }
}

/// What is wrong with a resumption's answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswersError {
    /// No call of this number is waited for, or it is answered twice.
    #[error("no call {0} waits for an answer")]
    Unknown(u64),
    /// This call is not answered.
    #[error("call {0} has no answer")]
    Missing(u64),
    /// Their texts are longer than `bytes_max` bytes together.
    #[error("the answers are longer than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

/// A cell that waits for the answers to calls of its code. Its wall time stands still; what it uses of the processor
/// meanwhile still counts.
///
/// A call that is not answered within `tool_answer_wait_s_max` raises `TimeoutError` in the code, which goes on then,
/// and may end: the outcome is kept for whoever resumes it. What the code calls before that is told by the resumption,
/// and its time begins then.
///
/// Dropping it ends the cell, as dropping a running cell does.
pub struct Parked {
    running: Running,
    calls: Vec<ToolCall>,
    lease: Lease,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked")
            .field("container", self.container())
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Parked {
    /// The container's id.
    #[must_use]
    pub fn container(&self) -> &ContainerId {
        self.lease.container()
    }

    /// The calls that wait for an answer, in the order in which they were made; never none.
    #[must_use]
    pub fn calls(&self) -> &[ToolCall] {
        &self.calls
    }

    /// Has the keeper hand it over, with its container. None when the cell has come to an end while nobody asked.
    pub(crate) async fn hand_over(&self) -> Option<Answer<HandedContainer>> {
        let (reply, answer) = oneshot::channel();
        self.running.say.send(Said::HandOver(reply)).await.ok()?;
        answer.await.ok()
    }

    /// One that was handed over, in the hands of its keeper; `calls` are those that wait.
    pub(crate) fn take_over(
        lease: Lease,
        calls: Vec<ToolCall>,
        (pauses, say): HoldersEnd,
        outcome: oneshot::Receiver<Answer<CellOutcome>>,
    ) -> Self {
        Self { running: Running { pauses, say, outcome }, calls, lease }
    }

    /// Answers every call and waits for what comes next. Answers to calls whose time was up before are dropped. From
    /// here on the code can call `tools`, which may be others than before.
    ///
    /// Dropping the future ends the cell, as dropping a running cell does.
    ///
    /// # Errors
    /// [`ResumeError`]; it says who survived.
    pub async fn resume(self, answers: Vec<ToolAnswer>, tools: &CodeTools) -> Result<Progress, ResumeError> {
        let why = match self.left_by(&answers) {
            Ok(left) => match left.first() {
                None => return self.go_on(answers, &left, tools).await,
                Some(missing) => AnswersError::Missing(*missing),
            },
            Err(why) => why,
        };
        Err(ResumeError::Refused { parked: Box::new(self), why })
    }

    /// Answers some of the calls, at least one; the code goes on with that. The others wait on, and are told again with
    /// what the code calls then; their time begins anew with it. Everything else is as in [`Parked::resume`].
    ///
    /// # Errors
    /// [`ResumeError`]; it says who survived.
    pub async fn answer(self, answers: Vec<ToolAnswer>, tools: &CodeTools) -> Result<Progress, ResumeError> {
        let why = match self.left_by(&answers) {
            Ok(left) => match left.first() {
                Some(missing) if answers.is_empty() => AnswersError::Missing(*missing),
                Some(_) | None => return self.go_on(answers, &left, tools).await,
            },
            Err(why) => why,
        };
        Err(ResumeError::Refused { parked: Box::new(self), why })
    }

    async fn go_on(
        self,
        answers: Vec<ToolAnswer>,
        left: &BTreeSet<u64>,
        tools: &CodeTools,
    ) -> Result<Progress, ResumeError> {
        let Self { running, lease, calls: mut unanswered } = self;
        unanswered.retain(|call| left.contains(&call.number));
        let resumption = Resumption { answers, unanswered, tools: tools.clone() };
        if running.say.send(Said::Resume(resumption)).await.is_err() {
            tracing::debug!(container = %lease.container(), "a cell ended before it was resumed");
        }
        Ok(running.next(lease).await?)
    }

    /// The calls that these answers, each to another call, leave without one.
    fn left_by(&self, answers: &[ToolAnswer]) -> Result<BTreeSet<u64>, AnswersError> {
        let mut waiting: BTreeSet<u64> = self.calls.iter().map(|call| call.number).collect();
        let mut bytes = 0_usize;
        for answer in answers {
            if !waiting.remove(&answer.number) {
                return Err(AnswersError::Unknown(answer.number));
            }
            bytes = bytes.saturating_add(answer.text.len());
        }
        if bytes > ANSWERS_BYTES_MAX {
            return Err(AnswersError::TooLarge { bytes_max: ANSWERS_BYTES_MAX });
        }
        Ok(waiting)
    }
}

/// The holder's end of a cell under way.
struct Running {
    pauses: mpsc::Receiver<Vec<ToolCall>>,
    say: mpsc::Sender<Said>,
    /// Holds the outcome until it is asked for.
    outcome: oneshot::Receiver<Answer<CellOutcome>>,
}

/// Has the keeper run a cell with these tools, until it ends or waits.
pub async fn start(
    mut lease: Lease,
    tools: &CodeTools,
    cell: impl FnOnce(Line) -> Cell,
) -> Result<Progress, NoOutcome> {
    let (ours, pauses, say) = line(tools.clone());
    let (reply, outcome) = oneshot::channel();
    if let Err(error) = lease.request(Request::Cell { cell: cell(ours), reply }).await {
        return Err(NoOutcome { lease, error });
    }
    Running { pauses, say, outcome }.next(lease).await
}

impl Running {
    async fn next(mut self, lease: Lease) -> Result<Progress, NoOutcome> {
        let answer = tokio::select! {
            biased;
            Some(calls) = self.pauses.recv() => {
                return Ok(Progress::Called(Parked { running: self, calls, lease }));
            }
            answer = &mut self.outcome => answer,
        };
        match answer.unwrap_or_else(|_dropped| Err(lease.dead())) {
            Ok(outcome) => Ok(Progress::Ended(lease, outcome)),
            Err(error) => Err(NoOutcome { lease, error }),
        }
    }
}
