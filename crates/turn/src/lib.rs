//! The model loop as a pure state machine: `(state, input) -> (state, effects)`.
//!
//! No IO, no clock, no randomness of its own. [`plan()`] lowers a request to a [`TurnPlan`] and checks every rule of the wire on
//! the way; [`Turn`] carries the plan out: it asks for samplings, turns what the model says into the events of one reply, has
//! server calls run one after another, and decides when the reply ends. Whoever drives it carries out the [`Effect`]s and feeds
//! back the [`Input`]s.
//!
//! Invariants, each held by property tests:
//! * what is emitted folds to a message, unless it ends in an `error` event;
//! * indices are contiguous from 0;
//! * every server call of a reply is answered exactly once, or is left for a continuation to run;
//! * after the last effect nothing follows.

mod call;
mod context;
mod effect;
#[cfg(fuzzing)]
pub mod fuzzing;
mod input_text;
mod plan;
mod tools;
mod turn;

pub use call::{EditCall, InvalidInput, ServerCall};
pub use context::{ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits};
pub use effect::{Effect, Input, TurnEnd};
pub use plan::{TurnPlan, plan};
pub use turn::Turn;
