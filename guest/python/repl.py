"""The driver's last part: runs the cells of a container in one `__main__`.

Cold start: `python3 -I /proc/self/fd/N` with the host's socket at descriptor 3. Warm start: a zygote's child that has
joined its container calls `main`.
"""

import ctypes
import gc
import io
import json
import os
import signal
import sys
import time
import types
from contextvars import Context

import _socket
from _belljar_channel import (
    BROKEN_EXIT, CELL_FDS, FRAME_BYTES_MAX, FRAME_FDS_MAX, LOW_FD, Broken, Channel, Crowded, Reserve, content, leave, lifted,
)
from _belljar_report import Sources, report, say
from _belljar_streams import OWNER, Streams
from _belljar_tools import Tools

VERSION = 3
START_FD = 3
OUTPUT_ROOT = "/files/output"
GROWN_BYTES = 16 * 1024 * 1024
"""Resident memory beyond what was there after the last clean-up, from which on a cell is followed by one."""
AWAIT_ALLOWED = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
AWAITS = 0x80  # inspect.CO_COROUTINE
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

END_TRIES_MAX = 8
END_WAIT_S = 1.0

REHEARSALS = 3

IDLE, STARTING, RUNNING, ENDING = range(4)

_compile, _eval, _collect = compile, eval, gc.collect
_close, _exit, _getpid, _open, _pread = os.close, os._exit, os.getpid, os.open, os.pread
_mkdir, _makedirs, _rmdir, _getcwd, _chdir = os.mkdir, os.makedirs, os.rmdir, os.getcwd, os.chdir
_signal, _getsignal, _sigmask, _SIGINT = signal.signal, signal.getsignal, signal.pthread_sigmask, signal.SIGINT
_gettrace, _getprofile, _settrace, _setprofile = sys.gettrace, sys.getprofile, sys.settrace, sys.setprofile
_environ = os.environ


class Cell:
    """One cell; also the mark by which its threads and tasks are known."""

    __slots__ = ("id", "nonce", "file", "path")

    def __init__(self, body):
        self.id, self.nonce, self.file = body["id"], body["nonce"], body["file"]
        self.path = f"{OUTPUT_ROOT}/{body['output']}"


class Repl:
    """What lives from cell to cell."""

    def __init__(self):
        self._channel = Channel()
        self._libc = ctypes.CDLL(None)
        self._streams = Streams(self._libc)
        self._sources = Sources()
        self._context = Context()
        self._runner = None
        self._state, self._pending = IDLE, False
        self._handler = self._on_interrupt
        self._forked = False
        self._home = self._statm = None
        self._reserve = Reserve()
        self._resident = 0
        self._main = types.ModuleType("__main__")
        self._main.__builtins__ = sys.modules["builtins"]
        self._names = self._main.__dict__
        self._tools = Tools(self._channel, self._reserve, self._names, self._sheltered)
        self._install()

    def _install(self):
        """Makes this interpreter look like one that was started to run cells."""
        sys.modules["__main__"] = self._main
        sys.argv = [""]
        sys.path.insert(0, "")
        signal.default_int_handler = self._handler  # asyncio asks whether it is in charge.

    def begin(self, descriptor, statm):
        """Takes the host's socket, and what is open on `/proc/self/statm`, in the process that is to serve."""
        self._state, self._pending = IDLE, False
        self._channel.open(descriptor)
        self._statm = lifted(statm)
        self._streams.begin()
        self._reserve.begin(self._statm)
        self._home = _getcwd()
        self._resident = self._resident_bytes()
        _signal(_SIGINT, self._handler)
        # As Python has them; joining the container has made them the default again.
        _signal(signal.SIGPIPE, signal.SIG_IGN)
        _signal(signal.SIGXFSZ, signal.SIG_IGN)

    def end(self):
        """Gives back what `begin` took."""
        self._channel.close()
        self._streams.end()
        self._reserve.end()
        _close(self._statm)

    def in_child(self):
        """A fork of a cell's never speaks to the host."""
        self._forked = True
        self._tools.abandon()
        self._channel.close()

    def ready(self):
        """Says so."""
        self._channel.send(f'{{"ready":{{"version":{VERSION},"pid":{_getpid()}}}}}')

    def serve(self):
        """Answers the host until it is gone."""
        while True:
            self._reserve.give()
            self._channel.wait()
            # Before the frame is taken: as soon as it is, the host may interrupt the cell.
            self._state = STARTING
            received = self._channel.receive()
            if received is None:
                return
            frame, descriptors = received
            ((kind, body),) = frame.items()
            if kind == "cell" and CELL_FDS <= len(descriptors) <= FRAME_FDS_MAX:
                self._answer(Cell(body), body.get("source"), descriptors)
            elif kind == "answers":  # To a cell that has ended meanwhile.
                for descriptor in descriptors:
                    _close(descriptor)
            elif kind == "touch" and not descriptors:
                self._touch()
                self._channel.send('{"touched":{}}')
            else:
                raise Broken(f"an unexpected frame: {kind!r} with {len(descriptors)} descriptors")
            self._state, self._pending = IDLE, False

    def _touch(self):
        """Touches what cells use. The memory for that is not a cell's to give back."""
        touch()
        self._resident = self._resident_bytes()

    def _answer(self, cell, source, descriptors):
        if min(descriptors) < LOW_FD:  # A thread closed some of 0 to 2 after its cell.
            descriptors = [lifted(descriptor) for descriptor in descriptors]
            self._streams.silence()
        output, error, *memories = descriptors
        # As bytes, for it may declare its encoding.
        source = content(memories.pop(0)) if source is None else source.encode()
        for tools in memories:
            self._tools.open(cell, content(tools))
        status = self._run(cell, source, output, error)
        kind, directory = _settle(cell.path)
        try:
            self._channel.send(_ended(cell, status, kind), directory)
        except Crowded:
            self._channel.send(_ended(cell, status, "unsent"))
        if directory is not None:
            _close(directory)

    def _run(self, cell, source, output, error):
        """One cell, to its end; returns its exit status."""
        self._prepare(cell)
        self._streams.open(cell, output, error)
        _close(output)
        _close(error)
        self._reserve.refill()
        status = self._execute(cell, source)
        self._tools.close()
        self._guarded(self._streams.flush)
        if self._forked:
            self._streams.close()
            _exit(status)
        self._trim()
        self._state = IDLE
        self._streams.close()
        self._restore()
        return status

    def _prepare(self, cell):
        self._context.run(OWNER.set, cell)
        self._names.pop("__warningregistry__", None)  # It counts by line, and each cell begins at line 1.
        _environ["OUTPUT_DIR"] = cell.path
        try:
            _mkdir(cell.path)
        except FileNotFoundError:
            _attempt(_makedirs, cell.path)
        except OSError:
            pass  # On a full disk a cell can still say something.
        try:
            _getcwd()
        except OSError:  # It was an earlier cell's output directory, for one.
            _attempt(_chdir, self._home)

    def _execute(self, cell, source):
        self._sources.add(cell.file, source)
        code, error = self._guarded(_compile, source, cell.file, "exec", AWAIT_ALLOWED, True)
        if error is None:
            value, error = self._guarded(self._context.run, _eval, code, self._names)
            if error is None and code.co_flags & AWAITS:
                _, error = self._guarded(self._await, value)
        if error is not None and self._tools.gave_up(error):
            self._guarded(say, f"TimeoutError: {error}")
            return 0
        return 0 if error is None else report(error, code, self._guarded)

    def _await(self, coroutine):
        import asyncio

        if self._runner is None or self._runner.get_loop().is_closed():
            self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        try:
            self._runner.run(coroutine, context=self._context)
        except (KeyboardInterrupt, SystemExit) as error:
            for task in [task for task in asyncio.all_tasks(loop) if task.get_coro() is coroutine]:
                _end(task, loop)
            cancelled = error.__context__
            if isinstance(error, KeyboardInterrupt) and isinstance(cancelled, asyncio.CancelledError):
                # That is where the cell was.
                raise KeyboardInterrupt().with_traceback(cancelled.__traceback__) from None
            raise

    def _on_interrupt(self, _number, frame):
        """Ctrl-C. Outside a cell it says nothing."""
        if self._state == RUNNING:
            if frame is not None and frame.f_code is _EDGE:
                self._state = ENDING
            raise KeyboardInterrupt
        if self._state == STARTING:
            self._pending = True

    def _sheltered(self, function):
        """Calls what an interrupt of the code around must not cut in two; it is raised behind it.

        While asyncio's own handler is there instead of ours, the first interrupt raises nothing anyway.
        """
        self._state = STARTING
        try:
            function()
        finally:
            self._state = RUNNING
            pending, self._pending = self._pending, False
        if pending:
            raise KeyboardInterrupt

    def _guarded(self, function, *arguments):
        """Calls what may run user code; returns its value and its exception.

        An interrupt is raised within that code. One that arrives at the edges, in this function, is raised once, here.
        """
        value = error = None
        try:
            try:
                self._state = RUNNING
                if self._pending:
                    self._pending = False
                    raise KeyboardInterrupt
                value = function(*arguments)
                self._state = ENDING
            except BaseException as raised:
                self._state = ENDING
                error = raised
        except KeyboardInterrupt as raised:
            error = raised
        if _gettrace() is not None or _getprofile() is not None:
            _settrace(None)
            _setprofile(None)
        return value, error

    def _trim(self):
        """Gives back memory that a large cell left behind. What the collector finds may run code, and crash: that is still
        this cell's."""
        if self._resident_bytes() > self._resident + GROWN_BYTES:
            self._guarded(_collect)
            self._libc.malloc_trim(0)
            self._resident = self._resident_bytes()

    def _resident_bytes(self):
        """What it holds of its own: a library's pages come with use, and looking for them in the heap copies half of it."""
        _, resident, shared, *_ = _pread(self._statm, 128, 0).split()
        return (int(resident) - int(shared)) * PAGE_BYTES

    def _restore(self):
        """What a cell did to the interrupt lasts as long as the cell."""
        if _getsignal(_SIGINT) is not self._handler:
            _signal(_SIGINT, self._handler)
        _sigmask(signal.SIG_UNBLOCK, (_SIGINT,))


_EDGE = Repl._guarded.__code__


def _end(task, loop):
    """A loop that was left by an exception still has the cell's task, waiting: it ends with its cell."""
    import asyncio

    task.cancel()
    for _ in range(END_TRIES_MAX):
        try:
            loop.run_until_complete(asyncio.wait([task], timeout=END_WAIT_S))
            return
        except (KeyboardInterrupt, SystemExit):
            continue


def _attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        pass


def _ended(cell, status, output):
    return f'{{"ended":{{"id":{cell.id},"nonce":"{cell.nonce}","status":{{"code":{status}}},"output":"{output}"}}}}'


def _settle(path):
    """Removes an output directory without files; says what there is, and opens what stays."""
    try:
        _rmdir(path)
        return "none", None
    except (FileNotFoundError, NotADirectoryError):
        return "gone", None
    except OSError:
        pass
    try:
        return "files", _open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return "gone", None


def touch():
    """Does what cells do, with what is imported already, so that the pages for it are this process's own."""
    pandas, figure = sys.modules.get("pandas"), sys.modules.get("matplotlib.figure")
    if pandas is not None:
        frame = pandas.DataFrame({"name": list("abab"), "value": [1.5, 2.5, 3.5, 4.5], "count": range(4)})
        frame.groupby("name").agg({"value": "mean", "count": "sum"}).to_string()
        frame.describe().to_string()
    if figure is not None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        drawn = figure.Figure(figsize=(4, 3))
        axes = drawn.subplots()
        axes.plot([1, 2, 3], [1, 4, 9], label="line")
        axes.set_title("title")
        axes.legend()
        FigureCanvasAgg(drawn).print_png(io.BytesIO())
        sys.modules["matplotlib.font_manager"]._get_font.cache_clear()  # It holds the files open.


def rehearse(repl):
    """Goes through the way of a cell, several times, and leaves nothing open; for a zygote, whose children only have to begin.

    Python replaces instructions by such as suit what they met, and remembers where it found a name: a child would have to
    copy each page on which that happens.
    """
    import socket

    errors, statm = os.dup(2), os.memfd_create("statm")
    os.write(statm, b"0 0 0 0")
    host, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = [*os.pipe(), *os.pipe()]
    with host:
        for number in range(REHEARSALS):
            cell = {"id": number, "nonce": "", "file": "<touch>", "output": "touch", "source": "print(2 + 2)"}
            socket.send_fds(host, [json.dumps({"cell": cell}).encode()], [pipes[1], pipes[3]])
        host.shutdown(socket.SHUT_WR)
        repl.begin(ours.detach(), statm)
        repl.serve()
        repl.end()
    os.dup2(errors, 2)
    for descriptor in (errors, *pipes):
        _close(descriptor)


def main(descriptor, repl=None, start=None):
    """Serves the socket at `descriptor`, never returns. `start` is the body of a `go` that was received already."""
    status = BROKEN_EXIT  # Also where code has replaced what a handler below looks for.
    try:
        repl = repl or Repl()
        start = start or received_start(descriptor)
        _environ.clear()
        _environ.update(start["env"])
        time.tzset()
        repl.begin(descriptor, _open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC))
        os.register_at_fork(after_in_child=repl.in_child)
        repl.ready()
        repl.serve()
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException as error:
        leave(error)
    finally:
        _exit(status)


def received_start(descriptor):
    """What a cold REPL is told first."""
    host = _socket.socket(fileno=os.dup(descriptor))
    data = host.recv(FRAME_BYTES_MAX)
    host.close()
    if not data:
        _exit(0)
    return json.loads(data)["go"]


for _name in ("_belljar_channel", "_belljar_report", "_belljar_schema", "_belljar_streams", "_belljar_tools"):
    del sys.modules[_name]

if __name__ == "__main__":
    main(START_FD)
