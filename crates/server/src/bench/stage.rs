//! What all rows share: the configuration, the image, the peers, how much is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use belljar_model::{UpstreamConfig, UpstreamKind};
use belljar_sandbox::{Rootfs, Sandbox, SandboxConfig};

use super::Failure;
use super::jupyter::Jupyter;
use super::ours;
use super::peer::{Found, Peer, Places};
use crate::cell::Language;
use crate::config::Config;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As promised.
    Full,
    /// A tenth of the rounds and of the containers: to see that it works.
    Quick,
}

impl Scale {
    /// How many of `full`.
    pub fn of(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full.div_ceil(10),
        }
    }
}

/// See the module's head.
pub struct Stage {
    config: Config,
    rootfs: Rootfs,
    /// How much.
    pub scale: Scale,
    /// Where peers find what they need.
    pub places: Places,
    /// What was found of them.
    pub peers: Vec<Found>,
}

/// What a row needs of a sandbox beyond the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Containers at once.
    pub containers: usize,
    /// Containers kept ready for bash, and as many for Python.
    pub pooled: usize,
    /// What its containers run.
    pub language: Language,
}

impl Stage {
    /// Looks for the peers.
    pub fn set(config: Config, rootfs: Rootfs, scale: Scale, places: Places) -> Result<Self, Failure> {
        places.write_bundles()?;
        let peers = Peer::ALL.iter().map(|peer| peer.find(&places)).collect();
        Ok(Self { config, rootfs, scale, places, peers })
    }

    /// Whether a peer is on this host.
    pub fn has(&self, peer: Peer) -> bool {
        self.peers.iter().any(|found| found.name == peer.name() && found.found.is_ok())
    }

    /// Opens a sandbox for one row.
    pub async fn sandbox(&self, needs: Needs) -> Result<Sandbox, Failure> {
        let config = SandboxConfig {
            containers_max: needs.containers,
            pool_containers: needs.pooled,
            ..self.config.sandbox.clone()
        };
        let sandbox = Sandbox::open(config, self.rootfs.clone()).await?;
        ours::await_up(&sandbox, needs).await?;
        Ok(sandbox)
    }

    /// Opens a sandbox without a pool and with other limits of each container.
    pub async fn sandbox_with(&self, change: impl FnOnce(&mut SandboxConfig)) -> Result<Sandbox, Failure> {
        let mut config = SandboxConfig { pool_containers: 0, ..self.config.sandbox.clone() };
        change(&mut config);
        Ok(Sandbox::open(config, self.rootfs.clone()).await?)
    }

    /// The configuration of a server on a free port of loopback, without keys and without a pool, that keeps its state in
    /// `folder` and plays the scripts of `scripts`.
    pub fn server(&self, folder: &Path, scripts: &Path) -> Config {
        let mut config = self.config.clone();
        config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.data_dir = folder.to_path_buf();
        let kind = UpstreamKind::Scripted { scripts_dir: Some(scripts.to_path_buf()) };
        config.upstreams = vec![UpstreamConfig::new("bench", kind)];
        config.guard_rules.clear();
        config.sandbox.pool_containers = 0;
        config
    }

    /// Starts a Jupyter kernel.
    pub fn jupyter(&self) -> Result<Jupyter, Failure> {
        Jupyter::start(&self.places)
    }
}
