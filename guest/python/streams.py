"""The driver's second part: standard streams as on a terminal, and whose text it is that arrives there.

A cell's result holds what the cell wrote, and what its threads, tasks and child processes wrote until it ended. What they
write later belongs to nobody. Children keep the pipes of their cell; threads and tasks are known by the cell that
started them.
"""

import ctypes
import io
import os
import sys
import time
from contextvars import Context, ContextVar
from functools import partial

import _thread

from _belljar_channel import lifted

sys.modules["_belljar_streams"] = sys.modules[__name__]

OWNER = ContextVar("owner")
"""The cell on whose behalf a thread or a task runs. Threads that Python did not start have none."""

LINE_BUFFERED = 1  # _IOLBF of <stdio.h>

WRITERS_TRIES_MAX = 1000
WRITERS_WAIT_S = 0.0001

_close, _dup2, _sleep, _threads = os.close, os.dup2, time.sleep, _thread._count
_running = None
_beginning = set()
"""Threads that were asked for and do not run yet."""
_writing = set()
"""Writes that were found to be a cell's own and have not ended yet. One may last until that cell is over."""


def is_strange(owner_of=OWNER.get):
    """Whether this is done on behalf of a cell that has ended."""
    owner = owner_of(None)
    return owner is not None and owner is not _running


class Text(io.TextIOWrapper):
    """Standard output or error: one object for the life of the REPL, because user code keeps it, as loggers do."""


class Bytes(io.BufferedWriter):
    """What is below a `Text`."""


class WatchedText(Text):
    """What a `Text` becomes while something of an earlier cell may still write."""

    def write(self, text, write=io.TextIOWrapper.write):
        """Text of nobody's goes nowhere, and its writer does not notice."""
        return len(text) if is_strange() else write(self, text)


class WatchedBytes(Bytes):
    """What a `Bytes` becomes then."""

    def write(self, data, write=io.BufferedWriter.write):
        """As `WatchedText.write`."""
        mark = object()
        _writing.add(mark)
        try:
            return memoryview(data).nbytes if is_strange() else write(self, data)
        finally:
            _writing.discard(mark)


class Streams:
    """Descriptors 0 to 2, and the objects on them."""

    def __init__(self, libc):
        self._null = None
        self._fflush = libc.fflush
        # The C library would take a pipe for a file, and hold a program's text back.
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, LINE_BUFFERED, 0)
        self._watched = False
        self.loops = False
        self._asyncio_seen = "asyncio.base_events" in sys.modules
        if self._asyncio_seen:
            self._watch_loops()
        _adopt_threads(self.watch)
        self._streams, self._own = (None, None, None), []
        # What the interpreter opened is buffered in blocks. Ours are made on the first pipes: an object asks only once
        # whether it is on something that can be sought in.
        sys.stdin = sys.stdout = sys.stderr = sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None

    def begin(self):
        """From here on the descriptors are ours."""
        self._null = lifted(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        self.silence()

    def end(self):
        """Gives back what `begin` took; descriptors 0 to 2 stay silent."""
        _close(self._null)

    def silence(self):
        """Nobody reads and nobody writes: so it is between cells."""
        null = self._null
        _dup2(null, 0)
        _dup2(null, 1)
        _dup2(null, 2)

    def open(self, cell, output, error):
        """From here on text is the cell's; the two pipes become standard output and error."""
        global _running
        self._watch()
        if _writing:
            _await_writers()
        self._flush_own()
        # Whoever writes from here on was looked at after the last cell had ended.
        _dup2(output, 1)
        _dup2(error, 2)
        if not self._whole():
            self._replace_broken()
            self._dress()
        _running = cell

    def close(self):
        """From here on it is nobody's."""
        global _running
        self._flush_own()
        self._fflush(None)
        _running = None
        self.silence()

    def flush(self):
        """Flushes what user code put in the streams' place: code of its own, perhaps."""
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except Exception:
                pass  # As at the end of a program: there is nobody left to tell.

    def _flush_own(self):
        for stream in self._own:
            try:
                stream.flush()
            except (OSError, ValueError):
                pass

    def _whole(self):
        """Whether nobody has put anything in the streams' place, or broken them."""
        stdin, stdout, stderr = self._streams
        try:
            return (
                sys.stdin is sys.__stdin__ is stdin
                and sys.stdout is sys.__stdout__ is stdout
                and sys.stderr is sys.__stderr__ is stderr
                and not (stdin.closed or stdout.closed or stderr.closed)
            )
        except (AttributeError, ValueError):  # Deleted; detached.
            return False

    def _replace_broken(self):
        """A redirection lasts, as on a terminal. One to something closed does not."""
        if not _usable(sys, "__stdin__"):
            sys.__stdin__ = _reader(0)
        if not _usable(sys, "__stdout__"):
            sys.__stdout__ = _writer(1, "surrogateescape")
        if not _usable(sys, "__stderr__"):
            sys.__stderr__ = _writer(2, "backslashreplace")
        for name in ("stdin", "stdout", "stderr"):
            if not _usable(sys, name):
                setattr(sys, name, getattr(sys, f"__{name}__"))
        self._streams = sys.__stdin__, sys.__stdout__, sys.__stderr__
        self._own = [stream for stream in self._streams[1:] if isinstance(stream, Text)]

    def _watch(self):
        """Looking at each writer costs a fifth of a print: done only while there may be a stranger."""
        if not self._asyncio_seen and "asyncio.base_events" in sys.modules:
            self._asyncio_seen = self.loops = True
        self._watched = self.loops or _threads() > 0 or bool(_beginning)
        self._dress()

    def watch(self):
        """Before the first thread begins: what is not looked at, nobody else writes."""
        if not self._watched:
            self._watched = True
            self._dress()

    def _dress(self):
        text, data = (WatchedText, WatchedBytes) if self._watched else (Text, Bytes)
        for stream in self._own:
            if stream.__class__ is not text:
                stream.__class__ = text
                stream.buffer.__class__ = data

    def _watch_loops(self):
        """Notes when an event loop is made: from then on tasks may outlive their cell."""
        from asyncio.base_events import BaseEventLoop

        made = BaseEventLoop.__init__

        def __init__(loop, *arguments, **options):
            self.loops = True
            made(loop, *arguments, **options)

        BaseEventLoop.__init__ = __init__


def _usable(module, name):
    """Whether there is a stream, neither closed nor detached."""
    stream = getattr(module, name, None)
    try:
        return not stream.closed
    except ValueError:
        return False
    except AttributeError:  # No file, but perhaps a thing of the user's with the methods of one.
        return hasattr(stream, "write") or hasattr(stream, "read")


def _await_writers():
    """Waits for those who write what was a cell's own. They write to nobody by now, so that is soon."""
    late = _writing.copy()
    for _ in range(WRITERS_TRIES_MAX):
        if late.isdisjoint(_writing):
            return
        _sleep(WRITERS_WAIT_S)
    _writing.difference_update(late)  # The mark of an interrupted write, or code of the user's that encodes for ever.


def _writer(descriptor, errors):
    stream = WatchedText(WatchedBytes(io.FileIO(descriptor, "wb", closefd=False)), "utf-8", errors, line_buffering=True)
    stream.buffer.raw.name = stream.mode = ("<stdin>", "<stdout>", "<stderr>")[descriptor]
    stream.mode = "w"
    return stream


def _reader(descriptor):
    stream = io.TextIOWrapper(io.BufferedReader(io.FileIO(descriptor, "rb", closefd=False)), "utf-8", "surrogateescape")
    stream.buffer.raw.name = "<stdin>"
    stream.mode = "r"
    return stream


def _adopt_threads(watch):
    """A thread belongs to the cell of the thread that starts it; `watch` is called before it begins."""
    import threading

    for module, names in (
        (threading, ("_start_new_thread", "_start_joinable_thread")),
        (_thread, ("start_new_thread", "start_new", "start_joinable_thread")),
    ):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, _adopting(getattr(module, name), watch))


def _adopting(start, watch):
    def start_new_thread(function, *arguments, **options):
        watch()
        owner = OWNER.get(None)
        context = getattr(getattr(function, "__self__", None), "_context", None)
        if isinstance(context, Context):  # Python 3.14 runs a thread in a context of its own.
            context.run(OWNER.set, owner)
        mark = object()
        _beginning.add(mark)
        try:
            return start(partial(_adopted, owner, mark, function), *arguments, **options)
        except BaseException:
            _beginning.discard(mark)
            raise

    return start_new_thread


def _adopted(owner, mark, function, *arguments, **options):
    OWNER.set(owner)
    _beginning.discard(mark)
    return function(*arguments, **options)
