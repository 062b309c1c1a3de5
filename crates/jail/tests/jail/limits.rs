//! A container in its cgroup, and its end.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use belljar_jail::cgroup::{CgroupTree, Limits, Stats};
use belljar_jail::{Attachment, JailPlan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::harness::words::{Answer, Argument, Ask};
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
fn a_lifted_quota_can_be_imposed_again_and_other_limits_set() {
    let tree = tree!();
    if !tree.limits_cpu() {
        skip!("no cpu controller");
    }
    let (cgroup, inside) = start(&tree, "limits");
    let spun_us = std::cell::Cell::new(0);
    // The answer is of all the process has ever used.
    let spin = |wall_ms| match inside.ask(&Ask::Spin { wall_ms }) {
        Answer::Value(us) => us - spun_us.replace(us),
        other => panic!("{other:?}"),
    };
    cgroup
        .set_limits(&Limits { cpus: 0.25, memory_bytes_max: 128 << 20, processes_max: 5 })
        .expect("raised and lowered");
    assert!(spin(1_000) <= 400_000);
    cgroup.lift_cpu().expect("lift");
    cgroup.restore_cpu().expect("restore");
    assert!(spin(1_000) <= 400_000);
    assert_eq!(inside.ask(&Ask::TouchMemory { bytes: 96 << 20 }), Answer::Exited(0), "more than at first");
    assert_eq!(cgroup.stats().expect("stats").pids_refused, 0);
    assert_eq!(inside.ask(&Ask::ForkUntilRefused { most: 100 }), Answer::Value(4), "five with process 1");
    let stats = cgroup.stats().expect("stats");
    assert_eq!((stats.processes, stats.pids_refused), (5, 1));
    assert!((1..=128 << 20).contains(&stats.memory_bytes), "{stats:?}");
    cgroup.set_limits(&Limits { memory_bytes_max: 32 << 20, ..LIMITS }).expect("below both of before");
    assert_eq!(inside.ask(&Ask::TouchMemory { bytes: 64 << 20 }), Answer::Signalled(libc::SIGKILL));
    inside.jailed.kill().expect("kill");
    assert_eq!(inside.end().signal(), Some(libc::SIGKILL));
    cgroup.remove().expect("remove");
}

#[test]
fn what_is_frozen_stands_still_until_it_is_thawed_or_killed() {
    let tree = tree!();
    let (cgroup, inside) = start(&tree, "frost");
    cgroup.lift_cpu().expect("lift");
    let used = || cgroup.stats().expect("stats").cpu_usage_us;
    let packet = serde_json::to_vec(&Ask::Spin { wall_ms: 300 }).expect("ask");
    rustix::net::send(&inside.line.0, &packet, rustix::net::SendFlags::NOSIGNAL).expect("send");
    cgroup.freeze().expect("freeze");
    let before = used();
    let mut wait = [PollFd::new(&inside.line.0, PollFlags::IN)];
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    assert_eq!(poll(&mut wait, Some(&second)), Ok(0), "it answers nothing");
    assert_eq!(used(), before, "and uses nothing");
    cgroup.thaw().expect("thaw");
    assert!(matches!(inside.hear(), Some(Answer::Value(_))));
    cgroup.freeze().expect("freeze again");
    cgroup.kill().expect("kill");
    assert_eq!(inside.jailed.wait().expect("wait").signal(), Some(libc::SIGKILL));
    cgroup.remove().expect("remove");
}

/// A fork bomb in a small quota: from the call to the last process gone.
#[test]
fn a_throttled_fork_bomb_is_gone_at_once() {
    let tree = tree!();
    let limits = Limits { memory_bytes_max: 256 << 20, cpus: 4.0, processes_max: 256 };
    let rootfs = empty_rootfs();
    let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
    let mut took_us = Vec::new();
    for round in 0..3 {
        let cgroup = tree.create(&format!("bomb-{round}"), &limits).expect("cgroup");
        let inside = Inside::start(&plan, Attachment::Cgroup(&cgroup)).expect("launch");
        assert_eq!(inside.ask(&Ask::ForkBomb { most: 1_000 }), Answer::Value(255), "256 with process 1");
        cgroup.set_limits(&Limits { cpus: 0.5, ..limits }).expect("throttled only now, or making it takes seconds");
        let begin = Instant::now();
        cgroup.kill().expect("kill");
        inside.jailed.wait().expect("wait");
        took_us.push(begin.elapsed().as_micros());
        assert_eq!(cgroup.stats().expect("stats").processes, 0);
        cgroup.remove().expect("remove");
    }
    took_us.sort_unstable();
    println!("256 processes gone after {took_us:?} us");
    // The promise is 20 ms on a quiet machine; throttled to half a processor, it took more than 100.
    assert!(took_us[0] <= 50_000, "{took_us:?}");
}

#[test]
fn the_code_dies_before_process_one() {
    let (_rootfs, inside) = start_empty();
    let pid = inside.jailed.pid().as_raw_nonzero();
    let score = |pid: &dyn std::fmt::Display| {
        std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("score").trim().to_owned()
    };
    assert_eq!(score(&pid), "500");
    let Answer::Value(_) = inside.ask(&Ask::ForkUntilRefused { most: 1 }) else {
        panic!("no child");
    };
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    assert_eq!(score(&children.trim()), "1000");
    assert_eq!(score(&pid), "500", "again");
    assert!(inside.end().success());
}

#[test]
fn a_file_has_a_largest_size() {
    let rootfs = empty_rootfs();
    let mut spec = spec(rootfs.path().to_owned());
    spec.disk_bytes_max = 1 << 20;
    let plan = JailPlan::for_container(&spec).expect("plan");
    let inside = Inside::start(&plan, Attachment::Unlimited).expect("launch");
    assert_eq!(inside.ask(&Ask::Write { path: "/work/sparse".to_owned(), bytes: 1 }), Answer::Value(1));
    let grow = |bytes| {
        let path = Argument::Text("/work/sparse".to_owned());
        inside.call(libc::SYS_truncate, &[path, Argument::Number(bytes)])
    };
    // A page more than the disk has.
    assert_eq!(grow((1 << 20) + 4096), Answer::Value(0));
    assert_eq!(grow((1 << 20) + 4097), Answer::Failed(libc::EFBIG));
    assert!(inside.end().success());
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
