"""Plays the host: starts a REPL on one end of a socket pair, sends it cells, and collects what comes of them."""

import array
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DRIVER = Path(__file__).resolve().parent.parent
WAIT_S_MAX = 60
FRAME_BYTES_MAX = 64 * 1024
SOURCE_BYTES_SAID_MAX = 8 * 1024

PARTS = ("channel.py", "streams.py", "report.py", "schema.py", "tools.py", "repl.py")

# A cold start but for the place of the output directories, which only the image has. The driver comes in as a file
# that a descriptor holds, as it does there.
START = """
import sys
name, output_root = sys.argv[1:]
namespace = sys.modules["__main__"].__dict__
with open(name) as file:
    code = compile(file.read().replace(\'if __name__ == "__main__"\', "if False"), name, "exec")
exec(code, namespace)
OUTPUT_ROOT = output_root
main(START_FD)
"""


def driver():
    """The driver as one file."""
    return b"".join((DRIVER / part).read_bytes() for part in PARTS)


def memory(data):
    """A descriptor of a file in memory, which the receiver reads from its start."""
    descriptor = os.memfd_create("memory")
    os.write(descriptor, data) if len(data) < 1 << 20 else Path(f"/proc/self/fd/{descriptor}").write_bytes(data)
    return descriptor


class Gone(Exception):
    """The REPL ended, or said nothing in time."""


class Outcome:
    """What came of one cell."""

    def __init__(self, stdout, stderr, code, output, files):
        self.stdout, self.stderr, self.code, self.output, self.files = stdout, stderr, code, output, files

    def __repr__(self):
        return f"Outcome({self.__dict__})"


class Repl:
    """A cold REPL in a directory of its own."""

    def __init__(self, root, python="python3", environment=()):
        self.root = Path(root)
        self.output_root = self.root / "output"
        self.output_root.mkdir(exist_ok=True)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(WAIT_S_MAX)
        work = self.root / "work"
        work.mkdir(exist_ok=True)
        joined = self.root / "driver.py"
        joined.write_bytes(driver())
        self.process = subprocess.Popen(
            [python, "-I", "-c", START, str(joined), str(self.output_root)],
            stdin=subprocess.DEVNULL, cwd=work, start_new_session=True, close_fds=False,
            preexec_fn=lambda: os.set_inheritable(3, True) if theirs.fileno() == 3 else os.dup2(theirs.fileno(), 3),
        )
        theirs.close()
        self.number = 0
        base = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8"}
        self.send({"go": {"env": list({**base, **dict(environment)}.items())}})
        self.ready = self.receive()[0]["ready"]

    def send(self, frame, descriptors=()):
        socket.send_fds(self.socket, [json.dumps(frame).encode()], list(descriptors))

    def receive(self):
        """The next frame and its descriptors."""
        try:
            data, descriptors, _flags, _ = socket.recv_fds(self.socket, FRAME_BYTES_MAX, 4)
        except (TimeoutError, ConnectionResetError) as error:
            raise Gone(f"no frame: {error}") from None
        if not data:
            raise Gone("the REPL is gone")
        return json.loads(data), descriptors

    def start_cell(self, source, file=None, tools=None):
        """Sends a cell, which can call these tools; the answer is for `finish`."""
        self.number += 1
        file = file or f"/tmp/srvtoolu_{self.number:03}/cell.py"
        body = {"id": self.number, "nonce": f"{self.number:032x}", "file": file, "output": f"{self.number:016x}"}
        data = source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
        pipes, memories = [os.pipe(), os.pipe()], []
        if isinstance(source, str) and len(data) <= SOURCE_BYTES_SAID_MAX:
            body["source"] = source
        else:
            memories.append(memory(data))
        if tools is not None:
            memories.append(memory(json.dumps(tools).encode()))
        self.send({"cell": body}, [pipes[0][1], pipes[1][1], *memories])
        for descriptor in (*memories, *(writer for _, writer in pipes)):
            os.close(descriptor)
        return Running(self, body, [reader for reader, _ in pipes])

    def cell(self, source, file=None, tools=None):
        return self.start_cell(source, file, tools).finish()

    def wait_asleep(self):
        """Until its main thread waits for something."""
        deadline = time.monotonic() + WAIT_S_MAX
        while Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "S":
            if time.monotonic() > deadline:
                raise Gone("the REPL never went to sleep")
            time.sleep(0.001)

    def interrupt(self):
        """As the supervisor does it: the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self):
        """Hangs up; the exit status of the REPL."""
        self.socket.close()
        try:
            return self.process.wait(WAIT_S_MAX)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Running:
    """A cell that has been sent."""

    def __init__(self, repl, body, readers):
        self.repl, self.body = repl, body
        self.texts = {reader: b"" for reader in readers}
        self.readers = readers
        for reader in readers:
            os.set_blocking(reader, False)

    def wait_for(self, text, which=0):
        """Reads until a stream shows this text."""
        deadline = time.monotonic() + WAIT_S_MAX
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.readers[which], selectors.EVENT_READ)
            while text not in self.texts[self.readers[which]]:
                if not waiting.select(deadline - time.monotonic()) or not self._read(self.readers[which]):
                    raise Gone(f"{text!r} was never written; only {self.texts[self.readers[which]]!r}")

    def called(self):
        """The calls that the cell waits with, and how many answers it had heard."""
        text, part = "", "more"
        while part == "more":
            frame, descriptors = self.repl.receive()
            body = frame["called"]
            assert (body["id"], body["nonce"], descriptors) == (self.body["id"], self.body["nonce"], []), frame
            assert len(json.dumps(frame, ensure_ascii=False).encode()) <= FRAME_BYTES_MAX, len(body["calls"])
            text, part = text + body["calls"], body["part"]
        return json.loads(text), body["heard"]

    def answer(self, *answers, tools=None):
        """Answers calls: (number, kind, text)."""
        texts = [text.encode() for _, _, text in answers]
        heads = [[number, kind, len(text)] for (number, kind, _), text in zip(answers, texts)]
        memories = [memory(json.dumps(heads).encode() + b"\n" + b"".join(texts))]
        memories += [] if tools is None else [memory(json.dumps(tools).encode())]
        self.repl.send({"answers": {"id": self.body["id"]}}, memories)
        for descriptor in memories:
            os.close(descriptor)

    def finish(self):
        with selectors.DefaultSelector() as waiting:
            for reader in self.readers:
                waiting.register(reader, selectors.EVENT_READ)
            waiting.register(self.repl.socket, selectors.EVENT_READ)
            answer = None
            deadline = time.monotonic() + WAIT_S_MAX
            while answer is None:
                ready = waiting.select(max(0, deadline - time.monotonic()))
                if not ready:
                    raise Gone(f"no answer to {self.body}")
                for key, _ in ready:
                    if key.fileobj is self.repl.socket:
                        answer = self.repl.receive()
                    elif not self._read(key.fileobj):
                        waiting.unregister(key.fileobj)
        return self._settle(*answer)

    def _read(self, reader):
        try:
            piece = os.read(reader, 1 << 20)
        except BlockingIOError:
            return True
        self.texts[reader] += piece
        return bool(piece)

    def drain(self):
        """What is in the pipes."""
        for reader in self.readers:
            before = -1
            while before != len(self.texts[reader]):
                before = len(self.texts[reader])
                self._read(reader)
        return [self.texts[reader] for reader in self.readers]

    def _settle(self, frame, descriptors):
        stdout, stderr = self.drain()
        for reader in self.readers:
            os.close(reader)
        ended = frame["ended"]
        wanted = {"id": self.body["id"], "nonce": self.body["nonce"]}
        assert {key: ended[key] for key in wanted} == wanted, frame
        assert set(ended) == {"id", "nonce", "status", "output"}, frame
        assert len(descriptors) == (ended["output"] == "files"), (frame, descriptors)
        files = None
        for descriptor in descriptors:
            files = sorted(os.listdir(f"/proc/self/fd/{descriptor}"))
            os.close(descriptor)
        return Outcome(stdout.decode("utf-8", "backslashreplace"), stderr.decode("utf-8", "backslashreplace"),
                       ended["status"]["code"], ended["output"], files)
