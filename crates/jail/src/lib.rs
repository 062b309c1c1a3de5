//! Isolation of one process tree: a plan as data, and the system calls that apply it.

pub mod cgroup;
mod channel;
mod enter;
mod landlock;
mod launch;
mod plan;
mod privileges;
pub mod probe;
mod raw;
mod root;
mod seccomp;
mod step;

pub use enter::{Entered, enter};
pub use launch::{Attachment, Jailed, LaunchError, launch};
pub use plan::{
    BpfProgram, ContainerSpec, Directory, FileRight, Identity, JailPlan, LandlockGrant,
    LandlockNeed, LandlockPlan, PlanError, Resource, ResourceLimit, Symlink,
};
pub use step::{SetupError, Step};
