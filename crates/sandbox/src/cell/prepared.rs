//! What every cell needs before it can be asked for, and so what can be there before anybody asks.

use std::os::fd::OwnedFd;

use belljar_jail::cgroup::Stats;

use crate::error::SandboxError;
use crate::guest::Guest;
use crate::host::{Host, random_names};
use crate::outcome::Stream;
use crate::stream::Drain;

/// See the module's head.
pub struct Prepared {
    /// The name of its output directory.
    pub output: String,
    /// What only who was asked for the cell can answer with.
    pub nonce: String,
    /// Each stream's end for the host, and its end for the cell.
    pub stdout: (Drain, OwnedFd),
    pub stderr: (Drain, OwnedFd),
}

impl Prepared {
    pub fn new(host: &Host) -> Result<Self, SandboxError> {
        let kept_bytes_max = usize::try_from(host.config.output_bytes_max).unwrap_or(usize::MAX);
        let drain = |stream| Drain::new(stream, kept_bytes_max).map_err(SandboxError::io("make a pipe"));
        let (stdout, stderr) = (drain(Stream::Stdout)?, drain(Stream::Stderr)?);
        let [output, nonce] = random_names()?;
        Ok(Self { output, nonce, stdout, stderr })
    }
}

/// What the first cell of a container that is made ahead of need finds there. It holds as long as nothing else is asked of
/// the guest.
pub struct First {
    pub prepared: Prepared,
    /// What the container has used: nothing runs in it.
    pub rested: Stats,
}

impl First {
    /// For a guest that is complete. Opens its accounts, which stay open.
    pub fn of(guest: &Guest, host: &Host) -> Result<Self, SandboxError> {
        Ok(Self { prepared: Prepared::new(host)?, rested: guest.process.counters() })
    }
}
