//! Isolation of one process tree: a plan as data, and the system calls that apply it.
//!
//! # The whole security story, in order
//! Host ([`launch`]), guest program ([`enter`], [`Entered::seal`]); each step or nothing, and no user code before the last.
//!
//!  1. The guest program starts from a sealed memfd: no file that a container could overwrite. Empty environment, a
//!     process group of its own, `/dev/null` for words; only two sockets are passed on, every other descriptor is closed.
//!  2. The host moves it into its cgroup (memory with swap, processes, processor time), then hands it the [`JailPlan`]:
//!     before that it does nothing.
//!  3. User namespace. The host writes its id maps: as root, ids that are nobody's; else the caller's own id alone.
//!  4. It becomes the container's root and drops the host's supplementary groups.
//!  5. Mount, pid, network, ipc, uts and cgroup namespaces. The network one has a loopback that is down, and nothing else.
//!  6. Process 1 of the pid namespace, a child of the host: its death is the death of all. A session without terminal;
//!     signals that the host ignored are not ignored.
//!  7. Mounts are private. Handles of five device nodes are taken; nothing else comes in from outside.
//!  8. A size- and inode-capped tmpfs takes what is written; an overlay puts it over the image, which stays unchanged.
//!  9. A fresh `/proc`, wholly read-only, for this pid namespace.
//! 10. `pivot_root`; the host's root is detached. From here on, paths are looked up in the image, without following links.
//! 11. `/dev` with those five nodes and `/dev/shm`, read-only; what tells of the host in `/proc` is covered. No `/sys`.
//! 12. Host name, resource limits, working directory, standard streams on `/dev/null`.
//! 13. Bounding and ambient capabilities emptied, securebits locked: root inside is a name, not a power.
//! 14. `no_new_privs`: no program run from here gains anything by set-id bits or file capabilities.
//! 15. All capabilities dropped; process 1 made undumpable: its memory and descriptors are closed to the container.
//! 16. Landlock: no device nodes, no device controls, no TCP, no signals or abstract sockets across the wall.
//! 17. seccomp, last: an allow-list as reviewed data (`policy/seccomp.json`), each group with its reason; sockets of
//!     AF_UNIX only; no namespaces, mounts, keys, tracing, io_uring, bpf; the i386 gate is deadly, x32 does not exist.
//! 18. "Sealed" is reported; only now does the guest program get hold of the control socket, and `launch` returns.
//!
//! What is not promised: the kernel is shared, and so is the page cache of an image; a hole in what the filters let by is a
//! hole in the jail. As an ordinary user, the container's root is that user outside, with its supplementary groups.
//!
//! The steps and their order are [`Step`]; they stand as three lists in `step.rs`, and run nowhere else.

pub mod cgroup;
mod channel;
mod enter;
mod identity;
mod join;
mod landlock;
mod launch;
pub mod oom;
mod plan;
mod privileges;
pub mod probe;
mod raw;
mod realm;
mod root;
mod seccomp;
mod step;
mod ward;
mod zygote;

pub use enter::{Entered, enter};
pub use identity::Identity;
pub use join::join;
pub use launch::{Attachment, Jailed, LaunchError, Namespaces, launch, launch_ward};
pub use plan::{
    BpfProgram, ContainerSpec, Directory, FileRight, JailPlan, LandlockGrant, LandlockNeed, LandlockPlan, PlanError,
    Resource, ResourceLimit, SealPlan, Symlink,
};
pub use privileges::limit_code;
pub use realm::Realm;
pub use step::{SetupError, Step};
pub use ward::{CONTROL_FD_INSIDE, GUEST, WORDS, Ward, WardPlan, control_inside};
pub use zygote::{
    ZYGOTE_CONTROL_FD, ZYGOTE_FILES, ZYGOTE_LIFELINE_FD, ZYGOTE_PID_NAMESPACE_FD, ZygoteFile, ZygotePlan, launch_zygote,
};
