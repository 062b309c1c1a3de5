//! A nursery with more than one container, with one that fails, and without a future.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use belljar_jail::{
    Attachment, BirthError, ContainerSpec, JailPlan, Jailed, LaunchError, Nursery, PidNamespace, PlanError, SetupError,
    Sizes, Step,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::words::{Answer, Ask};
use crate::harness::{Inside, Line, Way, empty_rootfs, pair, program, realm, spec, start_empty_by};

fn start(spec: &ContainerSpec) -> (JailPlan, Nursery) {
    let plan = JailPlan::for_container(spec).expect("plan");
    let nursery = Nursery::start(&realm().expect("realm"), program().as_fd(), &plan).expect("nursery");
    (plan, nursery)
}

fn bear(nursery: &Nursery, sizes: Sizes) -> Result<Inside, BirthError> {
    let (control, theirs) = pair();
    let jailed = nursery.launch(sizes, Attachment::Unlimited, theirs.as_fd(), None)?;
    Ok(Inside { jailed, line: Line(control) })
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

#[test]
fn each_has_its_own_of_everything_and_the_sizes_it_was_given() {
    let rootfs = empty_rootfs();
    let (plan, nursery) = start(&spec(rootfs.path().to_owned()));
    let large = bear(&nursery, plan.sizes()).expect("container");
    let small = bear(&nursery, Sizes { disk_bytes_max: 1 << 20, ..plan.sizes() }).expect("container");
    let write = |inside: &Inside, path: &str| inside.ask(&Ask::Write { path: path.to_owned(), bytes: 2 << 20 });
    assert_eq!(write(&large, "/work/file"), Answer::Value(2 << 20));
    assert_eq!(write(&small, "/work/file"), Answer::Failed(libc::ENOSPC));
    assert!(large.text("/proc/self/limits").contains(&format!("{}", (64 << 20) + 4096)));
    assert!(small.text("/proc/self/limits").contains(&format!("{}", (1 << 20) + 4096)));
    for kind in KINDS {
        let link = |inside: &Inside| inside.ask(&Ask::Link { path: format!("/proc/self/ns/{kind}") });
        assert_ne!(link(&large), link(&small), "{kind}");
    }
    // Neither knows of the other, nor of the nursery.
    for inside in [&large, &small] {
        let Answer::Names(names) = inside.list("/proc") else { panic!("no list") };
        let processes: Vec<_> = names.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect();
        assert_eq!(processes, ["1"]);
    }
    // They need it no more.
    let pid = nursery.pid();
    drop(nursery);
    assert!(is_gone(pid));
    assert!(large.end().success());
    assert!(small.end().success());
}

const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// A container's namespace.
fn namespace(inside: &Inside, kind: &str) -> OwnedFd {
    let all = inside.jailed.namespaces().expect("namespaces").into_fds();
    all.into_iter().zip(KINDS).find(|(_, of)| *of == kind).expect(kind).0
}

/// What tells namespaces apart.
fn number(namespace: &OwnedFd) -> u64 {
    rustix::fs::fstat(namespace).expect("namespace").st_ino
}

/// Whether they are borne at once or the nursery has had its pause: the one makes them when it is asked, the other ahead.
#[test]
fn what_is_made_ahead_is_one_containers_alone() {
    let rootfs = empty_rootfs();
    let (plan, nursery) = start(&spec(rootfs.path().to_owned()));
    let mut borne = vec![bear(&nursery, plan.sizes()).expect("container")];
    for kind in ["net", "ipc", "uts"] {
        // It has inherited the nursery's, until that makes itself others.
        let theirs = number(&namespace(&borne[0], kind));
        let own = format!("/proc/{}/ns/{kind}", nursery.pid().as_raw_nonzero());
        let begun = Instant::now();
        while std::fs::metadata(&own).expect("the nursery").ino() == theirs {
            assert!(begun.elapsed() < Duration::from_secs(10), "nothing is made ahead: {kind}");
            std::thread::yield_now();
        }
    }
    borne.extend((0..3).map(|_| bear(&nursery, plan.sizes()).expect("container")));
    for kind in ["net", "ipc", "uts"] {
        let distinct: BTreeSet<_> = borne.iter().map(|inside| number(&namespace(inside, kind))).collect();
        assert_eq!(distinct.len(), borne.len(), "{kind}");
    }
    assert!(borne.into_iter().all(|inside| inside.end().success()));
}

/// Root in a container, while it still has power in its own user namespace, has none over them.
#[test]
fn network_ipc_and_names_belong_to_the_realm() {
    for way in Way::BOTH {
        let (_rootfs, inside) = start_empty_by(way);
        let user = namespace(&inside, "user");
        let (own, realm) = (number(&user), related(&user, NS_GET_PARENT));
        assert_ne!(own, realm);
        for (kind, owner) in
            [("net", realm), ("ipc", realm), ("uts", realm), ("mnt", own), ("pid", own), ("cgroup", own)]
        {
            assert_eq!(related(&namespace(&inside, kind), NS_GET_USERNS), owner, "{kind}, {way:?}");
        }
        assert!(inside.end().success());
    }
}

/// The user namespace that a namespace belongs to (`ioctl_ns(2)`).
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// The one around it.
const NS_GET_PARENT: libc::Ioctl = 0xb702;

/// The number of a namespace that has to do with this one.
fn related(namespace: &OwnedFd, how: libc::Ioctl) -> u64 {
    // SAFETY: the call takes no argument and touches no memory.
    let found = unsafe { libc::ioctl(namespace.as_raw_fd(), how) };
    assert!(found >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for this call.
    number(&unsafe { OwnedFd::from_raw_fd(found) })
}

#[test]
fn one_that_fails_leaves_the_nursery_as_it_was() {
    let rootfs = empty_rootfs();
    let mut spec = spec(rootfs.path().to_owned());
    spec.working_directory = "/nowhere".into();
    let (plan, nursery) = start(&spec);
    for _ in 0..3 {
        match bear(&nursery, plan.sizes()) {
            Err(BirthError::Container(LaunchError::Setup(error))) => {
                assert_eq!(error, SetupError { step: Step::WorkingDirectory, errno: libc::ENOENT });
            }
            other => panic!("expected a failed step, got {other:?}"),
        }
    }
    match bear(&nursery, Sizes { disk_bytes_max: 0, ..plan.sizes() }) {
        Err(BirthError::Container(LaunchError::Plan(PlanError::Zero("disk_bytes_max")))) => {}
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert!(!is_gone(nursery.pid()));
}

#[test]
fn a_dead_one_says_so_and_leaves_its_containers_alone() {
    let rootfs = empty_rootfs();
    let (plan, nursery) = start(&spec(rootfs.path().to_owned()));
    let inside = bear(&nursery, plan.sizes()).expect("container");
    kill_process(nursery.pid(), Signal::KILL).expect("kill");
    for _ in 0..2 {
        match bear(&nursery, plan.sizes()) {
            Err(BirthError::Nursery(LaunchError::Vanished)) => {}
            other => panic!("expected a dead nursery, got {other:?}"),
        }
    }
    drop(nursery);
    assert_eq!(inside.text("/proc/self/cmdline"), "belljar-guest\0");
    assert!(inside.end().success());
}

/// Stopped, it takes an order and answers never: what it has borne by then is in its process group still.
#[test]
fn what_nobody_got_hold_of_ends_with_the_nursery() {
    let rootfs = empty_rootfs();
    let (plan, nursery) = start(&spec(rootfs.path().to_owned()));
    let (_control, theirs) = pair();
    let sizes = plan.sizes();
    let pid = nursery.pid();
    kill_process(pid, Signal::STOP).expect("stop");
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| nursery.launch(sizes, Attachment::Unlimited, theirs.as_fd(), None).map(|_: Jailed| ()));
        while !waiting.is_finished() {
            // Again and again, as it may not have been asked yet: a stopped process dies all the same.
            let _killed_or_gone = kill_process(pid, Signal::KILL);
            std::thread::yield_now();
        }
        match waiting.join().expect("thread") {
            Err(BirthError::Nursery(LaunchError::Vanished)) => {}
            other => panic!("expected a dead nursery, got {other:?}"),
        }
    });
    drop(nursery);
    assert!(is_gone(pid));
}

/// So that something can be made ready for the container while the container is: it must not be another's.
#[test]
fn its_pid_namespace_is_told_before_it_is_complete_and_once() {
    let rootfs = empty_rootfs();
    let (plan, nursery) = start(&spec(rootfs.path().to_owned()));
    let (control, theirs) = pair();
    let mut told = Vec::new();
    let mut at_birth = |namespace: PidNamespace| told.push(namespace);
    let jailed = nursery.launch(plan.sizes(), Attachment::Unlimited, theirs.as_fd(), Some(&mut at_birth)).expect("one");
    let all = jailed.namespaces().expect("it lives").into_fds();
    let inside = Inside { jailed, line: Line(control) };
    assert_eq!(told.len(), 1);
    let number_of = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).expect("open").st_ino;
    assert_eq!(number_of(told[0].as_fd()), number_of(all[2].as_fd()));
    for (fd, kind) in all.iter().zip(["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]) {
        let number = number_of(fd.as_fd());
        assert_eq!(
            inside.ask(&Ask::Link { path: format!("/proc/self/ns/{kind}") }),
            Answer::Text(format!("{kind}:[{number}]"))
        );
    }
    assert!(inside.end().success());
    // Of one that fails on the way, too: whoever got it finds a dead pid namespace, unless it had ended by then.
    let mut spec = spec(rootfs.path().to_owned());
    spec.working_directory = "/nowhere".into();
    let (plan, nursery) = start(&spec);
    let mut told = 0;
    let mut at_birth = |_: PidNamespace| told += 1;
    let failed = nursery.launch(plan.sizes(), Attachment::Unlimited, theirs.as_fd(), Some(&mut at_birth));
    assert!(matches!(failed, Err(BirthError::Container(LaunchError::Setup(_)))), "{failed:?}");
    assert!(told <= 1, "{told}");
}

#[test]
fn many_at_once_from_one() {
    let rootfs = empty_rootfs();
    let (plan, nursery) = start(&spec(rootfs.path().to_owned()));
    std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..16).map(|_| scope.spawn(|| bear(&nursery, plan.sizes()).expect("one").end())).collect();
        assert!(started.into_iter().all(|thread| thread.join().expect("thread").success()));
    });
}
