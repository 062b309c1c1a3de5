//! A container in its cgroup, and its end.

use std::os::unix::process::ExitStatusExt;

use belljar_jail::cgroup::{CgroupTree, Limits, Stats};
use belljar_jail::{Attachment, JailPlan};

use crate::harness::words::{Answer, Ask};
use crate::harness::{Inside, empty_rootfs, spec, start_empty};
use crate::skip;

const LIMITS: Limits = Limits { memory_bytes_max: 64 << 20, cpus: 0.5, processes_max: 8 };

fn start(tree: &CgroupTree, name: &str) -> (belljar_jail::cgroup::Cgroup, Inside) {
    let rootfs = empty_rootfs();
    let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
    let cgroup = tree.create(name, &LIMITS).expect("cgroup");
    let inside = Inside::start(&plan, Attachment::Cgroup(&cgroup)).expect("launch");
    (cgroup, inside)
}

macro_rules! tree {
    () => {
        match CgroupTree::detect() {
            Ok(tree) => tree,
            Err(error) => skip!(error),
        }
    };
}

#[test]
fn processes_are_limited_and_counted() {
    let tree = tree!();
    let (cgroup, inside) = start(&tree, "processes");
    assert_eq!(cgroup.stats().expect("stats").processes, 1);
    assert_eq!(inside.ask(&Ask::ForkUntilRefused { most: 100 }), Answer::Value(7), "eight with process 1");
    assert_eq!(cgroup.stats().expect("stats").processes, 8);
    inside.jailed.kill().expect("kill");
    assert_eq!(inside.end().signal(), Some(libc::SIGKILL));
    assert_eq!(cgroup.stats().expect("stats").processes, 0);
    cgroup.remove().expect("remove");
}

#[test]
fn memory_is_limited_and_the_death_is_counted() {
    let tree = tree!();
    let (cgroup, inside) = start(&tree, "memory");
    assert_eq!(inside.ask(&Ask::TouchMemory { bytes: 256 << 20 }), Answer::Signalled(libc::SIGKILL));
    let Stats { oom_kills, memory_peak_bytes, .. } = cgroup.stats().expect("stats");
    assert_eq!(oom_kills, 1);
    assert!((32 << 20..=64 << 20).contains(&memory_peak_bytes), "{memory_peak_bytes}");
    assert!(inside.end().success(), "process 1 outlives its child");
    cgroup.remove().expect("remove");
}

#[test]
fn files_count_as_memory() {
    let tree = tree!();
    let (cgroup, inside) = start(&tree, "files");
    let path = "/work/large".to_owned();
    let written = inside.ask_fallibly(&Ask::Write { path, bytes: 63 << 20 });
    // Process 1 itself wrote: it is what the kernel kills.
    assert_eq!(written, None);
    assert_eq!(inside.end().signal(), Some(libc::SIGKILL));
    assert_eq!(cgroup.stats().expect("stats").oom_kills, 1);
    cgroup.remove().expect("remove");
}

#[test]
fn the_quota_holds_until_it_is_lifted() {
    let tree = tree!();
    if !tree.limits_cpu() {
        skip!("no cpu controller");
    }
    let (cgroup, inside) = start(&tree, "quota");
    let spin = Ask::Spin { wall_ms: 1_000 };
    let Answer::Value(limited_us) = inside.ask(&spin) else {
        panic!("no time");
    };
    // Half a processor for a second, and the burst of one period that the kernel may have let through.
    assert!((1..=650_000).contains(&limited_us), "{limited_us} us");
    assert!(cgroup.stats().expect("stats").cpu_usage_us >= limited_us.unsigned_abs() / 2);
    cgroup.lift_cpu().expect("lift");
    assert!(inside.end().success());
    cgroup.remove().expect("remove");
}

#[test]
fn killing_the_cgroup_ends_the_container() {
    let tree = tree!();
    let (cgroup, inside) = start(&tree, "kill");
    assert_eq!(inside.ask(&Ask::ForkUntilRefused { most: 100 }), Answer::Value(7));
    cgroup.kill().expect("kill");
    assert_eq!(inside.jailed.wait().expect("wait").signal(), Some(libc::SIGKILL));
    cgroup.remove().expect("remove");
}

#[test]
fn a_cgroup_is_gone_when_dropped_and_its_name_is_free_again() {
    let tree = tree!();
    drop(tree.create("again", &LIMITS).expect("cgroup"));
    let second = tree.create("again", &LIMITS).expect("cgroup");
    let error = tree.create("again", &LIMITS).expect_err("taken");
    assert_eq!(error.source.raw_os_error(), Some(libc::EEXIST));
    second.remove().expect("remove");
}

#[test]
fn a_container_ends_with_its_control_socket() {
    let (_rootfs, inside) = start_empty();
    assert_eq!(inside.ask(&Ask::ForkUntilRefused { most: 5 }), Answer::Value(5));
    assert!(inside.end().success());
}

#[test]
fn a_dropped_container_is_dead_and_reaped() {
    let (_rootfs, inside) = start_empty();
    let pid = inside.jailed.pid();
    drop(inside);
    let gone = rustix::process::test_kill_process(pid);
    assert_eq!(gone, Err(rustix::io::Errno::SRCH));
}

#[test]
fn waiting_twice_answers_the_same() {
    let (_rootfs, inside) = start_empty();
    inside.jailed.kill().expect("kill");
    let first = inside.jailed.wait().expect("wait");
    assert_eq!(first.signal(), Some(libc::SIGKILL));
    assert_eq!(inside.jailed.wait().expect("wait"), first);
    inside.jailed.kill().expect("killing a dead one is fine");
}

#[test]
fn many_start_at_once_and_none_is_left() {
    let started: Vec<_> = (0..16).map(|_| std::thread::spawn(|| start_empty().1.end().success())).collect();
    for thread in started {
        assert!(thread.join().expect("thread"));
    }
}
