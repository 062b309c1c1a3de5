//! The isolation modes that can be attacked. A new mode of the sandbox is wired here, and nowhere else in the suite.

use belljar_sandbox::SandboxConfig;
use serde::Serialize;

use crate::exit::Exit;

/// What keeps a container's code inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Namespaces, seccomp and Landlock.
    #[default]
    Namespaces,
    /// A kernel in user space, by runsc.
    Gvisor,
}

impl Mode {
    /// The sandbox's configuration for this mode.
    ///
    /// # Errors
    /// [`Exit::cannot`] for a mode that this sandbox does not have: another one is never taken instead.
    pub fn configure(self, config: SandboxConfig) -> Result<SandboxConfig, Exit> {
        match self {
            Self::Namespaces => Ok(config),
            Self::Gvisor => Err(Exit::cannot("the sandbox of this version has no isolation mode `gvisor`")),
        }
    }
}
