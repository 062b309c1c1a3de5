//! The ward: a jail of namespaces around runsc, the program that makes a container of gVisor.
//!
//! Process 1 of a ward, the warden, is the guest program. It starts runsc with power over the ward's own namespaces and
//! nothing else, gives up all of its own, and waits. So whatever runsc starts ends with the warden, by the kernel's
//! doing; whatever it writes is in the ward's tmpfs, and gone with it; and a hole in gVisor leads into a jail whose
//! file system holds the image, this one container's files, and `/proc` and `/dev` of the ward.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, chmod, mkdir, open};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::raw::{close_one, take_inherited};
use crate::root::make_directory;

/// The bundle, as runtimes of the Open Container Initiative call it.
const BUNDLE: &str = "/bundle";
/// The directory that holds the guest program, for the container to see read-only. A file, as gVisor shows programs
/// that it is given as descriptors under paths that are none, which a statically linked program does not survive.
pub const GUEST: &str = "/guest";
/// Where runsc says why it failed.
pub const WORDS: &str = "/bundle/words";
/// The container's root filesystem, in the ward.
const ROOT: &str = "/root";
/// Where runsc keeps its state.
const STATE: &str = "/state";
/// Number of the control socket in the container.
pub const CONTROL_FD_INSIDE: i32 = 3;
/// gVisor mounts a tmpfs of its own, without a limit, over a `/tmp` that is empty when it starts.
const NOT_EMPTY: &str = "/root/tmp/.belljar";

/// What a ward has beyond a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WardPlan {
    /// `config.json` of the bundle, whose root is `/root`.
    pub config: String,
    /// Flags of runsc that stand before its subcommand, without `--root`.
    pub flags: Vec<String>,
}

/// What the warden needs to start runsc.
#[derive(Debug)]
pub struct Ward<'a> {
    pub(crate) plan: &'a WardPlan,
    pub(crate) program: BorrowedFd<'a>,
    pub(crate) control: BorrowedFd<'a>,
}

impl Ward<'_> {
    /// The executable, as a path.
    pub fn program(&self) -> String {
        format!("/proc/self/fd/{}", self.program.as_raw_fd())
    }

    /// The arguments for running one container, with the control socket as its process 1's [`CONTROL_FD_INSIDE`].
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--root={STATE}")];
        arguments.extend(self.plan.flags.iter().cloned());
        arguments.push("run".to_owned());
        arguments.push(format!("--bundle={BUNDLE}"));
        arguments.push(format!("--pass-fd={}:{CONTROL_FD_INSIDE}", self.control.as_raw_fd()));
        arguments.push("container".to_owned());
        arguments
    }

    /// Lets runsc inherit the control socket. The caller executes nothing else.
    ///
    /// # Errors
    /// What `fcntl(2)` answers.
    pub fn pass_control_on(&self) -> Result<(), Errno> {
        fcntl_setfd(self.control, fcntl_getfd(self.control)?.difference(FdFlags::CLOEXEC))
    }

    /// The container's root filesystem and the file that takes runsc's words, for the host.
    ///
    /// # Errors
    /// What `open(2)` answers.
    pub fn held(&self) -> Result<[OwnedFd; 2], Errno> {
        let root = open(ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let words =
            open(WORDS, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        Ok([root, words])
    }

    /// The control socket, for whoever watches it.
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control
    }
}

/// runsc wants its own program, which is a memfd, to be found by the name that the kernel shows for it, and looks at the
/// mode of what it finds. It executes the program itself.
const OWN_NAME: &str = "/memfd:runsc";

/// Makes what runsc finds: the bundle, a directory for its state, one for what it calls temporary.
pub(crate) fn files(plan: &WardPlan) -> Result<(), Errno> {
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    // The sentry is another user of the ward, and builds its empty root in `/tmp`.
    chmod("/", Mode::from_raw_mode(0o755))?;
    for (directory, mode) in [(BUNDLE, 0o700), (STATE, 0o700), ("/tmp", 0o755), (GUEST, 0o755)] {
        mkdir(directory, Mode::from_raw_mode(mode))?;
    }
    let program = std::fs::read("/proc/self/exe").map_err(io)?;
    for (path, bytes) in [(OWN_NAME.to_owned(), &[][..]), (format!("{GUEST}/belljar-guest"), &program)] {
        std::fs::write(&path, bytes).map_err(io)?;
        chmod(&path, Mode::from_raw_mode(0o755))?;
    }
    std::fs::write(format!("{BUNDLE}/config.json"), &plan.config).map_err(io)?;
    make_directory(Path::new(NOT_EMPTY)).map(drop)
}

/// In the container: takes the control socket, inherited as [`CONTROL_FD_INSIDE`]. To be called once, first thing.
///
/// # Errors
/// What `fcntl(2)` answers.
pub fn control_inside() -> Result<OwnedFd, Errno> {
    let control = take_inherited(CONTROL_FD_INSIDE)?;
    close_one(CONTROL_FD_INSIDE)?;
    Ok(control)
}
