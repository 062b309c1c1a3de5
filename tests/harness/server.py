"""Starts a Belljar server for a suite, waits until it is ready, and ends it by its process id."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import http_client

READY_S_MAX = 60
STOP_S_MAX = 30


class MachineCannot(Exception):
    """The server refuses this machine, and says why (exit status 3)."""


class Server:
    """A running server with a data directory of its own. Use it in a `with` statement."""

    def __init__(self, belljar, scripts=None, sandbox=None, serving=None, environment=None, prepare=None, upstreams=None, log=None, limits=None, workspaces=None, store=None):
        self.belljar = str(Path(belljar).resolve())
        self.scripts = scripts
        self.upstreams = upstreams or []
        self.tables = {"sandbox": sandbox or {}, "serving": serving or {}, "store": store or {}}
        if limits:
            self.tables["limits"] = limits
        self.workspaces = workspaces or []
        self.prepare = prepare
        self.environment = environment or {}
        self.process = None
        self.log_elsewhere = log

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="belljar-test-"))
        self.log_path = Path(self.log_elsewhere or self.directory / "server.log")
        try:
            if self.prepare:
                self.prepare(self)
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_exception):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def data_dir(self):
        return self.directory / "data"

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}"

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.is_file() else ""

    def healthy(self):
        """Raises unless the process lives and answers."""
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{tail(self.log())}")
        answer = http_client.call(self.base_url, "GET", "/healthz")
        if answer.status != 200:
            raise AssertionError(f"/healthz answered {answer.status}")

    def no_panic(self):
        """Raises if a thread of the server panicked so far."""
        if "panicked at" in self.log():
            lines = [line for line in self.log().splitlines() if "panicked at" in line]
            raise AssertionError(f"the server panicked: {lines[0]}")

    def stop(self):
        """Asks, then insists. Returns the exit status."""
        if self.process is None or self.process.poll() is not None:
            return None if self.process is None else self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def restart(self):
        """Ends the server and starts it again on the same data."""
        self.stop()
        self._start()

    def restart_in_place(self):
        """Has the process become the program that stands on disk, with the configuration that stands there, and waits until it serves."""
        before = self.starts()
        self.process.send_signal(signal.SIGHUP)
        self.serves_again(before + 1)

    def serves_again(self, starts):
        """Waits until the process has begun to serve so many times."""
        deadline = time.monotonic() + READY_S_MAX
        while self.starts() < starts:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{tail(self.log())}")
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not serve again after {READY_S_MAX} s:\n{tail(self.log())}")
            time.sleep(0.01)
        self.healthy()

    def starts(self):
        return self.log().count(" serves http://")

    def configure(self, **tables):
        """Changes keys of the configuration file; whoever reads it next finds them."""
        for name, keys in tables.items():
            self.tables[name].update(keys)
        (self.directory / "belljar.toml").write_text(self._config())

    def crash(self):
        """Kills the server, which cannot say goodbye, and starts it again on the same data."""
        self.process.kill()
        self.process.wait()
        self._start()

    def _start(self):
        # Another program may take the free port before the server does: then the server ends at once, and we ask again.
        for _attempt in range(5):
            self.port = free_port()
            config = self.directory / "belljar.toml"
            config.write_text(self._config())
            with open(self.log_path, "ab") as log:
                self.process = subprocess.Popen(
                    [self.belljar, "serve", "--config", str(config)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, **self.environment}, cwd=self.directory,
                    # Away from the terminal of whoever runs this, as services are.
                    start_new_session=True,
                )
            if self._wait_ready():
                return
            if self.process.returncode == 3:
                raise MachineCannot(self.log().strip().splitlines()[0])
            if "in use" not in self.log().lower():
                break
        raise RuntimeError(f"the server ended before it was ready:\n{tail(self.log())}")

    def _config(self):
        lines = [f'listen = "127.0.0.1:{self.port}"', f"data_dir = {json.dumps(str(self.data_dir))}"]
        if self.scripts:
            scripts = json.dumps(str(Path(self.scripts).resolve()))
            lines += ["[[upstream]]", 'name = "scripts"', 'kind = "scripted"', f"scripts_dir = {scripts}", 'like = "itself"', 'models = ["claude-opus-5-5", "*"]']
        for table in self.upstreams:
            lines += ["[[upstream]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        for table in self.workspaces:
            lines += ["[[workspace]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        for name, table in self.tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def _wait_ready(self):
        """True when `/readyz` says so, False when the process ended."""
        deadline = time.monotonic() + READY_S_MAX
        while self.process.poll() is None:
            try:
                if http_client.call(self.base_url, "GET", "/readyz", timeout=5).status == 200:
                    return True
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready after {READY_S_MAX} s:\n{tail(self.log())}")
            time.sleep(0.02)
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tail(text, lines=30):
    return "\n".join(text.splitlines()[-lines:])


def build_image(belljar):
    """Makes the image, or finds it in the cache. Raises with the command's own words when it cannot."""
    made = subprocess.run([str(belljar), "image", "build"], stdin=subprocess.DEVNULL)
    if made.returncode != 0:
        raise RuntimeError(f"`belljar image build` ended with {made.returncode}")
