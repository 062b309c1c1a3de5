//! Cells in Python in a real container.

mod support;

use std::io::Read;
use std::time::Duration;

use belljar_sandbox::{CellOptions, SandboxError, Stream};
use support::{CELL, Said, leased, options, printed, python, run, said, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn names_live_from_cell_to_cell_and_files_in_the_container() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(printed(&mut lease, "x = 41\nprint('set')").await, "set\n");
    assert_eq!(printed(&mut lease, "x += 1; print(x); open('/tmp/f', 'w').write('from python')").await, "42\n");
    assert_eq!(stdout(&mut lease, "cat /tmp/f; pwd; echo from bash > /tmp/f").await, "from python/work\n");
    assert_eq!(printed(&mut lease, "print(open('/tmp/f').read(), x, __name__)").await, "from bash\n 42 __main__\n");
    drop(lease);
    // Nobody's hands in between.
    let id = support::id(1);
    let mut next = sandbox.lease(&id, Duration::ZERO).await.expect("free");
    assert_eq!(printed(&mut next, "print(x)").await, "42\n");
    drop(next);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_says_what_it_says_and_ends_as_it_ends() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cases = [
        ("", 0, "", ""),
        ("\nprint('hi')", 0, "hi\n", ""),
        ("import sys; print('out', end=''); print('err', file=sys.stderr)", 0, "out", "err\n"),
        ("import sys; sys.exit(3)", 3, "", ""),
        ("import sys; sys.exit()", 0, "", ""),
        ("raise SystemExit('last words')", 1, "", "last words\n"),
        ("import os; os.write(1, b'\\xff\\x00'); os.system('echo child')", 0, "\u{fffd}\0child\n", ""),
        ("import asyncio\nprint(await asyncio.sleep(0, 'awaited'))", 0, "awaited\n", ""),
        ("print('å ∫ 漢')", 0, "å ∫ 漢\n", ""),
        (
            "import os; print(os.environ['INPUT_DIR'], os.environ['HOME'], len(os.environ['OUTPUT_DIR']))",
            0,
            "/files/input /root 30\n",
            "",
        ),
        ("import subprocess; print(subprocess.run('exit 7', shell=True).returncode)", 0, "7\n", ""),
    ];
    for (source, return_code, stdout, stderr) in cases {
        let expected = Said { return_code, stdout: stdout.to_owned(), stderr: stderr.to_owned() };
        assert_eq!(said(&python(&mut lease, source).await), expected, "{source}");
    }
    drop(lease);
    sandbox.close().await;
}

/// Up to some length a source goes in the cell's frame, which is JSON; a longer one lies in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_arrives_as_it_is_whatever_its_length() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    for bytes in [0, 8 * 1024 - 1, 8 * 1024, 8 * 1024 + 1, 70_000] {
        // What JSON escapes, what it does not, and what is longer than it looks.
        let head = "text = '\u{1}\\u00e9\\\\\"\t\u{7f}é漢🎈'\nprint(ascii(text))\nprint(len(text)) # ";
        let source = format!("{head}{}", "#".repeat(usize::max(bytes, head.len()) - head.len()));
        let found = said(&python(&mut lease, &source).await);
        assert_eq!(found.stdout, "'\\x01\\xe9\\\\\"\\t\\x7f\\xe9\\u6f22\\U0001f388'\n9\n", "{bytes}");
        let failing =
            format!("# -*- coding: latin-1 -*-\nprint('é')\nraise ValueError('x' * 3) # {}", "#".repeat(bytes));
        let found = said(&python(&mut lease, &failing).await);
        assert_eq!(found.stdout, "Ã©\n", "{bytes}: the code's own encoding");
        assert!(found.stderr.contains("line 3") && found.stderr.ends_with("ValueError: xxx\n"), "{}", found.stderr);
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_is_told_as_python_tells_it() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cases = [
        (
            "def f():\n    return 1 / 0\nf()",
            "Traceback (most recent call last):\n  File \"/tmp/srvtoolu_01/cell.py\", line 3, in <module>\n    \
             f()\n    ~^^\n  File \"/tmp/srvtoolu_01/cell.py\", line 2, in f\n    return 1 / 0\n           ~~^~~\n\
             ZeroDivisionError: division by zero\n",
        ),
        (
            "x = (",
            "  File \"/tmp/srvtoolu_01/cell.py\", line 1\n    x = (\n        ^\nSyntaxError: '(' was never closed\n",
        ),
        (
            "input()",
            "Traceback (most recent call last):\n  File \"/tmp/srvtoolu_01/cell.py\", line 1, in <module>\n    \
             input()\n    ~~~~~^^\nEOFError: EOF when reading a line\n",
        ),
    ];
    for (source, stderr) in cases {
        let expected = Said { return_code: 1, stdout: String::new(), stderr: stderr.to_owned() };
        assert_eq!(said(&python(&mut lease, source).await), expected, "{source}");
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_no_interpreter_can_be_given_is_refused() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let long = format!("/{}", "x".repeat(256));
    for file in ["", "cell.py", "/a\0b", &long] {
        let refused = lease.python("1", file, options()).await;
        assert!(matches!(refused, Err(SandboxError::FileName { bytes_max: 256 })), "{file:?}: {refused:?}");
    }
    let refused = lease.python(&"#".repeat(33 * 1024 * 1024), CELL, options()).await;
    assert!(matches!(refused, Err(SandboxError::CommandTooLong { .. })), "{refused:?}");
    // This root filesystem has no Python: that is told, and the container lives.
    let missing = lease.python("1", CELL, options()).await;
    assert!(matches!(missing, Err(SandboxError::NotStarted(_))), "{missing:?}");
    assert_eq!(stdout(&mut lease, "echo still here").await, "still here\n");
    let missing = lease.python("1", CELL, options()).await;
    assert!(matches!(missing, Err(SandboxError::NotStarted(_))), "{missing:?}");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_anything_in_it_is_pythons_to_judge() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let output = said(&python(&mut lease, "x = 1\0").await);
    assert_eq!((output.return_code, output.stderr.contains("SyntaxError")), (1, true), "{output:?}");
    let long = format!("x = '{}'\nprint(len(x))", "y".repeat(3_000_000));
    assert_eq!(printed(&mut lease, &long).await, "3000000\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_cell_come_out_and_its_directory_goes() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let source = "import os\nout = os.environ['OUTPUT_DIR']\nopen(out + '/b.txt', 'w').write('bytes')\n\
                  os.mkdir(out + '/sub'); os.symlink('/etc/passwd', out + '/link')";
    let mut output = python(&mut lease, source).await;
    let [file] = &mut output.files[..] else { panic!("{output:?}") };
    let mut content = String::new();
    file.file.read_to_string(&mut content).expect("readable");
    assert_eq!((file.name.as_str(), content.as_str()), ("b.txt", "bytes"));
    assert_eq!(
        output.notices(),
        [
            "belljar: not captured from $OUTPUT_DIR: link (symbolic link)",
            "belljar: not captured from $OUTPUT_DIR: sub (directory)",
        ]
    );
    let gone = ["belljar: nothing captured: $OUTPUT_DIR was removed or replaced"];
    let output = python(&mut lease, "import shutil, os; shutil.rmtree(os.environ['OUTPUT_DIR'])").await;
    assert_eq!(output.notices(), gone);
    let swapped = "import os\no = os.environ['OUTPUT_DIR']\nos.rmdir(o)\nos.symlink('/proc/self', o)";
    assert_eq!(python(&mut lease, swapped).await.notices(), gone);
    assert_eq!(printed(&mut lease, "import os; print(os.listdir('/files/output'))").await.lines().count(), 1);
    assert_eq!(stdout(&mut lease, "ls -A /files/output | wc -l").await, "1\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_live_and_in_order() {
    namespaces_only!("the host does not see the code's processes, and cannot signal one");
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let (live, mut heard) = tokio::sync::mpsc::channel(4);
    let source = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
                  print('first', flush=True)\nsignal.sigwait([signal.SIGUSR1])\nfor i in range(20000): print(i)";
    let options = CellOptions { live: Some(live), ..options() };
    let id = lease.container().clone();
    let inside = printed(&mut lease, "import os; print(os.getpid())").await;
    let cell = tokio::spawn(async move {
        let outcome = lease.python(source, CELL, options).await.expect("lives");
        (outcome, lease)
    });
    let first = heard.recv().await.expect("live");
    assert_eq!((first.stream, &first.bytes[..]), (Stream::Stdout, b"first\n".as_slice()));
    // The cell waits for this.
    let pid = support::leftovers::process_inside("python3", inside.trim());
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("it is ours");
    let mut all = first.bytes.to_vec();
    while let Some(chunk) = heard.recv().await {
        all.extend_from_slice(&chunk.bytes);
    }
    let (outcome, lease) = cell.await.expect("no panic");
    assert_eq!(outcome.output().stdout, all);
    assert_eq!(outcome.output().stdout_bytes, 6 + 108_890);
    assert_eq!(lease.container(), &id);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_running_lives_on_and_disturbs_nobody() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let started = "import threading, time, subprocess, sys\ndef noise():\n    while True:\n        print('noise'); time.sleep(0.001)\n\
                   threading.Thread(target=noise, daemon=True).start()\n\
                   child = subprocess.Popen(['sleep', '73001'])\ntime.sleep(0.02)";
    assert_eq!(said(&python(&mut lease, started).await).return_code, 0);
    for _ in 0..20 {
        assert_eq!(printed(&mut lease, "print('mine')").await, "mine\n");
    }
    assert_eq!(printed(&mut lease, "print(child.poll()); child.kill(); print(child.wait())").await, "None\n-9\n");
    assert_eq!(said(&run(&mut lease, "echo bash").await).stdout, "bash\n");
    drop(lease);
    sandbox.close().await;
}

/// The first cell after a thread has begun is the one that is easily disturbed: nothing looked at the thread's text before.
#[tokio::test(flavor = "multi_thread")]
async fn threads_that_never_rest_write_into_no_later_cell() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let first = "import threading\nstopped = threading.Event()\ndef noise(mine):\n    while not mine.is_set(): print('noise')\n\
                 def begin():\n    global stopped\n    stopped.set(); stopped = threading.Event()\n\
                 \x20   for _ in range(3): threading.Thread(target=noise, args=(stopped,), daemon=True).start()";
    assert_eq!(printed(&mut lease, first).await, "");
    for _ in 0..5 {
        assert_eq!(said(&python(&mut lease, "begin()").await).return_code, 0);
        for _ in 0..3 {
            assert_eq!(printed(&mut lease, "print('mine')").await, "mine\n");
        }
    }
    drop(lease);
    sandbox.close().await;
}

#[test]
fn in_forked_interpreters_too() {
    support::warm::run_all("in_forked_interpreters_too");
}
