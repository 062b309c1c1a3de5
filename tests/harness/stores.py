"""Starts a PostgreSQL and an S3-compatible object store, each on a free port with a folder of its own, for as long as a command
runs or a `with` statement lasts:

    python3 tests/harness/stores.py cargo nextest run -p belljar-store

The command finds them through BELLJAR_TEST_POSTGRES, BELLJAR_TEST_S3 and BELLJAR_TEST_S3_ROOT. Both are the real thing: Debian's
PostgreSQL with its log synced to disk, and s3s-fs, which checks signatures and keeps each object as a file.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import toolchain  # noqa: E402
from harness.server import free_port, tail  # noqa: E402

READY_S_MAX = 30
USER = "belljar"
PASSWORD = "belljar-test-password"
BUCKET = "belljar"
ACCESS_KEY = "belljar-test"
SECRET_KEY = "belljar-test-secret"


class Missing(Exception):
    """One of the two is not installed; the text says how to install it."""


def postgres_program(name):
    """A server program of PostgreSQL: Debian keeps them beside the PATH, by version."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(beside[-1]) if beside else shutil.which(name)
    if not found:
        raise Missing("PostgreSQL's server is not installed (scripts/test installs it: apt-get install postgresql)")
    return found


def object_store_program():
    tools = os.environ.get("BELLJAR_TOOLS") or toolchain.cache_dir() / "tools"
    found = Path(tools) / "bin/s3s-fs"
    if found.is_file():
        return str(found)
    if shutil.which("s3s-fs"):
        return shutil.which("s3s-fs")
    raise Missing("s3s-fs is not installed (scripts/test installs it: cargo install s3s-fs --features binary)")


class Stores:
    """Both services. Raises `Missing` when one cannot be had."""

    def __enter__(self):
        self.programs = {name: postgres_program(name) for name in ("initdb", "postgres")}
        self.s3s = object_store_program()
        self.directory = Path(tempfile.mkdtemp(prefix="belljar-stores-"))
        self.processes = {}
        try:
            self._make_postgres()
            self.start_postgres()
            self._make_objects()
            self.start_objects()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_exception):
        for name in list(self.processes):
            self._end(name, signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def postgres_url(self):
        return f"postgres://{USER}:{PASSWORD}@127.0.0.1:{self.postgres_port}/{USER}"

    @property
    def postgres_url_without_password(self):
        return f"postgres://{USER}@127.0.0.1:{self.postgres_port}/{USER}"

    @property
    def s3_url(self):
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def s3_root(self):
        return self.directory / "objects"

    def environment(self):
        return {
            "BELLJAR_TEST_POSTGRES": self.postgres_url,
            "BELLJAR_TEST_S3": self.s3_url,
            "BELLJAR_TEST_S3_ROOT": str(self.s3_root),
        }

    def _make_postgres(self):
        # It refuses to run as root.
        self.as_user = {}
        if os.geteuid() == 0:
            known = {entry.pw_name: entry for entry in pwd.getpwall()}
            entry = known.get("postgres") or known["nobody"]
            self.as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chmod(self.directory, 0o711)
        home = self.directory / "postgres"
        home.mkdir()
        secret = home / "password"
        secret.write_text(PASSWORD + "\n")
        if self.as_user:
            os.chown(home, entry.pw_uid, entry.pw_gid)
            os.chown(secret, entry.pw_uid, entry.pw_gid)
        made = subprocess.run(
            [self.programs["initdb"], "--pgdata", str(home / "data"), "--username", USER, "--pwfile", str(secret),
             "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home, **self.as_user,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb ended with {made.returncode}:\n{tail(made.stdout)}")
        self.postgres_port = free_port()

    def start_postgres(self):
        home = self.directory / "postgres"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.postgres_port,
            "unix_socket_directories": home,
            "max_connections": 200,
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._begin("postgres", [self.programs["postgres"], "-D", str(home / "data"), *arguments], cwd=home, **self.as_user)
        # The first thing it says once it takes connections; a port that is open is too early.
        self._wait("postgres", lambda: "ready to accept connections" in self._said("postgres"))
        if not hasattr(self, "has_database"):
            self._sql(f"CREATE DATABASE {USER}")
            self.has_database = True

    def _sql(self, statement):
        psql = shutil.which("psql") or postgres_program("psql")
        subprocess.run(
            [psql, "--no-psqlrc", "--quiet", "--command", statement, self.postgres_url.rsplit("/", 1)[0] + "/postgres"],
            check=True, stdin=subprocess.DEVNULL,
        )

    def _make_objects(self):
        (self.s3_root / BUCKET).mkdir(parents=True)
        self.s3_port = free_port()

    def start_objects(self):
        arguments = ["--host", "127.0.0.1", "--port", str(self.s3_port), "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
        self._begin("objects", [self.s3s, *arguments, str(self.s3_root)], env={**os.environ, "RUST_LOG": "error"})

        def answers():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.s3_port)) == 0

        self._wait("objects", answers)

    def stop_postgres(self, how=signal.SIGINT):
        """Ends it: SIGINT is its fast, clean end, SIGQUIT its end at once."""
        self._end("postgres", how)

    def stop_objects(self):
        self._end("objects", signal.SIGKILL)

    def _begin(self, name, command, **options):
        with open(self.directory / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options,
            )

    def _said(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _wait(self, name, ready):
        deadline = time.monotonic() + READY_S_MAX
        while not ready():
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{tail(self._said(name))}")
            time.sleep(0.02)

    def _end(self, name, how):
        process = self.processes.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with Stores() as stores:
            return subprocess.run(sys.argv[1:], env={**os.environ, **stores.environment()}).returncode
    except Missing as missing:
        print(f"SKIP: {missing}", flush=True)
        return 77


if __name__ == "__main__":
    sys.exit(main())
