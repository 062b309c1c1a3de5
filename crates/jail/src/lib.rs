//! Isolation of one process tree: a plan as data, and the system calls that apply it.
//!
//! # The whole security story, in order
//! Host ([`launch`]), guest program ([`enter`], [`Entered::seal`]); each step or nothing, and no user code before the last.
//!
//!  0. Once per server, the [`Realm`]: a user namespace whose id maps the host writes. As root, ids that are nobody's; else
//!     the caller's own id alone. Its root has power over all containers of this server and none over the host.
//!  1. The guest program starts from a sealed memfd: no file that a container could overwrite. Empty environment, a
//!     process group of its own, `/dev/null` for words; only two sockets are passed on, every other descriptor is closed.
//!  2. The host moves it into its cgroup (memory with swap, processes, processor time), then hands it the [`JailPlan`] and
//!     the realm: before that it does nothing.
//!  3. It enters the realm, becomes its root and drops the host's supplementary groups: it has no power over the host any more.
//!     Signals that the host ignored are not ignored. It makes the container's network, ipc and uts namespaces and names the
//!     host: they are the realm's, and root in the container has no power over them, not even before it gives up its own. The
//!     network has a loopback that is down, and nothing else.
//!  4. One clone makes process 1 with user, pid, mount and cgroup namespaces of its own, a child of the host: its death is
//!     the death of all.
//!  5. The cloner writes its id maps from inside the realm, tells the host of it, and ends.
//!  6. Process 1 is the container's root.
//!  7. Mounts are private. Handles of five device nodes are taken; nothing else comes in from outside.
//!  8. A size- and inode-capped tmpfs takes what is written, and has the container's own directories; an overlay puts it over
//!     the image, which stays unchanged.
//!  9. A fresh `/proc`, wholly read-only, for this pid namespace. Process 1 keeps one file of its own that it can write there.
//! 10. `pivot_root`; the host's root is detached. From here on, paths are looked up in the image, without following links.
//! 11. `/dev` with those five nodes and `/dev/shm`, read-only; what tells of the host in `/proc` is covered. No `/sys`.
//! 12. Resource limits, working directory, standard streams on `/dev/null`.
//! 13. Bounding and ambient capabilities emptied, securebits locked: root inside is a name, not a power.
//! 14. `no_new_privs`: no program run from here gains anything by set-id bits or file capabilities.
//! 15. All capabilities dropped. A session without terminal, outside the launcher's process group, once the host knows
//!     process 1. Then it is made undumpable: its memory and descriptors are closed to the container.
//! 16. Landlock: no device nodes, no device controls, no TCP. Signals and abstract sockets are confined by namespaces.
//! 17. seccomp, last: an allow-list as reviewed data (`policy/seccomp.json`), each group with its reason; sockets of
//!     AF_UNIX only; no namespaces, mounts, keys, tracing, io_uring, bpf; the i386 gate is deadly, x32 does not exist. Of its
//!     two filters, the first forbids all that set-up itself can do without.
//! 18. "Sealed" is reported; only now does the guest program get hold of the control socket, and `launch` returns.
//!
//! # A nursery
//! A [`Nursery`] is a guest program that has done steps 1 and 3 and read the plan, and stays. For each container it makes process
//! 1 by one clone, with the host as its parent, and passes on to the host the pidfd that the clone returns; then, for the next
//! one, other network, ipc and uts namespaces: no two containers are borne in the same. The first filter of step 17 is on in
//! the nursery, and inherited. Process 1 closes all
//! that is the nursery's; step 2 is its first, then it makes its namespaces, then steps 6 to 18 as above. Until the host has got
//! hold of it, it stays in the nursery's process group and before step 15. [`launch`] is the same without a nursery.
//!
//! # A zygote, and who joins
//! [`launch_zygote`] starts a trusted program of the image in the realm: its own mount, network, ipc and uts namespaces, the
//! image read-only, no `/proc`, `no_new_privs`, the first filter of step 17, capabilities in the realm. It ends with the host. Its child, forked into a
//! container's pid namespace, becomes the container's in [`join`]: closed to ptrace first of all; then into the namespaces
//! that are the realm's; then out of the realm by the container's user namespace, with which its power over all others ends;
//! then the other namespaces; then steps 6 and 12 to 17 as above; last, open to itself again. Code that runs in the container already can kill it on
//! the way, nothing else.
//!
//! What is not promised: the kernel is shared, and so is the page cache of an image; a hole in what the filters let by is a
//! hole in the jail. As an ordinary user, the container's root is that user outside, with its supplementary groups.
//!
//! The steps and their order are [`Step`]; they stand as lists in `step.rs`, and run nowhere else.

pub mod cgroup;
mod channel;
mod enter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handover;
mod identity;
mod join;
mod landlock;
mod large_pages;
mod launch;
mod nursery;
pub mod oom;
mod plan;
mod privileges;
pub mod probe;
mod raw;
mod realm;
mod root;
mod seccomp;
mod spawn;
mod step;
mod ward;
mod zygote;

pub use enter::{Entered, enter};
pub use handover::{HandedFd, HandedJail, HandedRealm, become_program};
pub use identity::Identity;
pub use join::join;
pub use large_pages::gather_pages;
pub use launch::{Attachment, Jailed, LaunchError, Namespaces, PidNamespace, launch, launch_ward};
pub use nursery::{AtBirth, BirthError, Nursery};
pub use plan::{
    BpfProgram, ContainerSpec, Directory, FileRight, JailPlan, LandlockGrant, LandlockNeed, LandlockPlan, PlanError,
    Resource, ResourceLimit, SealPlan, Sizes, Symlink,
};
pub use raw::not_received;
pub use realm::Realm;
pub use spawn::{Code, Spawned};
pub use step::{SetupError, Step};
pub use ward::{CONTROL_FD_INSIDE, GUEST, WORDS, Ward, WardPlan, control_inside};
pub use zygote::{
    ZYGOTE_CONTROL_FD, ZYGOTE_FILES, ZYGOTE_LIFELINE_FD, ZYGOTE_PID_NAMESPACE_FD, ZygoteFile, ZygotePlan, launch_zygote,
};
