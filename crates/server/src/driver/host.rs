//! Tools of ours that code calls (wire.md §14): answered on the host, in the workspace of whoever asked, while the code waits.
//!
//! What the code wrote is as hostile as the code: each input is read as strictly as a request's body.

mod files;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use belljar_ids::ServerToolUseId;
use belljar_store::WorkspaceId;
use belljar_turn::{CallAnswer, CodeTool, HostToolCall};
use belljar_wire::host_tool::{HostToolAnswer, HostToolKind};
use belljar_wire::result::ErrorCode;
use tokio::time::timeout;

use super::{Driver, code};
use crate::app::Shared;

/// How long one call may take. Nothing that is asked for leaves this machine.
const CALL_WAIT_MAX: Duration = Duration::from_secs(30);

/// Calls that are on their way to their answers.
pub type Answering = Pin<Box<dyn Future<Output = Vec<HostToolAnswer>> + Send>>;

impl Driver {
    /// Begins to answer calls, one behind the other: code can ask for a thousand at once, and the store has other callers.
    pub(super) fn call_host_tools(&mut self, id: ServerToolUseId, calls: Vec<HostToolCall>) {
        let Some(place) = self.place.as_ref() else {
            tracing::error!(request_id = %self.request_id, %id, "code called while its place was away");
            return;
        };
        let (app, workspace) = (self.app.clone(), place.workspace().clone());
        let answering = async move {
            let mut answers = Vec::with_capacity(calls.len());
            for call in calls {
                answers.push(answer(&app, &workspace, call).await);
            }
            answers
        };
        self.host = Some((id, Box::pin(answering)));
    }

    /// Lets the code that called go on with these answers.
    pub(super) fn answer_cell(&mut self, id: ServerToolUseId, answers: Vec<CallAnswer>, tools: Arc<[CodeTool]>) {
        let Some(still) = self.still.take() else {
            tracing::error!(request_id = %self.request_id, %id, "no code waits for these answers");
            return;
        };
        let Some(mut place) = self.take_place() else { return };
        let running = async move {
            let end = code::answer(&mut place, still, answers, &tools).await;
            (place, end)
        };
        self.call = Some((id, Box::pin(running)));
    }
}

async fn answer(app: &Shared, workspace: &WorkspaceId, call: HostToolCall) -> HostToolAnswer {
    let answering = async {
        match call.kind {
            HostToolKind::Files => files::answer(app, workspace, call.input).await,
        }
    };
    let late = |_| Err(Refusal::unavailable("it took too long"));
    match timeout(CALL_WAIT_MAX, answering).await.unwrap_or_else(late) {
        Ok(text) => HostToolAnswer::Text(text),
        Err(Refusal { error_code, error_message }) => HostToolAnswer::Error { error_code, error_message },
    }
}

/// Why a call has no answer.
struct Refusal {
    error_code: ErrorCode,
    error_message: String,
}

impl Refusal {
    /// The code asked for what there is not.
    fn invalid(error_message: impl Into<String>) -> Self {
        Self { error_code: ErrorCode::InvalidToolInput, error_message: error_message.into() }
    }

    /// Ours to fix.
    fn unavailable(error_message: impl Into<String>) -> Self {
        Self { error_code: ErrorCode::Unavailable, error_message: error_message.into() }
    }
}
