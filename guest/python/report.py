"""The driver's third part: how a cell ended, told as Python tells it when a program ends."""

import ast  # noqa: F401  # `traceback` wants it, and would look for it when a cell has used all descriptors up.
import io
import linecache
import os
import signal
import sys
import traceback

sys.modules["_belljar_report"] = sys.modules[__name__]

INTERRUPTED = 128 + signal.SIGINT
FAILED = 1
SOURCES_MAX = 256
SOURCE_CHARS_MAX = 8 * 1024 * 1024
HERE = (lambda: None).__code__.co_filename
"""The driver's own frames are no part of a traceback."""

_default_hook, _write = sys.excepthook, os.write


class Sources:
    """The text of cells, for tracebacks and `inspect`. The oldest go first."""

    def __init__(self):
        self._chars = {}
        self._total = 0

    def add(self, file, source):
        """Keeps the text of a cell, given as bytes."""
        text = source.decode("utf-8", "replace").removeprefix("\ufeff")
        lines = io.StringIO(text, newline=None).readlines()
        self._total += len(text) - self._chars.pop(file, 0)
        self._chars[file] = len(text)
        linecache.cache[file] = (len(text), None, lines, file)  # Without a time `checkcache` leaves it alone.
        while len(self._chars) > 1 and (len(self._chars) > SOURCES_MAX or self._total > SOURCE_CHARS_MAX):
            oldest = next(iter(self._chars))
            self._total -= self._chars.pop(oldest)
            linecache.cache.pop(oldest, None)


def report(error, code, guarded):
    """Tells of an exception on standard error; returns the exit status. `guarded` calls what may run user code."""
    if isinstance(error, SystemExit):
        return _exit_status(error, guarded)
    error = error.with_traceback(_from_cell(error.__traceback__, code))
    status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    _, second = guarded(_tell, error)
    if isinstance(second, SystemExit):
        return _exit_status(second, guarded)
    if second is not None:
        try:
            line = f"{type(error).__name__}: <no traceback: {type(second).__name__} while it was made>\n"
            _write(2, line.encode("utf-8", "backslashreplace"))
        except OSError:
            pass
    return status


def _exit_status(error, guarded):
    """As Python's own end of a program by `sys.exit`."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    guarded(say, code)
    return FAILED


def say(message):
    """One line on standard error, as Python has it."""
    try:
        text = str(message)
    except Exception:
        text = ""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _tell(error):
    sys.last_exc = sys.last_value = error
    sys.last_type, sys.last_traceback = type(error), error.__traceback__
    hook = getattr(sys, "excepthook", _default_hook)
    if hook is _default_hook:
        _show(error)
        return
    try:
        hook(type(error), error, error.__traceback__)
    except SystemExit:
        raise
    except BaseException as second:
        say("Error in sys.excepthook:")
        _show(second.with_traceback(_from_cell(second.__traceback__, None)))
        say("\nOriginal exception was:")
        _show(error)


def _show(error):
    if isinstance(error, SyntaxError) and error.text is None and error.lineno and error.filename in linecache.cache:
        error.text = linecache.getline(error.filename, error.lineno)  # The compiler looks for it in files only.
    shown = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    for part in _with_causes(shown):
        if part.stack is not None:
            part.stack[:] = [entry for entry in part.stack if entry.filename != HERE]
    sys.stderr.write("".join(shown.format()))
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


def _from_cell(trace, code):
    """The traceback without the frames above the cell's own, and without the driver's where there is no such frame."""
    first = trace
    while first is not None and first.tb_frame.f_code is not code:
        first = first.tb_next
    while first is None and trace is not None and trace.tb_frame.f_code.co_filename == HERE:
        trace = trace.tb_next
    return first or trace
