//! The model loop as a pure state machine: `(state, input) -> (state, effects)`.
//!
//! No IO, no clock, no randomness of its own. [`plan()`] lowers a request to a [`TurnPlan`] and checks every rule of the wire on
//! the way; [`Turn`] carries the plan out: it asks for samplings, turns what the model says into the events of one reply, has
//! server calls run one after another, and decides when the reply ends. Whoever drives it carries out the [`Effect`]s and feeds
//! back the [`Input`]s.
//!
//! Code that calls a tool of the client ends the reply, not the code: the cell is parked, and the turn of the continuation begins
//! by resuming it with the client's results. The model sees neither (wire.md §10.2).
//!
//! Invariants, each held by property tests:
//! * what is emitted folds to a message, unless it ends in an `error` event;
//! * indices are contiguous from 0;
//! * every server call of a reply is answered exactly once, or is left for a continuation to run or resume;
//! * a cell is parked only when its reply tells the client what it waits for;
//! * after the last effect nothing follows.

mod call;
mod context;
mod effect;
mod functions;
#[cfg(fuzzing)]
pub mod fuzzing;
mod input_text;
mod models;
mod plan;
mod runtime;
mod texts;
mod tools;
mod turn;

pub use call::{AnsweredBy, CodeTool, EditCall, Interpreter, InvalidInput, ServerCall, error_result};
pub use context::{CALLS_AT_ONCE_MAX, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits};
pub use effect::{CallAnswer, CallResult, CodeCall, Effect, HostToolCall, Input, PendingCall, TurnEnd};
pub use models::{HostedModel, ModelTraits};
pub use plan::{Resume, TurnPlan, lost_cells, plan};
pub use texts::{TextPlace, ToolTexts};
pub use turn::Turn;
