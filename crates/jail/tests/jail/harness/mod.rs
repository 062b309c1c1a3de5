//! Starts the test program inside a jail and talks to it.

use std::fs;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use belljar_jail::{
    Attachment, BirthError, ContainerSpec, Directory, Identity, JailPlan, Jailed, LandlockNeed, LaunchError, Nursery,
    Realm, Symlink, launch,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};

pub mod words;
pub mod zygote;

use words::{Answer, Argument, Ask, PACKET_BYTES_MAX};

/// First host id of test containers.
pub const BASE: u32 = 900_000_000;

/// Names a copy of the test program, for a user who may not enter the folder it was built in.
pub const GUEST: &str = "BELLJAR_TEST_GUEST";

/// The test program's place.
pub fn guest() -> PathBuf {
    std::env::var_os(GUEST).map_or_else(|| env!("CARGO_BIN_EXE_jail-test-guest").into(), PathBuf::from)
}

/// Says why a test does nothing; where everything must be there (`CI=true`), fails instead.
#[macro_export]
macro_rules! skip {
    ($reason:expr) => {{
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{}", $reason);
        eprintln!("SKIP: {}", $reason);
        return;
    }};
}

/// A memfd with the test program, sealed as the product's is.
pub fn program() -> OwnedFd {
    let bytes = fs::read(guest()).expect("test program");
    let memfd = rustix::fs::memfd_create(
        "belljar-guest",
        rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING,
    )
    .expect("memfd");
    let mut file = fs::File::from(memfd);
    file.write_all(&bytes).expect("write the memfd");
    file.rewind().expect("rewind");
    let memfd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(
        &memfd,
        rustix::fs::SealFlags::WRITE
            | rustix::fs::SealFlags::SHRINK
            | rustix::fs::SealFlags::GROW
            | rustix::fs::SealFlags::SEAL,
    )
    .expect("seals");
    memfd
}

/// An empty root file system that belongs to the container's root.
pub fn empty_rootfs() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("temporary directory");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    match Identity::strongest(BASE) {
        Identity::Mapped { base } => {
            chown(place.path(), Some(base), Some(base)).expect("chown");
        }
        Identity::Caller { .. } => {}
    }
    place
}

pub fn spec(rootfs: PathBuf) -> ContainerSpec {
    let directory = |path: &str, mode| Directory { path: path.into(), mode };
    ContainerSpec {
        rootfs,
        identity: Identity::strongest(BASE),
        hostname: "container".to_owned(),
        disk_bytes_max: 64 << 20,
        inodes_max: 4096,
        shm_bytes_max: 16 << 20,
        directories: vec![
            directory("/files/input", 0o755),
            directory("/files/output", 0o755),
            directory("/work", 0o755),
            directory("/root", 0o700),
            directory("/tmp", 0o1777),
        ],
        symlinks: vec![Symlink { path: "/mnt/user-data".into(), target: "/files/input".into() }],
        working_directory: "/work".into(),
        landlock: LandlockNeed::Required,
    }
}

/// A running container with the test program as process 1.
#[derive(Debug)]
pub struct Inside {
    pub jailed: Jailed,
    pub line: Line,
}

/// The two ways to a process 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a nursery, which is gone again afterwards.
    Borne,
    /// By a program started for it.
    Launched,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Borne, Self::Launched];
}

/// A socket to the test program, wherever it runs.
#[derive(Debug)]
pub struct Line(pub OwnedFd);

pub fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("socket pair")
}

pub fn realm() -> Result<Realm, LaunchError> {
    Realm::create(program().as_fd(), Identity::strongest(BASE))
}

impl std::ops::Deref for Inside {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl Inside {
    pub fn start(plan: &JailPlan, attachment: Attachment<'_>) -> Result<Self, LaunchError> {
        Self::start_in(&realm()?, plan, attachment)
    }

    pub fn start_in(realm: &Realm, plan: &JailPlan, attachment: Attachment<'_>) -> Result<Self, LaunchError> {
        Self::start_by(Way::Borne, realm, plan, attachment)
    }

    pub fn start_by(way: Way, realm: &Realm, plan: &JailPlan, attachment: Attachment<'_>) -> Result<Self, LaunchError> {
        let (control, theirs) = pair();
        let jailed = match way {
            Way::Launched => launch(realm, program().as_fd(), plan, attachment, theirs)?,
            Way::Borne => {
                let nursery = Nursery::start(realm, program().as_fd(), plan)?;
                nursery.launch(plan.sizes(), attachment, theirs.as_fd(), None).map_err(|error| match error {
                    BirthError::Container(error) | BirthError::Nursery(error) => error,
                })?
            }
        };
        Ok(Self { jailed, line: Line(control) })
    }

    /// Closes the control socket, which the program takes as its end, and waits for it.
    pub fn end(self) -> std::process::ExitStatus {
        drop(self.line);
        self.jailed.wait().expect("wait")
    }
}

impl Line {
    pub fn ask(&self, ask: &Ask) -> Answer {
        self.ask_fallibly(ask).expect("an answer")
    }

    /// `None` when process 1 ended instead of answering.
    pub fn ask_fallibly(&self, ask: &Ask) -> Option<Answer> {
        let packet = serde_json::to_vec(ask).expect("ask");
        send(&self.0, &packet, SendFlags::NOSIGNAL).expect("send");
        self.hear()
    }

    pub fn hear(&self) -> Option<Answer> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let (_, length) = recv(&self.0, packet.as_mut_slice(), RecvFlags::empty()).expect("receive");
        (length > 0).then(|| serde_json::from_slice(&packet[..length]).expect("answer"))
    }

    pub fn read(&self, path: &str) -> Answer {
        self.ask(&Ask::Read { path: path.to_owned() })
    }

    pub fn text(&self, path: &str) -> String {
        match self.read(path) {
            Answer::Text(text) => text,
            other => panic!("{path}: {other:?}"),
        }
    }

    pub fn list(&self, path: &str) -> Answer {
        self.ask(&Ask::List { path: path.to_owned() })
    }

    pub fn call(&self, number: i64, arguments: &[Argument]) -> Answer {
        self.ask(&Ask::Call { number, arguments: arguments.to_vec() })
    }

    pub fn run(&self, argv: &[&str]) -> Answer {
        self.ask(&Ask::Run { argv: argv.iter().map(ToString::to_string).collect() })
    }
}

/// A container with an empty root file system and no limits.
pub fn start_empty() -> (tempfile::TempDir, Inside) {
    start_empty_by(Way::Borne)
}

pub fn start_empty_by(way: Way) -> (tempfile::TempDir, Inside) {
    let rootfs = empty_rootfs();
    let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
    let inside = Inside::start_by(way, &realm().expect("realm"), &plan, Attachment::Unlimited).expect("launch");
    (rootfs, inside)
}
