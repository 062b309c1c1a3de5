"""What `belljar admin` costs with many contents: `python3 bench/backup.py --belljar PATH [--contents 100000] [--bytes 1000]`.

A store is made by the program, filled beside it (rows and files as an upload leaves them), and backed up, verified, collected and
restored while another process changes the database all the time: the longest of its waits is how long an upload would wait."""

import argparse
import hashlib
import os
import sqlite3
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path


# Digits that an id may have.
LETTERS = str.maketrans("0123456789", "ABCDEFGHJK")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--belljar", required=True)
    parser.add_argument("--contents", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="belljar-bench-") as place:
        place = Path(place)
        data = place / "data"
        run = lambda *words: subprocess.run([arguments.belljar, *map(str, words), "--json", "--data-dir", str(data)], check=True, capture_output=True)
        run("keys", "create")
        fill(data, arguments.contents, arguments.bytes)
        print(f"{arguments.contents} contents of {arguments.bytes} bytes; {os.cpu_count()} processors; {Path(arguments.belljar).resolve().parent.name} build")
        print(f"{'command':<28}{'s':>8}{'longest wait of a change, ms':>32}{'peak memory, MiB':>20}")
        for words in (("list", "files"), ("usage",), ("gc",), ("backup", place / "one"), ("verify", place / "one"), ("backup", place / "two", "--link-from", place / "one")):
            with Changes(data) as changes:
                seconds, memory = timed([arguments.belljar, "admin", *map(str, words), "--json", "--data-dir", str(data)])
            tell(words, seconds, f"{changes.longest * 1000:.1f}", memory)
        words = ("restore", place / "one", "--data-dir", place / "again")
        seconds, memory = timed([arguments.belljar, "admin", *map(str, words), "--json"])
        tell(words, seconds, "-", memory)


def tell(words, seconds, wait, memory):
    name = " ".join(word.name if isinstance(word, Path) else word for word in words)
    print(f"{name:<28.28}{seconds:>8.2f}{wait:>32}{memory:>20.1f}", flush=True)


def timed(command):
    """Seconds, and the peak of resident memory."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return time.monotonic() - begun, used.ru_maxrss / 1024


class Changes:
    """Changes of the database, one after another, as a server's."""

    def __init__(self, data):
        self.data, self.over, self.longest = data, threading.Event(), 0.0

    def __enter__(self):
        self.thread = threading.Thread(target=self.work)
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.over.set()
        self.thread.join()

    def work(self):
        with closing(sqlite3.connect(self.data / "belljar.sqlite", timeout=60, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = FULL")
            count = 0
            while not self.over.is_set():
                count += 1
                begun = time.monotonic()
                database.execute("INSERT INTO usage_by_day (workspace, day, executions) VALUES ('bench', 1, 0) ON CONFLICT DO UPDATE SET executions = executions + 1")
                self.longest = max(self.longest, time.monotonic() - begun)
                time.sleep(0.002)


def fill(data, contents, size):
    with closing(sqlite3.connect(data / "belljar.sqlite")) as database, database:
        database.execute("INSERT INTO workspaces (workspace, next_number) VALUES ('local', ?)", (contents + 1,))
        blobs = data / "blobs"
        for shard in range(256):
            (blobs / f"{shard:02x}").mkdir(parents=True, mode=0o700, exist_ok=True)
        for number in range(contents):
            content = number.to_bytes(8) + os.urandom(max(size - 8, 0))
            digest = hashlib.sha256(content)
            name = digest.hexdigest()
            (blobs / name[:2] / name[2:]).write_bytes(content)
            database.execute("INSERT INTO blobs VALUES (?, ?)", (digest.digest(), len(content)))
            file_id = f"file_{number:024d}".translate(LETTERS)
            database.execute(
                "INSERT INTO files (id, workspace, number, filename, mime_type, size_bytes, created_at_us, blob) VALUES (?, 'local', ?, 'bench', 'text/plain', ?, ?, ?)",
                (file_id, number + 1, len(content), 1_795_191_369_340_000 + number, digest.digest()),
            )


if __name__ == "__main__":
    main()
