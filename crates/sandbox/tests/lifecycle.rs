//! Containers made, leased, lost, expired and closed.

mod support;

use std::time::{Duration, Instant, SystemTime};

use belljar_sandbox::{
    CellOutcome, ContainerState, DeathReason, LeaseError, Loss, Sandbox, SandboxConfig, SandboxCounts, SandboxError,
};
use support::leftovers::{Held, kill_children, processes_with};
use support::{config, id, leased, options, run, stdout, until};

fn state(sandbox: &Sandbox, seed: u64) -> Option<ContainerState> {
    sandbox.status(&id(seed)).map(|status| status.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_held_by_one_and_known_to_all() {
    let sandbox = sandbox!();
    let created = sandbox.create(id(1)).await.expect("starts");
    assert_eq!((&created.id, created.state), (&id(1), ContainerState::Ready));
    assert!(matches!(sandbox.create(id(1)).await, Err(SandboxError::Exists(taken)) if taken == id(1)));
    let lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free");
    assert_eq!(state(&sandbox, 1), Some(ContainerState::Leased));
    let second = sandbox.lease(&id(1), Duration::from_millis(20)).await;
    assert_eq!(second.expect_err("held"), LeaseError::Busy(id(1)));
    let waiting = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.lease(&id(1), Duration::from_secs(30)).await })
    };
    drop(lease);
    drop(waiting.await.expect("no panic").expect("given back"));
    assert_eq!(sandbox.lease(&id(2), Duration::ZERO).await.expect_err("none"), LeaseError::Unknown(id(2)));
    assert_eq!(sandbox.list().len(), 1);
    assert!(sandbox.remove(&id(1)).await);
    assert!(!sandbox.remove(&id(1)).await);
    assert_eq!(sandbox.status(&id(1)), None);
    assert_eq!(sandbox.counts(), SandboxCounts::default());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_is_full_until_one_goes() {
    let sandbox = sandbox!(SandboxConfig { containers_max: 2, ..config() });
    let (first, second, third) = tokio::join!(sandbox.create(id(1)), sandbox.create(id(2)), sandbox.create(id(3)));
    let refused = [first, second, third].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(refused[..], [SandboxError::Full { containers_max: 2 }]), "{refused:?}");
    let gone = sandbox.list()[0].id.clone();
    assert!(sandbox.remove(&gone).await);
    sandbox.create(id(4)).await.expect("room again");
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_nobody_holds_is_removed_as_idle() {
    let sandbox = sandbox!();
    let lease = leased(&sandbox, 1).await;
    assert!(!sandbox.remove_idle(&id(1)).await);
    assert_eq!(state(&sandbox, 1), Some(ContainerState::Leased));
    drop(lease);
    assert!(sandbox.remove_idle(&id(1)).await);
    assert!(!sandbox.remove_idle(&id(1)).await);
    assert_eq!(sandbox.lease(&id(1), Duration::ZERO).await.expect_err("gone"), LeaseError::Unknown(id(1)));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_and_the_old_are_swept_and_the_leased_are_not() {
    let sandbox = sandbox!(SandboxConfig { container_idle: Duration::from_secs(60), ..config() });
    let lease = leased(&sandbox, 1).await;
    sandbox.create(id(2)).await.expect("starts");
    let now = SystemTime::now();
    assert_eq!(sandbox.sweep(now).await, []);
    assert_eq!(sandbox.sweep(now + Duration::from_secs(70)).await, [id(2)]);
    assert_eq!(sandbox.sweep(now + Duration::from_secs(40 * 86400)).await, []);
    drop(lease);
    assert_eq!(sandbox.sweep(now + Duration::from_secs(40 * 86400)).await, [id(1)]);
    assert_eq!(sandbox.counts(), SandboxCounts::default());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_mid_cell_is_told_at_once_and_ever_after() {
    namespaces_only!("the host does not see the code's processes");
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let killer = tokio::spawn(async {
        until("it sleeps", || !processes_with("sleep 72001").is_empty()).await;
        kill_children();
    });
    let started = Instant::now();
    let outcome = lease.bash("echo said; sleep 72001", options()).await.expect("an outcome");
    killer.await.expect("no panic");
    let CellOutcome::Crashed(output) = outcome else { panic!("{outcome:?}") };
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!((output.stdout.as_slice(), output.return_code), (b"said\n".as_slice(), 137));
    assert_eq!(output.losses, [Loss::ContainerDied(DeathReason::SupervisorEnded.to_string())]);
    assert_eq!(state(&sandbox, 1), Some(ContainerState::Dead));
    let after = lease.bash("echo never", options()).await;
    assert!(matches!(after, Err(SandboxError::Dead(DeathReason::SupervisorEnded))), "{after:?}");
    drop(lease);
    let dead = LeaseError::Dead { id: id(1), reason: DeathReason::SupervisorEnded };
    assert_eq!(sandbox.lease(&id(1), Duration::from_secs(1)).await.expect_err("dead"), dead);
    assert!(sandbox.remove(&id(1)).await);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_cells_is_noticed_without_being_asked() {
    let sandbox = sandbox!();
    sandbox.create(id(1)).await.expect("starts");
    kill_children();
    until("it is known", || state(&sandbox, 1) == Some(ContainerState::Dead)).await;
    assert_eq!(sandbox.counts(), SandboxCounts { dead: 1, ..SandboxCounts::default() });
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_container_takes_its_running_cell_along() {
    namespaces_only!("the host does not see the code's processes");
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let removing = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            until("it sleeps", || !processes_with("sleep 72002").is_empty()).await;
            sandbox.remove(&id(1)).await
        })
    };
    let outcome = lease.bash("sleep 72002", options()).await.expect("an outcome");
    assert!(matches!(outcome, CellOutcome::Killed(belljar_sandbox::KillReason::Requested, _)), "{outcome:?}");
    assert!(removing.await.expect("no panic"));
    assert!(processes_with("sleep 72002").is_empty());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_containers_work_side_by_side_and_leave_nothing_behind() {
    namespaces_only!("the host does not see the code's processes");
    // Once before the count: what the runtime and the standard library keep for good is there then.
    let warm = sandbox!();
    warm.create(id(100)).await.expect("starts");
    warm.close().await;
    let before = Held::now();
    let sandbox = sandbox!();
    let started = Instant::now();
    let cells: Vec<_> = (0..20)
        .map(|seed| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move {
                let mut lease = leased(&sandbox, seed).await;
                let command = format!("echo {seed} > /tmp/mine; sleep 0.1; cat /tmp/mine; echo out > $OUTPUT_DIR/f");
                let output = run(&mut lease, &command).await;
                assert_eq!(output.stdout, format!("{seed}\n").as_bytes());
                assert_eq!(output.files.len(), 1);
                run(&mut lease, "sleep 72003 & mkfifo $OUTPUT_DIR/p").await;
            })
        })
        .collect();
    for cell in cells {
        cell.await.expect("no panic");
    }
    eprintln!("20 containers, two cells each: {:?}", started.elapsed());
    assert_eq!(sandbox.counts(), SandboxCounts { ready: 20, ..SandboxCounts::default() });
    // The shell that starts one does not wait until it is one.
    until("all sleep", || processes_with("sleep 72003").len() == 20).await;
    sandbox.close().await;
    assert_eq!(processes_with("sleep 72003").len(), 0);
    assert_eq!(Held::now(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_sandbox_makes_no_more() {
    let sandbox = sandbox!();
    let other = sandbox.clone();
    sandbox.close().await;
    assert!(matches!(other.create(id(1)).await, Err(SandboxError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rootfs_without_a_shell_is_refused_when_opening() {
    let _probe = sandbox!();
    let empty = tempfile::tempdir().expect("tempdir");
    let mut rootfs = support::rootfs::rootfs();
    rootfs.path = empty.path().to_path_buf();
    if let Some(base) = rootfs.owner_base {
        std::os::unix::fs::chown(empty.path(), Some(base), Some(base)).expect("chown");
    }
    let refused = Sandbox::open(config(), rootfs).await.err().expect("no shell").to_string();
    let expected = "this machine cannot run containers: the first container cannot run a shell: \
                    belljar: /bin/bash: No such file or directory (os error 2)";
    assert_eq!(refused, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_dropped_without_a_word_leaves_nothing_either() {
    let warm = sandbox!();
    warm.close().await;
    let before = Held::now();
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(stdout(&mut lease, "sleep 72004 >/dev/null 2>&1 & echo left").await, "left\n");
    drop(lease);
    drop(sandbox);
    Held::settles_at(&before).await;
    assert!(processes_with("sleep 72004").is_empty());
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
