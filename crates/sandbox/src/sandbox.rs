//! The registry of containers: made, leased, listed, expired, closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use belljar_ids::ContainerId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::cell::{self, Cell, Code};
use crate::config::{Rootfs, SandboxConfig};
use crate::error::{DeathReason, LeaseError, SandboxError};
use crate::guest::Guest;
use crate::host::{Host, SharedHost, random_name};
use crate::keeper::{self, Container};
use crate::lease::Lease;
use crate::outcome::CellOutcome;

/// All containers of one server. Clones share them; when the last is dropped, all are killed, but only
/// [`Sandbox::close`] waits for their ends.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    host: SharedHost,
    registry: Mutex<Registry>,
    keepers: TaskTracker,
    /// Parent of every container's own.
    stop: CancellationToken,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Default)]
struct Registry {
    entries: HashMap<ContainerId, Entry>,
    closed: bool,
}

enum Entry {
    Starting,
    Started(Arc<Container>),
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
}

/// What can be done with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It can be leased.
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
    /// Leased.
    pub leased: usize,
    /// Dead, kept to say so.
    pub dead: usize,
}

impl Container {
    fn state(&self) -> ContainerState {
        if self.death().is_some() {
            ContainerState::Dead
        } else if self.hold.available_permits() == 0 {
            ContainerState::Leased
        } else {
            ContainerState::Ready
        }
    }

    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            created_at: self.created_at,
            last_used_at: self.last_used_at(),
            state: self.state(),
        }
    }
}

impl Sandbox {
    /// Proves that one container can start and run a command, then is open for business.
    ///
    /// Raises this process's soft limit of open files to its hard limit: each container takes a few, each cell's output
    /// files more.
    ///
    /// # Errors
    /// [`SandboxError::Host`], [`SandboxError::Launch`] or [`SandboxError::Io`] when this machine cannot; nothing of the
    /// attempt is left.
    pub async fn open(config: SandboxConfig, rootfs: Rootfs) -> Result<Sandbox, SandboxError> {
        let digest = rootfs.digest.clone();
        let host = tokio::task::spawn_blocking(move || Host::prepare(config, &rootfs))
            .await
            .map_err(|error| SandboxError::Host(error.to_string()))??;
        let host = Arc::new(host);
        prove(&host).await?;
        tracing::info!(%digest, "containers can be started");
        let shared =
            Shared { host, registry: Mutex::default(), keepers: TaskTracker::new(), stop: CancellationToken::new() };
        Ok(Sandbox { shared: Arc::new(shared) })
    }

    /// Starts a container under `id`. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`SandboxError::Full`], [`SandboxError::Exists`], [`SandboxError::Closed`], or what kept it from starting.
    pub async fn create(&self, id: ContainerId) -> Result<ContainerStatus, SandboxError> {
        let place = self.shared.reserve(&id)?;
        let (shared, named) = (Arc::clone(&self.shared), id.clone());
        let starting = self.shared.keepers.spawn(async move {
            let stop = shared.stop.child_token();
            let host = Arc::clone(&shared.host);
            let started = keeper::start(host, named.clone(), stop, &shared.keepers).await;
            let entered = shared.enter(&named, started);
            drop(place);
            entered
        });
        match starting.await {
            Ok(entered) => entered,
            Err(error) => {
                let failed = SandboxError::Launch(error.to_string());
                self.shared.enter(&id, Err(failed))
            }
        }
    }

    /// An exclusive hold on a container; waits at most `wait` for another holder.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lease(&self, id: &ContainerId, wait: Duration) -> Result<Lease, LeaseError> {
        let container = self.shared.find(id).ok_or_else(|| LeaseError::Unknown(id.clone()))?;
        let holding = Arc::clone(&container.hold).acquire_owned();
        match tokio::time::timeout(wait, holding).await {
            Err(_elapsed) => Err(LeaseError::Busy(id.clone())),
            Ok(Err(_closed)) => match container.death() {
                Some(DeathReason::Removed) | None => Err(LeaseError::Unknown(id.clone())),
                Some(reason) => Err(LeaseError::Dead { id: id.clone(), reason: reason.clone() }),
            },
            Ok(Ok(hold)) => {
                let host = Arc::clone(&self.shared.host);
                container.used_at((host.config.clock)());
                Ok(Lease { container, host, _hold: hold })
            }
        }
    }

    /// What is known of a container.
    #[must_use]
    pub fn status(&self, id: &ContainerId) -> Option<ContainerStatus> {
        self.shared.find(id).map(|container| container.status())
    }

    /// All containers, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<ContainerStatus> {
        let mut all: Vec<_> = self.shared.started().iter().map(|container| container.status()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Removes a container, in use or not, and waits until nothing of it is left; false when there is none.
    pub async fn remove(&self, id: &ContainerId) -> bool {
        let Some(container) = self.shared.take(id) else {
            return false;
        };
        container.stop.cancel();
        container.gone.cancelled().await;
        true
    }

    /// Removes a container if nobody holds it, and waits until nothing of it is left; false when somebody does, or when
    /// there is none.
    pub async fn remove_idle(&self, id: &ContainerId) -> bool {
        let Some(container) = self.shared.find(id) else {
            return false;
        };
        // Held until it is gone, so that nobody gets a lease on it.
        let hold = container.hold.try_acquire();
        hold.is_ok() && self.remove(id).await
    }

    /// Removes what is idle for too long or too old at `now`, unless it is leased; returns what was removed.
    pub async fn sweep(&self, now: SystemTime) -> Vec<ContainerId> {
        let config = &self.shared.host.config;
        let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
        let mut removed = Vec::new();
        for container in self.shared.started() {
            // Held while it is looked at, so that nobody gets a lease on what is about to go. A dead one has no hold.
            let hold = container.hold.try_acquire();
            let leased = hold.is_err() && container.death().is_none();
            let expired = since(container.last_used_at()) >= config.container_idle
                || since(container.created_at) >= config.container_life;
            if expired && !leased && self.remove(&container.id).await {
                removed.push(container.id.clone());
            }
        }
        removed
    }

    /// Kills every container and waits until processes, mounts and cgroups are gone. Other clones can only be told
    /// [`SandboxError::Closed`] from here on.
    pub async fn close(self) {
        self.shared.lock().closed = true;
        self.shared.stop.cancel();
        self.shared.keepers.close();
        self.shared.keepers.wait().await;
        self.shared.lock().entries.clear();
    }

    /// How many containers there are.
    #[must_use]
    pub fn counts(&self) -> SandboxCounts {
        let mut counts = SandboxCounts::default();
        for entry in self.shared.lock().entries.values() {
            let count = match entry {
                Entry::Starting => &mut counts.starting,
                Entry::Started(container) => match container.state() {
                    ContainerState::Ready => &mut counts.ready,
                    ContainerState::Leased => &mut counts.leased,
                    ContainerState::Dead => &mut counts.dead,
                },
            };
            *count += 1;
        }
        counts
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every change of the registry is a single call on the map: a panic elsewhere leaves it whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a container that is about to start. Whoever closes the sandbox waits for the
    /// token's end.
    fn reserve(&self, id: &ContainerId) -> Result<TaskTrackerToken, SandboxError> {
        let mut registry = self.lock();
        if registry.closed {
            return Err(SandboxError::Closed);
        }
        if registry.entries.contains_key(id) {
            return Err(SandboxError::Exists(id.clone()));
        }
        let containers_max = self.host.config.containers_max;
        registry.forget_dead_beyond(containers_max);
        if registry.entries.values().filter(|entry| entry.takes_room()).count() >= containers_max {
            return Err(SandboxError::Full { containers_max });
        }
        registry.entries.insert(id.clone(), Entry::Starting);
        Ok(self.keepers.token())
    }

    /// Turns the place into a container, or gives it up.
    fn enter(
        &self,
        id: &ContainerId,
        started: Result<Arc<Container>, SandboxError>,
    ) -> Result<ContainerStatus, SandboxError> {
        let mut registry = self.lock();
        match started {
            Ok(container) => {
                let status = container.status();
                registry.entries.insert(id.clone(), Entry::Started(container));
                Ok(status)
            }
            Err(error) => {
                registry.entries.remove(id);
                Err(error)
            }
        }
    }

    fn find(&self, id: &ContainerId) -> Option<Arc<Container>> {
        match self.lock().entries.get(id) {
            Some(Entry::Started(container)) => Some(Arc::clone(container)),
            Some(Entry::Starting) | None => None,
        }
    }

    fn take(&self, id: &ContainerId) -> Option<Arc<Container>> {
        let mut registry = self.lock();
        match registry.entries.remove(id) {
            Some(Entry::Started(container)) => Some(container),
            Some(Entry::Starting) => {
                registry.entries.insert(id.clone(), Entry::Starting);
                None
            }
            None => None,
        }
    }

    fn started(&self) -> Vec<Arc<Container>> {
        let registry = self.lock();
        let started = registry.entries.values().filter_map(|entry| match entry {
            Entry::Starting => None,
            Entry::Started(container) => Some(Arc::clone(container)),
        });
        started.collect()
    }
}

impl Entry {
    /// Whether something of it is on the host.
    fn takes_room(&self) -> bool {
        match self {
            Entry::Starting => true,
            Entry::Started(container) => !container.gone.is_cancelled(),
        }
    }
}

impl Registry {
    /// Keeps the memory of dead containers bounded: the longest unused are forgotten first.
    fn forget_dead_beyond(&mut self, dead_max: usize) {
        let mut dead: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(id, entry)| match entry {
                Entry::Started(container) if !entry.takes_room() => Some((container.last_used_at(), id.clone())),
                Entry::Started(_) | Entry::Starting => None,
            })
            .collect();
        let surplus = dead.len().saturating_sub(dead_max);
        dead.sort_unstable();
        for (_, id) in dead.into_iter().take(surplus) {
            self.entries.remove(&id);
        }
    }
}

/// Starts a container, runs a command that does nothing, and clears it all away.
async fn prove(host: &SharedHost) -> Result<(), SandboxError> {
    let name = format!("proof_{}", random_name()?);
    let mut guest = Guest::start(host, name, CancellationToken::new()).await?;
    let cell = Cell {
        code: Code::Bash(":".to_owned()),
        wall: Duration::from_secs(host.config.cell_wall_s_max),
        cancel: CancellationToken::new(),
        live: None,
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
