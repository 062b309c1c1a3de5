//! The names of the set-up's steps, and the error that names the one that failed.

use serde::{Deserialize, Serialize};

/// One step of setting a jail up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Read the plan from the host.
    ReadPlan,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadPlan => "read the plan",
        })
    }
}

/// A step that failed; nothing after it ran, and no user code did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("jail set-up failed at step \"{step}\": {}", std::io::Error::from_raw_os_error(*.errno))]
pub struct SetupError {
    /// The step.
    pub step: Step,
    /// The error number the kernel gave.
    pub errno: i32,
}
