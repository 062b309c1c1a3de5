//! What is asked of one container beyond the sandbox's defaults.

use belljar_jail::cgroup::Limits;

use crate::config::SandboxConfig;
use crate::error::SandboxError;

/// Less memory than this does not hold a shell and its supervisor.
const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// The kernel's shortest quota is one millisecond in a hundred.
const CPUS_MIN: f64 = 0.01;
/// Process 1, a shell, and what the shell starts.
const PROCESSES_MIN: u32 = 8;

/// What a container's code is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Language {
    /// Commands and files alone; costs nothing for Python.
    #[default]
    Bash,
    /// Python cells too: the container comes with a REPL.
    Python,
}

/// What stands between a container's code and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Namespaces, seccomp and Landlock: the code runs on the host's kernel.
    #[default]
    Namespaces,
    /// The code runs on gVisor's kernel, a program in a jail of its own. Slower to start, slower with files and
    /// processes, and one more wall.
    Gvisor,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Gvisor => "gvisor",
        })
    }
}

/// Limits of one container that are lower than the sandbox's; `None` is the sandbox's own.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ContainerLimits {
    /// Memory in bytes, files written inside it included.
    pub memory_bytes_max: Option<u64>,
    /// Processor time per wall time, in cores.
    pub cpus: Option<f64>,
    /// Processes and threads, process 1 included.
    pub processes_max: Option<u32>,
}

/// What a container is made for, and with.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ContainerOptions {
    /// Lower limits than the sandbox's.
    pub limits: ContainerLimits,
    /// What it must be ready for at once; the other language works too, later.
    pub ready_for: Language,
    /// What stands between it and the host; `None` is the sandbox's own. Never answered with another one.
    pub isolation: Option<Isolation>,
}

impl ContainerLimits {
    /// The limits as they will be set.
    ///
    /// # Errors
    /// [`SandboxError::LimitRefused`], by the limit's name, for what is above the sandbox's or too little to live on.
    pub(crate) fn resolve(self, config: &SandboxConfig) -> Result<Limits, SandboxError> {
        let memory_bytes_max =
            within("memory_bytes_max", self.memory_bytes_max, MEMORY_BYTES_MIN, config.memory_bytes_max)?;
        let cpus = within("cpus", self.cpus, CPUS_MIN, config.cpus)?;
        let processes_max = within("processes_max", self.processes_max, PROCESSES_MIN, config.processes_max)?;
        Ok(Limits { memory_bytes_max, cpus, processes_max: u64::from(processes_max) })
    }
}

/// What was asked for, if it lies between `least` and the sandbox's own.
fn within<T>(name: &'static str, asked: Option<T>, least: T, most: T) -> Result<T, SandboxError>
where
    T: PartialOrd + Copy + std::fmt::Display,
{
    match asked {
        None => Ok(most),
        // A sandbox may be configured below what is sensible; its own value is never refused. NaN is in no range.
        Some(asked) if asked == most || (least..=most).contains(&asked) => Ok(asked),
        Some(asked) => Err(SandboxError::LimitRefused {
            name,
            asked: asked.to_string(),
            least: least.to_string(),
            most: most.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(limits: ContainerLimits) -> Result<Limits, String> {
        limits.resolve(&SandboxConfig::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_the_sandboxs() {
        let config = SandboxConfig::default();
        let limits = Limits {
            memory_bytes_max: config.memory_bytes_max,
            cpus: config.cpus,
            processes_max: u64::from(config.processes_max),
        };
        assert_eq!(resolved(ContainerLimits::default()), Ok(limits));
        let fewer = ContainerLimits { processes_max: Some(32), ..ContainerLimits::default() };
        assert_eq!(resolved(fewer), Ok(Limits { processes_max: 32, ..limits }));
    }

    #[test]
    fn what_is_too_much_or_too_little_is_refused_by_name() {
        let none = ContainerLimits::default();
        let cases = [
            (
                ContainerLimits { memory_bytes_max: Some(5_368_709_121), ..none },
                "memory_bytes_max = 5368709121 is not possible: from 16777216 to 5368709120",
            ),
            (
                ContainerLimits { memory_bytes_max: Some(1), ..none },
                "memory_bytes_max = 1 is not possible: from 16777216 to 5368709120",
            ),
            (ContainerLimits { cpus: Some(1.5), ..none }, "cpus = 1.5 is not possible: from 0.01 to 1"),
            (ContainerLimits { cpus: Some(f64::NAN), ..none }, "cpus = NaN is not possible: from 0.01 to 1"),
            (ContainerLimits { cpus: Some(-1.0), ..none }, "cpus = -1 is not possible: from 0.01 to 1"),
            (
                ContainerLimits { processes_max: Some(257), ..none },
                "processes_max = 257 is not possible: from 8 to 256",
            ),
            (ContainerLimits { processes_max: Some(0), ..none }, "processes_max = 0 is not possible: from 8 to 256"),
        ];
        for (limits, refused) in cases {
            assert_eq!(resolved(limits), Err(refused.to_owned()), "{limits:?}");
        }
    }

    #[test]
    fn a_sandbox_below_the_least_still_takes_its_own() {
        let config = SandboxConfig { processes_max: 4, ..SandboxConfig::default() };
        let own = ContainerLimits { processes_max: Some(4), ..ContainerLimits::default() };
        assert_eq!(own.resolve(&config).expect("its own").processes_max, 4);
    }
}
