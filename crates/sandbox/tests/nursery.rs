//! The process that containers' process 1s are cloned from: one to a sandbox, replaced when it has died, not needed by what
//! it has borne, and gone with the sandbox.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use support::leftovers::{Held, descendants, is_alive};
use support::{id, leased, stdout, until};

/// The guest programs that live in our own pid namespace: that of a container knows itself by another id, too
/// (proc_pid_status(5)).
fn nurseries() -> Vec<i32> {
    let ids_of = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default().split_whitespace().count()
    };
    let is_guest =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"belljar-guest\0");
    descendants(std::process::id()).into_iter().filter(|pid| is_guest(pid) && ids_of(pid) == 1).collect()
}

fn nursery() -> i32 {
    let found = nurseries();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_died_is_replaced_and_costs_nobody_anything() {
    namespaces_only!("runsc makes its own process 1");
    let sandbox = sandbox!();
    let mut before = leased(&sandbox, 1).await;
    let first = nursery();
    kill_process(Pid::from_raw(first).expect("a process id"), Signal::KILL).expect("it is ours");
    until("it is dead", || !is_alive(first)).await;
    assert_eq!(stdout(&mut before, "echo unharmed").await, "unharmed\n");
    assert_eq!(stdout(&mut leased(&sandbox, 2).await, "echo borne").await, "borne\n");
    let second = nursery();
    assert_ne!(first, second);
    assert_eq!(stdout(&mut leased(&sandbox, 3).await, "echo borne").await, "borne\n");
    assert_eq!(nursery(), second);
    drop(before);
    sandbox.close().await;
    until("nothing is left", || Held::now().children() == 0 && Held::now().cgroups().is_empty()).await;
}

/// What it could do to a container it must be there for; what a container could do to it, it must see it for.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_nowhere_in_a_container() {
    namespaces_only!("runsc makes its own process 1");
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let ids = stdout(&mut lease, "cd /proc; echo [0-9]*").await;
    assert_eq!(ids.split_whitespace().next(), Some("1"));
    assert_eq!(ids.split_whitespace().count(), 2, "process 1 and the shell: {ids}");
    let kill = format!("kill -9 {} 2>/dev/null || echo nobody", nursery());
    assert_eq!(stdout(&mut lease, &kill).await, "nobody\n");
    let alive = nursery();
    drop(lease);
    assert!(sandbox.remove(&id(1)).await);
    assert_eq!(nursery(), alive);
    sandbox.close().await;
    assert_eq!(nurseries(), Vec::<i32>::new());
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
