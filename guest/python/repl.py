"""The driver of one live interpreter: runs the cells of a container in one `__main__`, and says how each ended.

Cold start: `python3 -I /proc/self/fd/N` with the host's socket at descriptor 3. Warm start: a zygote's child that has
joined its container calls `main`. Either way one file, without another beside it.

What runs here shares the interpreter with hostile code, so nothing here guards the host. What it does guard is the next
cell from an accident in this one: whatever the driver needs it took for itself when it started.
"""

import fcntl
import gc
import io
import json
import linecache
import os
import signal
import sys
import time
import types
from contextvars import Context, ContextVar
from functools import partial

import _socket
import _thread
import ctypes

VERSION = 1
FRAME_BYTES_MAX = 64 * 1024
START_FD = 3
CHANNEL_FD = 500
OUTPUT_ROOT = "/files/output"
CELL_FDS = 3
"""Source, writer of standard output, writer of standard error."""
SPARE_FDS = CELL_FDS + 1
INTERRUPTED = 128 + signal.SIGINT
SOURCES_MAX = 256
SOURCE_CHARS_MAX = 8 * 1024 * 1024
GROWN_BYTES = 16 * 1024 * 1024
"""Resident memory beyond what the last cell left, from which on a cell is followed by a clean-up."""
AWAITABLE = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
COROUTINE = 0x80  # inspect.CO_COROUTINE
HERE = (lambda: None).__code__.co_filename
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

OWNER = ContextVar("owner")
"""The cell on whose behalf a thread or a task runs. C threads that Python did not start have none."""

# What user code may replace by accident.
_loads, _dumps, _compile, _eval = json.loads, json.dumps, compile, eval
_close, _dup, _dup2, _getpid, _mkdir, _rmdir = os.close, os.dup, os.dup2, os.getpid, os.mkdir, os.rmdir
_open, _write, _pread, _exit, _getcwd, _chdir = os.open, os.write, os.pread, os._exit, os.getcwd, os.chdir
_fcntl, _getsignal, _signal = fcntl.fcntl, signal.getsignal, signal.signal
_environ, _collect = os.environ, gc.collect
_threads = _thread._count


class Broken(Exception):
    """The host sent what the frames do not allow: this program and the host are of different builds."""


class Channel:
    """The host's end of the frames, on a descriptor out of the way of what user code opens and closes."""

    def __init__(self, descriptor):
        moved = CHANNEL_FD
        try:
            moved = _fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, CHANNEL_FD)
        except OSError:  # A limit on open files below that.
            moved = _fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, START_FD + 1)
        _close(descriptor)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, moved)
        self._socket.setblocking(True)
        self._buffer = bytearray(FRAME_BYTES_MAX)
        self._views = [memoryview(self._buffer)]
        self._room = _socket.CMSG_SPACE(SPARE_FDS * 4)

    def receive(self):
        """The next frame and its descriptors; None when the host is gone."""
        size, ancillary, flags, _ = self._socket.recvmsg_into(self._views, self._room, _socket.MSG_CMSG_CLOEXEC)
        if not size:
            return None
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise Broken("a frame was cut off")
        descriptors = []
        for _level, _kind, data in ancillary:
            descriptors += memoryview(data[: len(data) // 4 * 4]).cast("i")
        return _loads(self._buffer[:size]), descriptors

    def send(self, frame, descriptor=None):
        """Sends JSON text, with at most one descriptor."""
        ancillary = []
        if descriptor is not None:
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
        self._socket.sendmsg([frame.encode()], ancillary, _socket.MSG_NOSIGNAL)

    def close(self):
        self._socket.close()


# Streams: whose text it is.

_current = None
"""The cell that runs. Text of any other cell's threads and tasks belongs to nobody."""


def _is_strange(get=OWNER.get):
    owner = get(None)
    return owner is not None and owner is not _current


class Text(io.TextIOWrapper):
    """Standard output or error. One object for the life of the REPL, because user code keeps it (loggers do)."""


class Bytes(io.BufferedWriter):
    """What is below."""


class WatchedText(Text):
    """`Text` while something of an earlier cell may still run: looks at each writer. Costs half a microsecond."""

    def write(self, text, write=io.TextIOWrapper.write):
        return len(text) if _is_strange() else write(self, text)


class WatchedBytes(Bytes):
    """As `WatchedText`."""

    def write(self, data, write=io.BufferedWriter.write):
        return len(data) if _is_strange() else write(self, data)


class Streams:
    """Descriptors 0 to 2 and the objects on them."""

    def __init__(self, libc):
        self._null = _fcntl(_open(os.devnull, os.O_RDWR | os.O_CLOEXEC), fcntl.F_DUPFD_CLOEXEC, CHANNEL_FD)
        self._fflush = libc.fflush
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, 0)  # _IOLBF, as on a terminal.
        self.silence()
        self._watched = False
        # What the interpreter opened is buffered in blocks.
        sys.stdin = sys.stdout = sys.stderr = sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None
        self.replace_broken()

    def silence(self):
        """Nobody reads and nobody writes: so it is between cells."""
        null = self._null
        _dup2(null, 0)
        _dup2(null, 1)
        _dup2(null, 2)

    def open(self, output, error):
        """The cell's pipes become standard output and error."""
        self.flush_own()
        _dup2(output, 1)
        _dup2(error, 2)

    def watch(self, wanted):
        """Says whether anything of an earlier cell may still write."""
        if wanted is not self._watched:
            self._watched = wanted
            text, data = (WatchedText, WatchedBytes) if wanted else (Text, Bytes)
            for stream in self._own:
                stream.__class__ = text
                try:
                    stream.buffer.__class__ = data
                except ValueError:  # Detached.
                    pass

    def replace_broken(self):
        """A redirection lasts, as on a terminal; a closed or foreign thing that cannot be written to does not."""
        if not _usable(getattr(sys, "__stdout__", None)):
            sys.__stdout__ = _text(1, "surrogateescape")
        if not _usable(getattr(sys, "__stderr__", None)):
            sys.__stderr__ = _text(2, "backslashreplace")
        if not _usable(getattr(sys, "__stdin__", None)):
            sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "rb", closefd=False)), "utf-8", "surrogateescape")
        self._own = [stream for stream in (sys.__stdout__, sys.__stderr__) if isinstance(stream, Text)]
        if not _usable(getattr(sys, "stdout", None)):
            sys.stdout = sys.__stdout__
        if not _usable(getattr(sys, "stderr", None)):
            sys.stderr = sys.__stderr__
        if not _usable(getattr(sys, "stdin", None)):
            sys.stdin = sys.__stdin__

    def flush_own(self):
        for stream in self._own:
            try:
                stream.flush()
            except (OSError, ValueError):
                pass

    def flush(self):
        """What the cell wrote reaches its pipes. Runs code of the user's when that has put a stream of its own there."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name, None)
            try:
                stream.flush()
            except Exception:
                pass  # As Python does at its end: nobody is left to tell.
        self.flush_own()
        self._fflush(None)


def _usable(stream):
    """Whether it is neither closed nor detached."""
    try:
        return not stream.closed
    except ValueError:
        return False
    except AttributeError:  # No file, but perhaps something of the user's that can write.
        return hasattr(stream, "write") or hasattr(stream, "read")


def _text(descriptor, errors):
    stream = Text(Bytes(io.FileIO(descriptor, "wb", closefd=False)), "utf-8", errors, line_buffering=True)
    stream.mode = "w"
    return stream


def _adopting(start):
    """A starter of threads whose threads belong to the cell of the thread that starts them."""

    def start_new_thread(function, *arguments, **options):
        owner = OWNER.get(None)
        context = getattr(getattr(function, "__self__", None), "_context", None)
        if isinstance(context, Context):  # Python 3.14 runs a thread in a context of its own.
            context.run(OWNER.set, owner)
        return start(partial(_adopted, owner, function), *arguments, **options)

    return start_new_thread


def _adopted(owner, function, *arguments, **options):
    OWNER.set(owner)
    return function(*arguments, **options)


def _adopt_threads():
    import threading

    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        if hasattr(_thread, name):
            setattr(_thread, name, _adopting(getattr(_thread, name)))
    for name in ("_start_new_thread", "_start_joinable_thread"):
        if hasattr(threading, name):
            setattr(threading, name, _adopting(getattr(threading, name)))


def _watch_loops(watching):
    """Notes that an event loop was made: from then on tasks may outlive their cell."""
    from asyncio.base_events import BaseEventLoop

    made = BaseEventLoop.__init__

    def __init__(self, *arguments, **options):
        watching.loops = True
        made(self, *arguments, **options)

    BaseEventLoop.__init__ = __init__


class Sources:
    """The text of cells, for tracebacks and `inspect`. The oldest go first."""

    def __init__(self):
        self._files = {}
        self._chars = 0

    def add(self, file, text):
        lines = io.StringIO(text, newline=None).readlines()
        self._files[file] = len(text)
        self._chars += len(text)
        linecache.cache[file] = (len(text), None, lines, file)  # Without a time `checkcache` lets it be.
        while len(self._files) > 1 and (len(self._files) > SOURCES_MAX or self._chars > SOURCE_CHARS_MAX):
            oldest = next(iter(self._files))
            self._chars -= self._files.pop(oldest)
            linecache.cache.pop(oldest, None)


class Cell:
    """One cell; also the mark by which its threads and tasks are known."""

    __slots__ = ("id", "nonce", "file", "path")

    def __init__(self, frame):
        self.id, self.nonce, self.file = int(frame["id"]), str(frame["nonce"]), str(frame["file"])
        self.path = f"{OUTPUT_ROOT}/{frame['output']}"


IDLE, STARTING, RUNNING, ENDING = range(4)


class Repl:
    """The interpreter's state between cells."""

    def __init__(self, channel):
        self._channel = channel
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._streams = Streams(self._libc)
        self._sources = Sources()
        self._context = Context()
        self._state = IDLE
        self._pending = False
        self._runner = None
        self._forked = False
        self.loops = False
        self._asyncio_seen = "asyncio.base_events" in sys.modules
        self._home = _getcwd()
        self._hook = sys.excepthook
        self._handler = self._on_interrupt
        self._spare = []
        self._main = types.ModuleType("__main__")
        self._names = self._main.__dict__
        self._names["__builtins__"] = sys.modules["builtins"]
        self._statm = _fcntl(_open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC), fcntl.F_DUPFD_CLOEXEC, CHANNEL_FD)

    def install(self):
        """Makes this interpreter look like one that was started to run cells."""
        sys.modules["__main__"] = self._main
        sys.argv = [""]
        sys.path.insert(0, "")
        signal.default_int_handler = self._handler  # asyncio asks whether it is the one in charge.
        _signal(signal.SIGINT, self._handler)
        os.register_at_fork(after_in_child=self._in_child)
        _adopt_threads()
        if self._asyncio_seen:
            _watch_loops(self)
        self._resident = self._resident_bytes()
        self._reserve()

    def _in_child(self):
        self._forked = True
        self._channel.close()

    # Interrupts.

    def _on_interrupt(self, _number, frame):
        """Ctrl-C. Outside a cell it says nothing."""
        if self._state == RUNNING:
            if frame is not None and frame.f_code is _USER_CODE:
                self._state = ENDING
            raise KeyboardInterrupt
        if self._state == STARTING:
            self._pending = True

    def _user(self, function, *arguments):
        """Calls what may run code of the user's; an interrupt reaches it, and at its edges only this function."""
        value = error = None
        try:
            try:
                self._state = RUNNING
                if self._pending:
                    raise KeyboardInterrupt
                value = function(*arguments)
                self._state = ENDING
            except BaseException as caught:
                self._state = ENDING
                error = caught
        except KeyboardInterrupt as caught:
            error = caught
        self._pending = False
        if _gettrace() or _getprofile():
            _settrace(None)
            _setprofile(None)
        return value, error

    # One cell.

    def run(self, cell, source, output, error):
        """Runs it to its end; returns its exit status."""
        global _current
        _current = cell
        self._context.run(OWNER.set, cell)
        self._prepare(cell)
        self._streams.open(output, error)
        _close(output)
        _close(error)
        status = self._execute(cell, source)
        self._user(self._streams.flush)
        if self._forked:
            _exit(status)
        self._trim()
        _current = None
        self._state = IDLE
        self._streams.silence()
        self._restore_interrupt()
        return status

    def _prepare(self, cell):
        try:
            _getcwd()
        except OSError:  # Removed: an earlier output directory, for one.
            try:
                _chdir(self._home)
            except OSError:
                pass
        self._streams.replace_broken()
        seen = "asyncio.base_events" in sys.modules
        if seen and not self._asyncio_seen:
            self._asyncio_seen = self.loops = True
        self._streams.watch(self.loops or _threads() > 0)
        self._names.pop("__warningregistry__", None)
        _environ["OUTPUT_DIR"] = cell.path
        try:
            _mkdir(cell.path)
        except FileNotFoundError:
            try:
                os.makedirs(cell.path)
            except OSError:
                pass
        except OSError:
            pass  # A full disk: the cell can still say something.

    def _execute(self, cell, source):
        self._sources.add(cell.file, source.decode("utf-8-sig", "replace"))
        code, error = self._user(_compile, source, cell.file, "exec", AWAITABLE, True)
        if error is None:
            value, error = self._user(self._context.run, _eval, code, self._names)
            if error is None and code.co_flags & COROUTINE:
                _, error = self._user(self._await, value)
        if error is None:
            return 0
        return self._report(error, code)

    def _await(self, coroutine):
        import asyncio

        if self._runner is None or self._runner.get_loop().is_closed():
            self._runner = asyncio.Runner()
        try:
            self._runner.run(coroutine, context=self._context)
        except KeyboardInterrupt as error:
            cancelled = error.__context__
            if not isinstance(cancelled, asyncio.CancelledError):
                raise
            raise KeyboardInterrupt().with_traceback(cancelled.__traceback__) from None

    def _trim(self):
        """Gives memory back that a large cell left behind."""
        if self._resident_bytes() < self._resident + GROWN_BYTES:
            return
        self._user(_collect)
        self._libc.malloc_trim(0)
        self._resident = self._resident_bytes()

    def _resident_bytes(self):
        return int(_pread(self._statm, 64, 0).split()[1]) * PAGE_BYTES

    def _restore_interrupt(self):
        """A handler of the user's lasts for its cell."""
        if _getsignal(signal.SIGINT) is not self._handler:
            _signal(signal.SIGINT, self._handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    # How it ended.

    def _report(self, error, code):
        if isinstance(error, SystemExit):
            return self._exit_status(error)
        error = error.with_traceback(_trimmed(error.__traceback__, code))
        _, failed = self._user(self._print, error)
        if isinstance(failed, SystemExit):
            return self._exit_status(failed)
        if failed is not None:
            name = type(error).__name__
            _quietly(_write, 2, f"{name}: <its traceback could not be shown: {type(failed).__name__}>\n".encode())
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1

    def _print(self, error):
        sys.last_exc = sys.last_value = error
        sys.last_type, sys.last_traceback = type(error), error.__traceback__
        hook = getattr(sys, "excepthook", None)
        if hook is self._hook or hook is None:
            _show(error)
            return
        try:
            hook(type(error), error, error.__traceback__)
        except SystemExit:
            raise
        except BaseException as second:
            sys.stderr.write("Error in sys.excepthook:\n")
            _show(second.with_traceback(_trimmed(second.__traceback__, None)))
            sys.stderr.write("\nOriginal exception was:\n")
            _show(error)

    def _exit_status(self, error):
        code = error.code
        if code is None:
            return 0
        if isinstance(code, int):
            return int(code) & 0xFF if -(2**63) <= code < 2**63 else 0xFF
        self._user(_say, code)
        return 1

    # Descriptors for the next frame.

    def _reserve(self):
        """Room for a frame's descriptors, even when user code has opened all it may."""
        while len(self._spare) < SPARE_FDS:
            try:
                self._spare.append(_fcntl(self._statm, fcntl.F_DUPFD_CLOEXEC, CHANNEL_FD))
            except OSError:
                return

    def make_room(self):
        """Called when idle: gives the reserve up if there is nothing else left."""
        try:
            for descriptor in [_dup(self._statm) for _ in range(1)]:
                _close(descriptor)
        except OSError:
            while self._spare:
                _quietly(_close, self._spare.pop())

    def restore_room(self):
        if len(self._spare) < SPARE_FDS:
            self._reserve()

    # Frames.

    def serve(self):
        """Answers the host until it is gone."""
        while True:
            self.make_room()
            received = self._channel.receive()
            if received is None:
                return
            frame, descriptors = received
            (kind, body), = frame.items()
            if kind == "cell" and len(descriptors) == CELL_FDS:
                self._answer_cell(body, descriptors)
            elif kind == "touch" and not descriptors:
                touch()
                self._channel.send('{"touched":{}}')
            else:
                raise Broken(f"an unexpected frame: {kind!r} with {len(descriptors)} descriptors")

    def _answer_cell(self, body, descriptors):
        self._state = STARTING
        if min(descriptors) <= 2:  # User code closed some of 0 to 2.
            descriptors = [_fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, START_FD) for descriptor in descriptors]
            self._streams.silence()
        source, output, error = descriptors
        text = _read_all(source)
        _close(source)
        cell = Cell(body)
        status = self.run(cell, text, output, error)
        self.restore_room()
        kind, directory = _settle(cell.path)
        answer = f'{{"ended":{{"id":{cell.id},"nonce":"{cell.nonce}","status":{{"code":{status}}},"output":"{kind}"}}}}'
        self._channel.send(answer, directory)
        if directory is not None:
            _close(directory)


_USER_CODE = Repl._user.__code__
_gettrace, _getprofile, _settrace, _setprofile = sys.gettrace, sys.getprofile, sys.settrace, sys.setprofile


def _quietly(function, *arguments):
    try:
        return function(*arguments)
    except OSError:
        return None


def _read_all(descriptor):
    pieces, at = [], 0
    while piece := _pread(descriptor, os.fstat(descriptor).st_size - at, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


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


def _trimmed(trace, code):
    """The traceback without the frames above the cell's own."""
    first = trace
    while first is not None and first.tb_frame.f_code is not code:
        first = first.tb_next
    if first is not None:
        return first
    while trace is not None and trace.tb_frame.f_code.co_filename == HERE:
        trace = trace.tb_next
    return trace


def _show(error):
    """Writes an exception as Python does when a program ends by it."""
    import traceback

    shown = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    for part in _with_causes(shown):
        part.stack[:] = [entry for entry in part.stack if entry.filename != HERE]
    text = "".join(shown.format())
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _with_causes(shown):
    """It, and every exception that its text shows."""
    waiting, seen = [shown], []
    while waiting:
        part = waiting.pop()
        if part is not None:
            seen.append(part)
            waiting += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return seen


def _say(message):
    """What `sys.exit` was given instead of a number."""
    try:
        text = str(message)
    except Exception:
        text = ""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def touch():
    """Does what cells do, on what is imported already, so that the pages for it are this process's own."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        frame = pandas.DataFrame({"name": list("abab"), "value": [1.5, 2.5, 3.5, 4.5], "count": range(4)})
        frame.groupby("name").agg({"value": "mean", "count": "sum"}).to_string()
        frame.describe().to_string()
    figure = sys.modules.get("matplotlib.figure")
    if figure is not None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        drawn = figure.Figure(figsize=(4, 3))
        axes = drawn.subplots()
        axes.plot([1, 2, 3], [1, 4, 9], label="line")
        axes.set_title("title")
        axes.legend()
        FigureCanvasAgg(drawn).print_png(io.BytesIO())


def _go(body):
    """Makes the environment the one that the host names."""
    pairs = dict(body["env"])
    _environ.clear()
    _environ.update(pairs)
    time.tzset()


def main(descriptor, start=None):
    """Serves the socket at `descriptor`. `start` is the body of a `go` that was received already. Never returns."""
    status = 70
    try:
        channel = Channel(descriptor)
        if start is None:
            received = channel.receive()
            if received is None:
                _exit(0)
            start = received[0]["go"]
        _go(start)
        repl = Repl(channel)
        repl.install()
        channel.send(f'{{"ready":{{"version":{VERSION},"pid":{_getpid()}}}}}')
        repl.serve()
        status = 0
    except BrokenPipeError:
        status = 0
    except BaseException as error:
        _quietly(_write, 2, f"REPL: {type(error).__name__}: {error}\n".encode())
    finally:
        _exit(status)


if __name__ == "__main__":
    main(START_FD)
