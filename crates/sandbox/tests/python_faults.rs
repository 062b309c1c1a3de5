//! Cells in Python that break what runs them: told as what they are, and survived by their container.

mod support;

use std::time::Duration;

use belljar_sandbox::{CellOptions, CellOutcome, InterpreterEnd, Lease, Loss, Reason, Sandbox};
use support::leftovers::{process_inside, processes_with};
use support::{CELL, leased, options, printed, python, python_outcome, run, said, stdout, until};
use tokio_util::sync::CancellationToken;

/// What became of a container and its names.
#[derive(Debug, PartialEq, Eq)]
enum Repl {
    Lives,
    Lost,
}

/// Two cells in a row after whatever happened; only the first hears of a loss that no cell has told.
async fn usable(lease: &mut Lease, repl: Repl, notices: &[&str]) {
    let first = python(lease, "print('kept' in globals(), open('/tmp/file').read())").await;
    let expected = match repl {
        Repl::Lives => "True intact\n",
        Repl::Lost => "False intact\n",
    };
    assert_eq!(
        (said(&first).stdout.as_str(), first.notices()),
        (expected, notices.iter().map(|&n| n.to_owned()).collect())
    );
    assert_eq!(printed(lease, "print('second')").await, "second\n");
    assert_eq!(stdout(lease, "echo bash").await, "bash\n");
}

async fn begun(sandbox: &Sandbox) -> Lease {
    let mut lease = leased(sandbox, 1).await;
    printed(&mut lease, "kept = 1; f = open('/tmp/file', 'w'); f.write('intact'); f.close()").await;
    lease
}

/// The interpreter's process id on the host.
async fn host_pid(lease: &mut Lease) -> i32 {
    let inside = printed(lease, "import os; print(os.getpid())").await;
    process_inside("python3", inside.trim())
}

/// A signal takes effect when the machine gets to it, a forked interpreter is reaped when its zygote gets to it.
async fn gone(pid: i32) {
    until("it has gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
}

async fn keep_again(lease: &mut Lease) {
    printed(lease, "kept = 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_that_ends_is_a_crash_and_the_next_cell_has_a_new_one() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let overflow = "import threading, sys\nsys.setrecursionlimit(10**8)\ndef f(x): return sorted([1], key=f)\n\
                    threading.stack_size(65536)\nt = threading.Thread(target=f, args=(1,)); t.start(); t.join()";
    let cases = [
        ("import ctypes; ctypes.string_at(0)", 139, InterpreterEnd::Signal(11)),
        ("import os; os._exit(0)", 1, InterpreterEnd::Exited(0)),
        ("import os; os._exit(3)", 3, InterpreterEnd::Exited(3)),
        (overflow, 139, InterpreterEnd::Signal(11)),
        ("import os; os.abort()", 134, InterpreterEnd::Signal(6)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, InterpreterEnd::Signal(9)),
        (
            "import os\nif os.fork() == 0:\n    import time; time.sleep(73101)\nos._exit(0)",
            1,
            InterpreterEnd::Exited(0),
        ),
    ];
    for (source, return_code, how) in cases {
        let source = format!("print('said', flush=True)\n{source}");
        let outcome = python_outcome(&mut lease, &source).await;
        let CellOutcome::Crashed(output) = &outcome else { panic!("{source}: {outcome:?}") };
        assert_eq!(
            (output.return_code, &output.losses[..]),
            (return_code, &[Loss::InterpreterEnded(how)][..]),
            "{source}"
        );
        assert_eq!((output.stdout.as_slice(), outcome.reason()), (b"said\n".as_slice(), None), "{source}");
        assert_eq!(output.notices().len(), 1, "one line says all");
        usable(&mut lease, Repl::Lost, &[]).await;
        keep_again(&mut lease).await;
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_in_one_line_with_all_that_matters() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let source =
        "import os, ctypes\nopen(os.environ['OUTPUT_DIR'] + '/saved', 'w').write('before')\nctypes.string_at(0)";
    let output = python_outcome(&mut lease, source).await.into_output();
    assert_eq!(
        output.notices(),
        [
            "belljar: the Python interpreter ended: segmentation fault (signal 11); variables are lost, files are intact, \
          the next cell starts a new one"
        ]
    );
    // What was written before is captured all the same.
    assert_eq!(output.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["saved"]);
    assert_eq!(stdout(&mut lease, "ls -A /files/output | wc -l").await, "1\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_closes_what_it_has_hurts_only_itself() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    for source in ["import os\nfor fd in range(3): os.close(fd)", "import os; os.closerange(3, 256)"] {
        python(&mut lease, source).await;
        usable(&mut lease, Repl::Lives, &[]).await;
    }
    let outcome = python_outcome(&mut lease, "import os; os.closerange(0, 20000)").await;
    assert!(matches!(outcome, CellOutcome::Crashed(_)) && outcome.output().return_code != 0, "{outcome:?}");
    usable(&mut lease, Repl::Lost, &[]).await;
    drop(lease);
    sandbox.close().await;
}

/// Finds every socket of the process and says something there.
fn to_every_socket(words: &str) -> String {
    format!(
        "import os, stat\nfor fd in range(3, 1024):\n    try:\n        \
         if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, {words})\n    except OSError: pass"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_frames_prove_nothing() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let forged = r#"b'{"ended":{"id":%d,"nonce":"0000000000000000","status":{"code":0},"output":"none"}}' % n"#;
    let cases = [
        (to_every_socket("b'garbage'"), "a frame without meaning"),
        (to_every_socket("b' ' * 70000"), "a frame too large"),
        (to_every_socket(r#"b'{"ready":{"version":1,"pid":2}}'"#), "it spoke out of turn"),
        (
            format!("for n in range(1, 9):\n    {}", to_every_socket(forged).replace('\n', "\n    ")),
            "it answered for another cell",
        ),
    ];
    for (source, what) in cases {
        let outcome = python_outcome(&mut lease, &source).await;
        let CellOutcome::Crashed(output) = &outcome else { panic!("{source}: {outcome:?}") };
        let breach = [Loss::InterpreterEnded(InterpreterEnd::Breach(what))];
        assert_eq!((output.return_code, &output.losses[..]), (137, &breach[..]), "{source}");
        usable(&mut lease, Repl::Lost, &[]).await;
        keep_again(&mut lease).await;
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_answers_for_itself_gains_nothing_beyond_its_own_end() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    // The code is in the driver's own process and can read what the driver knows of this cell.
    let source = "import gc, os, stat, time\n\
                  cells = [o for o in gc.get_objects() if type(o).__name__ == 'Cell' and hasattr(o, 'nonce')]\n\
                  cell = max(cells, key=lambda cell: cell.id) if cells else None\n\
                  import sys\nframe = sys._getframe()\nwhile cell is None:\n    frame = frame.f_back\n    \
                  cell = next((v for v in frame.f_locals.values() if hasattr(v, 'nonce')), None)\n\
                  words = ('{\"ended\":{\"id\":%d,\"nonce\":\"%s\",\"status\":{\"code\":0},\"output\":\"none\"}}' % (cell.id, cell.nonce)).encode()\n"
        .to_owned()
        + &to_every_socket("words");
    let output = python(&mut lease, &source).await;
    assert_eq!(output.return_code, 0);
    // Its own answer comes second, to a question that is no longer asked; or to the next one, which it does not fit.
    match python_outcome(&mut lease, "print('kept' in globals())").await {
        CellOutcome::Ended(output) => {
            let restarted = "belljar: the Python interpreter was restarted: it was killed because it spoke unasked; \
                             variables are lost";
            assert_eq!((said(&output).stdout.as_str(), output.notices()), ("False\n", vec![restarted.to_owned()]));
        }
        outcome => {
            let breach = Loss::InterpreterEnded(InterpreterEnd::Breach("it answered for another cell"));
            assert_eq!(outcome.output().losses, [breach], "{outcome:?}");
        }
    }
    usable(&mut lease, Repl::Lost, &[]).await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_lost_between_cells_is_missed_by_the_next() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let kill = "for d in /proc/[0-9]*; do read -r name < $d/comm; [ $name = python3 ] && kill -9 ${d#/proc/}; done; \
                echo killed";
    let pid = host_pid(&mut lease).await;
    assert_eq!(stdout(&mut lease, kill).await, "killed\n");
    gone(pid).await;
    let restarted = "belljar: the Python interpreter was restarted: killed (signal 9); variables are lost";
    usable(&mut lease, Repl::Lost, &[restarted]).await;
    keep_again(&mut lease).await;
    let wall = CellOptions { wall: Duration::from_millis(300), ..options() };
    let outcome = lease.bash("sleep 73102", wall).await.expect("lives");
    assert!(matches!(outcome, CellOutcome::TimedOut(_)), "{outcome:?}");
    let killed = "belljar: the Python interpreter was restarted: it was killed with all processes of the container; \
                  variables are lost";
    usable(&mut lease, Repl::Lost, &[killed]).await;
    // It ends by itself a moment after its cell.
    let later = "import threading, os\nthreading.Timer(0.05, os._exit, (4,)).start()";
    let pid = host_pid(&mut lease).await;
    python(&mut lease, later).await;
    gone(pid).await;
    let exited = "belljar: the Python interpreter was restarted: it exited with code 4; variables are lost";
    usable(&mut lease, Repl::Lost, &[exited]).await;
    drop(lease);
    sandbox.close().await;
}

const SLEEP: &str = "print('begun', flush=True)\nimport time; time.sleep(60)";
const LOOP: &str = "print('begun', flush=True)\nwhile True: pass";
/// Imported before: CPython itself loses an interrupt that comes where an import forgets its lock (`_get_module_lock`, in a
/// callback whose exceptions are ignored), once in six hundred, and the interpreter is ended by force then.
const CHILD: &str = "import subprocess\nprint('begun', flush=True)\nsubprocess.run(['sleep', '73103'])";
const AWAIT: &str = "import asyncio\nprint('begun', flush=True)\nawait asyncio.sleep(60)";
const DEAF: &str =
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun', flush=True)\nwhile True: pass";
const STUBBORN: &str = "while True:\n    try:\n        print('begun', flush=True)\n        while True: pass\n    except BaseException: pass";
/// With daemons that no group and no parent binds to the cell.
const DAEMONS: &str = "import os, signal, subprocess\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nfor _ in range(3):\n    \
                       if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            \
                       os.execvp('sleep', ['sleep', '73104'])\n        os._exit(0)\n\
                       subprocess.Popen(['sleep', '73104'], start_new_session=True)\nprint('begun', flush=True)\nwhile True: pass";

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_that_comes_before_the_code_has_begun_is_not_lost() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    for _ in 0..20 {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let early = CellOptions { cancel, ..options() };
        let outcome = lease.python(LOOP, "/tmp/early.py", early).await.expect("an outcome");
        assert_eq!((outcome.reason(), outcome.output().return_code), (Some(Reason::Requested), 130), "{outcome:?}");
        assert_eq!(outcome.output().losses, [Loss::Interrupted]);
        usable(&mut lease, Repl::Lives, &[]).await;
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_cell_keeps_its_interpreter_where_it_heeds_the_interrupt() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    for source in [SLEEP, LOOP, CHILD, AWAIT] {
        let outcome = cancelled(&mut lease, source).await;
        assert!(matches!(outcome, CellOutcome::Killed(..)), "{source}: {outcome:?}");
        assert_eq!((outcome.reason(), outcome.output().return_code), (Some(Reason::Requested), 130), "{source}");
        assert_eq!(outcome.output().losses, [Loss::Interrupted], "{source}");
        let stderr = said(outcome.output()).stderr;
        assert!(stderr.ends_with("KeyboardInterrupt\n"), "{source}: {stderr}");
        assert!(processes_with("sleep 73103").is_empty(), "{source}");
        usable(&mut lease, Repl::Lives, &[]).await;
    }
    for source in [DEAF, STUBBORN, DAEMONS] {
        let outcome = cancelled(&mut lease, source).await;
        assert_eq!((outcome.reason(), outcome.output().return_code), (Some(Reason::Requested), 137), "{source}");
        let losses = [Loss::Interrupted, Loss::InterpreterEnded(InterpreterEnd::Killed)];
        assert_eq!(outcome.output().losses, losses, "{source}");
        assert!(processes_with("sleep 73104").is_empty(), "{source}");
        usable(&mut lease, Repl::Lost, &[]).await;
        keep_again(&mut lease).await;
    }
    drop(lease);
    sandbox.close().await;
}

/// Cancels the cell once it has begun.
async fn cancelled(lease: &mut Lease, source: &str) -> CellOutcome {
    let cancel = CancellationToken::new();
    let (live, mut heard) = tokio::sync::mpsc::channel(1);
    let canceller = cancel.clone();
    tokio::spawn(async move {
        heard.recv().await.expect("the cell speaks first");
        canceller.cancel();
    });
    let options = CellOptions { cancel, live: Some(live), ..options() };
    lease.python(source, CELL, options).await.expect("lives")
}

#[tokio::test(flavor = "multi_thread")]
async fn time_up_is_told_and_spares_the_interpreter_where_it_can() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let wall = Duration::from_millis(300);
    let timed_out = "belljar: detection_timeout: time limit of 0.3 s reached";
    for source in [SLEEP, LOOP, CHILD, AWAIT, "while True: print('x' * 1000)"] {
        let outcome = lease.python(source, CELL, CellOptions { wall, ..options() }).await.expect("lives");
        let CellOutcome::TimedOut(output) = &outcome else { panic!("{source}: {outcome:?}") };
        assert_eq!((outcome.reason(), output.return_code), (Some(Reason::Time), 130), "{source}");
        assert!(output.notices().contains(&timed_out.to_owned()), "{source}: {:?}", output.notices());
        usable(&mut lease, Repl::Lives, &[]).await;
    }
    for source in [DEAF, STUBBORN, DAEMONS] {
        let outcome = lease.python(source, CELL, CellOptions { wall, ..options() }).await.expect("lives");
        let CellOutcome::TimedOut(output) = &outcome else { panic!("{source}: {outcome:?}") };
        assert_eq!((outcome.reason(), output.return_code), (Some(Reason::Time), 137), "{source}");
        assert_eq!(
            output.notices(),
            [
                timed_out,
                "belljar: the Python interpreter ended: it was killed with all processes of the container; variables are \
                 lost, files are intact, the next cell starts a new one",
            ]
        );
        assert!(processes_with("sleep 73104").is_empty(), "nothing is left the moment the outcome is known");
        usable(&mut lease, Repl::Lost, &[]).await;
        keep_again(&mut lease).await;
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_cell_is_interrupted_and_the_next_holder_finds_the_container_in_order() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let id = lease.container().clone();
    let source = "import subprocess; subprocess.run(['sleep', '73105'])";
    tokio::select! {
        outcome = lease.python(source, CELL, options()) => panic!("{outcome:?}"),
        () = until("it sleeps", || !processes_with("sleep 73105").is_empty()) => {}
    }
    drop(lease);
    let mut next = sandbox.lease(&id, Duration::ZERO).await.expect("given back at once");
    usable(&mut next, Repl::Lives, &[]).await;
    assert!(processes_with("sleep 73105").is_empty());
    drop(next);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_which_all_is_gone_says_so_to_python_too() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    let id = lease.container().clone();
    let killer = tokio::spawn(async {
        until("it sleeps", || !processes_with("sleep 73106").is_empty()).await;
        support::leftovers::kill_children();
    });
    let outcome = python_outcome(&mut lease, "import subprocess; subprocess.run(['sleep', '73106'])").await;
    killer.await.expect("no panic");
    let CellOutcome::Crashed(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(output.losses, [Loss::ContainerDied("its supervisor ended".to_owned())]);
    assert_eq!(output.return_code, 137);
    drop(lease);
    assert!(sandbox.lease(&id, Duration::ZERO).await.is_err());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_of_bash_takes_its_own_group_along_and_nothing_else() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = begun(&sandbox).await;
    run(&mut lease, "setsid sleep 73107 >/dev/null 2>&1 &").await;
    until("the one that stays sleeps", || processes_with("sleep 73107").len() == 1).await;
    let (live, mut heard) = tokio::sync::mpsc::channel(1);
    let cancel = CancellationToken::new();
    let canceller = cancel.clone();
    tokio::spawn(async move {
        heard.recv().await.expect("the command speaks first");
        canceller.cancel();
    });
    let options = CellOptions { cancel, live: Some(live), ..options() };
    let outcome = lease.bash("sleep 73108 & echo begun; sleep 73108", options).await.expect("lives");
    assert_eq!((outcome.reason(), outcome.output().return_code), (Some(Reason::Requested), 130));
    until("its group has gone", || processes_with("sleep 73108").is_empty()).await;
    assert_eq!(processes_with("sleep 73107").len(), 1);
    usable(&mut lease, Repl::Lives, &[]).await;
    drop(lease);
    sandbox.close().await;
}

#[test]
fn in_forked_interpreters_too() {
    support::warm::run_all("in_forked_interpreters_too");
}
