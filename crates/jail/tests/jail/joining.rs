//! A zygote's child in a container: it has what process 1 has, and no more.

use std::os::fd::OwnedFd;

use belljar_jail::{Identity, SealPlan, Step};

use crate::harness::words::{Answer, Argument, Ask, Birth};
use crate::harness::zygote::Warm;
use crate::harness::{BASE, Line};

fn status(line: &Line, key: &str) -> String {
    let text = line.text("/proc/self/status");
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key));
    values.next().expect(key).trim_matches([':', '\t', ' ']).to_owned()
}

fn link(line: &Line, path: &str) -> Answer {
    line.ask(&Ask::Link { path: path.to_owned() })
}

#[test]
fn a_joined_process_is_the_containers_and_powerless() {
    let warm = Warm::start();
    let joined = warm.join();
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let path = format!("/proc/self/ns/{kind}");
        assert_eq!(link(&joined, &path), link(&warm.inside, &path), "{kind}");
    }
    for (key, value) in [
        ("PPid", "0"),
        ("Uid", "0\t0\t0\t0"),
        ("Gid", "0\t0\t0\t0"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Seccomp_filters", "2"),
        ("Umask", "0022"),
        ("Threads", "1"),
    ] {
        assert_eq!(status(&joined, key), value, "{key}");
    }
    assert_eq!(status(&joined, "NSpid"), status(&joined, "NSsid"), "leads a session of its own");
    if matches!(Identity::strongest(BASE), Identity::Mapped { .. }) {
        assert_eq!(status(&joined, "Groups"), "");
    }
    for file in ["uid_map", "gid_map", "setgroups", "mountinfo", "cgroup"] {
        let path = format!("/proc/self/{file}");
        assert_eq!(joined.text(&path), warm.inside.text(&path), "{file}");
    }
    assert_eq!(link(&joined, "/proc/self/cwd"), Answer::Text("/work".to_owned()));
    assert_eq!(link(&joined, "/proc/self/root"), Answer::Text("/".to_owned()));
    // prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS): open to itself; all but KEEP_CAPS, and locked.
    for (option, value) in [(3, 1), (27, 0b1110_1111)] {
        assert_eq!(joined.call(libc::SYS_prctl, &[Argument::Number(option)]), Answer::Value(value));
    }
}

#[test]
fn nothing_of_the_host_or_the_zygote_is_left_open_but_its_program() {
    let warm = Warm::start();
    let joined = warm.join();
    // The socket and the listing's own, beside the null streams.
    let Answer::Names(open) = joined.list("/proc/self/fd") else {
        panic!("no list");
    };
    assert_eq!(open.len(), 5, "{open:?}");
    let targets: Vec<_> = open.iter().map(|fd| link(&joined, &format!("/proc/self/fd/{fd}"))).collect();
    let null = targets.iter().filter(|target| **target == Answer::Text("/dev/null".to_owned())).count();
    let sockets = targets.iter().filter(|target| matches!(target, Answer::Text(text) if text.starts_with("socket:")));
    assert_eq!((null, sockets.count()), (3, 1), "{targets:?}");
    assert_eq!(link(&joined, "/proc/self/exe"), Answer::Text("/run/belljar/zygote".to_owned()));
    let open = [Argument::Number(-100), Argument::Text("/proc/self/exe".to_owned()), Argument::Number(0)];
    let opened = joined.call(libc::SYS_openat, &open);
    assert!(matches!(opened, Answer::Value(_)), "its own program can be read: {opened:?}");
    assert_eq!(joined.read("/run/belljar/seal"), Answer::Failed(libc::ENOENT));
    let limits = joined.text("/proc/self/limits");
    let max = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(max("Max file size"), ["1052672", "1052672"], "the zygote's was stricter than the container's");
    assert_eq!(max("Max core file size"), ["0", "0"]);
    let [soft, hard] = &max("Max open files")[..] else { panic!("two") };
    assert_eq!(soft, hard);
    assert!(hard.parse::<u64>().expect("number") <= 16_384, "{hard}");
}

#[test]
fn there_is_no_way_back_and_no_way_on() {
    let warm = Warm::start();
    let joined = warm.join();
    let n = Argument::Number;
    for (name, number, arguments, errno) in [
        ("setns", libc::SYS_setns, vec![n(0), n(0)], libc::EPERM),
        ("unshare", libc::SYS_unshare, vec![n(i64::from(libc::CLONE_NEWUSER))], libc::EPERM),
        ("ptrace process 1", libc::SYS_ptrace, vec![n(16), n(1), n(0), n(0)], libc::EPERM),
        ("clone a sibling", libc::SYS_clone, vec![n(i64::from(libc::CLONE_PARENT | libc::SIGCHLD))], libc::EPERM),
        ("mount", libc::SYS_mount, vec![n(0), n(0), n(0), n(0), n(0)], libc::EPERM),
    ] {
        assert_eq!(joined.call(number, &arguments), Answer::Failed(errno), "{name}");
    }
    let write = |path: &str| joined.ask(&Ask::Write { path: path.to_owned(), bytes: 1 });
    assert_eq!(write("/proc/sys/kernel/hostname"), Answer::Failed(libc::EROFS));
    assert_eq!(write("/proc/self/oom_score_adj"), Answer::Failed(libc::EROFS));
    assert_eq!(write("/work/mine"), Answer::Value(1));
    assert_eq!(warm.inside.text("/work/mine"), "x");
}

#[test]
fn signals_reach_the_whole_container_and_nothing_else() {
    let warm = Warm::start();
    let joined = warm.join();
    let other = warm.join();
    let kill = |line: &Line, pid: i64, signal: i32| {
        line.call(libc::SYS_kill, &[Argument::Number(pid), Argument::Number(i64::from(signal))])
    };
    let outside = [warm.zygote.pid(), warm.inside.jailed.pid(), rustix::process::getpid()];
    for pid in outside {
        let pid = i64::from(pid.as_raw_nonzero().get());
        // An id that exists inside as well would say nothing.
        if joined.read(&format!("/proc/{pid}/stat")) == Answer::Failed(libc::ENOENT) {
            assert_eq!(kill(&joined, pid, libc::SIGKILL), Answer::Failed(libc::ESRCH), "{pid}");
        }
    }
    // What the supervisor does after a cell: every process but itself, of whatever Landlock domain.
    assert_eq!(kill(&warm.inside, -1, libc::SIGKILL), Answer::Value(0));
    assert_eq!(joined.hear(), None);
    assert_eq!(other.hear(), None);
    // From inside, everything that can be reached is the sender's own.
    let last = warm.join();
    let packet = serde_json::to_vec(&Ask::Call {
        number: libc::SYS_kill,
        arguments: vec![Argument::Number(0), Argument::Number(i64::from(libc::SIGKILL))],
    });
    rustix::net::send(&last.0, &packet.expect("ask"), rustix::net::SendFlags::NOSIGNAL).expect("send");
    assert_eq!(last.hear(), None, "its own process group is gone");
    assert!(matches!(warm.line.list("/"), Answer::Names(_)), "the zygote, which it was born from, is not");
    assert!(matches!(warm.inside.list("/"), Answer::Names(_)), "nor is process 1");
}

/// What of the container's a zygote's child was given wrongly, and the step that notices.
#[test]
fn a_join_that_goes_wrong_names_the_step() {
    let warm = Warm::start();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("open"));
    let steps = [
        (0, Step::EnterUserNamespace),
        (1, Step::EnterMountNamespace),
        (3, Step::EnterNetworkNamespace),
        (4, Step::EnterIpcNamespace),
        (5, Step::EnterUtsNamespace),
        (6, Step::EnterCgroupNamespace),
    ];
    let namespaces = || warm.inside.jailed.namespaces().expect("namespaces").into_fds();
    for (index, step) in steps {
        let mut fds = namespaces();
        fds[index] = null();
        let (answer, line) = warm.fork(Birth::Inside, fds);
        assert_eq!(answer, Some(Answer::NotJoined(step.to_string(), libc::EINVAL)));
        assert_eq!(line.hear(), None, "it has left");
    }
    // Two of one kind are no better.
    let mut fds = namespaces();
    fds.swap(0, 1);
    let (answer, _) = warm.fork(Birth::Inside, fds);
    assert_eq!(answer, Some(Answer::NotJoined(Step::EnterUserNamespace.to_string(), libc::EINVAL)));
    let other = Warm::start();
    let mut fds = namespaces();
    fds[1] = other.inside.jailed.namespaces().expect("namespaces").into_fds().into_iter().nth(1).expect("mount");
    let (answer, _) = warm.fork(Birth::Inside, fds);
    assert_eq!(answer, Some(Answer::NotJoined(Step::EnterMountNamespace.to_string(), libc::EPERM)), "another's");
}

#[test]
fn a_process_born_outside_is_refused() {
    let warm = Warm::start();
    let (answer, _) = warm.fork(Birth::Outside, warm.inside.jailed.namespaces().expect("namespaces").into_fds());
    // It does not even find itself in the container's /proc.
    assert_eq!(answer, Some(Answer::NotJoined(Step::CheckPidNamespace.to_string(), libc::ENOENT)));
}

#[test]
fn a_seal_that_cannot_be_applied_lets_nobody_in() {
    let cases = [
        ("seccomp_last", serde_json::json!([]), Step::LastSeccomp, libc::EINVAL),
        (
            "landlock",
            serde_json::json!({ "need": "required", "grants": [{ "path": "/nowhere", "rights": ["read_file"] }] }),
            Step::Landlock,
            libc::ENOENT,
        ),
    ];
    for (field, value, step, errno) in cases {
        let warm = Warm::sealed_by(|plan| {
            let mut fields = serde_json::to_value(plan.seal_plan()).expect("value");
            fields[field] = value;
            SealPlan::from_bytes(fields.to_string().as_bytes()).expect("seal")
        });
        let namespaces = warm.inside.jailed.namespaces().expect("namespaces").into_fds();
        let (answer, line) = warm.fork(Birth::Inside, namespaces);
        assert_eq!(answer, Some(Answer::NotJoined(step.to_string(), errno)));
        assert_eq!(line.hear(), None);
    }
}
