//! What on the host would tell of an escape: bait, and the host's own state, compared after every case.

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::attack::host::{self, Ids};
use crate::clock::Stopwatch;
use crate::random::secret;

/// Processes, mounts and the like that are on their way out get so long.
pub const SETTLE_MAX: Duration = Duration::from_secs(10);
/// How often the state is looked at meanwhile.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);
/// Available memory may go down by so much: other programs of the host use it too.
const MEMORY_DROP_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// The load average may go up by so much: other programs of the host make load too, but a bomb outside makes thousands.
const LOAD_RISE_MAX: f64 = 256.0;
/// The clock may be set by so much: the host itself corrects it.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(2);
/// What the host's kernel is told to do; a container that changed one of these would own the host.
const SETTINGS: &[&str] = &[
    "kernel/core_pattern",
    "kernel/hostname",
    "kernel/modprobe",
    "kernel/panic",
    "kernel/poweroff_cmd",
    "kernel/randomize_va_space",
    "kernel/sysrq",
    "kernel/tainted",
    "kernel/yama/ptrace_scope",
    "user/max_user_namespaces",
    "vm/overcommit_memory",
];

/// Files, processes and sockets of ours that nothing may touch.
#[derive(Debug)]
pub struct Bait {
    directory: TempDir,
    token: String,
    processes: Vec<Child>,
    tcp: TcpListener,
    udp: UdpSocket,
    stream: UnixListener,
    datagram: UnixDatagram,
    name: String,
    /// Connections and datagrams that came.
    visits: AtomicU64,
    ids: Ids,
    mounts: String,
}

/// The host before the first attack.
#[derive(Debug)]
pub struct Canaries {
    bait: Bait,
    before: Vec<String>,
    load: f64,
    memory_bytes: u64,
    wall_offset: Duration,
}

/// A canary that is dead.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dead {
    /// Its name.
    pub canary: &'static str,
    /// What happened to it.
    pub what: String,
}

/// A canary whose state must stay as it was.
struct Still {
    name: &'static str,
    state: fn(&Bait) -> io::Result<String>,
}

/// The canaries whose state must stay the same, in the order of the report.
const STILL: &[Still] = &[
    Still { name: "file", state: Bait::file },
    Still { name: "process", state: Bait::processes },
    Still { name: "listeners", state: Bait::visits },
    Still { name: "processes", state: |bait| host::processes(&bait.ids) },
    Still { name: "control groups", state: |_| Ok(host::control_groups_of(std::process::id())) },
    // The host may let go of mounts; new ones are nobody's but an escaped container's.
    Still { name: "mounts", state: |bait| Ok(host::added(&bait.mounts, &host::mounts()?)) },
    Still { name: "listening sockets", state: |bait| host::listening(&bait.ids) },
    Still { name: "descriptors", state: |_| host::descriptors() },
    Still { name: "kernel settings", state: |_| Ok(settings()) },
    Still { name: "tracer", state: |_| host::tracer() },
];

/// The names of all canaries, for the report.
pub fn names() -> Vec<&'static str> {
    let bounded = ["load", "memory", "clock"];
    let others = ["containers", "neighbour and image"];
    STILL.iter().map(|canary| canary.name).chain(bounded).chain(others).collect()
}

impl Bait {
    /// Lays it out. Each file may be written by everybody: only the jail protects it.
    ///
    /// # Errors
    /// A directory, a process or a socket that cannot be had.
    pub fn lay(ids: Ids) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("belljar-attack-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
        let token = secret("canary");
        fs::write(directory.path().join("canary.txt"), &token)?;
        fs::set_permissions(directory.path().join("canary.txt"), fs::Permissions::from_mode(0o666))?;
        let name = secret("belljar");
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let udp = UdpSocket::bind(tcp.local_addr()?)?;
        let stream = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let datagram = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("{name}-datagram"))?)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        stream.set_nonblocking(true)?;
        datagram.set_nonblocking(true)?;
        let visits = AtomicU64::new(0);
        let (processes, mounts) = (Vec::new(), String::new());
        let mut bait = Self { directory, token, processes, tcp, udp, stream, datagram, name, visits, ids, mounts };
        bait.processes.push(sleeper(None, &bait.token)?);
        // A process with a container's own host id can be signalled by it, if it can be named.
        if let Some(id) = ids.first() {
            bait.processes.push(sleeper(Some(id), &bait.token)?);
        }
        Ok(bait)
    }

    /// What must not come out of any container.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What cases may name.
    ///
    /// # Errors
    /// A socket without an address.
    pub fn words(&self) -> io::Result<Vec<(&'static str, String)>> {
        let pid = self.processes.last().map_or(0, Child::id);
        Ok(vec![
            ("CANARY", self.path().display().to_string()),
            ("CANARY_PID", pid.to_string()),
            ("ABSTRACT_DATAGRAM", format!("{}-datagram", self.name)),
            ("ABSTRACT", self.name.clone()),
            ("PORT", self.tcp.local_addr()?.port().to_string()),
        ])
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("canary.txt")
    }

    fn file(&self) -> io::Result<String> {
        let meta = fs::symlink_metadata(self.path())?;
        let content = fs::read_to_string(self.path())?;
        let files = fs::read_dir(self.directory.path())?.count();
        let (inode, links, mode) = (meta.ino(), meta.nlink(), meta.mode());
        let (uid, mtime, nanoseconds) = (meta.uid(), meta.mtime(), meta.mtime_nsec());
        Ok(format!(
            "{content} inode {inode} links {links} mode {mode:o} owner {uid} changed {mtime}.{nanoseconds:09} of {files}"
        ))
    }

    fn processes(&self) -> io::Result<String> {
        self.processes.iter().map(|child| host::liveliness(child.id())).collect()
    }

    fn visits(&self) -> io::Result<String> {
        let mut byte = [0; 1];
        let came = |done: bool| {
            if done {
                self.visits.fetch_add(1, Ordering::Relaxed);
            }
            done
        };
        while came(self.tcp.accept().is_ok())
            || came(self.stream.accept().is_ok())
            || came(self.udp.recv(&mut byte).is_ok())
            || came(self.datagram.recv(&mut byte).is_ok())
        {}
        Ok(format!("{} visits", self.visits.load(Ordering::Relaxed)))
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // A sleeper that is gone already is what the canary is for.
            if child.kill().and_then(|()| child.wait()).is_err() {
                tracing::warn!(pid = child.id(), "a canary process could not be ended");
            }
        }
    }
}

/// What a container that sees a canary process would read in its environment.
const VARIABLE: &str = "BELLJAR_ATTACK_CANARY";

/// Waits for the end of a pipe that nobody but this process holds: it does not outlive a suite that is killed.
fn sleeper(id: Option<u32>, token: &str) -> io::Result<Child> {
    let mut command = Command::new("cat");
    command.env(VARIABLE, token).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(id) = id {
        command.uid(id).gid(id);
    }
    command.spawn()
}

fn settings() -> String {
    let read = |name: &&str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    SETTINGS.iter().map(|name| format!("{name} {}\n", read(name).trim_end())).collect()
}

/// The wall clock, as far as it is ahead of the time since the start of the machine.
fn wall_offset() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    read(ClockId::Realtime).saturating_sub(read(ClockId::Boottime))
}

/// Whether something came true within the time.
pub async fn settled(max: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let since = Stopwatch::start();
    let mut ticks = tokio::time::interval(SETTLE_INTERVAL);
    loop {
        ticks.tick().await;
        if is_true() {
            return true;
        }
        if since.elapsed() > max {
            return false;
        }
    }
}

impl Canaries {
    /// Looks at the host, which is taken as it is.
    ///
    /// # Errors
    /// A state that cannot be read.
    pub fn watch(mut bait: Bait) -> io::Result<Self> {
        bait.mounts = host::mounts()?;
        let before = STILL.iter().map(|canary| (canary.state)(&bait)).collect::<io::Result<_>>()?;
        let (load, memory_bytes) = (host::load()?, host::memory_available_bytes()?);
        Ok(Self { bait, before, load, memory_bytes, wall_offset: wall_offset() })
    }

    /// The dead ones, once what ends late has had its time to end.
    pub async fn dead(&self) -> Vec<Dead> {
        match settled(SETTLE_MAX, || self.dead_now().is_empty()).await {
            true => Vec::new(),
            false => self.dead_now(),
        }
    }

    fn dead_now(&self) -> Vec<Dead> {
        let still = STILL.iter().zip(&self.before).filter_map(|(canary, before)| {
            let what = match (canary.state)(&self.bait) {
                Ok(now) if now == *before => return None,
                Ok(now) => host::difference(before, &now),
                Err(error) => format!("it cannot be looked at: {error}"),
            };
            Some(Dead { canary: canary.name, what })
        });
        still.chain(self.out_of_bounds()).collect()
    }

    fn out_of_bounds(&self) -> Vec<Dead> {
        let mut dead = Vec::new();
        match host::load() {
            Ok(load) if load <= self.load + LOAD_RISE_MAX => {}
            Ok(load) => dead.push(Dead { canary: "load", what: format!("{load}, it was {}", self.load) }),
            Err(error) => dead.push(Dead { canary: "load", what: error.to_string() }),
        }
        match host::memory_available_bytes() {
            Ok(now) if now + MEMORY_DROP_BYTES_MAX >= self.memory_bytes => {}
            Ok(now) => {
                let what = format!("{now} bytes are available, it were {}", self.memory_bytes);
                dead.push(Dead { canary: "memory", what });
            }
            Err(error) => dead.push(Dead { canary: "memory", what: error.to_string() }),
        }
        let step = wall_offset().abs_diff(self.wall_offset);
        if step > CLOCK_STEP_MAX {
            dead.push(Dead { canary: "clock", what: format!("it was set by {step:?}") });
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    fn canaries() -> Canaries {
        Canaries::watch(Bait::lay(Ids::none()).expect("bait")).expect("a host")
    }

    fn dead(canaries: &Canaries) -> Vec<&'static str> {
        canaries.dead_now().into_iter().map(|dead| dead.canary).collect()
    }

    #[test]
    fn an_untouched_host_is_well() {
        let canaries = canaries();
        assert_eq!(canaries.dead_now(), []);
    }

    #[test]
    fn a_touched_file_is_seen() {
        let canaries = canaries();
        let path = canaries.bait.path();
        fs::write(&path, &canaries.bait.token).expect("written");
        assert_eq!(dead(&canaries), ["file"], "the same content, written anew");
        fs::remove_file(&path).expect("removed");
        assert_eq!(dead(&canaries), ["file"]);
    }

    #[test]
    fn a_signalled_process_is_seen() {
        for signal in [rustix::process::Signal::KILL, rustix::process::Signal::STOP] {
            let canaries = canaries();
            let pid = i32::try_from(canaries.bait.processes[0].id()).expect("small");
            let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
            rustix::process::kill_process(pid, signal).expect("ours");
            let since = Stopwatch::start();
            while !dead(&canaries).contains(&"process") {
                assert!(since.elapsed() < SETTLE_MAX, "{signal:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_visit_is_seen() {
        let visits: [fn(&Bait); 4] = [
            |bait| drop(TcpStream::connect(bait.tcp.local_addr().expect("bound")).expect("connected")),
            |bait| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
                socket.send_to(b"x", bait.udp.local_addr().expect("bound")).expect("sent");
            },
            |bait| {
                let address = SocketAddr::from_abstract_name(&bait.name).expect("a name");
                drop(UnixStream::connect_addr(&address).expect("connected"));
            },
            |bait| {
                let address = SocketAddr::from_abstract_name(format!("{}-datagram", bait.name)).expect("a name");
                UnixDatagram::unbound().expect("a socket").send_to_addr(b"x", &address).expect("sent");
            },
        ];
        for visit in visits {
            let canaries = canaries();
            visit(&canaries.bait);
            assert_eq!(dead(&canaries), ["listeners"]);
        }
    }

    #[test]
    fn what_is_left_behind_is_seen() {
        let canaries = canaries();
        let left = fs::File::open("/dev/null").expect("open");
        assert_eq!(dead(&canaries), ["descriptors"]);
        drop(left);
        let mut child = sleeper(None, "").expect("a process");
        assert_eq!(dead(&canaries), ["processes"]);
        child.kill().and_then(|()| child.wait().map(drop)).expect("ended");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        assert_eq!(dead(&canaries), ["listening sockets", "descriptors"]);
        drop(listener);
        assert_eq!(canaries.dead_now(), []);
    }

    #[test]
    fn bounds_can_be_crossed() {
        let mut canaries = canaries();
        canaries.load = -LOAD_RISE_MAX - 1.0;
        canaries.memory_bytes = u64::MAX;
        canaries.wall_offset += 2 * CLOCK_STEP_MAX;
        assert_eq!(dead(&canaries), ["load", "memory", "clock"]);
    }
}
