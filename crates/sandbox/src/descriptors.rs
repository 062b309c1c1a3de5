//! How many of this process's descriptors a container takes, and so how many containers a limit of open files has room for.
//!
//! Of each container in namespaces there is a control socket and one pidfd of its process 1, whoever watches that; of its
//! REPL a socket and one pidfd. A cell adds the reading ends of its two streams, and one that is prepared ahead both ends.
//! The cgroup's accounts are opened when they are read and kept from one cell to the next; while code waits for a tool only
//! that of the processor stays open, for time is kept by it, and a frozen container keeps none. `tests/promises.rs` counts
//! them. A container of gVisor has its root directory and a socket to its ward besides.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::SandboxConfig;

/// Of a container whose Python code waits for a tool.
pub const PARKED: usize = 7;

/// Of a container in use, of what lasts longer than a moment: both languages, all accounts, a cell's streams.
const IN_USE: usize = 12;

/// An ordinary user's server opens the seven namespaces of each container while it may.
const NAMESPACES: usize = 7;

/// What is not a container's: the listener and its connections, the store, and a harvest of up to a thousand files.
const NOT_CONTAINERS: usize = 1024;

/// How many containers this process has descriptors for, all in use at once, those of the pool included; none where there is
/// no limit.
#[must_use]
pub fn room() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).maximum?;
    Some(room_within(usize::try_from(limit).unwrap_or(usize::MAX), rustix::process::geteuid().is_root()))
}

fn room_within(limit: usize, root: bool) -> usize {
    let each = if root { IN_USE } else { IN_USE + NAMESPACES };
    limit.saturating_sub(NOT_CONTAINERS) / each
}

impl SandboxConfig {
    /// The most containers that there will be at once, those of the pool included.
    #[must_use]
    pub fn containers_at_once(&self) -> usize {
        // One pool for each language.
        self.containers_max.saturating_add(self.pool_containers.saturating_mul(2))
    }
}

/// Raises the soft limit of open files, 1024 of old, to the hard one, and says where even that is too low. Neither is an
/// error: whoever runs out later says so.
pub fn raise(config: &SandboxConfig) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
    if let Some(room) = room()
        && room < config.containers_at_once()
    {
        let wanted = config.containers_at_once();
        tracing::warn!(room, wanted, "the hard limit of open files has no room for all containers in use at once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_room_for_so_many() {
        let cases = [
            // Docker's, and many a distribution's, hard limit of old: just the default's 256 containers.
            ((4096, true), 256),
            ((4096, false), 161),
            ((20_000, true), 1581),
            ((1 << 20, true), 87_296),
            ((1024, true), 0),
            ((0, false), 0),
        ];
        for ((limit, root), room) in cases {
            assert_eq!(room_within(limit, root), room, "{limit} {root}");
        }
    }
}
