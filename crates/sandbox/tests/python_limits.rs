//! Limits that cells in Python exceed: each is reached, told, and survived.

mod support;

use std::time::{Duration, Instant};

use belljar_sandbox::{
    CellOptions, CellOutcome, InterpreterEnd, KillReason, Lease, Loss, Output, Reason, SandboxConfig,
};
use support::leftovers::processes_with;
use support::{CELL, leased, limits_enforced, options, printed, python, python_config, python_outcome, said, stdout};

const MIB: u64 = 1024 * 1024;

async fn lives(lease: &mut Lease) {
    assert_eq!(printed(lease, "print('one')").await, "one\n");
    assert_eq!(printed(lease, "print('two')").await, "two\n");
    assert_eq!(stdout(lease, "echo bash").await, "bash\n");
}

fn last_line(output: &Output) -> String {
    said(output).stderr.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_that_takes_all_memory_is_killed_and_the_container_lives() {
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    for source in ["print('before', flush=True)\nx = b'x' * (2 << 30)", "l = []\nwhile True: l.append(b'x' * 1000000)"]
    {
        let outcome = python_outcome(&mut lease, source).await;
        let CellOutcome::Killed(KillReason::Memory, output) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((outcome.reason(), output.return_code), (Some(Reason::Memory), 137));
        assert_eq!(
            output.losses,
            [Loss::KilledByMemory(512 * MIB), Loss::InterpreterEnded(InterpreterEnd::Memory)],
            "{source}"
        );
        lives(&mut lease).await;
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_takes_all_memory_leaves_the_interpreter_alone() {
    if !limits_enforced() {
        skip!("this host cannot limit memory");
    }
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let source = "import subprocess, sys\nkept = 1\n\
                  print(subprocess.run([sys.executable, '-c', \"x = b'x' * (2 << 30)\"]).returncode)";
    let outcome = python_outcome(&mut lease, source).await;
    let CellOutcome::Ended(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((said(output).stdout.as_str(), output.return_code), ("-9\n", 0));
    assert_eq!(
        (outcome.reason(), &output.losses[..]),
        (Some(Reason::Memory), &[Loss::ProcessKilledByMemory(512 * MIB)][..])
    );
    assert_eq!(printed(&mut lease, "print(kept)").await, "1\n");
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_is_killed_soon_and_the_container_lives() {
    if !limits_enforced() {
        skip!("this host cannot limit processes");
    }
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let bomb = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    try: os.fork()\n    \
                except OSError: pass";
    let started = Instant::now();
    let options = CellOptions { wall: Duration::from_millis(500), ..options() };
    let outcome = lease.python(bomb, CELL, options).await.expect("lives");
    let CellOutcome::TimedOut(output) = &outcome else { panic!("{outcome:?}") };
    assert!(output.losses.contains(&Loss::ProcessesRefused(64)), "{:?}", output.losses);
    assert!(output.losses.contains(&Loss::InterpreterEnded(InterpreterEnd::Killed)), "{:?}", output.losses);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_makes_a_cell_fail_is_its_reason() {
    if !limits_enforced() {
        skip!("this host cannot limit processes");
    }
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let processes = "import subprocess\nps = []\nfor _ in range(100): ps.append(subprocess.Popen(['sleep', '73201']))";
    let output = refused(&mut lease, processes, Some(Reason::Processes)).await;
    assert_eq!(last_line(&output), "BlockingIOError: [Errno 11] Resource temporarily unavailable");
    assert_eq!(output.notices(), ["belljar: limit of 64 processes reached"]);
    printed(&mut lease, "for p in ps: p.kill(); p.wait()").await;

    let disk = "f = open('/tmp/full', 'wb')\nwhile True: f.write(b'x' * 65536)";
    let output = refused(&mut lease, disk, Some(Reason::Disk)).await;
    assert_eq!(last_line(&output), "OSError: [Errno 28] No space left on device");
    assert_eq!(output.notices(), ["belljar: the container's disk is full: limit of 67108864 bytes and 262144 files"]);
    printed(&mut lease, "import os; f = None; os.remove('/tmp/full')").await;

    let files = "fs = [open('/dev/null') for _ in range(20000)]";
    let output = refused(&mut lease, files, None).await;
    assert_eq!(last_line(&output), "OSError: [Errno 24] Too many open files: '/dev/null'");
    printed(&mut lease, "fs = None").await;

    let hole = "f = open('/tmp/hole', 'wb'); f.truncate(1 << 40)";
    let output = refused(&mut lease, hole, None).await;
    assert_eq!(last_line(&output), "OSError: [Errno 27] File too large");

    let memory = "x = bytearray(1 << 62)";
    let output = refused(&mut lease, memory, None).await;
    assert_eq!(last_line(&output), "MemoryError");
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

async fn refused(lease: &mut Lease, source: &str, reason: Option<Reason>) -> Output {
    let outcome = python_outcome(lease, source).await;
    assert_eq!(outcome.reason(), reason, "{source}: {outcome:?}");
    let CellOutcome::Ended(output) = outcome else { panic!("{source}: {outcome:?}") };
    assert_eq!(output.return_code, 1, "{source}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_another_file_is_full() {
    // Files without content cost memory all the same.
    let config = SandboxConfig { memory_bytes_max: 2048 * MIB, disk_bytes_max: 1024 * MIB, ..python_config() };
    let (sandbox, _image) = python_sandbox!(config);
    let mut lease = leased(&sandbox, 1).await;
    let inodes = "import os\nos.mkdir('/tmp/d'); os.chdir('/tmp/d')\nfor n in range(300000): os.mknod(str(n))";
    let output = refused(&mut lease, inodes, Some(Reason::Disk)).await;
    assert!(last_line(&output).starts_with("OSError: [Errno 28] No space left on device"), "{}", last_line(&output));
    assert_eq!(output.notices().len(), 1, "{:?}", output.notices());
    printed(&mut lease, "os.chdir('/work'); import shutil; shutil.rmtree('/tmp/d')").await;
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_a_processor_is_all_there_is() {
    if !limits_enforced() {
        skip!("this host cannot limit processor time");
    }
    let (sandbox, _image) = python_sandbox!(SandboxConfig { cpus: 0.25, ..python_config() });
    let mut lease = leased(&sandbox, 1).await;
    let busy = "import os, time\nend = time.monotonic() + 2\nos.fork()\nwhile time.monotonic() < end: pass";
    let outcome = python_outcome(&mut lease, busy).await;
    let output = outcome.output();
    let share = output.cpu.as_secs_f64() / output.wall.as_secs_f64();
    // On a busy machine it may be less; without the limit two processes would take up to two processors.
    assert!(share > 0.0 && share < 0.35, "{share} of a processor: {:?} in {:?}", output.cpu, output.wall);
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_counted_and_cut() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let output = python(
        &mut lease,
        "import sys\nfor _ in range(5): sys.stdout.write('x' * 1000000)\nprint('e', file=sys.stderr)",
    )
    .await;
    assert_eq!(
        (output.stdout.len(), output.stdout_bytes, output.stderr.as_slice()),
        (1_048_576, 5_000_000, b"e\n".as_slice())
    );
    assert_eq!(output.notices(), ["belljar: stdout was cut: 1048576 of 5000000 bytes shown"]);
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wall_time_asked_for_is_cut_to_the_limit() {
    let (sandbox, _image) = python_sandbox!(SandboxConfig { cell_wall_s_max: 1, ..python_config() });
    let mut lease = leased(&sandbox, 1).await;
    printed(&mut lease, "import subprocess; child = subprocess.Popen(['sleep', '73202'])").await;
    let started = Instant::now();
    let wall = CellOptions { wall: Duration::from_secs(3600), ..options() };
    let outcome = lease.python("import time; time.sleep(3000)", CELL, wall).await.expect("lives");
    assert_eq!(outcome.reason(), Some(Reason::Time), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // An interrupt is for the whole process group, as from a terminal.
    assert_eq!(printed(&mut lease, "print(child.wait())").await, "-2\n");
    assert!(processes_with("sleep 73202").is_empty());
    lives(&mut lease).await;
    drop(lease);
    sandbox.close().await;
}

#[test]
fn in_forked_interpreters_too() {
    support::warm::run_all("in_forked_interpreters_too");
}
