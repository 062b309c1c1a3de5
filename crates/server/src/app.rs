//! What every request shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use belljar_guard::Guard;
use belljar_model::{Dialect, Router};
use belljar_sandbox::Sandbox;
use belljar_store::{Store, Timestamp};
use belljar_turn::{ModelTraits, ToolLimits, ToolTexts};
use belljar_wire::hosted_tool::HostedTools;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batches::Batches;
use crate::calling::CallingCells;
use crate::checkpoints::Changes;
use crate::clock;
use crate::config::Serving;
use crate::continuations::Continuations;
use crate::gate::Gate;
use crate::outcomes::Outcomes;
use crate::parked::{ParkedCells, StillCell, Waiting};
use crate::room::Owners;
use crate::running::RunningCells;
use crate::tenants::Tenants;

/// The server's organs, introduced to each other here and nowhere else.
pub struct App {
    /// Files, keys, the registry of containers.
    pub store: Store,
    /// Containers.
    pub sandbox: Sandbox,
    /// Whose they are.
    pub owners: Owners,
    /// What runs in them now.
    pub running: RunningCells,
    /// What waits in them for a client's tools.
    pub parked: ParkedCells<StillCell>,
    /// The calls whose code has called tools of the client.
    pub calling: CallingCells,
    /// Continuations that run or have just ended, for whoever asks again.
    pub continuations: Continuations,
    /// What calls came to whose turns failed afterwards.
    pub outcomes: Outcomes,
    /// What runs unattended.
    pub batches: Batches,
    /// Models.
    pub router: Router,
    /// What may not run.
    pub guard: Guard,
    /// How credentials are checked.
    pub gate: Gate,
    /// What workspaces may hold and use.
    pub tenants: Arc<Tenants>,
    /// Limits.
    pub serving: Serving,
    /// What the tool text tells the model about its container.
    pub tool_limits: ToolLimits,
    /// The words in which models are told of the tool, by the upstream's name, where they are configured.
    pub tool_texts: BTreeMap<String, ToolTexts>,
    /// One change between live and kept at a time for each container.
    pub changes: Changes,
    /// Digest of the image that containers start from.
    pub image_digest: String,
    /// How long an unused container lives; told to clients as `expires_at`.
    pub container_idle: Duration,
    /// How long a call that code makes may stay unanswered; told to clients as `expires_at` of a reply that pauses for it.
    pub call_wait: Duration,
    /// When the server began: of what was before, only the disk knows.
    pub started_at: Timestamp,
    /// How long a container lives at most, used or not.
    pub container_life: Duration,
    /// Size of one checkpoint in bytes.
    pub checkpoint_bytes_max: u64,
    /// Cancelled when the server is asked to stop: running turns come to an end.
    pub stopping: CancellationToken,
    /// Cancelled when running turns have had their time after that: what still runs is let go of.
    pub time_up: CancellationToken,
    /// Running turns.
    pub turns: TaskTracker,
}

impl App {
    /// What a model of that name takes and refuses: the rules of the hosted model that the configuration says it is like.
    pub fn traits_of(&self, model: &str) -> ModelTraits {
        self.router.like(model).map(ModelTraits::of).unwrap_or_default()
    }

    /// What of the vendor's own server tools the upstream of a model of that name passes on; none where it has no such tools.
    pub fn hosted_of(&self, model: &str) -> Option<&HostedTools> {
        self.router.served(model).and_then(|served| served.server_tools)
    }

    /// The words in which a model of that name is told of the tool.
    pub fn texts_of(&self, model: &str) -> &ToolTexts {
        let Some(served) = self.router.served(model) else {
            return ToolTexts::hosted();
        };
        self.tool_texts.get(served.upstream).unwrap_or_else(|| match served.dialect {
            // Mostly models that were never taught it.
            Some(Dialect::Openai) => ToolTexts::plain(),
            Some(Dialect::Anthropic) | None => ToolTexts::hosted(),
        })
    }

    /// Keeps code that waits, for whoever brings the results. Its calls may be answered for so long; afterwards its container
    /// counts as unused.
    pub fn park(&self, waiting: Waiting<StillCell>) {
        let until = clock::instant_now() + self.call_wait + self.serving.container_checkpoint;
        self.parked.park(waiting, until);
    }
}

/// Shared by all handlers.
pub type Shared = Arc<App>;
