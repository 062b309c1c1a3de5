"""The zygote: an interpreter with its libraries imported, which forks a REPL into a container on request.

`python3 -I /run/belljar/zygote.py core|all`, with the host's socket at descriptor 3. It is trusted: it runs no code of a
user's, ever, and parses nothing but the host's frames. What it forks gives up everything in `belljar_join` before it runs
anything else.

It has one thread, no `/proc`, and the host's pid namespace. Whatever it holds, its children share: so it opens no file
and makes no generator that it would have to keep.
"""

import ctypes
import errno
import fcntl
import gc
import importlib.util
import json
import os
import platform
import select
import signal
import socket
import sys
import threading
from pathlib import Path

VERSION = 3
CONTROL_FD = 3
FILES = Path(__file__).resolve().parent
JOIN_LIBRARY = "libbelljar_join.so"
SEAL = "seal"
FRAME_BYTES_MAX = 64 * 1024
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
FORK_FDS = 2
"""The pid namespace, and the REPL's end of its socket."""
ENTRANCES_MAX = 8
GO_FDS_MAX = len(NAMESPACES) + ENTRANCES_MAX
HELD_FDS = 6
"""Standard streams, control, own pid namespace, lifeline: what the launcher gave it."""
STEP_BYTES_MAX = 64
REASON_CHARS_MAX = 200
REHEARSALS = 3
"""Of what each child does first: Python replaces instructions by such as suit what they met, which copies their page."""
BROKEN_EXIT = 70  # EX_SOFTWARE of <sysexits.h>
CLONE_THREAD = 0x00010000
CLONE_NEWPID = 0x20000000


class Broken(Exception):
    """Something that a zygote must not go on with."""


class Zygote:
    """The loop. `join(namespaces)` makes the calling process one of a container's; see `container_join`."""

    def __init__(self, control, join, enter_pid_namespace, repl, reseed):
        self._control = control
        self._join = join
        self._enter_pid_namespace = enter_pid_namespace
        self._bare_fork = bare_fork()
        self._repl_main, self._rehearse, self._repl = repl.main, repl.rehearse, repl.Repl()
        self._reseed = reseed.reseed
        self._generators = reseed.generators()
        self._woken = self._waker = -1
        self._missing = []

    def settle(self, memory):
        """Everything is there: from here on little may change, because a child copies what does."""
        self._rehearse(self._repl)
        gc.collect()
        gc.disable()
        arrange(memory, memory.settle)
        gc.freeze()
        # Once more, behind what has used the same caches.
        self._rehearse(self._repl)
        for _ in range(REHEARSALS):
            self._reseed(self._generators)
        # And once more, with what that has left.
        arrange(memory, memory.keep)
        gc.freeze()
        self._missing = memory.missing

    def serve(self):
        """Answers the host until it is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._say({"ready": {"version": VERSION, "python": platform.python_version(), "missing": self._missing}})
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        waiting.register(self._woken, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in waiting.poll()}
            if self._woken in ready:
                drain(self._woken)
                self._reap()
            if self._control.fileno() in ready and not self._answer():
                return

    def _answer(self):
        data, descriptors, flags, _ = socket.recv_fds(
            self._control, FRAME_BYTES_MAX, FORK_FDS, socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return False
        try:
            number = fork_request(data, descriptors, flags)
            self._fork(number, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, number, descriptors):
        try:
            self._enter_pid_namespace(descriptors[0])
            child = self._bare_fork()
        except OSError as error:
            self._say({"refused": {"id": number, "errno": error.errno}})
            return
        if child == 0:
            self._become_repl(descriptors)
        handle = os.pidfd_open(child)
        try:
            self._say({"forked": {"id": number, "pid": child}}, [handle])
        finally:
            os.close(handle)

    def _reap(self):
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            ended = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"code": os.WEXITSTATUS(status)}
            self._say({"ended": {"pid": child, "status": ended}})

    def _say(self, frame, descriptors=()):
        socket.send_fds(self._control, [json.dumps(frame).encode()], descriptors, socket.MSG_NOSIGNAL)

    def _become_repl(self, descriptors):
        """The child's way. Never returns: what a normal exit would run belongs to the zygote."""
        status = BROKEN_EXIT
        try:
            threading.main_thread()._set_native_id()  # Of Python's handlers of a fork, the one that is needed.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            close_all_but(descriptors)
            status = self._live(*descriptors)
        except BaseException as error:
            complain(f"child: {type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def _live(self, pid_namespace, channel):
        os.close(pid_namespace)
        # Before the container is there to be joined: nobody waits for it yet.
        self._reseed(self._generators)
        with socket.socket(fileno=os.dup(channel)) as host:
            data, descriptors, _, _ = socket.recv_fds(host, FRAME_BYTES_MAX, GO_FDS_MAX, socket.MSG_CMSG_CLOEXEC)
            if not data:
                return 0
            if len(descriptors) < len(NAMESPACES):
                raise Broken(f"a go with {len(descriptors)} descriptors, not {len(NAMESPACES)} or more")
            namespaces, entrances = descriptors[: len(NAMESPACES)], descriptors[len(NAMESPACES) :]
            start = json.loads(data)["go"]
            try:
                enter_cgroups(entrances)
                self._join(namespaces)
            except JoinFailed as failed:
                failure = {"failed": {"step": failed.step, "errno": failed.errno}}
                host.sendmsg([json.dumps(failure).encode()], [], socket.MSG_NOSIGNAL)
                return BROKEN_EXIT
        gc.enable()
        return self._repl_main(channel, self._repl, start)


def arrange(memory, step):
    """Without it a child only takes longer."""
    try:
        step()
    except Exception as error:
        memory.missing.append(f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX])


def fork_request(data, descriptors, flags):
    """The number of a request. The host made it: one that makes no sense ends the zygote."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) != FORK_FDS:
        raise Broken(f"a request with {len(descriptors)} descriptors, not {FORK_FDS}")
    frame = json.loads(data)
    number = frame.get("fork", {}).get("id") if isinstance(frame, dict) and isinstance(frame.get("fork"), dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or frame != {"fork": {"id": number}}:
        raise Broken(f"a request that makes no sense: {data[:200]!r}")
    return number


def enter_cgroups(entrances):
    """Within the container's limits from here on, and without a way to put others there."""
    for entrance in entrances:
        try:
            os.write(entrance, b"0")
        except OSError as error:
            raise JoinFailed("enter the control groups", error.errno) from None
        finally:
            os.close(entrance)


def drain(descriptor):
    """Empties the pipe that signals write to."""
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass


def close_all_but(kept):
    """Closes every descriptor but these and standard error, open or not."""
    first = 3
    for descriptor in sorted(kept):
        if first < descriptor:
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 2**31 - 1)


class JoinFailed(Exception):
    """A step of joining a container failed."""

    def __init__(self, step, number):
        super().__init__(f"{step}: {os.strerror(number)}")
        self.step, self.errno = step, number


def container_join(files, library):
    """`belljar_join` of the library, with the plan beside this file.

    It closes the namespaces, and returns 0, or a negative errno with the failed step's name in `step`.
    """
    function = library.belljar_join
    function.restype = ctypes.c_int
    function.argtypes = [
        ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
    ]
    seal = (files / SEAL).read_bytes()
    step = ctypes.create_string_buffer(STEP_BYTES_MAX)

    def join(namespaces):
        number = function((ctypes.c_int * len(NAMESPACES))(*namespaces), seal, len(seal), step, STEP_BYTES_MAX)
        if number:
            raise JoinFailed(step.value.decode("ascii", "replace"), -number)

    return join


def join_library(files):
    """The library beside this file; None where there is none, as in a check of this file."""
    path = files / JOIN_LIBRARY
    return ctypes.CDLL(str(path)) if path.exists() else None


def enter_pid_namespace(descriptor):
    """The next child is born there. The way starts from our own pid namespace each time (pid_namespaces(7))."""
    os.setns(descriptor, CLONE_NEWPID)


def bare_fork():
    """What forks this process without the handlers that Python and libraries have for it; `os.fork` where the C library has
    no such call.

    They see to locks that other threads may hold, and here is no other thread (`check_one_thread`). They write to some
    hundred pages, each of which the child would have to copy, and for which large pages here would be broken up.
    """
    try:
        fork = ctypes.PyDLL(None, use_errno=True)._Fork
    except AttributeError:
        return os.fork

    def bare():
        child = fork()
        if child < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return child

    return bare


def check_one_thread():
    """Linux refuses this flag to a process with several threads, and has nothing to do for one with a single thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_THREAD):
        raise Broken(f"more than one thread after warming up: {os.strerror(ctypes.get_errno())}")


def check_descriptors():
    """A child closes what it inherits: nothing may count on an open file."""
    soft = os.sysconf("SC_OPEN_MAX")
    left = [descriptor for descriptor in range(HELD_FDS, min(soft, 65536)) if is_open(descriptor)]
    if left:
        raise Broken(f"descriptors left open after warming up: {left}")


def is_open(descriptor):
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError as error:
        return error.errno != errno.EBADF
    return True


def load(name):
    """A file beside this one, as a module that no `import` finds."""
    spec = importlib.util.spec_from_file_location(f"_belljar_{name}", FILES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop(spec.name, None)
    return module


def complain(text):
    """One line on standard error, without what buffers."""
    try:
        os.write(2, f"zygote: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def main(arguments):
    """Warms up and serves. Returns the exit status."""
    try:
        (group,) = arguments
        library = join_library(FILES)
        join = container_join(FILES, library)
        memory = load("share").Memory(library)
        memory.gather()
        reseed, repl = load("reseed"), load("repl")
        load("warm").warm(group)
        control = socket.socket(fileno=CONTROL_FD)
        zygote = Zygote(control, join, enter_pid_namespace, repl, reseed)
        zygote.settle(memory)
        check_one_thread()
        check_descriptors()
        for descriptor in range(CONTROL_FD, HELD_FDS):
            if is_open(descriptor):
                os.set_inheritable(descriptor, False)
        zygote.serve()
    except BaseException as error:
        complain(f"{type(error).__name__}: {error}")
        return BROKEN_EXIT
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
