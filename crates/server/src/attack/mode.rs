//! The isolation modes that can be attacked. A new mode of the sandbox is wired here, and nowhere else in the suite.

use belljar_sandbox::{Isolation, SandboxConfig, Warmth};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// What keeps a container's code inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Namespaces, seccomp and Landlock.
    Namespaces,
    /// A kernel in user space, by runsc.
    Gvisor,
}

impl Mode {
    /// What a server of this configuration has.
    pub fn configured(config: &SandboxConfig) -> Self {
        match config.isolation {
            Isolation::Namespaces => Self::Namespaces,
            Isolation::Gvisor => Self::Gvisor,
        }
    }

    /// As `sandbox.isolation` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Gvisor => "gvisor",
        }
    }

    /// The sandbox's configuration for this mode, whatever was configured.
    ///
    /// # Errors
    /// [`Exit::cannot`] for a mode that cannot be had here: another one is never taken instead.
    pub fn configure(self, config: SandboxConfig) -> Result<SandboxConfig, Exit> {
        match (self, &config.runsc) {
            (Self::Namespaces, _) => {
                Ok(SandboxConfig { isolation: Isolation::Namespaces, zygotes: vec![Warmth::Core], ..config })
            }
            (Self::Gvisor, None) => Err(Exit::cannot(
                "isolation `gvisor` cannot be attacked: runsc is not installed (neither configured as sandbox.runsc, nor on \
                 the PATH, nor in the cache)",
            )),
            // A zygote's child never joins a container of gVisor.
            (Self::Gvisor, Some(_)) => {
                Ok(SandboxConfig { isolation: Isolation::Gvisor, zygotes: Vec::new(), ..config })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_what_was_asked_for_or_an_error() {
        let runsc = Some("/opt/runsc".into());
        let configured = SandboxConfig { isolation: Isolation::Gvisor, runsc, ..SandboxConfig::default() };
        assert_eq!(Mode::configured(&configured), Mode::Gvisor);
        for (mode, isolation) in [(Mode::Namespaces, Isolation::Namespaces), (Mode::Gvisor, Isolation::Gvisor)] {
            let config = mode.configure(configured.clone()).ok().map(|config| config.isolation);
            assert_eq!(config, Some(isolation));
        }
        let without = SandboxConfig { runsc: None, ..configured };
        let refused = Mode::Gvisor.configure(without).expect_err("there is no runsc");
        assert_eq!(refused.code(), crate::exit::CANNOT);
        assert!(refused.message().contains("runsc is not installed"), "{refused:?}");
    }
}
