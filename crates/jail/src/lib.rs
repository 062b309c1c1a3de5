//! Isolation of one process tree: a plan as data, and the system calls that apply it.

pub mod cgroup;
mod enter;
mod launch;
mod plan;
pub mod probe;
mod step;

pub use enter::{Entered, enter};
pub use launch::{Attachment, Jailed, LaunchError, launch};
pub use plan::{
    BpfProgram, ContainerSpec, Directory, Identity, JailPlan, LandlockNeed, LandlockPlan,
    PlanError, Resource, ResourceLimit, Symlink,
};
pub use step::{SetupError, Step};
