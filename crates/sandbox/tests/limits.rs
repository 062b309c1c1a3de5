//! Limits in a real container: each is reached, told, and survived.

mod support;

use std::time::{Duration, Instant};

use belljar_sandbox::{CellOptions, CellOutcome, Isolation, KillReason, Loss, Reason, Sandbox};
use support::leftovers::processes_with;
use support::{config, leased, limits_enforced, options, run, said, stdout, until};
use tokio_util::sync::CancellationToken;

/// Commands whose end the tests wait for in `/proc` have a number of seconds nobody else sleeps.
fn descendants(seconds: &str) -> usize {
    processes_with(&format!("sleep {seconds}")).len()
}

fn wall(wall: Duration) -> CellOptions {
    CellOptions { wall, ..options() }
}

async fn usable(lease: &mut belljar_sandbox::Lease) {
    assert_eq!(stdout(lease, "echo usable").await, "usable\n");
}

async fn ended(lease: belljar_sandbox::Lease, sandbox: Sandbox) {
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_kills_every_descendant_and_keeps_what_was_said() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let command = "echo said; trap '' TERM INT HUP; (setsid bash -c 'sleep 71001 & disown' &) ; \
                   nohup sleep 71001 >/dev/null 2>&1 & sleep 71001";
    let outcome = lease.bash(command, wall(Duration::from_millis(500))).await.expect("lives");
    let CellOutcome::TimedOut(output) = outcome else { panic!("{outcome:?}") };
    assert_eq!((said(&output).stdout.as_str(), output.return_code), ("said\n", 137));
    assert_eq!(output.losses, [Loss::TimedOut(Duration::from_millis(500))]);
    assert_eq!(output.notices(), ["belljar: killed: time limit of 0.5 s reached"]);
    assert_eq!(descendants("71001"), 0, "nothing is left the moment the outcome is known");
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wall_time_asked_for_is_cut_to_the_limit() {
    let sandbox = sandbox!(belljar_sandbox::SandboxConfig { cell_wall_s_max: 1, ..config() });
    let mut lease = leased(&sandbox, 1).await;
    let started = Instant::now();
    let outcome = lease.bash("sleep 71002", wall(Duration::from_secs(3600))).await.expect("lives");
    assert!(matches!(outcome, CellOutcome::TimedOut(_)), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_cell_is_killed_with_what_it_said() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cancel = CancellationToken::new();
    let (live, mut heard) = tokio::sync::mpsc::channel(1);
    let canceller = cancel.clone();
    tokio::spawn(async move {
        heard.recv().await.expect("the command speaks first");
        canceller.cancel();
    });
    let options = CellOptions { wall: Duration::from_secs(60), cancel, live: Some(live) };
    let outcome = lease.bash("echo started; sleep 71003", options).await.expect("lives");
    let CellOutcome::Killed(KillReason::Requested, output) = outcome else { panic!("{outcome:?}") };
    assert_eq!(said(&output).stdout, "started\n");
    assert_eq!(output.notices(), ["belljar: killed: interrupted"]);
    assert_eq!(descendants("71003"), 0);
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_cancelled_beforehand_ends_too() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let outcome = lease.bash("sleep 71004", CellOptions { cancel, ..options() }).await.expect("lives");
    assert!(matches!(outcome, CellOutcome::Killed(KillReason::Requested, _)), "{outcome:?}");
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_cell_is_killed_and_the_next_holder_finds_the_container_in_order() {
    namespaces_only!("the host does not see the code's processes");
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let id = lease.container().clone();
    let cell = lease.bash("sleep 71005 & sleep 71005", options());
    let dropped = async {
        tokio::select! {
            outcome = cell => panic!("{outcome:?}"),
            () = until("both sleep", || descendants("71005") == 2) => {}
        }
    };
    dropped.await;
    drop(lease);
    let mut next = sandbox.lease(&id, Duration::ZERO).await.expect("given back at once");
    assert_eq!(stdout(&mut next, "echo next").await, "next\n");
    assert_eq!(descendants("71005"), 0);
    ended(next, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_hog_is_killed_and_the_container_lives() {
    namespaces_only!("the kernel sees one program, the sentry, and ends all of it");
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let outcome = lease.bash("echo before; head -c 2G /dev/zero | tail", options()).await.expect("lives");
    let CellOutcome::Killed(KillReason::Memory, output) = outcome else { panic!("{outcome:?}") };
    assert_eq!((said(&output).stdout.as_str(), output.return_code), ("before\n", 137));
    assert_eq!(output.notices(), ["belljar: killed: memory limit of 268435456 bytes reached"]);
    assert!(output.memory_peak_bytes > 200 << 20, "{}", output.memory_peak_bytes);
    let survived = run(&mut lease, "head -c 2G /dev/zero | tail; echo went on").await;
    assert_eq!(said(&survived).stdout, "went on\n");
    let notice = "belljar: a process was killed: memory limit of 268435456 bytes reached";
    assert_eq!(survived.notices(), [notice]);
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_of_the_code_not_of_the_container() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let outcome = lease.bash("head -c 100M /dev/zero > /tmp/full", options()).await.expect("lives");
    let said = said(outcome.output());
    let stderr = "head: error writing 'standard output': No space left on device\n";
    assert_eq!((said.return_code, said.stderr.as_str(), outcome.reason()), (1, stderr, Some(Reason::Disk)));
    let full = "belljar: the container's disk is full: limit of 67108864 bytes and 262144 files";
    assert_eq!(outcome.output().notices(), [full]);
    let hole = run(&mut lease, "rm /tmp/full; truncate -s 1T /tmp/hole").await;
    assert_eq!(hole.return_code, 128 + 25, "SIGXFSZ");
    usable(&mut lease).await;
    assert_eq!(stdout(&mut lease, "echo x > /tmp/x; cat /tmp/x").await, "x\n");
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_is_killed_soon_and_the_container_lives() {
    if !limits_enforced() {
        skip!("this host cannot limit processes");
    }
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let started = Instant::now();
    let outcome = lease.bash("b() { b | b & wait; }; b", wall(Duration::from_secs(1))).await.expect("lives");
    let CellOutcome::TimedOut(output) = outcome else { panic!("{outcome:?}") };
    let refused = match support::isolation() {
        Isolation::Namespaces => vec![Loss::ProcessesRefused(64)],
        // Its own kernel refuses, and tells the host nothing of it.
        Isolation::Gvisor => Vec::new(),
    };
    assert_eq!(output.losses, [refused, vec![Loss::TimedOut(Duration::from_secs(1))]].concat());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_left_behind_does_not_keep_the_next_command_out() {
    namespaces_only!("the host does not see the code's processes");
    if !limits_enforced() {
        skip!("this host cannot limit processes");
    }
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    run(&mut lease, "for i in $(seq 60); do sleep 71006 & done >/dev/null 2>&1").await;
    until("all sleep", || descendants("71006") == 60).await;
    let output = run(&mut lease, "echo $(echo next)").await;
    assert_eq!(said(&output).stdout, "next\n");
    assert_eq!(
        output.notices(),
        ["belljar: what earlier commands left running was killed: limit of 64 processes reached"]
    );
    assert_eq!(descendants("71006"), 0);
    ended(lease, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_counted_to_the_byte_and_costs_the_host_little() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let output = run(&mut lease, "yes | head -c 52428800; echo end >&2").await;
    assert_eq!((output.stdout.len(), output.stdout_bytes), (1_048_576, 52_428_800));
    assert_eq!(said(&output).stderr, "end\n");
    assert_eq!(output.notices(), ["belljar: stdout was cut: 1048576 of 52428800 bytes shown"]);
    let before = own_processor_time();
    let outcome = lease.bash("yes", wall(Duration::from_secs(2))).await.expect("lives");
    let spent = own_processor_time() - before;
    assert!(matches!(outcome, CellOutcome::TimedOut(_)), "{outcome:?}");
    assert!(spent < Duration::from_millis(700), "{spent:?} of the host's processor for 2 s of flood");
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

/// proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms.
fn own_processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc");
    let behind_name = stat.rsplit_once(')').expect("has a name").1;
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("number")).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_kills_everything_it_can_kills_only_itself() {
    namespaces_only!("its process 1 can be killed from inside, which ends that container");
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(stdout(&mut lease, "kill -9 1; kill -TERM 1; kill -CHLD 1; kill -STOP 1; echo alive").await, "alive\n");
    // kill(2): -1 spares the caller.
    let output = said(&run(&mut lease, "sleep 71007 & kill -9 -1; wait; echo alone").await);
    assert_eq!((output.return_code, output.stdout.as_str()), (0, "alone\n"));
    assert_eq!(descendants("71007"), 0);
    usable(&mut lease).await;
    ended(lease, sandbox).await;
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
