//! Real programs of this machine, run in a jail whose image is this machine's own root: what the filters must let by.

use std::path::Path;

use belljar_jail::{Attachment, Directory, Identity, JailPlan};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::harness::words::Answer;
use crate::harness::{BASE, Inside, spec};
use crate::skip;

/// Program to look for, command line, what it prints.
const CASES: &[(&str, &[&str], &str)] = &[
    ("/bin/bash", &["bash", "-c", "x=$(echo $((6*7)) | tr 2 3); echo $x; wait"], "43\n"),
    ("/bin/bash", &["bash", "-c", "mkfifo /belljar-work/p; (echo hi > /belljar-work/p) & cat /belljar-work/p"], "hi\n"),
    ("/bin/bash", &["bash", "-c", "sleep 5 & kill -9 %1; wait %1; echo $?"], "137\n"),
    (
        "/bin/bash",
        &["bash", "-c", "ulimit -c; umask; id -u; hostname; nproc > /dev/null; echo ok > /dev/stderr"],
        "0\n0022\n0\ncontainer\n",
    ),
    (
        "/bin/bash",
        &[
            "bash",
            "-c",
            "cd /belljar-work && echo data > a && cp -a a b && mv b c && ln -s c d && ln c e && cat d e && sync && rm a && ls | sort | tr '\\n' ' '",
        ],
        "data\ndata\nc d e p ",
    ),
    ("/usr/bin/python3", &["/usr/bin/python3", "-c", PYTHON], PYTHON_PRINTS),
    ("/usr/bin/node", &["/usr/bin/node", "-e", NODE], "worker 42\nchild\nfile\n"),
    ("/usr/bin/perl", &["perl", "-e", "my $p = fork; if (!$p) { exit 3 } wait; print $? >> 8, \"\\n\""], "3\n"),
    (
        "/usr/bin/sqlite3",
        &[
            "sqlite3",
            "/belljar-work/db",
            "pragma journal_mode=wal; create table t(x); insert into t values (7); select x from t;",
        ],
        "wal\n7\n",
    ),
    (
        "/usr/bin/gcc",
        &[
            "bash",
            "-c",
            "cd /belljar-work && export TMPDIR=. && echo 'int main(){return 9;}' > m.c && gcc m.c -o m && ./m; echo $?",
        ],
        "9\n",
    ),
    (
        "/usr/bin/tar",
        &[
            "bash",
            "-c",
            "cd /belljar-work && echo t > t && tar czf t.tgz t && rm t && tar xzf t.tgz --no-same-owner && cat t",
        ],
        "t\n",
    ),
];

const PYTHON: &str = r#"
import asyncio, multiprocessing as mp, os, socket, sqlite3, subprocess, tempfile, threading, shutil, signal, ctypes, mmap
print(subprocess.run(['echo', 'sub'], capture_output=True, text=True).stdout, end='')
with mp.get_context('fork').Pool(2) as pool: print(sum(pool.map(abs, [-1, -2, -3])))
with mp.get_context('spawn').Pool(1) as pool: print(sum(pool.map(abs, [-1, -2, -3])))
lock = mp.Lock(); lock.acquire(); lock.release()
from multiprocessing import shared_memory
m = shared_memory.SharedMemory(create=True, size=4096); m.buf[0] = 5; print(m.buf[0]); m.close(); m.unlink()
t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()
async def go():
    p = await asyncio.create_subprocess_exec('echo', 'async', stdout=asyncio.subprocess.PIPE)
    print((await p.communicate())[0].decode(), end='')
asyncio.run(go())
os.chdir('/belljar-work')
open('one', 'w').write('1'); shutil.copyfile('one', 'two'); print(open('two').read())
print(sqlite3.connect(':memory:').execute('select 1+1').fetchone()[0])
signal.signal(signal.SIGALRM, lambda *a: print('alarm')); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
try: socket.socket()
except OSError as e: print(e.errno)
print(ctypes.CDLL(None).getpid() == os.getpid())
"#;

const PYTHON_PRINTS: &str = "sub\n6\n6\n5\nthread\nasync\n1\n2\nalarm\n97\nTrue\n";

const NODE: &str = r"
const { Worker } = require('worker_threads'), fs = require('fs'), cp = require('child_process');
fs.writeFileSync('/belljar-work/n', 'file'); fs.copyFileSync('/belljar-work/n', '/belljar-work/n2');
new Worker('require(`worker_threads`).parentPort.postMessage(42)', { eval: true })
  .on('message', (m) => console.log('worker', m))
  .on('exit', () => { process.stdout.write(cp.execSync('echo child')); fs.promises.readFile('/belljar-work/n2', 'utf8').then(console.log); });
";

#[test]
fn programs_work() {
    let Identity::Mapped { .. } = Identity::strongest(BASE) else {
        skip!("only root can use this machine's root as an image");
    };
    let place = tempfile::tempdir().expect("place");
    // On a thread of its own, whose mounts the rest of the process does not see.
    let path = place.path().to_owned();
    let wrong = std::thread::spawn(move || run_all(&path)).join().expect("thread");
    assert_eq!(wrong, Vec::<String>::new());
}

fn run_all(image: &Path) -> Vec<String> {
    // SAFETY: takes no descriptor table apart, only this thread's mounts and working directory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mount namespace");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
    mount_bind("/", image).expect("bind");
    let directory = |path: &str| Directory { path: path.into(), mode: 0o755 };
    let mut spec = spec(image.to_owned());
    // Other directories exist here already, and belong to ids that the container does not have.
    spec.directories = vec![directory("/belljar-work"), directory("/belljar-home")];
    spec.symlinks = Vec::new();
    spec.working_directory = "/belljar-work".into();
    let plan = JailPlan::for_container(&spec).expect("plan");
    let inside = Inside::start(&plan, Attachment::Unlimited).expect("launch");
    let mut wrong = Vec::new();
    for (program, argv, expected) in CASES {
        if !Path::new(program).exists() {
            eprintln!("SKIP: no {program} on this machine");
            continue;
        }
        match inside.run(argv) {
            Answer::Ran { code: Some(0), stdout, .. } if stdout == *expected => {}
            other => wrong.push(format!("{argv:?}: {other:?}")),
        }
    }
    assert!(inside.end().success());
    unmount(image, UnmountFlags::DETACH).expect("unmount");
    wrong
}
