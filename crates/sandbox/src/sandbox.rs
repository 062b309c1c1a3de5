//! What the rest of the server calls: containers made, leased, listed, expired, closed.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use belljar_ids::ContainerId;
use belljar_jail::Realm;
use belljar_jail::cgroup::Limits;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cell::{self, Cell, Code};
use crate::config::{Rootfs, SandboxConfig};
use crate::container::{Container, NotHeld};
use crate::error::{DeathReason, LeaseError, SandboxError};
use crate::guest::Guest;
use crate::host::{Host, SharedHost, random_name};
use crate::image::Image;
use crate::lease::Lease;
use crate::maker::{Made, Maker, Purpose};
use crate::options::{ContainerOptions, Isolation, Language};
use crate::outcome::CellOutcome;
use crate::pool::{self, Pool};
use crate::registry::Registry;
use crate::state::State;
use crate::zygote::{Attendance, WarmthStatus};

/// Looking for what can be frozen costs something too.
const FREEZE_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// All containers of one server. Clones share them; when the last is dropped, all are killed, but only
/// [`Sandbox::close`] waits for their ends.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) maker: Arc<Maker>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) registry: Registry,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.maker.stop.cancel();
        self.maker.host.image().stop.cancel();
    }
}

/// One container, as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its name.
    pub id: ContainerId,
    /// When it was made.
    pub created_at: SystemTime,
    /// When a lease on it was last given or returned.
    pub last_used_at: SystemTime,
    /// What can be done with it.
    pub state: ContainerState,
    /// What stands between it and the host.
    pub isolation: Isolation,
}

/// What can be done with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It can be leased; it may be frozen until then.
    Ready,
    /// Somebody holds it.
    Leased,
    /// It died and is kept only to say so.
    Dead,
}

/// How many containers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SandboxCounts {
    /// Being started.
    pub starting: usize,
    /// Ready for a lease.
    pub ready: usize,
    /// How many of those are frozen.
    pub frozen: usize,
    /// Leased.
    pub leased: usize,
    /// Dead, kept to say so.
    pub dead: usize,
    /// Made ahead of need, and nobody's yet.
    pub pooled: usize,
}

impl ContainerState {
    /// What of a container's life others may see; none while it is being made.
    fn of(state: State) -> Option<Self> {
        match state {
            State::Starting | State::Pooled => None,
            State::Ready | State::Frozen => Some(Self::Ready),
            State::Leased => Some(Self::Leased),
            State::Dead | State::Gone => Some(Self::Dead),
        }
    }
}

impl Container {
    /// As others may see it.
    pub fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            created_at: self.created_at,
            last_used_at: self.last_used_at(),
            isolation: self.isolation,
            // It was claimed when it got its name, so it is past its making.
            state: ContainerState::of(self.life.state()).unwrap_or(ContainerState::Ready),
        }
    }
}

impl Sandbox {
    /// Proves that one container can start and run a command, then is open for business. The pool is filled meanwhile;
    /// nobody waits for that.
    ///
    /// Raises this process's soft limit of open files to its hard limit: each container takes a few, each cell's output
    /// files more.
    ///
    /// # Errors
    /// [`SandboxError::Host`], [`SandboxError::Launch`] or [`SandboxError::Io`] when this machine cannot; nothing of the
    /// attempt is left.
    pub async fn open(config: SandboxConfig, rootfs: Rootfs) -> Result<Sandbox, SandboxError> {
        Self::open_in(config, rootfs, None).await
    }

    /// As [`Sandbox::open`], in a realm that there is already, where one is given.
    pub(crate) async fn open_in(
        config: SandboxConfig,
        rootfs: Rootfs,
        realm: Option<Realm>,
    ) -> Result<Sandbox, SandboxError> {
        let digest = rootfs.digest.clone();
        let pool = Arc::new(Pool::new(config.pool_containers));
        let preparing = tokio::task::spawn_blocking(move || Host::prepare(config, rootfs, realm));
        let prepared = preparing.await.map_err(|error| SandboxError::Host(error.to_string()))?;
        let (host, attendances) = prepared?;
        let host = Arc::new(host);
        prove(&host, host.image()).await?;
        tracing::info!(%digest, "containers can be started");
        let registry = Registry::new(host.config.containers_max);
        let shared = Arc::new(Shared { maker: Arc::new(Maker::new(host)), pool, registry });
        shared.keep_house(attendances);
        Ok(Sandbox { shared })
    }

    /// Starts a container for commands of bash under `id`, with the sandbox's own limits.
    ///
    /// # Errors
    /// As [`Sandbox::create_with`].
    pub async fn create(&self, id: ContainerId) -> Result<ContainerStatus, SandboxError> {
        self.create_with(id, ContainerOptions::default()).await
    }

    /// Starts a container under `id`, or takes one from the pool. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`SandboxError::LimitRefused`], [`SandboxError::Full`], [`SandboxError::Exists`], [`SandboxError::Closed`], or
    /// what kept it from starting.
    pub async fn create_with(
        &self,
        id: ContainerId,
        options: ContainerOptions,
    ) -> Result<ContainerStatus, SandboxError> {
        let Shared { maker, pool, registry } = &*self.shared;
        let limits = options.limits.resolve(&maker.host.config)?;
        let language = options.ready_for;
        let isolation = options.isolation.unwrap_or(maker.host.config.isolation);
        // Whoever closes the sandbox waits for the token's end.
        let token = maker.keepers.token();
        registry.reserve(&id)?;
        if maker.pools(isolation, &limits)
            && let Some(container) = pool.claim(maker, &id, language, limits)
        {
            return Ok(registry.enter(container));
        }
        let (shared, named) = (Arc::clone(&self.shared), id.clone());
        let starting = maker.keepers.spawn(async move {
            let entered = shared.start(&named, isolation, language, limits).await;
            drop(token);
            entered
        });
        starting.await.unwrap_or_else(|error| {
            registry.give_up(&id);
            Err(SandboxError::Launch(error.to_string()))
        })
    }

    /// Makes new containers from another image from here on, once it is proved that one can start from it. Those that
    /// live stay as they are; those of the pool are made anew.
    ///
    /// # Errors
    /// As [`Sandbox::open`]; the sandbox goes on with the image it has then.
    pub async fn change_image(&self, rootfs: Rootfs) -> Result<(), SandboxError> {
        let Shared { maker, pool, .. } = &*self.shared;
        let digest = rootfs.digest.clone();
        let host = Arc::clone(&maker.host);
        let preparing = tokio::task::spawn_blocking(move || host.prepare_image(rootfs));
        let prepared = preparing.await.map_err(|error| SandboxError::Host(error.to_string()))?;
        let (image, attendances) = prepared?;
        let image = Arc::new(image);
        prove(&maker.host, Arc::clone(&image)).await?;
        let before = maker.host.change_image(image);
        pool.drain();
        before.stop.cancel();
        before.close_nurseries().await;
        self.shared.attend(attendances);
        tracing::info!(%digest, "new containers are made from another image");
        Ok(())
    }

    /// An exclusive hold on a container; waits at most `wait` for another holder. One that was frozen runs again.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lease(&self, id: &ContainerId, wait: Duration) -> Result<Lease, LeaseError> {
        let container = self.shared.registry.find(id).ok_or_else(|| LeaseError::Unknown(id.clone()))?;
        match Arc::clone(&container).hold(wait).await {
            Err(NotHeld::Busy) => Err(LeaseError::Busy(id.clone())),
            Err(NotHeld::Over) => match container.death() {
                Some(DeathReason::Removed) | None => Err(LeaseError::Unknown(id.clone())),
                Some(reason) => Err(LeaseError::Dead { id: id.clone(), reason: reason.clone() }),
            },
            Ok(hold) => {
                let host = Arc::clone(&self.shared.maker.host);
                container.used_at((host.config.clock)());
                Ok(Lease { container, host, _hold: hold })
            }
        }
    }

    /// What is known of a container.
    #[must_use]
    pub fn status(&self, id: &ContainerId) -> Option<ContainerStatus> {
        self.shared.registry.find(id).map(|container| container.status())
    }

    /// All containers, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<ContainerStatus> {
        let mut all: Vec<_> = self.shared.registry.started().iter().map(|container| container.status()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Removes a container, in use or not, and waits until nothing of it is left; false when there is none.
    pub async fn remove(&self, id: &ContainerId) -> bool {
        let Some(container) = self.shared.registry.take(id) else {
            return false;
        };
        container.stop.cancel();
        container.life.gone().await;
        true
    }

    /// Removes a container if nobody holds it, and waits until nothing of it is left; false when somebody does, or when
    /// there is none.
    pub async fn remove_idle(&self, id: &ContainerId) -> bool {
        match self.shared.registry.find(id) {
            // From here on nobody gets a lease on it.
            Some(container) if container.retire() => self.remove(id).await,
            Some(_) | None => false,
        }
    }

    /// Removes what is idle for too long or too old at `now`, unless it is leased; returns what was removed.
    pub async fn sweep(&self, now: SystemTime) -> Vec<ContainerId> {
        let config = &self.shared.maker.host.config;
        let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
        let expired = |container: &Container| {
            since(container.last_used_at()) >= config.container_idle
                || since(container.created_at) >= config.container_life
        };
        let mut ended = Vec::new();
        for container in self.shared.registry.started() {
            if expired(&container) && (container.retire() || container.life.state().is_over()) {
                ended.push(container.id.clone());
            }
        }
        let mut removed = Vec::new();
        for id in ended {
            if self.remove(&id).await {
                removed.push(id);
            }
        }
        removed
    }

    /// Kills every container and waits until processes, mounts and cgroups are gone. Other clones can only be told
    /// [`SandboxError::Closed`] from here on.
    pub async fn close(self) {
        let Shared { maker, registry, .. } = &*self.shared;
        registry.close();
        maker.close().await;
        registry.clear();
    }

    /// How REPLs can be had, by the zygotes of the present image.
    #[must_use]
    pub fn warmth_status(&self) -> WarmthStatus {
        self.shared.maker.host.image().zygotes().status()
    }

    /// How many containers there are.
    #[must_use]
    pub fn counts(&self) -> SandboxCounts {
        let mut counts = SandboxCounts { pooled: self.shared.pool.count(), ..SandboxCounts::default() };
        for state in self.shared.registry.states() {
            match state {
                State::Starting | State::Pooled => counts.starting += 1,
                State::Ready => counts.ready += 1,
                State::Frozen => {
                    counts.ready += 1;
                    counts.frozen += 1;
                }
                State::Leased => counts.leased += 1,
                State::Dead | State::Gone => counts.dead += 1,
            }
        }
        counts
    }
}

impl Shared {
    /// Starts the tasks that nobody waits for. None of them keeps the sandbox open.
    fn keep_house(self: &Arc<Self>, attendances: [Attendance; 2]) {
        let Self { maker, pool, .. } = &**self;
        self.attend(attendances);
        maker.house.spawn(pool::fill(Arc::clone(pool), Arc::clone(maker)));
        let (stop, unused_max) = (maker.house_stop.clone(), maker.host.config.idle_freeze);
        maker.house.spawn(freeze_unused(Arc::downgrade(self), stop, unused_max));
    }

    /// Starts the tasks behind the present image's zygotes.
    fn attend(&self, attendances: [Attendance; 2]) {
        let Self { maker, pool, .. } = self;
        let image = maker.host.image();
        maker.attend(&image, attendances);
        maker.keepers.spawn(pool::wake_when_warm(Arc::clone(pool), Arc::clone(maker), image));
    }

    /// Starts the container for which a place is reserved, and enters it there.
    async fn start(
        &self,
        id: &ContainerId,
        isolation: Isolation,
        language: Language,
        limits: Limits,
    ) -> Result<ContainerStatus, SandboxError> {
        let _awaiting = self.maker.awaiting();
        match self.made(id, isolation, language, limits).await {
            Ok(made) => Ok(self.registry.enter(self.maker.entrust(made, id.clone()))),
            Err(error) => {
                self.registry.give_up(id);
                Err(error)
            }
        }
    }

    async fn made(
        &self,
        id: &ContainerId,
        isolation: Isolation,
        language: Language,
        limits: Limits,
    ) -> Result<Made, SandboxError> {
        let Self { maker, pool, .. } = self;
        let purpose = Purpose::For(id.clone());
        if language == Language::Python
            && maker.pools(isolation, &limits)
            && let Some(made) = pool.take(maker, Language::Bash, limits).await
        {
            return maker.ready(made, language, &purpose).await;
        }
        maker.make(purpose, isolation, language, limits).await
    }
}

/// Freezes what nobody has used for `unused_max`, until the sandbox stops.
async fn freeze_unused(shared: Weak<Shared>, stop: CancellationToken, unused_max: Duration) {
    // Looked at four times in that time, a container is frozen at most a quarter of it late.
    let mut ticks = tokio::time::interval((unused_max / 4).max(FREEZE_INTERVAL_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(shared) = shared.upgrade() else { return };
        let freezing = tokio::task::spawn_blocking(move || freeze_all(&shared, unused_max));
        match freezing.await {
            Ok(Freezing::GoesOn) => {}
            Ok(Freezing::Impossible) => return,
            Err(error) => tracing::error!(%error, "what is unused was not frozen"),
        }
    }
}

enum Freezing {
    GoesOn,
    Impossible,
}

fn freeze_all(shared: &Shared, unused_max: Duration) -> Freezing {
    let now = (shared.maker.host.config.clock)();
    for container in shared.registry.started() {
        match container.freeze(now, unused_max) {
            Ok(()) => {}
            Err(error) if error.source.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(%error, "idle containers are not frozen");
                return Freezing::Impossible;
            }
            Err(error) => tracing::warn!(container = %container.id, %error, "could not freeze a container"),
        }
    }
    Freezing::GoesOn
}

/// Starts a container, runs a command that does nothing, and clears it all away.
async fn prove(host: &SharedHost, image: Arc<Image>) -> Result<(), SandboxError> {
    let name = format!("proof_{}", random_name()?);
    let mut guest =
        Guest::start(host, image, name, host.config.isolation, host.limits(), CancellationToken::new(), None).await?;
    let cell = Cell {
        code: Code::Bash(":".to_owned()),
        wall: Duration::from_secs(host.config.cell_wall_s_max),
        cancel: CancellationToken::new(),
        live: None,
        line: None,
    };
    let done = cell::run(&mut guest, host, cell, std::future::pending()).await;
    let cleared = tokio::task::spawn_blocking(move || drop(guest)).await;
    cleared.map_err(|error| SandboxError::Host(error.to_string()))?;
    done.survives.map_err(|reason| SandboxError::Host(reason.to_string()))?;
    match done.answer? {
        CellOutcome::Ended(output) if output.return_code == 0 => Ok(()),
        other => {
            let said = String::from_utf8_lossy(&other.output().stderr).into_owned();
            Err(SandboxError::Host(format!("the first container cannot run a shell: {}", said.trim_end())))
        }
    }
}
