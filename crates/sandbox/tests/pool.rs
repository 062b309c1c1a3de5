//! The pool, limits of one container, and what is frozen; in real containers, without Python.

mod support;

use std::time::{Duration, SystemTime};

use belljar_sandbox::{
    ContainerLimits, ContainerOptions, ContainerState, Language, Loss, Sandbox, SandboxConfig, SandboxCounts,
    SandboxError, ZygoteStatus,
};
use support::leftovers::{Held, kill_children, processes_with};
use support::{config, id, limits_enforced, run, stdout, until};

fn pooled(pool_containers: usize) -> SandboxConfig {
    SandboxConfig { pool_containers, ..config() }
}

async fn full(sandbox: &Sandbox, count: usize) {
    until("the pool is full", || sandbox.counts().pooled == count).await;
}

fn with(limits: ContainerLimits) -> ContainerOptions {
    ContainerOptions { limits, ready_for: Language::Bash, isolation: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_container_is_one_of_those_made_ahead() {
    let sandbox = sandbox!(pooled(2));
    full(&sandbox, 2).await;
    assert_eq!(sandbox.counts(), SandboxCounts { pooled: 2, ..SandboxCounts::default() });
    assert!(sandbox.list().is_empty(), "what is nobody's is not listed");
    let before = SystemTime::now();
    let status = sandbox.create(id(1)).await.expect("claimed");
    assert!(status.created_at >= before, "made for whoever asked, as far as they know");
    assert_eq!(status.state, ContainerState::Ready);
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free");
    assert_eq!(stdout(&mut lease, "echo hi").await, "hi\n");
    drop(lease);
    full(&sandbox, 2).await;
    assert_eq!(sandbox.counts(), SandboxCounts { ready: 1, pooled: 2, ..SandboxCounts::default() });
    assert!(sandbox.remove(&id(1)).await);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_claims_than_there_are_get_containers_all_the_same() {
    let sandbox = sandbox!(pooled(2));
    full(&sandbox, 2).await;
    let all: Vec<_> = (0..6)
        .map(|seed| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move { sandbox.create(id(seed)).await.map(|_| ()) })
        })
        .collect();
    for one in all {
        one.await.expect("no panic").expect("a container");
    }
    assert_eq!(sandbox.counts().ready, 6);
    full(&sandbox, 2).await;
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_on_the_shelf_is_made_anew_and_never_claimed() {
    let sandbox = sandbox!(pooled(2));
    full(&sandbox, 2).await;
    let killed = kill_children();
    until("they are dead", || !killed.iter().any(|pid| support::leftovers::is_alive(*pid))).await;
    // Whatever has been noticed by now: a claim gets a container that lives.
    sandbox.create(id(1)).await.expect("claimed or made");
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free");
    assert_eq!(stdout(&mut lease, "echo lives").await, "lives\n");
    drop(lease);
    full(&sandbox, 2).await;
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_does_not_count_and_goes_with_the_sandbox() {
    let warm = sandbox!(pooled(1));
    full(&warm, 1).await;
    warm.close().await;
    let before = Held::now();
    let sandbox = sandbox!(SandboxConfig { containers_max: 1, ..pooled(3) });
    full(&sandbox, 3).await;
    sandbox.create(id(1)).await.expect("room for one");
    let refused = sandbox.create(id(2)).await;
    assert!(matches!(refused, Err(SandboxError::Full { containers_max: 1 })), "{refused:?}");
    sandbox.close().await;
    assert_eq!(Held::now(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_is_for_new_containers_alone() {
    let sandbox = sandbox!(pooled(1));
    full(&sandbox, 1).await;
    sandbox.create(id(1)).await.expect("from the old one");
    let (_place, other) = support::rootfs::another("marked");
    sandbox.change_image(other).await.expect("a shell runs there");
    sandbox.create(id(2)).await.expect("from the new one");
    for (seed, expected) in [(1, "no\n"), (2, "yes\n")] {
        let mut lease = sandbox.lease(&id(seed), Duration::ZERO).await.expect("free");
        assert_eq!(stdout(&mut lease, "test -e /marked && echo yes || echo no").await, expected);
    }
    full(&sandbox, 1).await;
    let mut broken = support::rootfs::rootfs();
    broken.path = "/nonexistent".into();
    sandbox.change_image(broken).await.expect_err("nothing starts there");
    sandbox.create(id(3)).await.expect("the present image stays");
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_own_limits_hold_pooled_or_not() {
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    for pool_containers in [0, 1] {
        let sandbox = sandbox!(pooled(pool_containers));
        full(&sandbox, pool_containers).await;
        let few = ContainerLimits { processes_max: Some(12), ..ContainerLimits::default() };
        sandbox.create_with(id(1), with(few)).await.expect("claimed");
        full(&sandbox, pool_containers).await;
        let written = |file, value| support::leftovers::cgroups_with(file, value).len();
        assert_eq!((written("pids.max", "12"), written("pids.max", "64")), (1, pool_containers));
        let little = ContainerLimits { memory_bytes_max: Some(64 << 20), ..ContainerLimits::default() };
        sandbox.create_with(id(2), with(little)).await.expect("made");
        let mut lease = sandbox.lease(&id(2), Duration::ZERO).await.expect("free");
        // Its disk is as much smaller.
        let full_disk = run(&mut lease, "head -c 60M /dev/zero > /tmp/full").await;
        let disk = Loss::DiskFull { bytes_max: 58_720_256, inodes_max: 262_144 };
        assert_eq!((full_disk.return_code != 0, full_disk.losses), (true, vec![disk]));
        let hog = lease.bash("rm /tmp/full; head -c 1G /dev/zero | tail", support::options()).await.expect("lives");
        assert_eq!(hog.output().notices(), ["belljar: killed: memory limit of 67108864 bytes reached"]);
        drop(lease);
        sandbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_above_the_sandboxs_are_refused_by_name() {
    let sandbox = sandbox!();
    let much = ContainerLimits { memory_bytes_max: Some(1 << 40), ..ContainerLimits::default() };
    let refused = sandbox.create_with(id(1), with(much)).await.expect_err("refused").to_string();
    assert_eq!(refused, "memory_bytes_max = 1099511627776 is not possible: from 16777216 to 268435456");
    assert_eq!(sandbox.counts(), SandboxCounts::default());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unused_stand_still_until_they_are_leased() {
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    let sandbox = sandbox!(SandboxConfig { idle_freeze: Duration::from_millis(200), ..config() });
    sandbox.create(id(1)).await.expect("starts");
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free");
    let count = "while :; do echo x >> /tmp/ticks; sleep 0.01; done >/dev/null 2>&1 & sleep 0.2";
    run(&mut lease, count).await;
    let ticks = "wc -l < /tmp/ticks";
    let running: u32 = stdout(&mut lease, ticks).await.trim().parse().expect("a number");
    assert!(running > 0);
    let held = sandbox.counts();
    assert_eq!((held.leased, held.frozen), (1, 0), "what is held is not frozen");
    drop(lease);
    until("it is frozen", || sandbox.counts().frozen == 1).await;
    assert_eq!(sandbox.counts(), SandboxCounts { ready: 1, frozen: 1, ..SandboxCounts::default() });
    assert_eq!(sandbox.status(&id(1)).map(|status| status.state), Some(ContainerState::Ready));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free");
    let thawed: u32 = stdout(&mut lease, ticks).await.trim().parse().expect("a number");
    // A second of running would have been about a hundred; it runs before it is frozen, and after.
    assert!(thawed - running < 70, "{running} then {thawed}");
    drop(lease);
    until("it is frozen again", || sandbox.counts().frozen == 1).await;
    assert!(sandbox.remove(&id(1)).await, "what stands still can be killed");
    assert_eq!(processes_with("sleep 0.01").len(), 0);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_noticed_though_they_stood_still() {
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    let sandbox = sandbox!(SandboxConfig { idle_freeze: Duration::from_millis(20), ..config() });
    sandbox.create(id(1)).await.expect("starts");
    until("it is frozen", || sandbox.counts().frozen == 1).await;
    kill_children();
    until("it is dead", || sandbox.counts().dead == 1).await;
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_python_there_is_no_zygote_and_that_is_said() {
    let sandbox = sandbox!(SandboxConfig { zygotes: vec![belljar_sandbox::Warmth::Core], ..pooled(1) });
    let impossible = |status: &ZygoteStatus| matches!(status, ZygoteStatus::Impossible { .. });
    until("it is known", || impossible(&sandbox.warmth_status().core)).await;
    assert_eq!(sandbox.warmth_status().all, ZygoteStatus::Off);
    full(&sandbox, 1).await;
    let python = ContainerOptions { ready_for: Language::Python, ..ContainerOptions::default() };
    let refused = sandbox.create_with(id(1), python).await;
    assert!(matches!(refused, Err(SandboxError::NotStarted(_))), "{refused:?}");
    assert_eq!(sandbox.counts().starting, 0);
    sandbox.close().await;
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
