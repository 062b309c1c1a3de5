//! A zygote: what it sees, what it may, how it starts and ends.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use belljar_jail::{JailPlan, LaunchError, SetupError, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};

use crate::harness::words::{Answer, Argument, Ask};
use crate::harness::zygote::{Warm, image, plan, start};
use crate::harness::{realm, spec};

#[test]
fn a_zygote_sees_its_image_read_only_and_no_processes() {
    let warm = Warm::start();
    let zygote = &warm.line;
    let names = |list: &[&str]| Answer::Names(list.iter().map(ToString::to_string).collect());
    assert_eq!(zygote.list("/"), names(&["dev", "lib", "lib64", "root", "run", "tmp", "usr"]));
    assert_eq!(zygote.list("/run/belljar"), names(&["seal", "zygote"]));
    let write = |path: &str, bytes| zygote.ask(&Ask::Write { path: path.to_owned(), bytes });
    for (path, expected) in [
        ("/new", Answer::Failed(libc::EROFS)),
        ("/usr/lib/new", Answer::Failed(libc::EROFS)),
        ("/run/belljar/seal", Answer::Failed(libc::EROFS)),
        ("/dev/new", Answer::Failed(libc::EROFS)),
        ("/tmp/new", Answer::Value(1)),
        ("/root/new", Answer::Value(1)),
        ("/dev/null", Answer::Value(1)),
    ] {
        assert_eq!(write(path, 1), expected, "{path}");
    }
    assert_eq!(write("/tmp/large", 2 << 20), Answer::Failed(libc::ENOSPC), "capped");
    let pid = i64::from(warm.zygote.pid().as_raw_nonzero().get());
    assert_eq!(zygote.call(libc::SYS_getpid, &[]), Answer::Value(pid), "the host's pid namespace");
    // prctl(PR_GET_NO_NEW_PRIVS), prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN).
    for arguments in [[39, 0], [23, 21]] {
        let arguments = arguments.map(Argument::Number);
        assert_eq!(zygote.call(libc::SYS_prctl, &arguments), Answer::Value(1));
    }
    // Its power ends at the realm: mounting the host's file systems, its pid namespace, its host name.
    let setns = [Argument::Number(4), Argument::Number(i64::from(libc::CLONE_NEWPID))];
    assert_eq!(zygote.call(libc::SYS_setns, &setns), Answer::Failed(libc::EPERM));
    assert_eq!(zygote.call(libc::SYS_chdir, &[Argument::Text("/proc/1".to_owned())]), Answer::Failed(libc::ENOENT));
}

#[test]
fn a_zygotes_first_words_reach_the_operator() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let image = image();
    let realm = realm().expect("realm");
    let seal = JailPlan::for_container(&spec(image.path().to_owned())).expect("plan").seal_plan();
    let mut plan = plan(image.path().to_owned(), &["zygote"]);
    plan.stderr = Some(writer.into());
    let (zygote, line) = start(&realm, &plan, &seal).expect("zygote");
    drop(plan);
    drop(line);
    assert!(zygote.wait().expect("wait").success(), "it ends with its control socket");
    let mut said = String::new();
    BufReader::new(reader).read_to_string(&mut said).expect("read");
    assert_eq!(said, "a zygote's word\n");
}

#[test]
fn a_program_that_is_not_there_is_a_failed_step() {
    let image = image();
    let realm = realm().expect("realm");
    let seal = JailPlan::for_container(&spec(image.path().to_owned())).expect("plan").seal_plan();
    let mut wrong = plan(image.path().to_owned(), &[]);
    wrong.argv = vec!["/usr/bin/python3".to_owned()];
    match start(&realm, &wrong, &seal) {
        Err(LaunchError::Setup(error)) => {
            assert_eq!(error, SetupError { step: Step::Execute, errno: libc::ENOENT });
        }
        other => panic!("expected a failed step, got {other:?}"),
    }
    let missing = plan(image.path().join("missing"), &["zygote"]);
    match start(&realm, &missing, &seal) {
        Err(LaunchError::Setup(error)) => {
            assert_eq!(error, SetupError { step: Step::WritableLayer, errno: libc::ENOENT });
        }
        other => panic!("expected a failed step, got {other:?}"),
    }
}

#[test]
fn a_dropped_zygote_is_dead_and_reaped() {
    let warm = Warm::start();
    let pid = warm.zygote.pid();
    drop(warm);
    assert_eq!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
}

/// Set for the process that plays a server in the test below.
const DIES: &str = "BELLJAR_TEST_SERVER_DIES";

/// Plays a server that dies, in a process of its own.
#[test]
fn a_server_that_dies() {
    if std::env::var_os(DIES).is_none() {
        return;
    }
    let image = image();
    let realm = realm().expect("realm");
    let seal = JailPlan::for_container(&spec(image.path().to_owned())).expect("plan").seal_plan();
    // On a thread of its own, whose end must not be the zygote's.
    let plan = plan(image.path().to_owned(), &["stubborn"]);
    let started = std::thread::scope(|scope| scope.spawn(|| start(&realm, &plan, &seal)).join().expect("thread"));
    let (zygote, _line) = started.expect("zygote");
    let handle = zygote.pidfd();
    let mut wait = [PollFd::new(&handle, PollFlags::IN)];
    assert_eq!(poll(&mut wait, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })), Ok(0), "it outlives the thread");
    println!("zygote {}", zygote.pid().as_raw_nonzero());
    drop(image);
    kill_process(getpid(), Signal::KILL).expect("dies");
}

#[test]
fn a_zygote_ends_with_its_server_even_if_it_hears_nothing() {
    let mut server = Command::new(std::env::current_exe().expect("runs"))
        .args(["--exact", "zygotes::a_server_that_dies", "--nocapture"])
        .env(DIES, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut said = BufReader::new(server.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let number = said.find_map(|line| line.split_once("zygote ")?.1.trim().parse().ok()).expect("a zygote started");
    let pid = Pid::from_raw(number).expect("an id");
    assert_eq!(server.wait().expect("wait").signal(), Some(libc::SIGKILL));
    if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
        let mut wait = [PollFd::new(&handle, PollFlags::IN)];
        assert_eq!(poll(&mut wait, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })), Ok(1), "still there");
    }
}
