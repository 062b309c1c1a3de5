//! System calls a container may not make, each with the exact answer.

use crate::harness::start_empty;
use crate::harness::words::{Answer, Argument};

use Argument::{Number as N, Text};

fn text(text: &str) -> Argument {
    Text(text.to_owned())
}

/// Name, number, arguments, error number.
type Case = (&'static str, i64, Vec<Argument>, i32);

// tidy: table
fn cases() -> Vec<Case> {
    let none = Vec::new;
    let flag = |flag: i32| vec![N(i64::from(flag) | i64::from(libc::SIGCHLD))];
    let family = |family: i32| vec![N(i64::from(family)), N(i64::from(libc::SOCK_DGRAM)), N(0)];
    let mut cases: Vec<Case> = vec![
        ("unshare", libc::SYS_unshare, vec![N(i64::from(libc::CLONE_NEWUSER))], libc::EPERM),
        ("setns", libc::SYS_setns, vec![N(0), N(0)], libc::EPERM),
        ("clone3", libc::SYS_clone3, vec![N(0), N(0)], libc::ENOSYS),
        ("chroot", libc::SYS_chroot, vec![text("/tmp")], libc::EPERM),
        ("pivot_root", libc::SYS_pivot_root, vec![text("."), text(".")], libc::EPERM),
        ("umount2", libc::SYS_umount2, vec![text("/proc/keys"), N(2)], libc::EPERM),
        ("mount proc", libc::SYS_mount, vec![text("proc"), text("/tmp"), text("proc"), N(0), N(0)], libc::EPERM),
        (
            "remount /proc writable",
            libc::SYS_mount,
            vec![text(""), text("/proc"), text(""), N(0x1020), N(0)],
            libc::EPERM,
        ),
        ("open_tree", libc::SYS_open_tree, vec![N(-100), text("/"), N(1)], libc::EPERM),
        ("fsopen", libc::SYS_fsopen, vec![text("proc"), N(0)], libc::EPERM),
        ("mount_setattr", libc::SYS_mount_setattr, vec![N(-100), text("/proc")], libc::EPERM),
        ("move_mount", libc::SYS_move_mount, vec![N(-100), text("/proc"), N(-100), text("/tmp")], libc::EPERM),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, vec![N(-100), N(0), N(0)], libc::EPERM),
        ("ptrace", libc::SYS_ptrace, vec![N(0)], libc::EPERM),
        ("process_vm_readv", libc::SYS_process_vm_readv, vec![N(1)], libc::EPERM),
        ("process_vm_writev", libc::SYS_process_vm_writev, vec![N(1)], libc::EPERM),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, vec![N(3), N(0), N(0)], libc::EPERM),
        ("keyctl", libc::SYS_keyctl, none(), libc::EPERM),
        ("add_key", libc::SYS_add_key, vec![text("user"), text("a")], libc::EPERM),
        ("request_key", libc::SYS_request_key, vec![text("user"), text("a")], libc::EPERM),
        ("bpf", libc::SYS_bpf, none(), libc::EPERM),
        ("perf_event_open", libc::SYS_perf_event_open, none(), libc::EPERM),
        ("userfaultfd", libc::SYS_userfaultfd, none(), libc::EPERM),
        ("fanotify_init", libc::SYS_fanotify_init, none(), libc::EPERM),
        ("io_uring_setup", libc::SYS_io_uring_setup, vec![N(1), N(0)], libc::ENOSYS),
        ("splice", libc::SYS_splice, none(), libc::ENOSYS),
        ("vmsplice", libc::SYS_vmsplice, none(), libc::ENOSYS),
        ("init_module", libc::SYS_init_module, none(), libc::EPERM),
        ("finit_module", libc::SYS_finit_module, none(), libc::EPERM),
        ("kexec_load", libc::SYS_kexec_load, none(), libc::EPERM),
        ("reboot", libc::SYS_reboot, none(), libc::EPERM),
        ("sethostname", libc::SYS_sethostname, vec![text("x"), N(1)], libc::EPERM),
        ("clock_settime", libc::SYS_clock_settime, none(), libc::EPERM),
        ("syslog", libc::SYS_syslog, vec![N(10)], libc::EPERM),
        ("swapon", libc::SYS_swapon, vec![text("/tmp"), N(0)], libc::EPERM),
        ("acct", libc::SYS_acct, vec![text("/tmp/a")], libc::EPERM),
        ("a number nobody has", 9_999, none(), libc::ENOSYS),
        ("ioctl TIOCSTI", libc::SYS_ioctl, vec![N(0), N(0x5412), text("x")], libc::EPERM),
        ("ioctl TIOCLINUX", libc::SYS_ioctl, vec![N(0), N(0x541c), text("x")], libc::EPERM),
        ("ioctl TIOCSTI with high bits", libc::SYS_ioctl, vec![N(0), N(0x1_0000_5412), text("x")], libc::EPERM),
        ("personality READ_IMPLIES_EXEC", libc::SYS_personality, vec![N(0x0040_0000)], libc::EPERM),
        ("personality ADDR_NO_RANDOMIZE", libc::SYS_personality, vec![N(0x0004_0000)], libc::EPERM),
        (
            "mknod of a block device, by Landlock",
            libc::SYS_mknodat,
            vec![N(-100), text("/tmp/disk"), N(0o060_600), N(0x0800)],
            libc::EACCES,
        ),
        (
            "mknod of a character device, by Landlock",
            libc::SYS_mknodat,
            vec![N(-100), text("/tmp/mem"), N(0o020_600), N(0x0101)],
            libc::EACCES,
        ),
        (
            "mknod of a whiteout, by Landlock",
            libc::SYS_mknodat,
            vec![N(-100), text("/dev/shm/w"), N(0o020_600), N(0)],
            libc::EACCES,
        ),
        (
            "write to /proc/sys",
            libc::SYS_openat,
            vec![N(-100), text("/proc/sys/kernel/core_pattern"), N(1)],
            libc::EACCES,
        ),
        (
            "write to a namespaced sysctl",
            libc::SYS_openat,
            vec![N(-100), text("/proc/sys/net/ipv4/ip_forward"), N(1)],
            libc::EACCES,
        ),
        (
            "write to /proc/self/uid_map",
            libc::SYS_openat,
            vec![N(-100), text("/proc/self/uid_map"), N(1)],
            libc::EACCES,
        ),
        ("a new name in /dev", libc::SYS_openat, vec![N(-100), text("/dev/x"), N(0o101), N(0o600)], libc::EROFS),
        ("up and out", libc::SYS_openat, vec![N(-100), text("/../../../etc/passwd"), N(0)], libc::ENOENT),
        ("setuid of an unmapped id", libc::SYS_setuid, vec![N(65_536)], libc::EINVAL),
        ("kill of process 2^21", libc::SYS_kill, vec![N(2_097_152), N(9)], libc::ESRCH),
    ];
    for (name, value) in [
        ("CLONE_NEWUSER", libc::CLONE_NEWUSER),
        ("CLONE_NEWNS", libc::CLONE_NEWNS),
        ("CLONE_NEWPID", libc::CLONE_NEWPID),
        ("CLONE_NEWNET", libc::CLONE_NEWNET),
        ("CLONE_NEWIPC", libc::CLONE_NEWIPC),
        ("CLONE_NEWUTS", libc::CLONE_NEWUTS),
        ("CLONE_NEWCGROUP", libc::CLONE_NEWCGROUP),
    ] {
        cases.push((name, libc::SYS_clone, flag(value), libc::EPERM));
    }
    for (name, value) in [
        ("AF_INET", libc::AF_INET),
        ("AF_INET6", libc::AF_INET6),
        ("AF_NETLINK", libc::AF_NETLINK),
        ("AF_PACKET", libc::AF_PACKET),
        ("AF_VSOCK", libc::AF_VSOCK),
        ("AF_ALG", libc::AF_ALG),
        ("AF_RXRPC", libc::AF_RXRPC),
        ("AF_KEY", libc::AF_KEY),
        ("AF_XDP", libc::AF_XDP),
        ("AF_UNSPEC", libc::AF_UNSPEC),
    ] {
        cases.push((name, libc::SYS_socket, family(value), libc::EAFNOSUPPORT));
    }
    cases
}

#[cfg(target_arch = "x86_64")]
fn cases_of_this_architecture() -> Vec<Case> {
    const X32: i64 = 0x4000_0000;
    vec![
        ("iopl", libc::SYS_iopl, vec![N(3)], libc::EPERM),
        ("ioperm", libc::SYS_ioperm, vec![N(0), N(1), N(1)], libc::EPERM),
        ("modify_ldt", libc::SYS_modify_ldt, vec![N(0)], libc::EPERM),
        ("x32 getpid", X32 | libc::SYS_getpid, Vec::new(), libc::ENOSYS),
        ("x32 unshare", X32 | libc::SYS_unshare, vec![N(0)], libc::ENOSYS),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn cases_of_this_architecture() -> Vec<Case> {
    Vec::new()
}

#[test]
fn refused_with_exactly_this_error() {
    let (_rootfs, inside) = start_empty();
    let all = cases().into_iter().chain(cases_of_this_architecture());
    let wrong: Vec<_> = all
        .filter_map(|(name, number, arguments, errno)| {
            let answer = inside.call(number, &arguments);
            (answer != Answer::Failed(errno)).then_some((name, answer, errno))
        })
        .collect();
    assert_eq!(wrong, []);
    assert!(inside.end().success());
}

#[test]
fn allowed_all_the_same() {
    let (_rootfs, inside) = start_empty();
    for (name, number, arguments) in [
        ("socket AF_UNIX", libc::SYS_socket, vec![N(1), N(1), N(0)]),
        ("mknod of a FIFO", libc::SYS_mknodat, vec![N(-100), text("/tmp/fifo"), N(0o010_600), N(0)]),
        ("getpid", libc::SYS_getpid, vec![]),
        ("personality query", libc::SYS_personality, vec![N(0xffff_ffff)]),
        ("sync, without effect", libc::SYS_sync, vec![]),
        ("open /dev/stdout's target", libc::SYS_openat, vec![N(-100), text("/dev/stdout"), N(1)]),
        ("shared memory", libc::SYS_openat, vec![N(-100), text("/dev/shm/s"), N(0o102), N(0o600)]),
    ] {
        let answer = inside.call(number, &arguments);
        assert!(matches!(answer, Answer::Value(_)), "{name}: {answer:?}");
    }
    assert!(inside.end().success());
}

/// A call by the i386 convention ends the whole process, whatever the call.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_i386_gate_is_deadly() {
    use crate::harness::words::Ask;
    let (_rootfs, inside) = start_empty();
    assert_eq!(inside.ask(&Ask::I386), Answer::Signalled(libc::SIGSYS), "a child that calls getpid through int 0x80");
    assert!(inside.end().success());
}
