//! One running zygote: started, heard, ended.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use belljar_jail::cgroup::{CgroupTree, Limits};
use belljar_jail::{HandedFd, ZYGOTE_FILES, ZygoteFile, ZygotePlan, gather_pages};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frame::{FromZygote, ToZygote};
use crate::channel::{PacketError, Packets};
use crate::config::SandboxConfig;
use crate::environment;
use crate::error::SandboxError;
use crate::host::{SharedHost, random_name};
use crate::image::Image;
use crate::process::{HandedProcess, Process};
use crate::program;
use crate::repl::Warmth;
use crate::watch::watch;

/// Memory of a zygote, what it writes included.
const OWN_MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// What a child takes before it is in its container's cgroup, generously: page tables, and the first pages that it writes
/// to. It stays charged to the zygote for as long as the child lives; all else is charged to the container.
const CHILD_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The zygote itself, and children on their way into their containers.
const PROCESSES_MAX: u64 = 256;
/// Written below `/tmp`, and once more below [`CACHES`].
const SCRATCH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A directory to write to. Not `$HOME`, where the image keeps what libraries have found out.
const CACHES: &str = "/work";
/// Of what it says on standard error, so much is kept, the last.
const STDERR_BYTES_MAX: usize = 4096;
/// For a zygote whose socket has ended to end itself.
const END_WAIT_MAX: Duration = Duration::from_secs(2);

/// See the module's head. Dropped, it is killed and cleared away, which blocks.
pub struct Running {
    process: Process,
    packets: Packets,
    ended: AsyncFd<Arc<OwnedFd>>,
    stderr: Stderr,
}

/// A zygote, for the program that this process is about to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedZygote {
    process: HandedProcess,
    packets: HandedFd,
    stderr: HandedFd,
    living: Vec<i32>,
}

/// Something that a zygote did.
pub enum Event {
    Said(FromZygote, Vec<OwnedFd>),
    Broke(&'static str),
    Ended,
}

impl Running {
    /// Starts one; it has imported nothing yet.
    pub async fn start(host: &SharedHost, image: &Arc<Image>, warmth: Warmth) -> Result<Self, SandboxError> {
        let (packets, theirs) = Packets::pair().map_err(SandboxError::io("make a zygote's socket"))?;
        let (stderr, words) = io::pipe().map_err(SandboxError::io("make a zygote's standard error"))?;
        let starting = {
            let (host, image) = (SharedHost::clone(host), Arc::clone(image));
            tokio::task::spawn_blocking(move || {
                let name = format!("zygote_{}_{}", group(warmth), random_name()?);
                let plan = plan(&image, warmth, words.into());
                host.start_zygote(&image, &name, &limits(&host.config), &plan, theirs, &files(&image)?)
            })
        };
        let process = starting.await.map_err(|error| SandboxError::Launch(error.to_string()))??;
        let ended = watch(process.ended(), Interest::READABLE).map_err(SandboxError::io("watch a zygote"))?;
        let stderr = Stderr::over(stderr.into()).map_err(SandboxError::io("watch a zygote's standard error"))?;
        Ok(Self { process, packets, ended, stderr })
    }

    /// What [`Running::take_over`] needs; `living` are its children. This value must not be dropped before the other program is
    /// executed.
    pub fn hand_over(&self, living: Vec<i32>) -> io::Result<HandedZygote> {
        let Self { process, packets, ended: _, stderr } = self;
        Ok(HandedZygote {
            process: process.hand_over()?,
            packets: packets.hand_over()?,
            stderr: HandedFd::hand_over(stderr.pipe.get_ref())?,
            living,
        })
    }

    /// One that was handed over, with its children.
    pub fn take_over(handed: HandedZygote, cgroups: Option<&CgroupTree>) -> io::Result<(Self, Vec<i32>)> {
        let HandedZygote { process, packets, stderr, living } = handed;
        let process = Process::take_over(process, cgroups)?;
        let ended = watch(process.ended(), Interest::READABLE)?;
        let packets = Packets::take_over(packets, None)?;
        let stderr = Stderr::over(stderr.take_over()?)?;
        Ok((Self { process, packets, ended, stderr }, living))
    }

    /// Waits for what comes next. Cancel-safe.
    pub async fn event(&mut self) -> Event {
        loop {
            let Self { packets, ended, stderr, .. } = self;
            tokio::select! {
                // What it said last is heard before its end.
                biased;
                received = packets.receive() => return match received {
                    Ok((frame, fds)) => Event::Said(frame, fds),
                    Err(PacketError::Breach(rule)) => Event::Broke(rule),
                    Err(PacketError::Ended | PacketError::Io(_)) => Event::Ended,
                },
                () = stderr.read() => {}
                _ = ended.readable() => return Event::Ended,
            }
        }
    }

    /// Asks for a fork. The descriptors are duplicated by the kernel.
    pub async fn ask(&self, id: u64, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.packets.send(&ToZygote::Fork { id }, fds).await
    }

    /// Has its forks copy less. They work without, only slower.
    pub async fn gather_pages(&self) {
        let (pid, pidfd) = (self.process.pid(), self.process.ended());
        let gathering = tokio::task::spawn_blocking(move || gather_pages(pid, pidfd.as_fd()));
        match gathering.await.map_err(io::Error::other).flatten() {
            Ok(large_pages) => tracing::debug!(large_pages, "a zygote's memory is gathered"),
            Err(error) => tracing::info!(%error, "a zygote's memory stays in small pages"),
        }
    }

    /// Whether it has one thread, as the host's kernel counts: what forks must.
    pub fn has_one_thread(&self) -> io::Result<bool> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.pid().as_raw_nonzero()))?;
        Ok(tasks.count() == 1)
    }

    /// Waits for the end of one that ends by itself, so that its own reason is known, and tells how it ended.
    pub async fn ended(self) -> Ended {
        let _killed_below = tokio::time::timeout(END_WAIT_MAX, self.ended.readable()).await;
        self.end().await
    }

    /// Ends it, and tells how it ended and what it said last.
    pub async fn end(self) -> Ended {
        let Self { process, packets, ended, mut stderr } = self;
        drop((packets, ended));
        stderr.rest();
        let said = stderr.text();
        let ending = tokio::task::spawn_blocking(move || process.end());
        let status = ending.await.map_err(io::Error::other).flatten();
        Ended { status, said }
    }
}

/// How a zygote ended.
pub struct Ended {
    pub status: io::Result<std::process::ExitStatus>,
    /// The last of its standard error.
    pub said: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.status {
            Ok(status) => write!(f, "{status}")?,
            Err(error) => write!(f, "{error}")?,
        }
        match self.said.trim_end() {
            "" => Ok(()),
            said => write!(f, ": {said}"),
        }
    }
}

fn group(warmth: Warmth) -> &'static str {
    match warmth {
        Warmth::Core => "core",
        Warmth::All => "all",
    }
}

/// With a memory limit that does not know of its children, a zygote is killed when it has a thousand, and they are orphans.
fn limits(config: &SandboxConfig) -> Limits {
    let children_max = u64::try_from(config.containers_at_once()).unwrap_or(u64::MAX);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Limits {
        memory_bytes_max: OWN_MEMORY_BYTES_MAX.saturating_add(CHILD_MEMORY_BYTES_MAX.saturating_mul(children_max)),
        cpus: u32::try_from(cores).map_or(1.0, f64::from),
        processes_max: PROCESSES_MAX,
    }
}

fn plan(image: &Image, warmth: Warmth, stderr: OwnedFd) -> ZygotePlan {
    // Found by its name, as in a container.
    let argv = ["/usr/bin/env", "python3", "-I", &format!("{ZYGOTE_FILES}/zygote.py"), group(warmth)];
    ZygotePlan {
        rootfs: image.rootfs.path.clone(),
        argv: argv.map(str::to_owned).to_vec(),
        env: environment::of_repl(),
        home: PathBuf::from(CACHES),
        scratch_bytes_max: SCRATCH_BYTES_MAX,
        stderr: Some(stderr),
    }
}

fn files(image: &Image) -> Result<Vec<ZygoteFile>, SandboxError> {
    let file = |(name, bytes): (&str, &'static [u8])| ZygoteFile { name: name.to_owned(), bytes: Cow::Borrowed(bytes) };
    let mut files: Vec<_> = program::zygote_files().into_iter().map(file).collect();
    files.push(ZygoteFile { name: "seal".to_owned(), bytes: Cow::Owned(image.seal()?) });
    Ok(files)
}

/// What a zygote says to people: the last of it.
struct Stderr {
    pipe: AsyncFd<OwnedFd>,
    kept: Vec<u8>,
    end: End,
}

#[derive(PartialEq, Eq)]
enum End {
    Open,
    Reached,
}

impl Stderr {
    fn over(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: watch(pipe, Interest::READABLE)?, kept: Vec::new(), end: End::Open })
    }

    /// Waits for more and takes it; for ever once there is no more.
    async fn read(&mut self) {
        if self.end == End::Reached {
            return std::future::pending().await;
        }
        let mut buffer = [0; 1024];
        let Ok(mut ready) = self.pipe.readable().await else {
            self.end = End::Reached;
            return;
        };
        match ready.try_io(|pipe| Ok(rustix::io::read(pipe.get_ref(), &mut buffer)?)) {
            Ok(Ok(0) | Err(_)) => self.end = End::Reached,
            Ok(Ok(count)) => self.keep(&buffer[..count]),
            Err(_would_block) => {}
        }
    }

    /// Takes what is there.
    fn rest(&mut self) {
        let mut buffer = [0; 1024];
        // What it has forked may hold the pipe open: the end is not waited for.
        while let Ok(count @ 1..) = rustix::io::read(self.pipe.get_ref(), &mut buffer) {
            self.keep(&buffer[..count]);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(STDERR_BYTES_MAX);
        self.kept.drain(..surplus);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_memory_counts_the_children() {
        const MIB: u64 = 1024 * 1024;
        let cases = [((0, 0), 2048), ((1, 0), 2052), ((256, 4), 3104), ((2000, 0), 10_048)];
        for ((containers_max, pool_containers), mib) in cases {
            let config = SandboxConfig { containers_max, pool_containers, ..SandboxConfig::default() };
            assert_eq!(limits(&config).memory_bytes_max, mib * MIB, "{containers_max} {pool_containers}");
        }
        let many = SandboxConfig { containers_max: usize::MAX, ..SandboxConfig::default() };
        assert_eq!(limits(&many).memory_bytes_max, u64::MAX);
    }
}
