//! The driver: carries out the effects that a turn asks for, and feeds it what came of them.
//!
//! Each turn is a task of its own. A client that hangs up is an input like any other.

pub mod calls;
pub mod place;
pub mod reply;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use belljar_ids::{FileId, RequestId, ServerToolUseId};
use belljar_model::{SamplingHints, SamplingStream, Upstream, UpstreamErrorKind};
use belljar_sandbox::Lease;
use belljar_turn::{Effect, Input, ServerCall, Turn, TurnEnd, TurnPlan};
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::event::StreamEvent;
use belljar_wire::result::{ErrorCode, ResultContent};
use belljar_wire::sampling::SamplingRequest;
use belljar_wire::tool::SubTool;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::app::Shared;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::random::OsIds;
use place::Place;

/// Events that may wait for a slow client; a full queue slows the turn down to the client's pace.
const EVENTS_WAITING_MAX: usize = 64;

/// What the turn sends to the reply.
#[derive(Debug)]
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

/// What the request brings along for its container.
pub struct Files {
    /// The container it names.
    pub lease: Option<Lease>,
    /// The files it uploads.
    pub uploads: Vec<Upload>,
}

/// A call on its way; it takes the place along and brings it back.
type RunningCall = Pin<Box<dyn Future<Output = (Place, ResultContent, Option<ContainerInfo>)> + Send>>;

/// One turn's surroundings.
pub struct Driver {
    app: Shared,
    request_id: RequestId,
    upstream: Arc<dyn Upstream>,
    hints: SamplingHints,
    place: Option<Place>,
    sampling: Option<SamplingStream>,
    call: Option<(ServerToolUseId, RunningCall)>,
    retry_after: Option<Duration>,
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
    ) -> Self {
        let uploads = files.uploads.iter().map(|upload| (upload.id.to_string(), upload.filename.clone())).collect();
        let hints = SamplingHints { script, request_id: request_id.clone(), uploads };
        let place = Place::new(app.clone(), principal, files);
        Self { app, request_id, upstream, hints, place: Some(place), sampling: None, call: None, retry_after: None }
    }

    /// Starts the turn; its events come out of the receiver, and dropping that ends the turn.
    pub fn start(self, plan: TurnPlan) -> mpsc::Receiver<Sent> {
        let (sink, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        let turns = self.app.turns.clone();
        turns.spawn(self.run(plan, sink));
        receiver
    }

    async fn run(mut self, plan: TurnPlan, sink: mpsc::Sender<Sent>) {
        let (mut turn, mut effects) = Turn::start(plan, self.request_id.clone(), Box::new(OsIds));
        let stopping = self.app.stopping.clone();
        let mut told_to_stop = false;
        let ping_interval = self.app.serving.ping_interval;
        loop {
            if self.carry_out(effects, &sink).await.is_break() {
                return;
            }
            let input = tokio::select! {
                biased;
                () = sink.closed() => Input::ClientGone,
                () = stopping.cancelled(), if !told_to_stop => {
                    told_to_stop = true;
                    Input::Stopping
                }
                input = self.next_input() => input,
                () = sleep_until(Instant::now() + ping_interval) => {
                    // Nobody reads: the next round finds the sink closed.
                    let _ = sink.send(Sent::Event(StreamEvent::Ping)).await;
                    effects = Vec::new();
                    continue;
                }
            };
            effects = turn.step(input);
        }
    }

    /// What the sampling or the call under way brings next.
    async fn next_input(&mut self) -> Input {
        if let Some((id, call)) = &mut self.call {
            let (place, result, container) = call.await;
            let id = id.clone();
            self.call = None;
            self.place = Some(place);
            return Input::CellEnded { id, result, container };
        }
        let Some(sampling) = &mut self.sampling else {
            return Input::SamplingFailed(ApiError::new(ErrorKind::Api, "Internal server error"));
        };
        match sampling.next().await {
            Some(Ok(event)) => Input::Sampled(event),
            Some(Err(error)) => {
                tracing::warn!(request_id = %self.request_id, upstream = self.upstream.name(), error = error.operator, "sampling failed");
                if let UpstreamErrorKind::RateLimited { retry_after } = error.kind {
                    self.retry_after = retry_after;
                }
                self.sampling = None;
                Input::SamplingFailed(error.client)
            }
            None => {
                self.sampling = None;
                Input::SamplingFailed(ApiError::new(ErrorKind::Api, "The upstream ended without an answer"))
            }
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>, sink: &mpsc::Sender<Sent>) -> std::ops::ControlFlow<()> {
        for effect in effects {
            match effect {
                // A failed send means that the client is gone: the next input says so.
                Effect::Emit(event) => drop(sink.send(Sent::Event(event)).await),
                Effect::Sample(request) => self.sample(*request),
                Effect::CancelSampling => self.sampling = None,
                Effect::RunCell { id, call } => self.run_call(id, call),
                Effect::ResumeCell { id, sub_tool, .. } => self.refuse_to_resume(id, sub_tool),
                // No cell of this driver calls tools, so none is parked.
                Effect::Park { id, .. } => tracing::error!(request_id = %self.request_id, %id, "nothing can be parked"),
                // Dropping the call ends its processes; the place goes with it.
                Effect::CancelCell(_) => self.call = None,
                Effect::Fail(error) => {
                    let failure = Failure::from(error).retry_after(self.retry_after);
                    drop(sink.send(Sent::Failed(failure)).await);
                    return std::ops::ControlFlow::Break(());
                }
                Effect::Finish(end) => {
                    self.log_end(&end);
                    return std::ops::ControlFlow::Break(());
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn sample(&mut self, request: SamplingRequest) {
        self.sampling = Some(self.upstream.sample(request, self.hints.clone()));
    }

    fn run_call(&mut self, id: ServerToolUseId, call: ServerCall) {
        // The place is missing only while another call holds it, and the turn runs one at a time.
        let Some(mut place) = self.place.take() else {
            tracing::error!(request_id = %self.request_id, "two calls at once");
            return;
        };
        let call_id = id.clone();
        let running = async move {
            let (result, container) = calls::run(&mut place, &call_id, call).await;
            (place, result, container)
        };
        self.call = Some((id, Box::pin(running)));
    }

    /// No cell is parked by this driver, so there is none to go on with.
    fn refuse_to_resume(&mut self, id: ServerToolUseId, sub_tool: SubTool) {
        let Some(place) = self.place.take() else {
            tracing::error!(request_id = %self.request_id, "two calls at once");
            return;
        };
        let result = belljar_turn::error_result(sub_tool, ErrorCode::Unavailable, "the cell is not there any more");
        self.call = Some((id, Box::pin(async move { (place, result, None) })));
    }

    fn log_end(&self, end: &TurnEnd) {
        tracing::info!(request_id = %self.request_id, ?end, "turn ended");
    }
}
