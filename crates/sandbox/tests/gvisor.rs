//! Containers of gVisor, where they differ from those of namespaces. The other tests run in both isolations.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use belljar_sandbox::{
    CellOptions, CellOutcome, ContainerOptions, DeathReason, Isolation, KillReason, Loss, Sandbox, SandboxConfig,
    SandboxError,
};

use support::leftovers::Held;
use support::{config, id, leased, limits_enforced, options, run, runsc, said, stdout};

/// Where gVisor is only what one container asks for.
fn namespaces() -> SandboxConfig {
    SandboxConfig { isolation: Isolation::Namespaces, pool_containers: 0, ..config() }
}

fn gvisor() -> SandboxConfig {
    SandboxConfig { isolation: Isolation::Gvisor, pool_containers: 0, ..config() }
}

/// Counts, inside, those that sleep so many seconds.
fn sleepers(seconds: u32) -> String {
    format!(
        "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p; echo; done 2>/dev/null | (while read l; do \
             if [ \"$l\" = 'sleep {seconds}' ]; then echo x; fi; done) | wc -l"
    )
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
        let refused =
            Sandbox::open(SandboxConfig { isolation: Isolation::Gvisor, ..without.clone() }, support::rootfs::rootfs());
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
    let sandbox = sandbox!(gvisor());
    sandbox.create(id(1)).await.expect("a container starts");
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("nobody else has it");
    assert_eq!(
        stdout(&mut lease, "echo $$; id -u; ls /bundle /state 2>/dev/null; ls -A /tmp").await.lines().count(),
        2
    );
    // The image's directories and what gVisor itself makes.
    let mounts = stdout(&mut lease, "cut -d' ' -f5 /proc/self/mountinfo | sort").await;
    assert_eq!(mounts, "/\n/dev\n/dev/pts\n/dev/shm\n/proc\n/run/belljar\n/sys\n");
    let interfaces = stdout(&mut lease, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
    assert!(["", "lo\n"].contains(&interfaces.as_str()), "{interfaces}");
    let capabilities = stdout(
        &mut lease,
        "while read name value; do if [ $name = CapBnd: ]; then echo $value; fi; done < /proc/self/status",
    )
    .await;
    assert_eq!(capabilities, "0000000000000000\n");
    // gVisor shows the descriptors of process 1, but lets nobody have them.
    let control = said(&run(&mut lease, "for fd in 3 4 5; do echo forged > /proc/1/fd/$fd; done; echo tried").await);
    assert_eq!(control.stdout, "tried\n", "{control:?}");
    assert_eq!(stdout(&mut lease, "echo alive").await, "alive\n");
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_leaves_no_process_inside_and_files_stay() {
    if runsc().is_none() {
        skip!("runsc is not installed: scripts/test does that");
    }
    let sandbox = sandbox!(gvisor());
    let mut lease = leased(&sandbox, 1).await;
    run(&mut lease, "echo kept > /tmp/kept; setsid sleep 73001 >/dev/null 2>&1 &").await;
    // The shell has only just forked it.
    let found = async { while stdout(&mut lease, &sleepers(73001)).await != "1\n" {} };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("what counts them finds them");
    let cut = CellOptions { wall: Duration::from_millis(500), ..options() };
    let outcome = lease.bash("trap '' TERM; (setsid bash -c 'sleep 73001 & disown' &); sleep 73001", cut).await;
    assert!(matches!(outcome, Ok(CellOutcome::TimedOut(_))), "{outcome:?}");
    assert_eq!(stdout(&mut lease, &sleepers(73001)).await, "0\n");
    assert_eq!(stdout(&mut lease, "cat /tmp/kept").await, "kept\n");
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_left_behind_does_not_keep_the_next_command_out() {
    if runsc().is_none() {
        skip!("runsc is not installed: scripts/test does that");
    }
    let sandbox = sandbox!(gvisor());
    let mut lease = leased(&sandbox, 1).await;
    let bomb = "for i in $(seq 200); do sleep 73002 >/dev/null 2>&1 & done 2>/dev/null; echo left";
    // The shell may give up itself when it cannot fork.
    run(&mut lease, bomb).await;
    let next = run(&mut lease, "echo next").await;
    assert_eq!(said(&next).stdout, "next\n");
    if limits_enforced() {
        assert_eq!(next.losses, [Loss::LeftoversKilled(64)]);
    }
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_ends_the_container_and_says_so() {
    if runsc().is_none() {
        skip!("runsc is not installed: scripts/test does that");
    }
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    let sandbox = sandbox!(gvisor());
    let before = Held::now();
    let mut lease = leased(&sandbox, 1).await;
    let outcome = lease.bash("echo before; head -c 2G /dev/zero | tail", options()).await.expect("an outcome");
    let CellOutcome::Killed(KillReason::Memory, output) = outcome else { panic!("{outcome:?}") };
    assert_eq!((said(&output).stdout.as_str(), output.return_code), ("before\n", 137));
    let dead = Loss::ContainerDied(DeathReason::OutOfMemory.to_string());
    assert_eq!(output.losses, [Loss::KilledByMemory(256 << 20), dead]);
    drop(lease);
    assert!(sandbox.remove(&id(1)).await);
    assert_eq!(Held::now().cgroups(), before.cgroups());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_containers_work_side_by_side_and_leave_nothing_behind() {
    if runsc().is_none() {
        skip!("runsc is not installed: scripts/test does that");
    }
    let warm = sandbox!(gvisor());
    warm.create(id(100)).await.expect("starts");
    warm.close().await;
    let before = Held::now();
    let sandbox = sandbox!(gvisor());
    let cells: Vec<_> = (0..10)
        .map(|seed| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move {
                let mut lease = leased(&sandbox, seed).await;
                let output = run(&mut lease, &format!("echo {seed} | tee $OUTPUT_DIR/f; sleep 73003 &")).await;
                assert_eq!(output.stdout, format!("{seed}\n").as_bytes());
                assert_eq!(output.files.len(), 1);
            })
        })
        .collect();
    for cell in cells {
        cell.await.expect("no panic");
    }
    sandbox.close().await;
    assert_eq!(Held::now(), before);
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
