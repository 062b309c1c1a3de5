"""The driver's first part: the frames between host and REPL.

The driver is one file when it runs: `channel.py`, `streams.py`, `report.py`, `schema.py`, `tools.py` and `repl.py`,
joined in this order. So a part finds the ones before it in the module that all of them are in.

What runs here shares the interpreter with hostile code, so nothing of it guards the host. What it does guard is the next
cell from an accident in this one: each part takes the functions it needs for itself when it starts.
"""

import errno
import fcntl
import json
import os
import select
import sys

import _socket

sys.modules["_belljar_channel"] = sys.modules[__name__]

FRAME_BYTES_MAX = 64 * 1024
CELL_FDS = 2
"""Writer of standard output, writer of standard error."""
FRAME_FDS_MAX = CELL_FDS + 2
"""And the source, where it is not in the frame, and the tools, where there are any."""
HIGH_FD = 500
"""From here on up are descriptors of the driver's: beyond what a program closes to be tidy."""
LOW_FD = 3
"""The first one that is no standard stream."""
BROKEN_EXIT = 70  # EX_SOFTWARE of <sysexits.h>

_close, _dup, _open, _fcntl = os.close, os.dup, os.open, fcntl.fcntl
# `json.loads` without what a frame does not need: a look for its encoding, and one for what is around it.
_scan = json.JSONDecoder().scan_once
_readlink, _fsencode, _EINVAL, _ETOOMANYREFS = os.readlink, os.fsencode, errno.EINVAL, errno.ETOOMANYREFS
_pread, _fstat, _write, _exit = os.pread, os.fstat, os.write, os._exit


class Crowded(Exception):
    """Too many descriptors are in flight, perhaps another container's: the kernel counts them for all together (unix(7))."""


class Broken(Exception):
    """The host sent what the frames do not allow: this program and the host are of different builds."""


def lifted(descriptor):
    """A copy of it out of the way; the original is closed."""
    try:
        copy = _fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    except OSError:  # The limit on open files is below that.
        copy = _fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LOW_FD)
    _close(descriptor)
    return copy


def content(descriptor):
    """A memfd from its begin to its end; it is closed."""
    pieces, at, size = [], 0, _fstat(descriptor).st_size
    while at < size:
        piece = _pread(descriptor, size - at, at)
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    _close(descriptor)
    return b"".join(pieces)


def leave(error):
    """Ends the interpreter, which cannot go on."""
    try:
        _write(2, f"REPL: {type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
    _exit(BROKEN_EXIT)


class Channel:
    """Our end of the socket."""

    def __init__(self):
        self._socket = self._poll = None
        self._buffer = bytearray(FRAME_BYTES_MAX)
        self._views = [memoryview(self._buffer)]
        self._ancillary_bytes = _socket.CMSG_SPACE(FRAME_FDS_MAX * 4)

    def open(self, descriptor):
        """From here on the frames go through this one."""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, lifted(descriptor))
        self._socket.setblocking(True)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self):
        """Until there is a frame, or the host is gone."""
        self._poll.poll()

    def receive(self):
        """The next frame and its descriptors; None when the host is gone."""
        answer = self._socket.recvmsg_into(self._views, self._ancillary_bytes, _socket.MSG_CMSG_CLOEXEC)
        size, ancillary, flags, _ = answer
        if not size:
            return None
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise Broken("a frame or its descriptors were cut off")
        descriptors = []
        for _level, _kind, data in ancillary:
            descriptors += memoryview(data).cast("i")
        frame, _end = _scan(str(self._views[0][:size], "utf-8"), 0)
        return frame, descriptors

    def receive_answers(self, cell):
        """The descriptors of the answers to a cell's calls."""
        received = self.receive()
        if received is None:
            _exit(0)
        frame, descriptors = received
        if frame != {"answers": {"id": cell}} or len(descriptors) not in (1, 2):
            raise Broken(f"no answers: {frame} with {len(descriptors)} descriptors")
        return descriptors

    def fileno(self):
        """Its descriptor; negative once it is closed."""
        return self._socket.fileno()

    def send(self, frame, descriptor=None):
        """Sends JSON text, with at most one descriptor. Crowded: nothing was sent."""
        ancillary = []
        if descriptor is not None:
            ancillary.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder)))
        try:
            self._socket.sendmsg([frame.encode()], ancillary, _socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno == _ETOOMANYREFS:
                raise Crowded from None
            # gVisor lets no descriptor out. There, and only there, the host takes a path instead.
            if descriptor is None or error.errno != _EINVAL:
                raise
            path = _readlink(f"/proc/self/fd/{descriptor}")
            self._socket.sendmsg([frame.encode(), b"\0", _fsencode(path)], [], _socket.MSG_NOSIGNAL)

    def close(self):
        """Lets the host see the end, as soon as every copy is closed."""
        self._socket.close()


class Reserve:
    """Room for a frame's descriptors, even when user code has opened as many files as it may."""

    def __init__(self):
        self._held = None
        self._spare = []

    def begin(self, held):
        """Takes room, for as long as `held` is open."""
        self._held = held
        self.refill()

    def end(self):
        """Gives all of it back."""
        while self._spare:
            _close(self._spare.pop())

    def give(self):
        """Frees the reserve when there is no other room."""
        try:
            _close(_dup(self._held))
            short = len(self._spare) <= FRAME_FDS_MAX
        except OSError:
            short = True
        while short and self._spare:
            _close(self._spare.pop())

    def refill(self):
        """Takes back what was given."""
        while len(self._spare) <= FRAME_FDS_MAX:
            try:
                self._spare.append(_fcntl(self._held, fcntl.F_DUPFD_CLOEXEC, HIGH_FD))
            except OSError:
                return
