//! The driver: carries out the effects that a turn asks for, and feeds it what came of them.
//!
//! Each turn is a task of its own. A client that hangs up is an input like any other.

pub mod calls;
pub mod code;
mod deferred;
mod host;
mod live;
pub mod place;
pub mod reply;
mod silence;
mod sink;
mod standing;

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use belljar_ids::{FileId, RequestId, ServerToolUseId};
use belljar_model::{KnownFiles, SamplingHints, SamplingStream, Upstream, UpstreamErrorKind};
use belljar_sandbox::Lease;
use belljar_turn::{CallResult, CodeTool, Effect, Input, PendingCall, ServerCall, Turn, TurnEnd, TurnPlan};
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::StreamEvent;
use belljar_wire::media::FileContent;
use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::SubTool;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::app::Shared;
use crate::clock;
use crate::continuations::Teller;
use crate::failure::Failure;
use crate::parked::{Kept, Spot, StillCell, Waiting};
use crate::principal::Principal;
use crate::random::OsIds;
use crate::tenants::meter::Meter;
use calls::{CallEnd, Called};
use code::Form;
use deferred::Deferred;
use host::Answering;
use live::LiveOutput;
use place::Place;
use silence::Silence;
use sink::Sink;
use standing::Standing;

/// Events that may wait for a slow client; a full queue slows the turn down to the client's pace.
const EVENTS_WAITING_MAX: usize = 64;

/// What the turn sends to the reply.
#[derive(Clone, Debug)]
pub enum Sent {
    /// The next event.
    Event(StreamEvent),
    /// The turn failed before its first event.
    Failed(Failure),
}

/// A file to be mounted before the first call.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The file.
    pub id: FileId,
    /// Its name in the input directory.
    pub filename: String,
}

/// What the request brings along, for its container and for the model.
pub struct Files {
    /// The container it names, where that does not come with a cell.
    pub lease: Option<Lease>,
    /// The files it uploads.
    pub uploads: Vec<Upload>,
    /// What its images and documents by file id show.
    pub contents: BTreeMap<String, FileContent>,
}

/// The files of a request, as an upstream is told of them.
pub fn known_files(uploads: &[Upload], contents: BTreeMap<String, FileContent>) -> KnownFiles {
    let uploads = uploads.iter().map(|upload| (upload.id.to_string(), upload.filename.clone())).collect();
    KnownFiles { uploads, contents }
}

/// What a continuation goes on with.
pub enum Resumed {
    /// What was parked.
    Waiting(Waiting<StillCell>),
    /// Nothing: the cell is lost, and the model is told how.
    Lost(&'static str),
}

/// A call on its way; it takes the place along and brings it back.
type RunningCall = Pin<Box<dyn Future<Output = (Place, CallEnd)> + Send>>;

/// One turn's surroundings.
pub struct Driver {
    app: Shared,
    request_id: RequestId,
    upstream: Arc<dyn Upstream>,
    standing: Standing,
    hints: SamplingHints,
    place: Option<Place>,
    sampling: Option<SamplingStream>,
    call: Option<(ServerToolUseId, RunningCall)>,
    /// What the turn goes on with, until it does.
    resumed: Option<Resumed>,
    /// What that came to, in case the turn fails: another attempt must find it.
    spent: Option<Waiting<StillCell>>,
    /// Calls of earlier replies.
    deferred: Deferred,
    /// Code that has called, until it is parked or answered.
    still: Option<StillCell>,
    /// Calls of that code that are being answered here.
    host: Option<(ServerToolUseId, Answering)>,
    retry_after: Option<Duration>,
    /// The upstream refuses this server's own credentials, or the turn's key has ended: asking again is no use until the operator has been
    /// there.
    refused_credentials: bool,
    /// What running code writes, where the client wants to know at once.
    live: Option<LiveOutput>,
    /// Counts tokens.
    meter: Meter,
}

/// What comes next.
enum Next {
    /// Something for the turn.
    Input(Input),
    /// Something for the client alone: it decides nothing.
    Output(StreamEvent),
}

impl Driver {
    /// A driver for one turn.
    pub fn new(
        app: Shared,
        principal: Principal,
        request_id: RequestId,
        upstream: Arc<dyn Upstream>,
        script: Option<String>,
        files: Files,
        meter: Meter,
    ) -> Self {
        let Files { lease, uploads, contents } = files;
        let known = Arc::new(known_files(&uploads, contents));
        let hints = SamplingHints { script, request_id: request_id.clone(), files: known };
        let deferred = Deferred::none(principal.workspace.clone());
        let standing = Standing::new(app.clone(), principal.key.clone());
        let place = Place::new(app.clone(), principal, lease, uploads);
        Self {
            app,
            request_id,
            upstream,
            standing,
            hints,
            place: Some(place),
            sampling: None,
            call: None,
            resumed: None,
            spent: None,
            deferred,
            still: None,
            host: None,
            retry_after: None,
            refused_credentials: false,
            live: None,
            meter,
        }
    }

    /// The same, which also tells the client what running code writes.
    #[must_use]
    pub fn telling_output(mut self) -> Self {
        if let Some(place) = &mut self.place {
            let (sender, live) = LiveOutput::pair();
            place.listen(sender);
            self.live = Some(live);
        }
        self
    }

    /// Starts the turn; its events come out of the receiver, and dropping that ends the turn.
    pub fn start(self, plan: TurnPlan) -> mpsc::Receiver<Sent> {
        let (client, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        self.spawn(plan, Sink::new(client));
        receiver
    }

    /// Starts a turn that goes on with code of an earlier one. It goes on without its client, too.
    pub fn resume(mut self, plan: TurnPlan, resumed: Resumed, teller: Teller) -> mpsc::Receiver<Sent> {
        let (client, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        self.resumed = Some(resumed);
        self.spawn(plan, Sink::telling(client, teller));
        receiver
    }

    /// Starts a turn that runs calls of an earlier one. It goes on without its client, too.
    pub fn start_telling(self, plan: TurnPlan, teller: Teller) -> mpsc::Receiver<Sent> {
        let (client, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        self.spawn(plan, Sink::telling(client, teller));
        receiver
    }

    fn spawn(self, plan: TurnPlan, sink: Sink) {
        let turns = self.app.turns.clone();
        let time_up = self.app.time_up.clone();
        // Boxed, it is in memory once; otherwise the task around it would have what it begins with twice more.
        let running = Box::pin(self.run(plan, sink));
        // Dropped, it lets go of its container; its client sees the reply break off, as when the server ends.
        turns.spawn(async move { time_up.run_until_cancelled(running).await });
    }

    async fn run(mut self, plan: TurnPlan, mut sink: Sink) {
        self.deferred.enter(&plan);
        let (mut turn, mut effects) = Turn::start(plan, self.request_id.clone(), Box::new(OsIds));
        // What is waited for all the time is set up once: a turn has thousands of events.
        let mut client_gone = pin!(sink.when_client_gone());
        let mut stopping = pin!(self.app.stopping.clone().cancelled_owned());
        let mut told_to_stop = false;
        let mut silence = Silence::new(self.app.serving.ping_interval);
        loop {
            if self.carry_out(effects, &mut sink).await.is_break() {
                return;
            }
            silence.break_now();
            let input = tokio::select! {
                biased;
                () = &mut client_gone => Input::ClientGone,
                () = &mut stopping, if !told_to_stop => {
                    told_to_stop = true;
                    Input::Stopping
                }
                next = self.next() => match next {
                    Next::Input(input) => input,
                    Next::Output(event) => {
                        sink.send_beside(event).await;
                        effects = Vec::new();
                        continue;
                    }
                },
                () = silence.too_long(), if sink.begun() => {
                    sink.send(Sent::Event(StreamEvent::Ping)).await;
                    effects = Vec::new();
                    continue;
                }
            };
            self.tell_rest(&input, &mut sink).await;
            effects = turn.step(input);
        }
    }

    /// Code has ended or waits: first the rest of what it has written.
    async fn tell_rest(&mut self, input: &Input, sink: &mut Sink) {
        let (Input::CellEnded { id, .. } | Input::CellCalled { id, .. }, Some(live)) = (input, &mut self.live) else {
            return;
        };
        for event in live.rest(id) {
            sink.send_beside(event).await;
        }
        if matches!(input, Input::CellEnded { .. }) {
            live.begin();
        }
    }

    /// What the sampling or the call under way brings next, or what the call's code writes meanwhile. Cancel-safe.
    async fn next(&mut self) -> Next {
        let (Some((id, call)), Some(live)) = (&mut self.call, &mut self.live) else {
            return Next::Input(self.next_input().await);
        };
        let (place, end) = tokio::select! {
            biased;
            event = live.next(id) => return Next::Output(event),
            ended = call => ended,
        };
        let id = id.clone();
        Next::Input(self.call_came_back(id, place, end))
    }

    fn call_came_back(&mut self, id: ServerToolUseId, place: Place, end: CallEnd) -> Input {
        self.call = None;
        self.place = Some(place);
        self.call_ended(id, end)
    }

    /// What the sampling or the call under way brings next. Cancel-safe: nothing is waited for once it is there.
    async fn next_input(&mut self) -> Input {
        if let Some((id, call)) = &mut self.call {
            let (place, end) = call.await;
            let id = id.clone();
            return self.call_came_back(id, place, end);
        }
        if let Some((id, answering)) = &mut self.host {
            let answers = answering.await;
            let id = id.clone();
            self.host = None;
            return Input::HostToolsAnswered { id, answers };
        }
        let Some(sampling) = &mut self.sampling else {
            tracing::error!(request_id = %self.request_id, "the turn waits for nothing: it is given up");
            return Input::ClientGone;
        };
        match sampling.next().await {
            Some(Ok(event)) => {
                self.meter.note(&event);
                Input::Sampled(event)
            }
            Some(Err(error)) => {
                tracing::warn!(request_id = %self.request_id, upstream = self.upstream.name(), error = error.operator, "sampling failed");
                self.retry_after = error.kind.retry_after().or(self.retry_after);
                self.refused_credentials = error.kind == UpstreamErrorKind::Authentication;
                self.sampling = None;
                Input::SamplingFailed(error.client)
            }
            None => {
                self.sampling = None;
                Input::SamplingFailed(ApiError::new(ErrorKind::Api, "The upstream ended without an answer"))
            }
        }
    }

    fn call_ended(&mut self, id: ServerToolUseId, end: CallEnd) -> Input {
        match end {
            CallEnd::Ended(result, container) => {
                if let Some(spent) = self.spent.as_mut().filter(|spent| spent.spot.call == id) {
                    spent.kept = Kept::Outcome(result.clone());
                }
                self.deferred.ended(&id, &result, container.as_ref());
                Input::CellEnded { id, result, container }
            }
            CallEnd::Called(Called { calls, container, cell }) => {
                self.still = Some(cell);
                Input::CellCalled { id, calls, container }
            }
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>, sink: &mut Sink) -> ControlFlow<()> {
        for effect in effects {
            match effect {
                Effect::Emit(event) => {
                    if matches!(event, StreamEvent::MessageDelta { .. }) {
                        self.meter.settle().await;
                    }
                    sink.send(Sent::Event(event)).await;
                }
                Effect::Sample(request) => self.sample(*request),
                Effect::CancelSampling => self.sampling = None,
                Effect::RunCell { id, call } => self.run_call(id, call),
                Effect::ResumeCell { id, sub_tool, results, tools } => {
                    self.resume_call(id, sub_tool, results, tools);
                }
                Effect::CallHostTools { id, calls } => self.call_host_tools(id, calls),
                Effect::AnswerCell { id, answers, tools } => self.answer_cell(id, answers, tools),
                Effect::Park { call, pending } => self.park(call, pending),
                // Dropping the call ends its processes; the place goes with it.
                Effect::CancelCell(_) => {
                    self.call = None;
                    self.host = None;
                    self.still = None;
                }
                Effect::Fail(error) => {
                    let mut failure = Failure::from(error).retry_after(self.retry_after);
                    if self.refused_credentials {
                        failure = failure.do_not_retry();
                    }
                    sink.send(Sent::Failed(failure)).await;
                    self.restore_spent();
                    return ControlFlow::Break(());
                }
                Effect::Finish(end) => {
                    self.log_end(&end);
                    match end {
                        TurnEnd::Completed(_) => {
                            self.deferred.forget(&self.app);
                            sink.complete();
                        }
                        TurnEnd::Failed(_) | TurnEnd::Abandoned => self.restore_spent(),
                    }
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn sample(&mut self, request: SamplingRequest) {
        self.sampling = Some(self.standing.sample(&self.upstream, request, self.hints.clone()));
    }

    /// The place, for one call. It is missing only while another call holds it, and the turn runs one at a time.
    fn take_place(&mut self) -> Option<Place> {
        let place = self.place.take();
        if place.is_none() {
            tracing::error!(request_id = %self.request_id, "two calls at once");
        }
        place
    }

    fn run_call(&mut self, id: ServerToolUseId, call: ServerCall) {
        let Some(mut place) = self.take_place() else { return };
        if let Some(result) = self.deferred.begin(&self.app, &id, place.container(), &call) {
            tracing::info!(request_id = %self.request_id, %id, "the call has run in an attempt that failed: it is told, not run again");
            let told = async move {
                let end = CallEnd::of(&mut place, result);
                (place, end)
            };
            self.call = Some((id, Box::pin(told)));
            return;
        }
        let call_id = id.clone();
        let running = async move {
            let end = calls::run(&mut place, &call_id, call).await;
            (place, end)
        };
        self.call = Some((id, Box::pin(running)));
    }

    fn resume_call(
        &mut self,
        id: ServerToolUseId,
        sub_tool: SubTool,
        results: Vec<CallResult>,
        tools: Arc<[CodeTool]>,
    ) {
        let Some(mut place) = self.take_place() else { return };
        let form = Form::of(sub_tool);
        let Waiting { spot, pending, kept } = match self.resumed.take() {
            Some(Resumed::Waiting(waiting)) => waiting,
            Some(Resumed::Lost(how)) => {
                let told = async move {
                    let container = place.info();
                    (place, CallEnd::Ended(form.said(how), container))
                };
                self.call = Some((id, Box::pin(told)));
                return;
            }
            None => {
                tracing::error!(request_id = %self.request_id, %id, "nothing was taken out for this turn");
                return;
            }
        };
        let lost = Kept::Outcome(form.said("the server failed while it went on with this code"));
        self.spent = Some(Waiting { spot: spot.clone(), pending: pending.clone(), kept: lost });
        let waiting = Waiting { spot, pending, kept };
        let running = async move {
            let end = code::resume(&mut place, waiting, results, &tools).await;
            (place, end)
        };
        self.call = Some((id, Box::pin(running)));
    }

    /// Keeps the code that has called, with its container, for whoever brings the results.
    fn park(&mut self, call: ServerToolUseBlock, pending: Vec<PendingCall>) {
        let (Some(still), Some(place)) = (self.still.take(), self.place.as_ref()) else {
            tracing::error!(request_id = %self.request_id, id = %call.id, "nothing can be parked");
            return;
        };
        let container = still.cell.container().clone();
        let spot = Spot { workspace: place.workspace().clone(), container, call: call.id.clone() };
        self.app.calling.enter(&spot.workspace, call, clock::instant_now());
        tracing::info!(request_id = %self.request_id, container = %spot.container, calls = pending.len(), "code waits for its client");
        self.app.park(Waiting { spot, pending, kept: Kept::Cell(still) });
    }

    /// The turn failed: its client may try again, and finds what the code came to.
    fn restore_spent(&mut self) {
        self.deferred.keep(&self.app);
        if let Some(spent) = self.spent.take() {
            self.app.park(spent);
        }
    }

    fn log_end(&self, end: &TurnEnd) {
        tracing::info!(request_id = %self.request_id, ?end, "turn ended");
    }
}
