//! The calls of earlier replies that a turn runs before anything else, and what they come to: told once, run once.

use std::collections::HashSet;

use belljar_ids::{ContainerId, ServerToolUseId};
use belljar_store::WorkspaceId;
use belljar_turn::{ServerCall, TurnPlan};
use belljar_wire::container::ContainerInfo;
use belljar_wire::result::ResultContent;

use crate::app::App;
use crate::clock;
use crate::outcomes::Outcome;

/// A turn's deferred calls.
pub struct Deferred {
    workspace: WorkspaceId,
    ids: HashSet<ServerToolUseId>,
    running: Option<(ServerToolUseId, ServerCall)>,
    ended: Vec<(ServerToolUseId, Outcome)>,
}

impl Deferred {
    /// Before the plan is there.
    pub fn none(workspace: WorkspaceId) -> Self {
        Self { workspace, ids: HashSet::new(), running: None, ended: Vec::new() }
    }

    /// The calls that the plan runs.
    pub fn enter(&mut self, plan: &TurnPlan) {
        self.ids = plan.deferred_calls().cloned().collect();
    }

    /// A call is about to run in this container; what it came to if it has, in an attempt that failed.
    pub fn begin(
        &mut self,
        app: &App,
        id: &ServerToolUseId,
        container: Option<&ContainerId>,
        call: &ServerCall,
    ) -> Option<ResultContent> {
        if !self.ids.contains(id) {
            return None;
        }
        self.running = Some((id.clone(), call.clone()));
        app.outcomes.of(&self.workspace, id, container?, call)
    }

    /// A call has ended. One without a container has not run at all.
    pub fn ended(&mut self, id: &ServerToolUseId, result: &ResultContent, container: Option<&ContainerInfo>) {
        if let (Some((_, call)), Some(container)) = (self.running.take_if(|(running, _)| running == id), container) {
            let outcome = Outcome { container: container.id.clone(), call, result: result.clone() };
            self.ended.push((id.clone(), outcome));
        }
    }

    /// The turn failed: the next attempt is to find what has run.
    pub fn keep(&mut self, app: &App) {
        for (id, outcome) in self.ended.drain(..) {
            app.outcomes.keep(&self.workspace, id, outcome, clock::instant_now());
        }
    }

    /// The reply is complete, and tells it.
    pub fn forget(&self, app: &App) {
        app.outcomes.forget(&self.workspace, &self.ids);
    }
}
