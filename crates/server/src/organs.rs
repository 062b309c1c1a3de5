//! Opening the organs, in the order in which they may fail, and keeping house while they run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use belljar_guard::Guard;
use belljar_ids::ContainerId;
use belljar_image::{FailureClass, ImageError, ImageStore, Monitor, Mounted};
use belljar_model::Router;
use belljar_sandbox::{Rootfs, Sandbox, SandboxError};
use belljar_store::{Store, StoreError, StoreOptions, SystemClock};
use belljar_turn::ToolLimits;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Shared};
use crate::batches::Batches;
use crate::calling::CallingCells;
use crate::checkpoints::{self, Changes};
use crate::clock;
use crate::config::Config;
use crate::continuations::Continuations;
use crate::exit::Exit;
use crate::gate::Gate;
use crate::handover::{self, Inheritance};
use crate::outcomes::Outcomes;
use crate::parked::ParkedCells;
use crate::room::Owners;
use crate::running::RunningCells;
use crate::tenants::Tenants;

/// What has expired is looked for at least as often, and four times in the shortest time that something may take, so that
/// it takes at most a quarter longer.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Looking costs something too.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Containers removed in one round.
const EXPIRED_AT_ONCE: u16 = 100;

/// The opened organs; dropping them lets go of the image.
pub struct Organs {
    /// What requests share.
    pub app: Shared,
    _image: Mounted,
}

/// Opens everything that serving needs; proves that a container can start. What the program before this one has left goes on.
pub async fn open(config: &Config, inheritance: Option<Inheritance>) -> Result<Organs, Exit> {
    let image = mount(config).await?;
    let mut options = StoreOptions::new(Arc::new(SystemClock));
    options.file_bytes_max = config.serving.file_bytes_max;
    (options.file_quota, options.file_quotas) = config.limits.file_quotas(config.serving.workspace_bytes_max);
    options.database = config.store.database.clone();
    options.blobs = config.store.blobs.clone();
    let store = Store::open(&config.data_dir, options).await.map_err(store_exit)?;
    // Recordings stand in the data directory, which is the store's to make.
    let router = Router::new(config.upstreams.clone()).map_err(|error| Exit::usage(error.to_string()))?;
    let running = RunningCells::default();
    let started_at = inheritance.as_ref().map_or_else(clock::now, |inheritance| inheritance.started_at);
    let (sandbox, inherited) = match inheritance {
        None => (Sandbox::open(config.sandbox.clone(), rootfs(&image)).await.map_err(sandbox_exit)?, None),
        Some(Inheritance { sandbox, rest, .. }) => {
            let mut marks = HashMap::new();
            let mark = |id: &ContainerId| handover::enter_running(&running, &mut marks, id);
            let opening = Sandbox::open_with(config.sandbox.clone(), rootfs(&image), sandbox, mark).await;
            let (sandbox, inherited) = opening.map_err(sandbox_exit)?;
            let cells = inherited.parked.into_iter().filter_map(|cell| {
                let mark = marks.remove(cell.container())?;
                Some((cell, mark))
            });
            (sandbox, Some((rest, cells.collect())))
        }
    };
    let app = Arc::new(App {
        tenants: Arc::new(Tenants::new(config.limits.clone(), store.clone())),
        store,
        sandbox,
        owners: Owners::default(),
        running,
        parked: ParkedCells::default(),
        outcomes: Outcomes::default(),
        calling: CallingCells::default(),
        continuations: Continuations::default(),
        batches: Batches::default(),
        router,
        guard: Guard::new(config.guard_rules.clone()),
        gate: Gate::default(),
        serving: config.serving,
        tool_limits: ToolLimits {
            cell_wall_s_max: config.serving.cell_wall.as_secs(),
            invocation_wall_s_max: config.serving.invocation_wall.as_secs(),
            output_bytes_max: config.sandbox.output_bytes_max,
            memory_bytes_max: config.sandbox.memory_bytes_max,
            disk_bytes_max: config.sandbox.disk_bytes_max,
        },
        tool_texts: config.tool_texts.clone(),
        changes: Changes::default(),
        image_digest: image.digest().to_string(),
        container_idle: config.sandbox.container_idle,
        call_wait: Duration::from_secs(config.sandbox.tool_answer_wait_s_max),
        started_at,
        container_life: config.sandbox.container_life,
        checkpoint_bytes_max: config.sandbox.disk_bytes_max,
        stopping: CancellationToken::new(),
        time_up: CancellationToken::new(),
        turns: TaskTracker::new(),
    });
    if let Some((rest, cells)) = inherited {
        rest.settle(&app, cells)?;
    }
    Ok(Organs { app, _image: image })
}

/// Makes the configured image appear as a directory.
pub async fn mount(config: &Config) -> Result<Mounted, Exit> {
    let images = ImageStore::open(&config.cache_dir).map_err(image_exit)?;
    let image = images.resolve(&config.image).map_err(image_exit)?;
    images.mount(&image, &Monitor::silent()).await.map_err(image_exit)
}

/// A mounted image as the sandbox wants it named.
pub fn rootfs(image: &Mounted) -> Rootfs {
    Rootfs { path: image.path().to_path_buf(), owner_base: image.owner_base(), digest: image.digest().to_string() }
}

/// An image that cannot be had, as the end of a command.
pub fn image_exit(error: ImageError) -> Exit {
    match error.class() {
        FailureClass::Machine => Exit::cannot(error.to_string()),
        FailureClass::Request | FailureClass::Interrupted | FailureClass::Host => Exit::failed(error.to_string()),
    }
}

fn store_exit(error: StoreError) -> Exit {
    Exit::failed(error.to_string())
}

/// A sandbox that cannot be opened, as the end of a command.
pub fn sandbox_exit(error: SandboxError) -> Exit {
    Exit::cannot(format!("{error}\n  `belljar doctor` tells what this machine allows"))
}

/// Removes what has expired, for as long as the server runs.
pub async fn sweep(app: Shared) {
    let limits = [app.serving.container_checkpoint, app.container_idle, app.container_life, app.call_wait];
    let mut ticks = tokio::time::interval(sweep_interval(&limits));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for id in app.parked.sweep(clock::instant_now()) {
            tracing::info!(container = %id, "code waited too long for results and was let go");
        }
        app.continuations.sweep(clock::instant_now());
        app.calling.sweep(clock::instant_now());
        app.outcomes.sweep(clock::instant_now());
        checkpoints::put_idle_away(&app).await;
        for id in app.sandbox.sweep(clock::system_now()).await {
            tracing::info!(container = %id, "container ended by age or disuse");
        }
        if let Err(error) = forget_expired(&app).await {
            tracing::error!(%error, "what has expired could not be removed");
        }
    }
}

fn sweep_interval(limits: &[Duration]) -> Duration {
    let shortest = limits.iter().min().copied().unwrap_or(SWEEP_INTERVAL_MAX);
    (shortest / 4).clamp(SWEEP_INTERVAL_MIN, SWEEP_INTERVAL_MAX)
}

/// Removes containers whose time is over, and files whose content is.
async fn forget_expired(app: &App) -> Result<(), StoreError> {
    for record in app.store.expired_containers(EXPIRED_AT_ONCE).await? {
        app.sandbox.remove(&record.id).await;
        checkpoints::named::forget(app, &record.workspace, &record.id).await?;
        tracing::info!(container = %record.id, "container expired");
    }
    app.store.sweep().await?;
    app.store.archive_batches().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_limits_are_looked_at_more_often() {
        let seconds = |limits: &[u64]| {
            let limits: Vec<_> = limits.iter().map(|limit| Duration::from_secs(*limit)).collect();
            sweep_interval(&limits).as_millis()
        };
        assert_eq!(seconds(&[300, 3600, 2_592_000, 270]), 30_000);
        assert_eq!(seconds(&[300, 20, 3600]), 5_000);
        assert_eq!(seconds(&[0, 300]), 250);
    }
}
