//! What a container is, seen from inside.

use belljar_jail::{Attachment, Identity, JailPlan};

use crate::harness::words::{Answer, Argument, Ask};
use crate::harness::{BASE, Inside, Way, empty_rootfs, spec, start_empty, start_empty_by};
use crate::skip;

fn names(list: &[&str]) -> Answer {
    Answer::Names(list.iter().map(ToString::to_string).collect())
}

fn status(inside: &Inside, key: &str) -> String {
    let text = inside.text("/proc/self/status");
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key));
    values.next().expect(key).trim_matches([':', '\t', ' ']).to_owned()
}

#[test]
fn process_one_has_nothing_to_lose() {
    for way in Way::BOTH {
        let (_rootfs, inside) = start_empty_by(way);
        for (key, value) in [
            ("Pid", "1"),
            ("PPid", "0"),
            ("NSsid", "1"),
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
        ] {
            assert_eq!(status(&inside, key), value, "{key}");
        }
        if matches!(Identity::strongest(BASE), Identity::Mapped { .. }) {
            assert_eq!(status(&inside, "Groups"), "");
        }
        // prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS): all but KEEP_CAPS, and locked.
        for (option, value) in [(3, 0), (27, 0b1110_1111)] {
            assert_eq!(inside.call(libc::SYS_prctl, &[Argument::Number(option)]), Answer::Value(value));
        }
        assert!(inside.end().success());
    }
}

#[test]
fn only_the_two_sockets_and_the_null_streams_are_open() {
    for way in Way::BOTH {
        let (_rootfs, inside) = start_empty_by(way);
        // The control socket, its own oom_score_adj, and the listing's own.
        let Answer::Names(open) = inside.list("/proc/self/fd") else {
            panic!("no list");
        };
        assert_eq!(open.len(), 6, "{open:?}");
        assert!(inside.end().success());
    }
}

#[test]
fn the_file_tree_is_the_plans() {
    for way in Way::BOTH {
        let (_rootfs, inside) = start_empty_by(way);
        assert_eq!(inside.list("/"), names(&["dev", "files", "mnt", "proc", "root", "tmp", "work"]));
        assert_eq!(inside.list("/files"), names(&["input", "output"]));
        assert_eq!(
            inside.list("/dev"),
            names(&["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"])
        );
        assert_eq!(inside.list("/mnt/user-data"), names(&[]));
        assert_eq!(inside.list("/proc/bus"), names(&[]));
        assert_eq!(inside.read("/proc/cmdline"), Answer::Text(String::new()));
        assert_eq!(inside.read("/proc/keys"), Answer::Text(String::new()));
        assert_eq!(inside.text("/proc/sys/kernel/hostname"), "container\n");
        // Closed even to itself, but for a root that owns all of /proc.
        let environ = match Identity::strongest(BASE) {
            Identity::Caller { uid: 0, .. } => Answer::Text(String::new()),
            Identity::Caller { .. } | Identity::Mapped { .. } => Answer::Failed(libc::EACCES),
        };
        assert_eq!(inside.read("/proc/self/environ"), environ);
        assert_eq!(inside.text("/proc/self/cmdline"), "belljar-guest\0");
        assert_eq!(inside.text("/proc/self/cgroup").lines().filter(|line| !line.ends_with(":/")).count(), 0);
        assert!(inside.end().success());
    }
}

#[test]
fn the_mount_table_names_nothing_of_the_host() {
    let (rootfs, inside) = start_empty();
    let table = inside.text("/proc/self/mountinfo");
    let place = rootfs.path().to_str().expect("UTF-8");
    assert!(!table.contains(place), "{table}");
    let options = |point: &str| {
        let mut lines = table.lines().map(|line| line.split(' '));
        lines.find_map(|mut fields| (fields.nth(4) == Some(point)).then(|| fields.next()))
    };
    for (point, expected) in [
        ("/", "rw,nosuid,nodev,relatime"),
        ("/proc", "ro,nosuid,nodev,noexec,relatime"),
        ("/dev", "ro,nosuid,noexec,relatime"),
        ("/dev/shm", "rw,nosuid,nodev,noexec,relatime"),
    ] {
        assert_eq!(options(point), Some(Some(expected)), "{point}");
    }
    let points: Vec<_> =
        table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| !point.starts_with("/proc/")).collect();
    let mut expected = vec!["/", "/dev", "/dev/shm", "/proc"];
    expected.extend(["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"]);
    expected.sort_unstable();
    let mut points = points;
    points.sort_unstable();
    assert_eq!(points, expected);
    assert!(inside.end().success());
}

#[test]
fn there_is_no_network_but_a_sleeping_loopback() {
    let (_rootfs, inside) = start_empty();
    let devices = inside.text("/proc/net/dev");
    let names: Vec<_> = devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(inside.text("/proc/net/route").lines().skip(1).count(), 0);
    assert!(inside.end().success());
}

#[test]
fn signals_the_host_ignores_are_not_ignored_inside() {
    // SAFETY: ignoring a signal runs no code; nothing else in this process relies on SIGUSR2.
    let before = unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR);
    let (_rootfs, inside) = start_empty();
    let ignored = u64::from_str_radix(&status(&inside, "SigIgn"), 16).expect("mask");
    let c_library = (1 << 31) | (1 << 32);
    assert_eq!(ignored & !c_library, 1 << (libc::SIGPIPE - 1));
    assert!(inside.end().success());
}

#[test]
fn what_is_written_is_capped_and_stays_inside() {
    let rootfs = empty_rootfs();
    let mut spec = spec(rootfs.path().to_owned());
    spec.disk_bytes_max = 1 << 20;
    let plan = JailPlan::for_container(&spec).expect("plan");
    let inside = Inside::start(&plan, Attachment::Unlimited).expect("launch");
    let write = |path: &str, bytes| inside.ask(&Ask::Write { path: path.to_owned(), bytes });
    assert_eq!(write("/work/small", 1000), Answer::Value(1000));
    assert_eq!(write("/new-at-the-top", 1000), Answer::Value(1000));
    assert_eq!(write("/work/large", 2 << 20), Answer::Failed(libc::ENOSPC));
    assert!(inside.end().success());
    assert_eq!(std::fs::read_dir(rootfs.path()).expect("rootfs").count(), 0);
}

#[test]
fn ids_outside_are_the_plans() {
    let Identity::Mapped { base } = Identity::strongest(BASE) else {
        skip!("only root can give a container ids of its own");
    };
    let (_rootfs, inside) = start_empty();
    let pid = inside.jailed.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    assert!(status.contains(&format!("\nUid:\t{base}\t{base}\t{base}\t{base}\n")));
    assert!(status.contains(&format!("\nGid:\t{base}\t{base}\t{base}\t{base}\n")));
    assert!(inside.end().success());
}

#[test]
fn every_namespace_is_its_own() {
    for way in Way::BOTH {
        let (_rootfs, inside) = start_empty_by(way);
        let pid = inside.jailed.pid().as_raw_nonzero();
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let theirs = inside.ask(&Ask::Link { path: format!("/proc/self/ns/{kind}") });
            let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("link");
            let Answer::Text(theirs) = theirs else {
                panic!("{kind} of {pid}: {theirs:?}");
            };
            assert_ne!(theirs, ours.to_string_lossy(), "{kind}");
            assert!(theirs.starts_with(&format!("{kind}:[")), "{theirs}");
        }
        assert!(inside.end().success());
    }
}
