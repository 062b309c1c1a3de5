"""Checks of the zygote, with a way of joining that changes nothing: what the jail does is the jail's to test."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import host
from harness.report import Skipped, equal

NAMESPACES = 7
READY_S_MAX = 180

# The zygote's own `main`, with its two ways into a container replaced: reachable only for who imports it, as here.
START = """
import importlib.util, os, sys
files, group, mode, output = sys.argv[1:]
spec = importlib.util.spec_from_file_location("zygote", files + "/zygote.py")
zygote = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zygote)
def join(namespaces):
    assert len(namespaces) == 7
    for descriptor in namespaces:
        os.close(descriptor)
    if mode == "fail":
        raise zygote.JoinFailed("enter the container", 22)
def enter(descriptor):
    if mode == "refuse":
        raise OSError(1, "refused")
zygote.container_join = lambda files, library: join
zygote.enter_pid_namespace = enter
if mode == "old":  # A C library without `_Fork`.
    zygote.bare_fork = lambda: os.fork
load = zygote.load
def loaded(name):
    module = load(name)
    if name == "reseed" and mode == "same":
        module.reseed = lambda found: None
    if name == "repl":
        module.OUTPUT_ROOT = output
    if name == "warm" and mode == "thread":
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    if name == "warm" and mode == "file":
        zygote.kept = open("/dev/null")
    return module
zygote.load = loaded
os._exit(zygote.main([group]))
"""


class Zygote:
    """A zygote and the host's end of its socket."""

    def __init__(self, root, group="none", mode="plain"):
        self.root = Path(root)
        files = self.root / "files"
        files.mkdir()
        (self.root / "output").mkdir()
        for name in ("zygote.py", "share.py", "warm.py", "reseed.py"):
            (files / name).write_bytes((host.DRIVER / name).read_bytes())
        (files / "repl.py").write_bytes(host.driver())
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(READY_S_MAX)
        self.stderr = open(self.root / "stderr", "w+b")
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        command = [sys.executable, "-I", "-c", START, str(files), group, mode, str(self.root / "output")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr,
                                        cwd="/", close_fds=False, start_new_session=True, preexec_fn=lambda: place(theirs))
        theirs.close()

    def receive(self):
        data, descriptors, _, _ = socket.recv_fds(self.control, host.FRAME_BYTES_MAX, 8)
        if not data:
            raise host.Gone(f"the zygote is gone: {self.words()}")
        return json.loads(data), descriptors

    def request(self, number):
        """Asks for a REPL; its socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(host.WAIT_S_MAX)
        with theirs:
            descriptors = [self.null, theirs.fileno()]
            socket.send_fds(self.control, [json.dumps({"fork": {"id": number}}).encode()], descriptors)
        return ours

    def fork(self, number):
        """A REPL that is ready."""
        ours = self.request(number)
        frame, (handle,) = self.receive()
        pid = frame["forked"]["pid"]
        equal(frame, {"forked": {"id": number, "pid": pid}}, "the answer")
        go = {"go": {"env": [["PATH", "/usr/bin:/bin"], ["HOME", "/root"]]}}
        socket.send_fds(ours, [json.dumps(go).encode()], [self.null] * NAMESPACES)
        equal(json.loads(ours.recv(host.FRAME_BYTES_MAX)), {"ready": {"version": 3, "pid": pid}}, "the REPL's word")
        return Forked(self, ours, pid, handle)

    def words(self):
        self.stderr.seek(0)
        return self.stderr.read().decode()

    def close(self):
        self.control.close()
        os.close(self.null)
        try:
            return self.process.wait(host.WAIT_S_MAX)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.close()


def place(control):
    """The descriptors as the launcher gives them: control at 3, two more up to 5, nothing above."""
    os.dup2(control.fileno(), 64)
    for number in (4, 5):
        os.dup2(0, number)
    os.dup2(64, 3)
    os.closerange(6, 4096)


class Forked(host.Repl):
    """A REPL that a zygote forked."""

    def __init__(self, zygote, ours, pid, handle):
        self.root, self.socket, self.number = zygote.root, ours, zygote.process.pid * 1000 + pid
        self.pid, self.handle = pid, handle

    def interrupt(self):
        os.kill(self.pid, signal.SIGINT)

    def close(self):
        self.socket.close()
        os.close(self.handle)


def forks_and_reaps():
    with tempfile.TemporaryDirectory() as root, Zygote(root) as zygote:
        frame, _ = zygote.receive()
        equal(set(frame["ready"]), {"version", "python", "missing"}, "the first frame")
        with zygote.fork(1) as one, zygote.fork(2) as two:
            equal(one.cell("x = 1\nprint(x)").stdout, "1\n", "the first")
            equal(two.cell("x").code, 1, "the second knows nothing of the first")
            equal(one.cell("print(x)").stdout, "1\n", "the first again")
            fds = "import os\nprint(sorted(int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) < 500))"
            equal(one.cell(fds).stdout, "[0, 1, 2, 3]\n", "descriptors, one of them the listing's own")
            running = one.start_cell("import os\nos._exit(3)")
            equal(zygote.receive(), ({"ended": {"pid": one.pid, "status": {"code": 3}}}, []), "the first ended")
            for reader in running.readers:
                os.close(reader)
            os.kill(two.pid, signal.SIGKILL)
            equal(zygote.receive(), ({"ended": {"pid": two.pid, "status": {"signal": 9}}}, []), "the second ended")
        with zygote.fork(3) as three:
            running = three.start_cell("print('go')\nimport time\ntime.sleep(60)")
            running.wait_for(b"go")
            three.interrupt()
            equal(running.finish().code, 130, "an interrupt")
        equal(zygote.receive()[0]["ended"]["status"], {"code": 0}, "a REPL whose host is gone")
        equal(zygote.close(), 0, "exit status")


def hanging_up_before_go():
    with tempfile.TemporaryDirectory() as root, Zygote(root) as zygote:
        zygote.receive()
        ours = zygote.request(1)
        frame, (handle,) = zygote.receive()
        os.close(handle)
        ours.close()
        equal(zygote.receive()[0], {"ended": {"pid": frame["forked"]["pid"], "status": {"code": 0}}}, "the child's end")


def failures_are_told():
    with tempfile.TemporaryDirectory() as root, Zygote(root, mode="fail") as zygote:
        zygote.receive()
        ours = zygote.request(1)
        _, (handle,) = zygote.receive()
        os.close(handle)
        socket.send_fds(ours, [b'{"go":{"env":[]}}'], [zygote.null] * NAMESPACES)
        equal(json.loads(ours.recv(1000)), {"failed": {"step": "enter the container", "errno": 22}}, "the child's word")
        equal(ours.recv(1000), b"", "then nothing")
        equal(zygote.receive()[0]["ended"]["status"], {"code": 70}, "the child's end")
    with tempfile.TemporaryDirectory() as root, Zygote(root) as zygote:
        zygote.receive()
        ours = zygote.request(1)
        os.close(zygote.receive()[1][0])
        socket.send_fds(ours, [b'{"go":{"env":[]}}'], [zygote.null] * (NAMESPACES - 1))
        equal(zygote.receive()[0]["ended"]["status"], {"code": 70}, "the end of a child that is told too little")
    with tempfile.TemporaryDirectory() as root, Zygote(root, mode="refuse") as zygote:
        zygote.receive()
        zygote.request(7).close()
        equal(zygote.receive(), ({"refused": {"id": 7, "errno": 1}}, []), "the zygote's word")


def nonsense_ends_it():
    for frame, count in ((b"{}", 2), (b'{"fork":{"id":1}}', 1), (b'{"fork":{"id":1}}', 3), (b'{"fork":{"id":true}}', 2),
                         (b'{"fork":{"id":1,"x":1}}', 2), (b'{"fork":[]}', 2), (b"[]", 2), (b"\xff", 2)):
        with tempfile.TemporaryDirectory() as root, Zygote(root) as zygote:
            zygote.receive()
            socket.send_fds(zygote.control, [frame], [zygote.null] * count)
            equal(zygote.process.wait(host.WAIT_S_MAX), 70, f"exit status after {frame!r} with {count}")
            words = zygote.words()
            equal((words.startswith("zygote: "), words.count("\n")), (True, 1), f"one line: {words!r}")


def what_it_may_not_hold():
    """A thread or an open file would be shared with every child: it says so instead of `ready`."""
    for mode, word in (("thread", "more than one thread"), ("file", "descriptors left open")):
        with tempfile.TemporaryDirectory() as root, Zygote(root, mode=mode) as zygote:
            equal(zygote.process.wait(READY_S_MAX), 70, f"exit status with a {mode}")
            equal(word in zygote.words(), True, zygote.words())


PROBE = """
import json, multiprocessing, os, random, secrets, ssl, sys, tempfile, uuid
seen = {
    "random": random.random(), "tempfile": next(tempfile._get_candidate_names()), "secrets": secrets.token_hex(8),
    "multiprocessing": multiprocessing.current_process().authkey.hex(), "uuid1": uuid.uuid1().hex[16:],
    "uuid4": uuid.uuid4().hex, "ssl": ssl.RAND_bytes(8).hex(), "os": os.urandom(8).hex(),
}
if "numpy" in sys.modules:
    import numpy
    seen["numpy"], seen["numpy.default_rng"] = numpy.random.rand(), numpy.random.default_rng().random()
    import pandas
    seen["pandas"] = str(pandas.Series(range(10**6)).sample(3).tolist())
if "sympy" in sys.modules:
    import mpmath, pyarrow.compute, scipy.stats, sympy.core.random, sklearn.utils
    seen["sympy"], seen["mpmath"] = sympy.core.random.rng.random(), str(mpmath.rand())
    seen["pyarrow"] = str(pyarrow.compute.random(2).to_pylist())
    seen["scipy"], seen["qmc"] = scipy.stats.norm.rvs(), float(scipy.stats.qmc.Halton(1).random()[0][0])
    seen["sklearn"] = sklearn.utils.check_random_state(None).rand()
import gc
for number, thing in enumerate(gc.get_objects()):
    name = type(thing).__module__ + "." + type(thing).__name__
    if name in ("random.Random", "numpy.random.mtrand.RandomState", "numpy.random._generator.Generator"):
        seen[f"{name} {number}"] = float(thing.random())
print(json.dumps({name: str(value) for name, value in seen.items()}))
"""


def probes(group, mode):
    with tempfile.TemporaryDirectory() as root, Zygote(root, group, mode) as zygote:
        zygote.receive()
        told = []
        for number in (1, 2):
            with zygote.fork(number) as repl:
                outcome = repl.cell(PROBE)
                equal(outcome.code, 0, f"the probe's code, with {outcome.stderr}")
                told.append(json.loads(outcome.stdout))
            zygote.receive()
        return {name for name in told[0] if told[0][name] == told[1].get(name)}, set(told[0])


def siblings_differ():
    same, all_of_them = probes("none", "plain")
    equal((same, len(all_of_them) > 7), (set(), True), "generators alike in two children")


def siblings_differ_in(group, expected):
    """And would not without the reseeding: the probe can see what it looks for."""
    same, _ = probes(group, "plain")
    equal(same, set(), "generators alike in two children")
    alike, _ = probes(group, "same")
    equal(expected - alike, set(), "generators that were to be alike without reseeding")


def it_is_warm(group, module):
    """The libraries are there, a figure draws without a word, and no child holds a file of the zygote's."""
    with tempfile.TemporaryDirectory() as root, Zygote(root, group) as zygote:
        zygote.receive()
        equal(zygote.words(), "", "what it said while warming up")
        with zygote.fork(1) as repl:
            repl.send({"touch": {}})
            equal(repl.receive(), ({"touched": {}}, []), "the answer to touch")
            names = repl.cell(f"import sys, os\nprint({module!r} in sys.modules, sorted(n for n in globals() if n[0] != '_'), "
                              "sorted(int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) < 500))")
            equal(names.stdout, "True ['os', 'sys'] [0, 1, 2, 3]\n", "after touch")
            drawn = repl.cell("import matplotlib.pyplot as plt, os\nplt.plot([1, 2])\nplt.title('x')\n"
                              "plt.savefig(os.environ['OUTPUT_DIR'] + '/a.png')\nprint(plt.get_fignums())")
            equal((drawn.code, drawn.stdout, drawn.stderr, drawn.files), (0, "[1]\n", "", ["a.png"]), "a figure")


THREADS = """
import concurrent.futures, logging, multiprocessing, os, subprocess, threading
print(threading.main_thread().native_id == threading.get_native_id() == os.getpid())
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(list(pool.map(abs, range(-3, 0))))
child = os.fork()
if child == 0:
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-4, -5]))
print(subprocess.run(["echo", "said"], stdout=subprocess.PIPE, text=True).stdout, end="")
logging.warning("warned")
"""
THREADS_OF_LIBRARIES = """
import numpy
print(float((numpy.ones((600, 600)) @ numpy.ones((600, 600))).sum()))
import pyarrow, pyarrow.compute, pyarrow.csv
text = b"a,b\\n" + b"1,2\\n" * 500_000
table = pyarrow.csv.read_csv(pyarrow.BufferReader(text), pyarrow.csv.ReadOptions(use_threads=True, block_size=1 << 16))
print(table.num_rows, table.group_by("a", use_threads=True).aggregate([("b", "sum")]).to_pylist())
"""


def a_child_has_threads_and_children():
    """The zygote forks without the handlers of a fork: nothing is missed that they do."""
    for mode in ("plain", "old"):
        with tempfile.TemporaryDirectory() as root, Zygote(root, mode=mode) as zygote:
            zygote.receive()
            with zygote.fork(1) as repl:
                told = repl.cell(THREADS)
                equal(told.stdout, "True\n[3, 2, 1]\n3\n[4, 5]\nsaid\n", f"what it did ({mode}), with {told.stderr}")
                equal(told.stderr, "WARNING:root:warned\n", "what it warned of")


def a_child_has_threads_of_libraries(group):
    with tempfile.TemporaryDirectory() as root, Zygote(root, group) as zygote:
        zygote.receive()
        with zygote.fork(1) as repl:
            told = repl.cell(THREADS_OF_LIBRARIES)
            equal(told.stdout, "216000000.0\n500000 [{'a': 1, 'b_sum': 1000000}]\n", f"what it did, with {told.stderr}")


def needs_its_libraries(check, *arguments):
    def checked():
        try:
            import numpy  # noqa: F401
        except ImportError:
            raise Skipped("numpy is not here") from None
        check(*arguments)

    return checked


CHECKS = [(f"zygote: {check.__name__.replace('_', ' ')}", check) for check in (
    forks_and_reaps, hanging_up_before_go, failures_are_told, nonsense_ends_it, what_it_may_not_hold, siblings_differ,
    a_child_has_threads_and_children,
)]

SHARED = {"random", "numpy", "pandas", "multiprocessing"}
IMAGE_CHECKS = [
    ("zygote: core is warm", needs_its_libraries(it_is_warm, "core", "pandas")),
    ("zygote: all is warm", needs_its_libraries(it_is_warm, "all", "sklearn.linear_model")),
    ("zygote: threads of libraries in core", needs_its_libraries(a_child_has_threads_of_libraries, "core")),
    ("zygote: threads of libraries in all", needs_its_libraries(a_child_has_threads_of_libraries, "all")),
    ("zygote: siblings differ in core", needs_its_libraries(siblings_differ_in, "core", SHARED)),
    ("zygote: siblings differ in all", needs_its_libraries(siblings_differ_in, "all", SHARED | {"sympy", "scipy", "sklearn"})),
]
