//! Containers of gVisor, where they differ from those of namespaces. The other tests run in both isolations.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use belljar_sandbox::{ContainerOptions, Isolation, Sandbox, SandboxConfig, SandboxError};

use support::leftovers::Held;
use support::{config, id, run, runsc, said, stdout};

/// Where gVisor is only what one container asks for.
fn namespaces() -> SandboxConfig {
    SandboxConfig { isolation: Isolation::Namespaces, pool_containers: 0, ..config() }
}

const GVISOR: ContainerOptions = ContainerOptions {
    limits: belljar_sandbox::ContainerLimits { memory_bytes_max: None, cpus: None, processes_max: None },
    ready_for: belljar_sandbox::Language::Bash,
    isolation: Some(Isolation::Gvisor),
};

#[tokio::test(flavor = "multi_thread")]
async fn each_container_has_the_isolation_it_was_asked_for() {
    if runsc().is_none() {
        skip!("runsc is not installed: scripts/test does that");
    }
    let before = Held::now();
    {
        let sandbox = sandbox!(namespaces());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc");
        for (seed, options) in [(1, GVISOR), (2, ContainerOptions::default())] {
            sandbox.create_with(id(seed), options).await.expect("a container starts");
            let mut lease = sandbox.lease(&id(seed), Duration::ZERO).await.expect("nobody else has it");
            let same = stdout(&mut lease, "uname -r").await == kernel;
            assert_eq!(same, options.isolation.is_none(), "{options:?}");
        }
        sandbox.close().await;
    }
    let after = Held::now();
    assert_eq!(before.children(), after.children());
    assert_eq!(before.cgroups(), after.cgroups());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_runsc_nothing_weaker_is_given() {
    let broken = tempfile::NamedTempFile::new().expect("tempfile");
    std::fs::write(broken.path(), "\x7fELF, but no program").expect("write");
    for runsc in [None, Some(PathBuf::from("/nowhere/runsc")), Some(broken.path().to_owned())] {
        let without = SandboxConfig { runsc: runsc.clone(), ..namespaces() };
        let refused = Sandbox::open(
            SandboxConfig { isolation: Isolation::Gvisor, ..without.clone() },
            support::rootfs::rootfs(),
        );
        let error = refused.await.map(drop).expect_err("a server that was told to use gVisor");
        assert!(error.to_string().contains("gvisor"), "{runsc:?}: {error}");
        let sandbox = sandbox!(without);
        let error = sandbox.create_with(id(1), GVISOR).await.expect_err("a container that was to be of gVisor");
        assert!(matches!(error, SandboxError::Gvisor(_)), "{runsc:?}: {error}");
        assert_eq!(sandbox.counts().ready, 0);
        sandbox.create(id(1)).await.expect("the sandbox lives");
        sandbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_nowhere_to_be_seen() {
    if runsc().is_none() {
        skip!("runsc is not installed: scripts/test does that");
    }
    let sandbox = sandbox!(SandboxConfig { isolation: Isolation::Gvisor, ..config() });
    sandbox.create(id(1)).await.expect("a container starts");
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("nobody else has it");
    assert_eq!(stdout(&mut lease, "echo $$; id -u; ls /bundle /state 2>/dev/null; ls -A /tmp").await.lines().count(), 2);
    // The image's directories and what gVisor itself makes.
    let mounts = stdout(&mut lease, "cut -d' ' -f5 /proc/self/mountinfo | sort").await;
    assert_eq!(mounts, "/\n/dev\n/dev/pts\n/dev/shm\n/proc\n/run/belljar\n/sys\n");
    let interfaces = stdout(&mut lease, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
    assert!(["", "lo\n"].contains(&interfaces.as_str()), "{interfaces}");
    let capabilities = stdout(&mut lease, "while read name value; do [ $name = CapBnd: ] && echo $value; done < /proc/self/status").await;
    assert_eq!(capabilities, "0000000000000000\n");
    let supervisor = said(&run(&mut lease, "ls -l /proc/1/fd /proc/1/cwd; cat /proc/1/environ").await);
    assert!(supervisor.stdout.is_empty(), "{supervisor:?}");
    sandbox.close().await;
}
