//! Configuration: one TOML file, a few environment variables, and the command line, in rising order of weight.
//!
//! Lowered once: [`file::ConfigFile`] is what was written, [`Config`] what will be done. The environment is read here alone.

mod cloud;
pub mod environment;
pub mod file;
pub mod keys;
mod limits;
mod store;
mod tool_texts;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use belljar_guard::Rule;
use belljar_model::UpstreamConfig;
use belljar_sandbox::SandboxConfig;
use belljar_turn::ToolTexts;

use environment::Environment;
use file::ConfigFile;
pub use store::StoreChoice;

use crate::tenants::limits::AllLimits;

/// A configuration that cannot be used; the text names the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything the server was told, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Where images are kept; outside the data directory, because it can be made anew.
    pub cache_dir: PathBuf,
    /// The image containers start from: a name or a digest.
    pub image: String,
    /// Models, first match wins.
    pub upstreams: Vec<UpstreamConfig>,
    /// The words in which models are told of the tool, by the upstream's name, where they are configured.
    pub tool_texts: BTreeMap<String, ToolTexts>,
    /// Limits of containers.
    pub sandbox: SandboxConfig,
    /// Where metadata and contents are kept.
    pub store: StoreChoice,
    /// Limits of the loop and of requests.
    pub serving: Serving,
    /// What workspaces may hold and use.
    pub limits: AllLimits,
    /// What may not run.
    pub guard_rules: Vec<Rule>,
    /// True when nothing at all was configured.
    pub is_default: bool,
}

/// Limits that are the server's own.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Wall time of one Python cell.
    pub cell_wall: Duration,
    /// Wall time of one sub-tool invocation.
    pub invocation_wall: Duration,
    /// How long a container may be unused before it is put on disk.
    pub container_checkpoint: Duration,
    /// Samplings in one turn before it pauses.
    pub samplings_max: u32,
    /// Turns of batches that run at once.
    pub batch_turns_max: usize,
    /// Samplings in one turn of a batch before it pauses.
    pub batch_samplings_max: u32,
    /// Bytes of a Messages request.
    pub request_bytes_max: usize,
    /// Bytes of one file.
    pub file_bytes_max: u64,
    /// Bytes of all files of one workspace.
    pub workspace_bytes_max: u64,
    /// Whether uploads can be downloaded, as what code made can.
    pub uploads_downloadable: bool,
    /// Connections served at once.
    pub connections_max: usize,
    /// Silence in a stream after which a ping is sent.
    pub ping_interval: Duration,
    /// How long a second turn waits for a container that is in use.
    pub lease_wait: Duration,
    /// How long running turns may take to end when the server is asked to stop; then, how long keeping containers may.
    pub shutdown_wait: Duration,
}

/// What the command line says; it outweighs the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads and resolves the configuration.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key (with the nearest known one), a value out of range, a missing environment
    /// variable for a key.
    pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Self, ConfigError> {
        let file = match &overrides.file {
            Some(path) => ConfigFile::read(path)?,
            None => match environment.config_file() {
                Some(path) => ConfigFile::read(&path)?,
                None => ConfigFile::default(),
            },
        };
        let is_default = file.is_empty();
        let data_dir = first([&overrides.data_dir, &file.data_dir]).unwrap_or_else(|| environment.default_data_dir());
        let listen = overrides.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN);
        let upstreams = file.upstreams(environment, &data_dir)?;
        Ok(Self {
            listen,
            cache_dir: environment.cache_dir(),
            image: file.sandbox.image.clone(),
            upstreams,
            tool_texts: file.tool_texts()?,
            sandbox: file.sandbox.limits(environment)?,
            store: file.store.resolve(environment)?,
            serving: file.serving(),
            limits: file.all_limits()?,
            guard_rules: file.guard_rules()?,
            is_default,
            data_dir,
        })
    }
}

/// `127.0.0.1:8484`.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8484);

fn first<const N: usize>(choices: [&Option<PathBuf>; N]) -> Option<PathBuf> {
    choices.into_iter().flatten().next().map(|path| Path::to_path_buf(path))
}
