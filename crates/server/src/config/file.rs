//! The configuration file as it was written.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use belljar_guard::Rule;
use belljar_model::UpstreamConfig;
use belljar_sandbox::{Isolation, LimitsNeed, SandboxConfig, find_runsc};
use belljar_turn::ToolTexts;
use serde::Deserialize;

use super::environment::Environment;
use super::limits::{self, WorkspaceTable};
use super::store::StoreTable;
use super::upstream::{UpstreamTable, default_upstream};
use super::{ConfigError, Serving, keys};
use crate::tenants::limits::{AllLimits, Limits};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// `listen`.
    pub listen: Option<SocketAddr>,
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `[[upstream]]`.
    pub upstream: Vec<UpstreamTable>,
    /// `[sandbox]`.
    pub sandbox: SandboxTable,
    /// `[serving]`.
    pub serving: ServingTable,
    /// `[limits]`.
    pub limits: Limits,
    /// `[[workspace]]`.
    pub workspace: Vec<WorkspaceTable>,
    /// `[store]`.
    pub store: StoreTable,
    /// `[guard]`.
    pub guard: GuardTable,
    #[serde(skip)]
    written: bool,
}

/// `[sandbox]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each key is documented in `keys`")]
pub struct SandboxTable {
    pub image: String,
    pub cpus: f64,
    pub memory_bytes_max: u64,
    pub disk_bytes_max: u64,
    pub processes_max: u32,
    pub cell_wall_s_max: u64,
    pub invocation_wall_s_max: u64,
    pub tool_answer_wait_s_max: u64,
    pub output_bytes_max: u64,
    pub pool_containers: usize,
    pub container_idle_s_max: u64,
    pub container_expiry_s: u64,
    pub container_life_s_max: u64,
    pub containers_max: usize,
    pub limits: String,
    pub isolation: String,
    pub runsc: Option<PathBuf>,
}

impl Default for SandboxTable {
    fn default() -> Self {
        Self {
            image: "default".to_owned(),
            cpus: 1.0,
            memory_bytes_max: 5_368_709_120,
            disk_bytes_max: 5_368_709_120,
            processes_max: 256,
            cell_wall_s_max: 90,
            invocation_wall_s_max: 300,
            tool_answer_wait_s_max: 270,
            output_bytes_max: 1_048_576,
            pool_containers: 4,
            container_idle_s_max: 300,
            container_expiry_s: 3600,
            container_life_s_max: 2_592_000,
            containers_max: 256,
            limits: "required".to_owned(),
            isolation: "namespaces".to_owned(),
            runsc: None,
        }
    }
}

/// `[serving]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each key is documented in `keys`")]
pub struct ServingTable {
    pub samplings_max: u32,
    pub batch_turns_max: usize,
    pub batch_samplings_max: u32,
    pub request_bytes_max: usize,
    pub file_bytes_max: u64,
    pub workspace_bytes_max: u64,
    pub uploads_downloadable: bool,
    pub connections_max: usize,
    pub ping_interval_s: u64,
    pub lease_wait_s_max: u64,
    pub shutdown_wait_s_max: u64,
}

impl Default for ServingTable {
    fn default() -> Self {
        Self {
            samplings_max: 10,
            batch_turns_max: 4,
            batch_samplings_max: 50,
            request_bytes_max: 32 * 1024 * 1024,
            file_bytes_max: 500_000_000,
            workspace_bytes_max: 1_099_511_627_776,
            uploads_downloadable: false,
            connections_max: 4096,
            ping_interval_s: 10,
            lease_wait_s_max: 30,
            shutdown_wait_s_max: 30,
        }
    }
}

/// `[guard]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GuardTable {
    rule: Vec<RuleTable>,
}

#[derive(Clone, Debug, Deserialize)]
struct RuleTable {
    text: String,
    reason: String,
}

impl ConfigFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("the configuration file {} cannot be read: {error}", path.display()))
        })?;
        Self::parse(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        refuse_unknown("", &table)?;
        let written = !table.is_empty();
        let mut file: Self = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        file.written = written;
        Ok(file)
    }

    /// True when nothing was configured.
    pub fn is_empty(&self) -> bool {
        !self.written
    }

    /// The models; the scripted one under every name when none is configured.
    pub fn upstreams(&self, environment: &Environment, data_dir: &Path) -> Result<Vec<UpstreamConfig>, ConfigError> {
        if self.upstream.is_empty() {
            return Ok(vec![default_upstream()]);
        }
        self.upstream.iter().map(|table| table.resolve(environment, data_dir)).collect()
    }

    /// The words in which models are told of the tool, by the upstream's name, where the file says so.
    pub fn tool_texts(&self) -> Result<BTreeMap<String, ToolTexts>, ConfigError> {
        self.upstream.iter().filter_map(|table| table.tool_texts().transpose()).collect()
    }

    /// `[serving]` and the cells' clocks, resolved.
    pub fn serving(&self) -> Serving {
        Serving {
            cell_wall: Duration::from_secs(self.sandbox.cell_wall_s_max),
            invocation_wall: Duration::from_secs(self.sandbox.invocation_wall_s_max),
            container_checkpoint: Duration::from_secs(self.sandbox.container_idle_s_max.max(1)),
            samplings_max: self.serving.samplings_max.max(1),
            batch_turns_max: self.serving.batch_turns_max.max(1),
            batch_samplings_max: self.serving.batch_samplings_max.max(1),
            request_bytes_max: self.serving.request_bytes_max,
            file_bytes_max: self.serving.file_bytes_max,
            workspace_bytes_max: self.serving.workspace_bytes_max,
            uploads_downloadable: self.serving.uploads_downloadable,
            connections_max: self.serving.connections_max.max(1),
            ping_interval: Duration::from_secs(self.serving.ping_interval_s.max(1)),
            lease_wait: Duration::from_secs(self.serving.lease_wait_s_max),
            shutdown_wait: Duration::from_secs(self.serving.shutdown_wait_s_max),
        }
    }

    /// `[limits]` and `[[workspace]]`, resolved.
    pub fn all_limits(&self) -> Result<AllLimits, ConfigError> {
        limits::resolve(self.limits, &self.workspace)
    }

    /// `[[guard.rule]]`, resolved.
    pub fn guard_rules(&self) -> Result<Vec<Rule>, ConfigError> {
        let rules = self.guard.rule.iter().enumerate().map(|(index, rule)| {
            Rule::new(rule.text.clone(), rule.reason.clone())
                .ok_or_else(|| ConfigError(format!("guard.rule[{index}].text: must not be empty")))
        });
        rules.collect()
    }
}

impl SandboxTable {
    /// gVisor's program: the configured one, else what is installed.
    fn runsc(&self, environment: &Environment) -> Result<Option<PathBuf>, ConfigError> {
        match &self.runsc {
            // What a relative path means would depend on where the server was started.
            Some(path) if !path.is_absolute() => Err(ConfigError("sandbox.runsc: must be an absolute path".to_owned())),
            Some(path) => Ok(Some(path.clone())),
            None => Ok(find_runsc(environment.get("PATH").map(OsStr::new), &environment.cache_dir())),
        }
    }

    /// The limits, checked.
    pub fn limits(&self, environment: &Environment) -> Result<SandboxConfig, ConfigError> {
        let positive = |name: &str, value: u64| match value {
            0 => Err(ConfigError(format!("sandbox.{name}: must be greater than 0"))),
            value => Ok(value),
        };
        if !(self.cpus.is_finite() && self.cpus >= 0.01) {
            return Err(ConfigError("sandbox.cpus: must be at least 0.01".to_owned()));
        }
        let limits_need = match self.limits.as_str() {
            "required" => LimitsNeed::Required,
            "best_effort" => LimitsNeed::BestEffort,
            _ => return Err(ConfigError("sandbox.limits: must be \"required\" or \"best_effort\"".to_owned())),
        };
        let isolation = match self.isolation.as_str() {
            "namespaces" => Isolation::Namespaces,
            "gvisor" => Isolation::Gvisor,
            _ => return Err(ConfigError("sandbox.isolation: must be \"namespaces\" or \"gvisor\"".to_owned())),
        };
        Ok(SandboxConfig {
            isolation,
            runsc: self.runsc(environment)?,
            cpus: self.cpus,
            memory_bytes_max: positive("memory_bytes_max", self.memory_bytes_max)?,
            disk_bytes_max: positive("disk_bytes_max", self.disk_bytes_max)?,
            processes_max: self.processes_max.max(4),
            cell_wall_s_max: positive("cell_wall_s_max", self.cell_wall_s_max)?
                .max(positive("invocation_wall_s_max", self.invocation_wall_s_max)?),
            tool_answer_wait_s_max: positive("tool_answer_wait_s_max", self.tool_answer_wait_s_max)?,
            output_bytes_max: positive("output_bytes_max", self.output_bytes_max)?,
            containers_max: self.containers_max.max(1),
            container_idle: Duration::from_secs(positive("container_expiry_s", self.container_expiry_s)?),
            container_life: Duration::from_secs(positive("container_life_s_max", self.container_life_s_max)?),
            limits_need,
            pool_containers: self.pool_containers,
            ..SandboxConfig::default()
        })
    }
}

/// Unknown keys are errors that name the key and the nearest known one.
fn refuse_unknown(table: &str, members: &toml::Table) -> Result<(), ConfigError> {
    for (name, value) in members {
        let full = if table.is_empty() { name.clone() } else { format!("{table}.{name}") };
        if !keys::of_table(table).any(|key| key.name == name) {
            let hint = keys::nearest(table, name).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(ConfigError(format!("unknown key `{full}`{hint}")));
        }
        match value {
            // Not ours to know.
            toml::Value::Table(_) if keys::FREE_TABLES.contains(&full.as_str()) => {}
            toml::Value::Table(inner) => refuse_unknown(&full, inner)?,
            toml::Value::Array(items) => {
                for item in items.iter().filter_map(toml::Value::as_table) {
                    refuse_unknown(&full, item)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_named_with_their_neighbour() {
        let cases = [
            ("listne = \"127.0.0.1:1\"", "unknown key `listne`; did you mean `listen`?"),
            (
                "[sandbox]\nmemory_max_bytes = 1",
                "unknown key `sandbox.memory_max_bytes`; did you mean `memory_bytes_max`?",
            ),
            (
                "[[upstream]]\nname=\"a\"\nkind=\"scripted\"\nurl=\"x\"",
                "unknown key `upstream.url`; did you mean `model`?",
            ),
        ];
        for (text, expected) in cases {
            let error = ConfigFile::parse(text).map(|_| ()).map_err(|error| error.to_string());
            assert!(
                error.as_ref().is_err_and(|said| said.starts_with(&expected[..expected.find(';').unwrap_or(0)])),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn zero_limits_are_refused() {
        let file = ConfigFile::parse("[sandbox]\nmemory_bytes_max = 0").expect("the file parses");
        let error = file.sandbox.limits(&Environment::default()).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(error, Err("sandbox.memory_bytes_max: must be greater than 0".to_owned()));
    }

    #[test]
    fn an_isolation_that_is_none_is_refused_and_never_guessed() {
        let read = |text: &str| {
            let file = ConfigFile::parse(text).expect("the file parses");
            let limits = file.sandbox.limits(&Environment::default());
            limits.map(|config| (config.isolation, config.runsc)).map_err(|error| error.to_string())
        };
        let configured = "[sandbox]\nisolation = \"gvisor\"\nrunsc = \"/opt/runsc\"";
        assert_eq!(read(configured), Ok((Isolation::Gvisor, Some("/opt/runsc".into()))));
        assert_eq!(read("").map(|(isolation, _)| isolation), Ok(Isolation::Namespaces));
        let cases = [
            ("isolation = \"gVisor\"", "sandbox.isolation: must be \"namespaces\" or \"gvisor\""),
            ("isolation = \"\"", "sandbox.isolation: must be \"namespaces\" or \"gvisor\""),
            ("runsc = \"runsc\"", "sandbox.runsc: must be an absolute path"),
        ];
        for (line, error) in cases {
            assert_eq!(read(&format!("[sandbox]\n{line}")), Err(error.to_owned()), "{line}");
        }
    }
}
