//! From a continuation's results to the code that waits for them (wire.md §10.4), before its turn starts.

use belljar_ids::{ContainerId, ToolUseId};
use belljar_sandbox::ContainerState;
use belljar_turn::{Resume, TurnPlan};
use belljar_wire::error::{ApiError, ErrorKind};
use tokio::sync::mpsc;

use crate::app::Shared;
use crate::continuations::{Joined, Teller, Told, TooLong};
use crate::driver::code::Form;
use crate::driver::{Files, Resumed, Sent};
use crate::failure::Failure;
use crate::parked::{Kept, NoFit, Spot, Waiting};
use crate::principal::Principal;
use crate::routes::containers;
use crate::routes::files::shown;

/// Told to the model about code that waited when the server ended.
const LOST_IN_RESTART: &str = "the server was restarted while this code waited for results: the Python interpreter is lost with its \
     variables, files are as they were when the container was last put on disk; nothing was done with the results";
/// Told to the model about code whose results came after all patience.
const LOST_BY_TIME: &str = "the results came too late: the calls had timed out, and what the code did then was not kept; files are \
     intact, variables are lost if the interpreter was restarted; nothing was done with the results";

/// What a continuation comes to before its turn.
pub enum Found {
    /// It is the first of its kind.
    First(Box<Continuation>),
    /// It was asked for before: the same answer.
    Told(mpsc::Receiver<Sent>),
}

/// A turn that goes on with code, about to start.
pub struct Continuation {
    /// What the request brings along; the container only where it does not come with the code.
    pub files: Files,
    /// Code that waits, or the news of its loss.
    pub resumed: Resumed,
    /// Tells others who ask for the same.
    pub teller: Teller,
}

/// Finds what waits for these results, and takes it out.
pub async fn find(app: &Shared, principal: &Principal, plan: &TurnPlan, resume: &Resume) -> Result<Found, Failure> {
    // The plan has refused a continuation that names none.
    let text = plan.container.as_deref().unwrap_or_default();
    let id: ContainerId = text.parse().map_err(|_| containers::missing(text))?;
    let spot = Spot { workspace: principal.workspace.clone(), container: id, call: resume.id.clone() };
    // What waits in a live one is in memory, and so is whose it is: the disk is asked about others.
    let lives = app.sandbox.status(&spot.container).is_some_and(|status| status.state != ContainerState::Dead);
    let older_than_the_server = match lives && app.parked.holds(&spot) {
        true => false,
        false => match containers::find(app, principal, text).await {
            Ok((record, _)) => record.created_at < app.started_at,
            Err(missing) => return Err(lost_with_its_container(app, &spot).await.unwrap_or(missing)),
        },
    };
    let teller = match app.continuations.join(&spot, resume) {
        Joined::First(teller) => teller,
        Joined::Again(told) => return told_again(app, told).map(Found::Told),
    };
    let resumed = match app.parked.take(&spot, resume) {
        Ok(waiting) => Resumed::Waiting(waiting),
        Err(NoFit::LetGo) => Resumed::Lost(LOST_BY_TIME),
        Err(NoFit::NotWaiting) if older_than_the_server => Resumed::Lost(LOST_IN_RESTART),
        Err(NoFit::NotWaiting) => return Err(teller.refuse(not_waiting(&spot).into())),
        Err(NoFit::OtherResults { unanswered, unknown }) => {
            return Err(teller.refuse(other_results(&spot, &unanswered, &unknown).into()));
        }
    };
    if told_as_another(&resumed, resume) {
        put_back(app, resumed);
        return Err(teller.refuse(not_waiting(&spot).into()));
    }
    let lease = match &resumed {
        Resumed::Waiting(waiting) if matches!(waiting.kept, Kept::Cell(_)) => None,
        Resumed::Waiting(_) | Resumed::Lost(_) => match containers::lease(app, principal, text).await {
            Ok(lease) => Some(lease),
            Err(failure) => {
                put_back(app, resumed);
                return Err(teller.refuse(failure));
            }
        },
    };
    let contents = match shown::read_all(app, principal, &plan.shown).await {
        Ok(contents) => contents,
        Err(failure) => {
            drop(lease);
            put_back(app, resumed);
            return Err(teller.refuse(failure));
        }
    };
    // Uploads were put into the container before the code ran, and beside results there are none (wire.md §19 row 21).
    let files = Files { lease, uploads: Vec::new(), contents };
    Ok(Found::First(Box::new(Continuation { files, resumed, teller })))
}

/// What is said of code whose container was live when the server ended: of such a container nothing is left but its name. The
/// beginning is that of every missing container, on which clients go on without it (wire.md §23).
async fn lost_with_its_container(app: &Shared, spot: &Spot) -> Option<Failure> {
    let Spot { workspace, container, call } = spot;
    let record = app.store.container(workspace, container).await.ok()??;
    (record.created_at < app.started_at).then(|| {
        let text = format!(
            "Container not found: {container}. The server was restarted while the code of {call} waited in it for results: the \
             code, its variables and its files are lost, and nothing was done with the results."
        );
        ApiError::not_found(text).into()
    })
}

/// Whether the client has made another sub-tool of the call.
fn told_as_another(resumed: &Resumed, resume: &Resume) -> bool {
    match resumed {
        Resumed::Waiting(Waiting { kept: Kept::Cell(still), .. }) => still.form != Form::of(resume.sub_tool),
        Resumed::Waiting(Waiting { kept: Kept::Outcome(_), .. }) | Resumed::Lost(_) => false,
    }
}

/// The answer to a continuation that was asked for before.
pub fn told_again(app: &Shared, told: Told) -> Result<mpsc::Receiver<Sent>, Failure> {
    told.again(app.serving.ping_interval).map_err(too_long)
}

/// What was taken out for a turn that did not start.
fn put_back(app: &Shared, resumed: Resumed) {
    if let Resumed::Waiting(waiting) = resumed {
        app.park(waiting);
    }
}

/// Code that waits in a container is gone on with, never begun again: not even for a client that has left out what it called.
pub fn refuse_running_twice(app: &Shared, principal: &Principal, plan: &TurnPlan) -> Result<(), ApiError> {
    let twice = plan.deferred_calls().find(|id| app.parked.waits(&principal.workspace, id));
    twice.map_or(Ok(()), |id| {
        Err(ApiError::invalid(format!(
            "`server_tool_use` {id} waits for results of tools that its code has called. To go on with it, send back the content of \
             the last reply unchanged, each `tool_use` with its id, and then the results."
        )))
    })
}

fn not_waiting(spot: &Spot) -> ApiError {
    ApiError::invalid(format!(
        "`server_tool_use` {} does not wait for `tool_result` blocks in container {}: its code has gone on, or never was there.",
        spot.call, spot.container
    ))
}

fn other_results(spot: &Spot, unanswered: &[ToolUseId], unknown: &[ToolUseId]) -> ApiError {
    let listed = |ids: &[ToolUseId]| ids.iter().map(ToolUseId::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!("The `tool_result` blocks are not those that the code of {} waits for.", spot.call);
    if !unanswered.is_empty() {
        text.push_str(&format!(" Without a result: {}.", listed(unanswered)));
    }
    if !unknown.is_empty() {
        text.push_str(&format!(" Not called by it: {}.", listed(unknown)));
    }
    ApiError::invalid(text)
}

fn too_long(_: TooLong) -> Failure {
    let text = "These results were sent before, and the answer is too long to be sent again";
    Failure::from(ApiError::new(ErrorKind::Conflict, text)).do_not_retry()
}
