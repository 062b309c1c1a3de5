//! What goes into the loop and what comes out of it.

use belljar_ids::ServerToolUseId;
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::ApiError;
use belljar_wire::event::StreamEvent;
use belljar_wire::message::StopReason;
use belljar_wire::result::ResultContent;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};

use crate::call::ServerCall;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The upstream streamed an event of the sampling that was last asked for.
    Sampled(SamplingEvent),
    /// The upstream failed; nothing more comes of that sampling.
    SamplingFailed(ApiError),
    /// The cell that was last started came to its end.
    CellEnded {
        /// The call that it answers.
        id: ServerToolUseId,
        /// What it came to. Its kind must be the call's.
        result: ResultContent,
        /// The container as of now; absent when none could be had.
        container: Option<ContainerInfo>,
    },
    /// The client hung up: nobody will read the reply.
    ClientGone,
    /// The server shuts down: the running step ends, then the turn pauses if it would go on.
    Stopping,
}

/// Something to be done. The last effect of a turn is one of [`Effect::Fail`] and [`Effect::Finish`]; neither comes twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this event to the client.
    Emit(StreamEvent),
    /// Ask the model; answer with [`Input::Sampled`] and [`Input::SamplingFailed`].
    Sample(Box<SamplingRequest>),
    /// Drop the sampling under way; what it still says is ignored.
    CancelSampling,
    /// Run a server tool; answer with [`Input::CellEnded`]. One at a time.
    RunCell {
        /// The call.
        id: ServerToolUseId,
        /// What to run.
        call: ServerCall,
    },
    /// End the cell under way; its result is ignored.
    CancelCell(ServerToolUseId),
    /// The turn failed before `message_start`: answer with a plain HTTP error. The turn is over.
    Fail(ApiError),
    /// The turn is over.
    Finish(TurnEnd),
}

/// How a turn ended, for the audit.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnEnd {
    /// The reply is complete.
    Completed(StopReason),
    /// The reply broke off with an `error` event.
    Failed(ApiError),
    /// The client went away.
    Abandoned,
}
