//! Times the start of a container: `launch` up to a sealed process 1, on an empty root file system.
//!
//! `cargo run --release -p belljar-jail --example start_time -- [STARTS]` prints quantiles in microseconds as JSON.
//! It is its own guest program, unless the next argument names another.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use belljar_jail::cgroup::{CgroupTree, Limits};
use belljar_jail::{Attachment, ContainerSpec, Identity, JailPlan, LandlockNeed, Realm, enter, launch};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() == Some("belljar-guest") {
        return guest();
    }
    let starts: usize = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let rootfs = tempfile::tempdir()?;
    std::fs::set_permissions(rootfs.path(), std::fs::Permissions::from_mode(0o755))?;
    let identity = Identity::strongest(900_000_000);
    if let Identity::Mapped { base } = identity {
        chown(rootfs.path(), Some(base), Some(base))?;
    }
    let plan = JailPlan::for_container(&ContainerSpec {
        rootfs: rootfs.path().to_owned(),
        identity,
        hostname: "container".to_owned(),
        disk_bytes_max: 64 << 20,
        inodes_max: 4096,
        shm_bytes_max: 16 << 20,
        directories: Vec::new(),
        symlinks: Vec::new(),
        working_directory: "/".into(),
        landlock: LandlockNeed::IfAvailable,
    })?;
    let tree = CgroupTree::detect();
    let program = program(arguments.next().as_deref().unwrap_or("/proc/self/exe"))?;
    let realm = Realm::create(program.as_fd(), identity)?;
    let mut bare_us = Vec::new();
    let mut limited_us = Vec::new();
    for round in 0..starts {
        bare_us.push(start(&realm, &program, &plan, Attachment::Unlimited)?);
        if let Ok(tree) = &tree {
            let limits = Limits { memory_bytes_max: 64 << 20, cpus: 1.0, processes_max: 64 };
            let cgroup = tree.create(&format!("start-{round}"), &limits)?;
            limited_us.push(start(&realm, &program, &plan, Attachment::Cgroup(&cgroup))?);
            cgroup.remove()?;
        }
    }
    println!("{{\"starts\":{starts},\"bare_us\":{},\"in_cgroup_us\":{}}}", quantiles(bare_us), quantiles(limited_us));
    Ok(())
}

fn guest() -> Result<(), Failure> {
    let mut control = UnixStream::from(enter()?.seal()?);
    // Until the host closes its end.
    control.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn program(path: &str) -> Result<OwnedFd, Failure> {
    let memfd = rustix::fs::memfd_create("belljar-guest", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memfd);
    file.write_all(&std::fs::read(path)?)?;
    Ok(file.into())
}

fn start(realm: &Realm, program: &OwnedFd, plan: &JailPlan, attachment: Attachment<'_>) -> Result<u128, Failure> {
    let (_ours, theirs) = UnixStream::pair()?;
    let begin = Instant::now();
    let jailed = launch(realm, program.as_fd(), plan, attachment, theirs.into())?;
    let took = begin.elapsed().as_micros();
    jailed.kill()?;
    jailed.wait()?;
    Ok(took)
}

fn quantiles(mut values: Vec<u128>) -> String {
    values.sort_unstable();
    let at = |percent: usize| values.get(values.len() * percent / 100).copied();
    match (at(0), at(50), at(90), at(99)) {
        (Some(least), Some(median), Some(p90), Some(p99)) => {
            format!("{{\"min\":{least},\"p50\":{median},\"p90\":{p90},\"p99\":{p99}}}")
        }
        _ => "null".to_owned(),
    }
}
