"""Checks of the driver that are no plain cell: random order, interrupts at every moment, frames, memory, cost."""

import os
import random
import socket
import statistics
import tempfile
import time

import host
from harness.report import equal

ORDER_CELLS = 200
INTERRUPTED_CELLS = 150
# So many more when a busy machine has shown only one of the two ends yet.
INTERRUPTED_CELLS_MAX = 3000

WRITERS = {
    "print": "print({text!r})",
    "error": "print({text!r}, file=sys.stderr)",
    "os.write": "os.write(1, {text!r}.encode() + b'\\n')",
    "buffer": "sys.stdout.buffer.write({text!r}.encode() + b'\\n'); sys.stdout.buffer.flush()",
    "C": "libc.puts({text!r}.encode())",
    "thread": "t = threading.Thread(target=print, args=({text!r},)); t.start(); t.join()",
    "child": "p = os.fork()\nif p == 0:\n    os.write(1, {text!r}.encode() + b'\\n'); os._exit(0)\nos.waitpid(p, 0)",
    "await": "await asyncio.sleep(0); print({text!r})",
}


def order_is_kept():
    """Random writers in random cells; every line arrives, in order, in its own cell's result."""
    dice = random.Random(20261121)
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        repl.cell("import asyncio, ctypes, os, sys, threading\nlibc = ctypes.CDLL(None)")
        for number in range(ORDER_CELLS):
            kinds = [dice.choice(list(WRITERS)) for _ in range(dice.randrange(6))]
            texts = [f"{number}.{place} {kind}" for place, kind in enumerate(kinds)]
            outcome = repl.cell("\n".join(WRITERS[kind].format(text=text) for kind, text in zip(kinds, texts)))
            lines = {name: [] for name in ("stdout", "stderr")}
            for kind, text in zip(kinds, texts):
                lines["stderr" if kind == "error" else "stdout"].append(text)
            equal(outcome.stdout.splitlines(), lines["stdout"], "stdout")
            equal(outcome.stderr.splitlines(), lines["stderr"], "stderr")
            equal(outcome.code, 0, "code")


def interrupts_at_any_moment():
    """A cell ends as itself or by the interrupt; the REPL lives, and the next cell is never hit."""
    dice = random.Random(7)
    seen = set()
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        # From at once to well after the usual end of a cell, however fast this machine is.
        last_moment_s = 2 * statistics.median(timed(lambda: repl.cell("print(0)")) for _ in range(21))
        for number in range(INTERRUPTED_CELLS_MAX):
            if number >= INTERRUPTED_CELLS and len(seen) == 2:
                break
            running = repl.start_cell(f"print({number})")
            until = time.perf_counter() + dice.random() * last_moment_s
            while time.perf_counter() < until:
                pass
            repl.interrupt()
            if dice.random() < 0.3:
                repl.interrupt()
            outcome = running.finish()
            seen.add(outcome.code)
            equal(outcome.code in (0, 130), True, f"a code of 0 or 130 in {outcome}")
            if outcome.code == 0:
                equal((outcome.stdout, outcome.stderr), (f"{number}\n", ""), "an untouched cell")
            after = repl.cell("print('after')")
            equal((after.code, after.stdout, after.stderr), (0, "after\n", ""), "the cell after an interrupt")
    equal(seen, {0, 130}, "some cells were faster than their interrupt, some were not")


def timed(action):
    """How long `action` takes, in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def touch_leaves_nothing():
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        before = repl.cell("print(sorted(globals()), __import__('os').listdir('.'))").stdout
        repl.send({"touch": {}})
        equal(repl.receive(), ({"touched": {}}, []), "the answer")
        equal(repl.cell("print(sorted(globals()), __import__('os').listdir('.'))").stdout, before, "names and files")


def hanging_up_ends_it():
    with tempfile.TemporaryDirectory() as root:
        repl = host.Repl(root)
        repl.cell("import atexit, threading, time\natexit.register(time.sleep, 60)\nthreading.Thread(target=time.sleep, args=(60,)).start()")
        started = time.monotonic()
        equal(repl.close(), 0, "exit status")
        equal(time.monotonic() - started < 10, True, "it waits for nothing")


def nonsense_ends_it():
    """Frames that the host would never send."""
    for frame in (b"{}", b"[]", b"nonsense", b'{"cell":{}}', b'{"other":{}}', b'{"touch":{},"cell":{}}', b"x" * 65000):
        with tempfile.TemporaryDirectory() as root:
            repl = host.Repl(root)
            repl.socket.send(frame)
            equal(repl.process.wait(host.WAIT_S_MAX), 70, f"exit status after {frame[:20]!r}")
            repl.socket.close()


def the_environment_is_the_hosts():
    with tempfile.TemporaryDirectory() as root, host.Repl(root, environment={"TZ": "Asia/Tokyo", "ODD": "a=b\nc"}.items()) as repl:
        outcome = repl.cell("import os, time\nprint(sorted(os.environ), time.tzname[0], repr(os.environ['ODD']))")
        equal(outcome.stdout, "['HOME', 'LANG', 'ODD', 'OUTPUT_DIR', 'PATH', 'TZ'] JST 'a=b\\nc'\n", "environment")


def memory_goes_back():
    """After a cell that needed much, what it freed is given back before the next."""
    grow = "x = [bytes(900) for _ in range(150000)]; keep = [bytes(900)]; del x"
    rss = "print(int(open('/proc/self/statm').read().split()[1]) * 4096)"
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        before = int(repl.cell(rss).stdout)
        equal(repl.cell(f"a = [[] for _ in range(100000)]\n{grow}\ndel a").code, 0, "code")
        after = int(repl.cell(rss).stdout)
        equal(after - before < 24 * 1024 * 1024, True, f"{(after - before) >> 20} MiB more than before")


def a_forged_answer_is_only_the_containers_harm():
    """A cell finds the socket and speaks on it: the driver stays in step with its own answers."""
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        forge = ("import socket, os\nfor fd in range(3, 1024):\n    try:\n        s = socket.socket(fileno=os.dup(fd))\n        s.send(b'{\"ended\":{}}')\n"
                 "    except OSError:\n        pass\n    else:\n        print('sent')\n        break")
        running = repl.start_cell(forge)
        running.wait_for(b"sent")
        equal(repl.receive(), ({"ended": {}}, []), "the forged frame")
        equal(running.finish().code, 0, "the driver's own answer")
        equal(repl.cell("print('fine')").stdout, "fine\n", "the next cell")


def a_closed_reader_does_not_kill_it():
    """The host stops reading: the cell gets an error as from any pipe, and the REPL lives."""
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        running = repl.start_cell("import time\nfor _ in range(1000):\n    print('x', flush=True)\n    time.sleep(0.001)")
        for reader in running.readers:
            os.close(reader)
        answer, descriptors = repl.receive()
        equal((answer["ended"]["status"], descriptors), ({"code": 1}, []), "the answer")
        equal(repl.cell("print('fine')").stdout, "fine\n", "the next cell")


def descriptors_do_not_leak():
    listing = "print(sorted(int(fd) for fd in __import__('os').listdir('/proc/self/fd')))"
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        before = repl.cell(listing).stdout
        for _ in range(20):
            repl.cell("open(__import__('os').environ['OUTPUT_DIR'] + '/f', 'w').write('x')")
            repl.cell("1 / 0")
        equal(repl.cell(listing).stdout, before, "open descriptors")


def names_of_the_parts_differ():
    """The parts are joined into one module: two of them must not define the same name."""
    import ast

    seen = {}
    for part in host.PARTS:
        for node in ast.parse((host.DRIVER / part).read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                equal(seen.setdefault(node.name, part), part, node.name)


CHECKS = [(f"edges: {check.__name__.replace('_', ' ')}", check) for check in (
    order_is_kept, interrupts_at_any_moment, touch_leaves_nothing, hanging_up_ends_it, nonsense_ends_it,
    the_environment_is_the_hosts, memory_goes_back, a_forged_answer_is_only_the_containers_harm,
    a_closed_reader_does_not_kill_it, descriptors_do_not_leak, names_of_the_parts_differ,
)]
