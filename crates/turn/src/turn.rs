//! The loop itself.

use belljar_ids::{IdSource, MessageId, RequestId};

use crate::effect::{Effect, Input};
use crate::plan::TurnPlan;

/// One reply in the making.
pub struct Turn {
    message_id: MessageId,
    over: bool,
}

impl Turn {
    /// Starts a turn. `request_id` stands in an `error` event, should one be needed; `ids` names the reply and its server calls.
    pub fn start(
        plan: TurnPlan,
        request_id: RequestId,
        mut ids: Box<dyn IdSource + Send>,
    ) -> (Self, Vec<Effect>) {
        let _ = request_id;
        let turn = Self {
            message_id: MessageId::mint(ids.as_mut()),
            over: false,
        };
        (turn, vec![Effect::Sample(Box::new(plan.sampling))])
    }

    /// Takes what happened, and says what to do about it. Empty once the turn is over.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        let _ = input;
        Vec::new()
    }

    /// Whether the last effect has been handed out.
    pub fn over(&self) -> bool {
        self.over
    }

    /// The id of the reply.
    pub fn message_id(&self) -> &MessageId {
        &self.message_id
    }
}
