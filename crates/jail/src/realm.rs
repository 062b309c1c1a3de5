//! The realm: one user namespace per server, parent of all containers' and home of the zygotes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use rustix::process::Pid;

use crate::channel::{self, Order, Report};
use crate::identity::{IDS, Identity, root_is_the_machines};
use crate::launch::{LaunchError, Launcher, limit_silence, next_report, talk, unexpected};

/// A user namespace whose root has power over all containers of this server, and none over the host.
///
/// No process lives in it by itself; it exists as long as this value, a container or a zygote of it does.
#[derive(Debug)]
pub struct Realm {
    namespace: OwnedFd,
    identity: Identity,
}

impl Realm {
    /// Makes the namespace: starts `program` (a sealed memfd) for it, writes its id maps, and ends the program again.
    /// Blocks for about a millisecond.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing that was started is left.
    pub fn create(program: BorrowedFd<'_>, identity: Identity) -> Result<Self, LaunchError> {
        let (channel, theirs) = channel::pair().map_err(talk)?;
        let launcher = Launcher::spawn(program, theirs, Stdio::null())?;
        Self::guide(&channel, launcher, identity)
    }

    /// The host's part, from a program that waits for its order to a namespace without a process.
    pub(crate) fn guide(channel: &OwnedFd, launcher: Launcher, identity: Identity) -> Result<Self, LaunchError> {
        limit_silence(channel)?;
        let order = serde_json::to_vec(&Order::Realm).map_err(|error| LaunchError::Channel(error.into()))?;
        channel::send_entrances(channel, &[]).map_err(talk)?;
        channel::send_order(channel, &order, &[]).map_err(talk)?;
        match next_report(channel)? {
            Report::UserNamespace => {}
            other => return Err(unexpected(other)),
        }
        write_id_maps(launcher.pid(), identity)?;
        let path = format!("/proc/{}/ns/user", launcher.pid().as_raw_nonzero());
        let namespace = fs::File::open(path).map_err(LaunchError::Namespace)?.into();
        channel::send_go(channel).map_err(talk)?;
        launcher.finish()?;
        Ok(Self { namespace, identity })
    }

    /// One that this process has made as another program.
    pub(crate) fn of(namespace: OwnedFd, identity: Identity) -> Self {
        Self { namespace, identity }
    }

    /// Who the realm's root is outside; the root of each of its containers is the same.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// A container's plan says itself whose it is.
    pub(crate) fn require(&self, identity: Identity) -> Result<(), LaunchError> {
        if identity == self.identity { Ok(()) } else { Err(LaunchError::OtherRealm) }
    }
}

fn write_id_maps(launcher: Pid, identity: Identity) -> Result<(), LaunchError> {
    let write = |file: &'static str, text: String| {
        let path = format!("/proc/{}/{file}", launcher.as_raw_nonzero());
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut opened| io::Write::write_all(&mut opened, text.as_bytes()))
            .map_err(|source| LaunchError::IdMap { file, source })
    };
    match identity {
        Identity::Mapped { base } => {
            write("uid_map", format!("0 {base} {IDS}"))?;
            write("gid_map", format!("0 {base} {IDS}"))
        }
        Identity::Caller { uid: 0, .. } if root_is_the_machines() => Err(LaunchError::HostRoot),
        Identity::Caller { uid, gid } => {
            write("setgroups", "deny".to_owned())?;
            write("uid_map", format!("0 {uid} 1"))?;
            write("gid_map", format!("0 {gid} 1"))
        }
    }
}
