//! A container's files out to the host and back, while nothing of its code runs.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::frame::Failure;
use crate::layer;

/// Bytes handled at once at a pipe.
const BUFFER_BYTES: usize = 64 * 1024;

/// Writes what stands in the writable layer into a pipe; answers how many entries.
pub fn pack(upper: Option<&OwnedFd>, sink: OwnedFd) -> Result<u64, Failure> {
    let upper = upper.ok_or(Failure::Errno(Errno::NOTSUP.raw_os_error()))?;
    let _still = Stillness::now();
    write(upper, sink, layer::MOUNT_POINTS)
}

/// The same for a ward: it is told to while the code in it is still.
pub fn pack_ward(upper: &OwnedFd, sink: OwnedFd) -> Result<u64, Failure> {
    write(upper, sink, layer::WARD_MOUNT_POINTS)
}

fn write(upper: &OwnedFd, sink: OwnedFd, mount_points: &[&[u8]]) -> Result<u64, Failure> {
    let sink = BufWriter::with_capacity(BUFFER_BYTES, File::from(sink));
    Ok(layer::pack(upper.as_fd(), sink, mount_points)?.entries)
}

/// Puts the files of a layer that comes through a pipe in their places; answers how many entries.
pub fn unpack(source: OwnedFd) -> Result<u64, Failure> {
    let root = openat(CWD, "/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let _still = Stillness::now();
    let source = BufReader::with_capacity(BUFFER_BYTES, File::from(source));
    Ok(layer::unpack(root.as_fd(), source)?.entries)
}

/// Every process of the code is stopped while this lives: a file that changes under the reader would be neither its old
/// nor its new self.
#[derive(Debug)]
pub struct Stillness;

impl Stillness {
    /// From now on.
    pub fn now() -> Self {
        // ESRCH: there is none.
        let _stopped_or_none = kill(Pid::from_raw(-1), Signal::SIGSTOP);
        Self
    }
}

impl Drop for Stillness {
    fn drop(&mut self) {
        let _continued_or_none = kill(Pid::from_raw(-1), Signal::SIGCONT);
    }
}
