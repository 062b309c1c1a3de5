//! Process 1 of a container in gVisor, which is the wall there: what is left to do is the container's own order.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use belljar_jail::{Directory, Symlink};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::Deserialize;

use crate::channel::Channel;
use crate::supervise::{EXIT_NO_JAIL, Means, serve_until_the_end};

/// The first argument that leads here.
pub const MODE: &str = "gvisor";

/// The second argument, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    directories: Vec<Directory>,
    symlinks: Vec<Symlink>,
    /// Files and empty directories that had to be there when gVisor started.
    remove: Vec<String>,
}

/// Puts the container in order and serves the host.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let control = belljar_jail::control_inside();
    let order = arguments.next().and_then(|text| serde_json::from_slice::<Order>(text.as_encoded_bytes()).ok());
    let (Ok(control), Some(order)) = (control, order) else {
        return ExitCode::from(EXIT_NO_JAIL);
    };
    match order.carry_out() {
        Ok(()) => serve_until_the_end(Channel::passing_paths(control), Means::default()),
        Err(error) => {
            eprintln!("belljar: {error}");
            ExitCode::from(EXIT_NO_JAIL)
        }
    }
}

impl Order {
    fn carry_out(&self) -> io::Result<()> {
        umask(Mode::from_raw_mode(0o022));
        for directory in &self.directories {
            std::fs::create_dir_all(&directory.path)?;
            std::fs::set_permissions(&directory.path, PermissionsExt::from_mode(directory.mode))?;
        }
        for link in &self.symlinks {
            if let Some(parent) = link.path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            match std::os::unix::fs::symlink(&link.target, &link.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if std::fs::read_link(&link.path)? != link.target {
                        return Err(error);
                    }
                }
                made => made?,
            }
        }
        for path in &self.remove {
            std::fs::remove_dir(path)?;
        }
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    }
}
