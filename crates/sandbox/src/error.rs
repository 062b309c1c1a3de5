//! Failures that are ours, sorted by who survives. What user code does is a [`crate::CellOutcome`], never one of these.

use std::io;

use belljar_ids::ContainerId;

/// Why a container died. Its text is for people; it names no path of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeathReason {
    /// Its process 1 ended by itself or was killed from within or by the kernel.
    #[error("its supervisor ended")]
    SupervisorEnded,
    /// The kernel's out-of-memory killer ended its process 1.
    #[error("its memory limit was reached and its supervisor was killed")]
    OutOfMemory,
    /// The guest did not answer in time.
    #[error("its supervisor did not answer in time")]
    Unresponsive,
    /// The guest sent what the protocol forbids; whatever it says is not believed any more.
    #[error("its supervisor broke the protocol: {0}")]
    Protocol(&'static str),
    /// The control socket failed.
    #[error("its control channel failed: {0}")]
    Channel(String),
    /// It was removed, or the sandbox was closed.
    #[error("it was removed")]
    Removed,
}

/// A call on the sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    // The container and the host survive.
    /// The shell cannot be given this command.
    #[error("the command holds a NUL byte")]
    CommandHasNul,
    /// The command is longer than `bytes_max` bytes.
    #[error("the command is longer than {bytes_max} bytes")]
    CommandTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// The name of a cell's file is not an absolute path without NUL bytes of at most `bytes_max` bytes.
    #[error("a cell's file name must be an absolute path of at most {bytes_max} bytes without NUL")]
    FileName {
        /// The limit.
        bytes_max: usize,
    },
    /// The guest could not start the shell or the interpreter, or make its directories; nothing ran.
    #[error("the container could not start the command: {0}")]
    NotStarted(String),
    /// A limit asked for in [`crate::ContainerOptions`] is above the sandbox's, or too little to live on.
    #[error("{name} = {asked} is not possible: from {least} to {most}")]
    LimitRefused {
        /// The field of [`crate::ContainerLimits`].
        name: &'static str,
        /// What was asked for.
        asked: String,
        /// The least that works.
        least: String,
        /// The sandbox's own.
        most: String,
    },
    /// `containers_max` reached.
    #[error("all {containers_max} containers are in use")]
    Full {
        /// The limit.
        containers_max: usize,
    },
    /// This id is taken.
    #[error("container {0} exists already")]
    Exists(ContainerId),

    // The container is dead, the host survives.
    /// The container died before the call could be carried out.
    #[error("the container is dead: {0}")]
    Dead(DeathReason),

    // The host is broken.
    /// A container could not be started; nothing untrusted ran.
    #[error("a container could not be started: {0}")]
    Launch(String),
    /// This host cannot run containers as configured.
    #[error("this machine cannot run containers: {0}")]
    Host(String),
    /// A container of gVisor was asked for, and cannot be had here. Nothing weaker is given instead.
    #[error("isolation \"gvisor\" is not available: {0}")]
    Gvisor(String),
    /// The host refused something the sandbox needs.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The sandbox is being closed.
    #[error("the sandbox is closed")]
    Closed,
}

impl SandboxError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// A container could not be leased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// There is none of this id.
    #[error("no container {0}")]
    Unknown(ContainerId),
    /// Somebody else held it for the whole time waited.
    #[error("container {0} is in use")]
    Busy(ContainerId),
    /// It died.
    #[error("container {id} is dead: {reason}")]
    Dead {
        /// The container.
        id: ContainerId,
        /// Why.
        reason: DeathReason,
    },
}

/// A file could not be put into a container.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// wire.md §9.2 forbids this name, or the filesystem would.
    #[error("file name {0:?} cannot be used")]
    Name(String),
    /// The source failed.
    #[error("the file could not be read: {0}")]
    Source(#[source] io::Error),
    /// The source ended early or went on.
    #[error("the file has {found} bytes, {expected} were announced")]
    Size {
        /// As announced.
        expected: u64,
        /// As read; one more than `expected` stands for any larger number.
        found: u64,
    },
    /// The container's disk is full.
    #[error("the container's disk is full")]
    DiskFull,
    /// The container refused, for a reason of its own filesystem: a directory in the way, a path too long.
    #[error("the container refused the file: {0}")]
    Refused(String),
    /// The container or the host failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// A file could not be read from a container.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing there.
    #[error("no such file")]
    NotFound,
    /// A directory.
    #[error("is a directory")]
    IsDirectory,
    /// A device, FIFO or socket, or a file the kernel makes up.
    #[error("is not a regular file")]
    NotRegular,
    /// More than `bytes_max` bytes.
    #[error("the file has {size} bytes, at most {bytes_max} can be read")]
    TooLarge {
        /// What it has.
        size: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The container refused, for a reason of its own filesystem.
    #[error("the container refused: {0}")]
    Refused(String),
    /// The container or the host failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}
