//! The registry of containers: made, leased, listed, expired, closed.

use std::time::{Duration, SystemTime};

use belljar_ids::ContainerId;

use crate::config::{Rootfs, SandboxConfig};
use crate::error::{LeaseError, SandboxError};
use crate::lease::Lease;

/// All containers of one server. Clones share them.
#[derive(Clone)]
pub struct Sandbox;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Sandbox {
    /// Proves that one container can start and run a command, then is open for business.
    pub async fn open(config: SandboxConfig, rootfs: Rootfs) -> Result<Sandbox, SandboxError>;
    /// Starts a container under `id`.
    pub async fn create(&self, id: ContainerId) -> Result<ContainerStatus, SandboxError>;
    /// An exclusive hold on a container; waits at most `wait` for another holder.
    pub async fn lease(&self, id: &ContainerId, wait: Duration) -> Result<Lease, LeaseError>;
    pub fn status(&self, id: &ContainerId) -> Option<ContainerStatus>;
    pub fn list(&self) -> Vec<ContainerStatus>;
    pub async fn remove(&self, id: &ContainerId) -> bool;
    pub async fn sweep(&self, now: SystemTime) -> Vec<ContainerId>;
    pub async fn close(self);
    pub fn counts(&self) -> SandboxCounts;
}
